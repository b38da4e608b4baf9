// The launches of scales.cuh's kernels.
#include "scales.cuh"

#include "ring_plan.h"

namespace ssimloss {
namespace {

int rounded(int v, int to) { return RingSizes::rounded(v, to); }

RingCost cost_of(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius, gradients = gradients_of(p);
  RingCost cost{};
  cost.chunk_rows = 8, cost.extra = 1;
  RingSizes& s = cost.sizes;
  s.margin = 0, s.reach = rounded(radius, 4);
  s.columns = own + 2 * radius;
  int taps = 0;
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius, K = r < 4 ? 4 : 8;
    s.cells = std::max(s.cells, (own + 2 * r + K - 1) / K);
    taps += rounded(2 * r + 4, 4);
    cost.chunk += (2 * r + 1) * 4.0 * (own + 2 * r + own) + 60.0 * own;
  }
  s.capacity = 2 * radius + 16,
  s.repeated = 3;  // so many that the next rows come while all of a chunk's are used
  s.raw_pitch = rounded(s.columns + s.reach - radius, 4);
  s.moment_pitch = RingSizes::odd_fours(s.columns), s.map_pitch = RingSizes::odd_fours(own);
  s.moments = 4 + (p.l1_weight != 0 && p.l1_windowed), s.maps = gradients ? 3 + gradients : 0;
  s.each_raw = (s.capacity + s.repeated) * s.raw_pitch, s.each_moment = 8 * s.moment_pitch;
  s.moments_at = 2 * s.each_raw;
  s.maps_at = s.moments_at + 2 * s.moments * s.each_moment;
  s.ring = s.maps_at + p.scales * s.maps * 8 * s.map_pitch;
  s.bases = s.ring + 3 * 8 * s.map_pitch;
  s.taps = s.bases + rounded(8 * s.cells, 4);
  s.end = s.taps + taps;
  return cost;
}

RingPlan plan_of(const Problem& p) {
  const int64_t crop = crop_of(p);
  return ring_plan(p, p.height - 2 * crop, p.width - 2 * crop, [&](int own) { return cost_of(p, own); });
}

template <class T>
void run(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  ScalesParams<T> params{};
  RingParams<T>& block = params.block;
  set_ring(s, plan_of(p), block);
  block.in_fours = block.in_fours && (crop_of(p) - block.sizes.reach) % 4 == 0;
  params.scales = p.scales;
  int at = 0;
  for (int j = 0; j < p.scales; ++j) {
    params.radius[j] = p.windows[j].radius, params.taps_at[j] = at;
    at += rounded(2 * params.radius[j] + 4, 4);
    for (int t = 0; t <= params.radius[j]; ++t) params.taps[j][t] = T(p.windows[j].weights[t]);
  }
  const int64_t of_image = s.maps ? int64_t(tile_maps_bytes(p)) / p.batch : 0;
  for_images(s, block, [&](int64_t first, int64_t blocks) {
    params.maps = reinterpret_cast<T*>(static_cast<char*>(s.maps) + first * of_image);
    const auto kernel = block.grad_y.data   ? &scales_kernel<2, T>
                        : block.grad_x.data ? &scales_kernel<1, T>
                                            : &scales_kernel<0, T>;
    launch("scales_kernel", kernel, blocks, ring_threads, size_t(block.sizes.end) * sizeof(T), stream,
           params);
  });
}

}  // namespace

int64_t scales_pieces(const Problem& p) {
  const RingPlan plan = plan_of(p);
  return int64_t(plan.strips) * plan.bands;
}

void scales_positions(const Similarity& s, void* stream) {
  s.problem.x.dtype == DType::float64 ? run<double>(s, stream) : run<float>(s, stream);
}

}  // namespace ssimloss
