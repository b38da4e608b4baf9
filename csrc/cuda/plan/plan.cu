// What plans are remembered, and said aloud.
#include "plan.h"

#include "../common/portions.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace ssimloss {
namespace {

void report(const Family& family, const char* kernel, const Problem& p, const Cut& cut) {
  const char* const wanted = std::getenv("SSIMLOSS_PLAN");
  if (!wanted || std::strcmp(wanted, "1") != 0) return;
  const long long planes = p.batch * p.channels, height = p.height, width = p.width;
  std::fprintf(stderr, "ssimloss: %s of family %s, of %lld planes %lldx%lld, %d gradients: ", kernel,
               family.name, planes, height, width, p.gradients);
  if (cut.own == 0) {
    std::fprintf(stderr, "not enough shared memory on this device\n");
    return;
  }
  std::fprintf(stderr, "%d strips of %d columns, %d bands of %d rows, %d threads a block, ", cut.strips,
               cut.own, cut.bands, cut.band_rows, cut.threads);
  const Portions& at = cut.portions;
  if (at.rows > 0) {
    const long long count = count_of(p, at), planes_of = at.images * at.channels, rows = at.rows;
    std::fprintf(stderr, "%lld portions of %lld planes and %lld rows with %.1f MiB of maps, ", count,
                 planes_of, rows, double(at.bytes) / (1 << 20));
  }
  std::fprintf(stderr, "%.0f us predicted at %g GHz\n", cut.cycles / clock_ghz / 1e3, clock_ghz);
}

}  // namespace

Cut plan_for(const Family& family, const char* kernel, const Problem& p, int levels,
             const std::function<Cut()>& find) {
  // All that a plan depends on. A kernel's name lies at one place.
  const Device device = current_device();
  std::array<int64_t, 16 + max_scales> question{int64_t(reinterpret_cast<intptr_t>(kernel)),
                                                levels,
                                                p.batch * p.channels,
                                                p.height,
                                                p.width,
                                                int64_t(p.padding),
                                                p.gradients,
                                                p.grad_map.data != nullptr,
                                                p.l1_weight != 0 ? 1 + p.l1_windowed : 0,
                                                p.scales,
                                                int64_t(arithmetic(p.x.dtype)),
                                                device.multiprocessors,
                                                device.shared_per_block,
                                                p.channels,
                                                scratch_bound(p),
                                                is_weighted(p)};
  for (int j = 0; j < p.scales; ++j) question[size_t(16 + j)] = p.windows[j].radius;
  thread_local std::map<decltype(question), Cut> answers;
  if (answers.size() >= 64) answers.clear();  // a dyadic call of 16 levels asks 32 questions
  auto answer = answers.find(question);
  if (answer == answers.end()) {
    answer = answers.emplace(question, find()).first;
    report(family, kernel, p, answer->second);
  }
  return answer->second;
}

}  // namespace ssimloss
