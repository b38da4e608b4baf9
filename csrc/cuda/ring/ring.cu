// The launches of ring.cuh's kernels.
#include "ring.cuh"

#include "../plan/plan.h"

namespace ssimloss {
namespace {

int cell_side(const Problem& p) { return p.windows[0].radius < 4 ? 4 : 8; }

RingPlan find_plan(const Problem& p) {
  const int K = cell_side(p), radius = p.windows[0].radius, gradients = gradients_of(p);
  return ring_plan(p, p.height, p.width, [&](int own) {
    const RingSizes s(K, radius, own, gradients, p.l1_weight != 0 && p.l1_windowed);
    const double taps = 2 * radius + 1, part = K == 8 ? 1 : 0.6;
    const int own_tasks = gradients ? warps_of(own) : 0;
    RingCost cost{s, K};
    cost.extra = 1.5 + (gradients ? double(s.lag) / K : 0);  // starting a block costs 1.5 chunks
    cost.phase(warps_of(s.columns), part * (46 * taps + 300), own_tasks, part * (32 * taps + 60));
    cost.phase(warps_of(K * s.groups), part * (42 * taps + 670), own_tasks, part * (39 * taps + 400));
    return cost;
  });
}

RingPlan plan_of(const Problem& p) {
  return remembered(0, p, [&] { return find_plan(p); });
}

template <int K, int Gradients, class T>
void start(const RingParams<T>& params, int64_t blocks, void* stream) {
  launch("ring_kernel", &ring_kernel<K, Gradients, T>, blocks, ring_threads,
         size_t(params.sizes.end) * sizeof(T), stream, params);
}

template <int K, class T>
void with_gradients(const RingParams<T>& params, int64_t blocks, void* stream) {
  if (params.grad_y.data) return start<K, 2>(params, blocks, stream);
  if (params.grad_x.data) return start<K, 1>(params, blocks, stream);
  start<K, 0>(params, blocks, stream);
}

template <class T>
void run(const Similarity& s, void* stream) {
  RingParams<T> params{};
  set_ring(s, plan_of(s.problem), params);
  const Window& window = s.problem.windows[0];
  for (int k = 0; k <= 2 * window.radius; ++k) {
    params.taps[k] = T(window.weights[k < window.radius ? window.radius - k : k - window.radius]);
    if (k < 10) params.rim[k] = params.taps[k];
  }
  const int64_t in_image = int64_t(params.strips) * params.bands * params.channels;
  for_images(s, params, in_image, [&](int64_t, int64_t images) {
    cell_side(s.problem) == 8 ? with_gradients<8>(params, images * in_image, stream)
                              : with_gradients<4>(params, images * in_image, stream);
  });
}

}  // namespace

bool ring_takes(const Problem& p) {
  return p.scales == 1 && p.windows[0].radius <= ring_max_radius && plan_of(p).own > 0;
}

int64_t ring_pieces(const Problem& p) {
  const RingPlan plan = plan_of(p);
  return int64_t(plan.strips) * plan.bands;
}

void ring_similarity(const Similarity& s, void* stream) {
  s.problem.x.dtype == DType::float64 ? run<double>(s, stream) : run<float>(s, stream);
}

}  // namespace ssimloss
