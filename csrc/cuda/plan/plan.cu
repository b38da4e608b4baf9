// What plans are remembered, and said aloud.
#include "plan.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ssimloss {

Question question_of(const char* kernel, const Problem& p, int levels) {
  Question q;
  std::memset(&q, 0, sizeof q);  // as questions are compared byte by byte
  uint32_t name = 0;             // unsigned, as it overflows
  for (const char* letter = kernel; *letter; ++letter) name = 31 * name + uint8_t(*letter);
  q.kernel = int(name);
  q.planes = p.batch * p.channels, q.height = p.height, q.width = p.width;
  q.levels = levels, q.padding = int(p.padding), q.gradients = p.gradients;
  q.maps = p.grad_map.data ? 1 : 0, q.l1 = p.l1_weight != 0 ? 1 + p.l1_windowed : 0, q.scales = p.scales;
  for (int j = 0; j < p.scales; ++j) q.radius[j] = p.windows[j].radius;
  q.device = current_device();
  return q;
}

Cut* remembered(const Question& question, bool* known) {
  struct Answer {
    Question question;
    Cut cut;
  };
  constexpr int most = 64;  // a dyadic call of 16 levels asks 32 questions
  thread_local Answer answers[most] = {};
  thread_local int oldest = 0;
  for (Answer& answer : answers) {
    if (std::memcmp(&answer.question, &question, sizeof question) != 0) continue;
    *known = true;
    return &answer.cut;
  }
  Answer& answer = answers[oldest];
  oldest = (oldest + 1) % most;
  std::memcpy(&answer.question, &question, sizeof question);
  *known = false;
  return &answer.cut;
}

void report(const char* kernel, const Problem& p, const Cut& cut) {
  const char* const wanted = std::getenv("SSIMLOSS_PLAN");
  if (!wanted || std::strcmp(wanted, "1") != 0) return;
  const long long planes = p.batch * p.channels, height = p.height, width = p.width;
  std::fprintf(stderr, "ssimloss: %s of %lld planes %lldx%lld, %d gradients: ", kernel, planes, height, width,
               p.gradients);
  if (cut.own == 0) {
    std::fprintf(stderr, "not enough shared memory on this device\n");
    return;
  }
  std::fprintf(stderr, "%d strips of %d columns, %d bands of %d rows, %d threads a block, ", cut.strips,
               cut.own, cut.bands, cut.band_rows, cut.threads);
  std::fprintf(stderr, "%.0f us predicted at %g GHz\n", cut.cycles / clock_ghz / 1e3, clock_ghz);
}

}  // namespace ssimloss
