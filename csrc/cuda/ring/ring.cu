// The launches of ring.cuh's kernels.
#include "ring.cuh"

#include <cstdlib>

#include "../plan/plan.h"

namespace ssimloss {
namespace {

int cell_side(const Problem& p) { return p.windows[0].radius < 4 ? 4 : 8; }

RingSizes sizes_of(const Problem& p, int own) {
  return {cell_side(p), p.windows[0].radius, own, p.gradients, has_windowed_l1(p), is_weighted(p)};
}

Cut plan_of(const Problem& p) {
  return plan_for(ring_family, "ring_kernel", p, 1, [&] {
    return cut_for_blocks(p.batch * p.channels, p.height, p.width, ring_max_own, [&](int own) {
      const RingSizes s = sizes_of(p, own);
      const int K = cell_side(p), own_tasks = p.gradients ? warps_of(own) : 0;
      const double taps = 2 * p.windows[0].radius + 1,
                   part = (K == 8 ? 1 : 0.6) * (is_weighted(p) ? ring_weights : 1);
      Work work{ring_threads / 32, K, ring_pace};
      work.extra = start_chunks + (p.gradients ? double(s.lag) / K : 0);
      work.phase(warps_of(s.columns), part * (46 * taps + 300), own_tasks, part * (32 * taps + 60));
      work.phase(warps_of(K * s.groups), part * (42 * taps + 670), own_tasks, part * (39 * taps + 400));
      return EqualBlocks{s.bytes(), 2, work};
    });
  });
}

void similarity(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  RingParams params{};
  set_problem(s, s.cut, params);
  params.sizes = sizes_of(p, s.cut.own);
  const Window& window = p.windows[0];
  for (int t = 0; t <= window.radius; ++t) params.taps[t] = float(window.weights[t]);
  for (int k = 0; k <= 2 * window.radius && k < 10; ++k)
    params.rim[k] = params.taps[std::abs(window.radius - k)];
  auto kernel = for_gradients(p.gradients, [&](auto n) {
    return cell_side(p) == 8 ? &ring_kernel<8, n.value, false> : &ring_kernel<4, n.value, false>;
  });
  if (is_weighted(p)) kernel = &ring_kernel<8, 1, true>;  // the only one: see route.cu
  launch_images("ring_kernel", kernel, s, ring_threads, size_t(params.sizes.bytes()), stream, params);
}

}  // namespace

const Family ring_family = {"ring", &plan_of, &similarity};

}  // namespace ssimloss
