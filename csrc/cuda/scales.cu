// The launches of scales.cuh's and adjoint.cuh's kernels.
#include "scales.cuh"

#include "adjoint.cuh"

#include "ring_plan.h"

namespace ssimloss {
namespace {

int rounded(int v, int to) { return RingSizes::rounded(v, to); }

RingCost cost_of(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius, gradients = gradients_of(p);
  RingCost cost{};
  cost.chunk_rows = 8, cost.extra = 1;
  int along_tasks = 0;
  double along = 0;  // of the scale before
  RingSizes& s = cost.sizes;
  s.margin = 0, s.reach = rounded(radius, 4);
  s.columns = own + 2 * radius;
  int taps = 0;
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius;
    s.cells = std::max(s.cells, (own + 2 * r + 3) / 4);
    taps += rounded(2 * r + 4, 4);
    cost.phase(2 * warps_of(own + 2 * r), 26 * (2 * r + 1) + 200, along_tasks, along);
    along_tasks = 2 * warps_of(own), along = 30 * (2 * r + 1) + 450;
  }
  cost.phase(along_tasks, along, warps_of(own) * 8, 60 + 15 * p.scales);
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
  return remembered(1, p, [&] {
    return ring_plan(p, p.height - 2 * crop, p.width - 2 * crop, [&](int own) { return cost_of(p, own); });
  });
}

// Of the second launch, with bands of at most so many rows.
RingCost adjoint_cost_of(const Problem& p, int own, int most_rows) {
  const int radius = p.windows[p.scales - 1].radius, gradients = gradients_of(p);
  RingCost cost{};
  cost.chunk_rows = 16, cost.most_rows = most_rows;
  RingSizes& s = cost.sizes;
  int taps = 0;
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius, side = r < 4 ? 4 : 8;
    s.cells = std::max(s.cells, (own + 2 * r + 8 + side - 1) / side);
    s.chunks = std::max(s.chunks, (adjoint_late(r) + 4) * adjoint_rows / side);
    taps += rounded(2 * r + 4, 4);
    const double part = (2.0 + gradients) / 3 * (side == 8 ? 1 : 0.6);
    const int tasks = 16 / side * warps_of(own);
    const double before = cost.total;
    cost.phase(2 * tasks, part * (36 * (2 * r + 1) + 250), adjoint_rows, 150 + 82 * warps_of(own + 2 * r));
    cost.extra += (cost.total - before) * 0.7 * adjoint_late(r);  // what comes before the first row
  }
  cost.extra = 1 + cost.extra / cost.total;
  s.capacity = (adjoint_late(radius) + 2) * adjoint_rows;
  s.map_pitch = RingSizes::odd_fours(own + 2 * radius), s.ring_pitch = RingSizes::odd_fours(own);
  s.maps = 2 + gradients + (p.l1_weight != 0 && p.l1_windowed);
  s.each_raw = most_rows * s.ring_pitch;  // of the gradient
  s.maps_at = gradients * s.each_raw;
  s.ring = s.maps_at + 2 * s.maps * adjoint_rows * s.map_pitch;
  s.bases = s.ring + s.maps * s.capacity * s.ring_pitch;
  s.taps = s.bases + rounded(2 * s.chunks * s.cells, 4);
  s.end = s.taps + taps;
  return cost;
}

RingPlan find_adjoint_plan(const Problem& p) {
  RingPlan plan;
  for (int most_rows = 256; most_rows >= 32; most_rows /= 2) {
    const RingPlan one =
        ring_plan(p, p.height, p.width, [&](int own) { return adjoint_cost_of(p, own, most_rows); });
    if (one.own > 0 && (plan.own == 0 || one.time < plan.time)) plan = one;
  }
  return plan;
}

RingPlan adjoint_plan_of(const Problem& p) {
  return remembered(2, p, [&] { return find_adjoint_plan(p); });
}

template <class T>
void run(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  ScalesParams<T> params{};
  RingParams<T>& block = params.block;
  params.scales = p.scales;
  int at = 0;
  for (int j = 0; j < p.scales; ++j) {
    params.radius[j] = p.windows[j].radius, params.taps_at[j] = at;
    at += rounded(2 * params.radius[j] + 4, 4);
    for (int t = 0; t <= params.radius[j]; ++t) params.taps[j][t] = T(p.windows[j].weights[t]);
  }
  const auto queue = [&](const char* name, const RingPlan& plan, auto value, auto one, auto both) {
    set_ring(s, plan, block);
    block.in_fours = block.in_fours && (crop_of(p) - plan.sizes.reach) % 4 == 0;
    for_images(s, block, [&](int64_t first, int64_t blocks) {
      params.maps =
          reinterpret_cast<T*>(static_cast<char*>(s.maps) + first * int64_t(tile_maps_bytes(p)) / p.batch);
      launch(name, block.grad_y.data ? both : (block.grad_x.data ? one : value), blocks, ring_threads,
             size_t(block.sizes.end) * sizeof(T), stream, params);
    });
  };
  queue("scales_kernel", plan_of(p), &scales_kernel<0, T>, &scales_kernel<1, T>, &scales_kernel<2, T>);
  if (!wants_gradient(p)) return;
  queue("adjoint_kernel", adjoint_plan_of(p), &adjoint_kernel<1, T>, &adjoint_kernel<1, T>,
        &adjoint_kernel<2, T>);
}

}  // namespace

bool scales_take(const Problem& p) {
  return plan_of(p).own > 0 && (!wants_gradient(p) || adjoint_plan_of(p).own > 0);
}

int64_t scales_pieces(const Problem& p) {
  const RingPlan plan = plan_of(p);
  return int64_t(plan.strips) * plan.bands;
}

void scales_similarity(const Similarity& s, void* stream) {
  s.problem.x.dtype == DType::float64 ? run<double>(s, stream) : run<float>(s, stream);
}

}  // namespace ssimloss
