// The launches of scales.cuh's and adjoint.cuh's kernels.
#include "scales.cuh"

#include <map>

#include "../plan/plan.h"
#include "adjoint.cuh"

namespace ssimloss {
namespace {

int rounded(int v, int to) { return RingSizes::rounded(v, to); }

RingCost cost_of(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius, gradients = gradients_of(p);
  const int warps =
      (arithmetic_size(p) == 8 ? scales_threads<double>(gradients) : scales_threads<float>(gradients)) / 32;
  RingCost cost{};
  cost.chunk_rows = 8, cost.extra = 0.2 + 0.5 / p.scales, cost.most_resident = 1, cost.rate = 2.3,
  cost.wait = 4;
  const auto along = [&](int j) {
    return 26 * (2 * p.windows[j].radius + 1) + 500 + (j == p.scales - 1 ? 60 + 35.0 * p.scales : 0);
  };
  const auto columns = [&](int r) {  // that need a window
    return int(p.padding == Padding::zeros ? std::min<int64_t>(own + 2 * r, p.width) : own + 2 * r);
  };
  RingSizes& s = cost.sizes;
  s.margin = 0, s.reach = rounded(radius, 4);
  s.columns = own + 2 * radius;
  int taps = 0;
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius;
    s.cells = std::max(s.cells, (own + 2 * r + 3) / 4);
    taps += rounded(2 * r + 4, 4);
    const double down = 26 * (2 * r + 1) + 370;
    const double beside = along(j > 0 ? j - 1 : p.scales - 1);
    cost.shared_phase(warps, 2 * (warps_of(columns(r)) * down + warps_of(own) * beside),
                      std::max(down, beside));
  }
  // So many that the next rows come while all of a chunk's are used, and the middle ones of the chunk before.
  s.capacity = 2 * radius + 16 + (radius < 8 ? 8 : 0), s.repeated = 3;
  s.raw_pitch = rounded(s.columns + s.reach - radius, 4);
  s.moment_pitch = RingSizes::odd_fours(s.columns), s.map_pitch = RingSizes::odd_fours(own);
  s.moments = 4 + (p.l1_weight != 0 && p.l1_windowed), s.maps = gradients ? 3 + gradients : 0;
  s.each_raw = (s.capacity + s.repeated) * s.raw_pitch, s.each_moment = 8 * s.moment_pitch;
  s.moments_at = 2 * s.each_raw;
  s.maps_at = s.moments_at + 2 * s.moments * s.each_moment;
  s.ring = s.maps_at + p.scales * s.maps * 8 * s.map_pitch;
  s.bases = s.ring + 3 * 8 * s.map_pitch;
  s.taps = s.bases + rounded(8 * s.cells, 4);
  s.partial = s.taps + taps;
  s.queues = s.partial + 4 * 32 * warps_of(own);
  s.end = s.queues + 2 * sizeof(ScalesInterval) / arithmetic_size(p);
  return cost;
}

// Two blocks share a multiprocessor where their memory allows it.
int adjoint_threads_of(const Problem& p, int shared) {
  if (arithmetic_size(p) == 8) return adjoint_threads<double>(gradients_of(p), p.scales > 1);
  const int threads = adjoint_threads<float>(gradients_of(p), p.scales > 1);
  return resident_of(current_device(), 2, int64_t(shared) * 4) == 2 ? threads / 2 : threads;
}

RingPlan plan_of(const Problem& p) {
  const int64_t crop = crop_of(p);
  return remembered(1, p, [&] {
    return ring_plan(p, p.height - 2 * crop, p.width - 2 * crop, [&](int own) { return cost_of(p, own); });
  });
}

// When the last block is done, of those that take each[j], from the last kind to the first; so many run at
// once, and where one is done the next one starts.
double makespan(int64_t at_once, const int64_t* blocks, const double* each, int kinds) {
  std::map<double, int64_t> done{{0., at_once}};  // when, and how many
  double rounds = 0;
  for (int j = kinds - 1; j >= 0; --j) {
    for (int64_t left = blocks[j]; left > 0;) {
      const auto first = done.begin();
      if (left >= at_once && done.rbegin()->first - first->first <= each[j]) {  // one more each, in turn
        rounds += double(left / at_once) * each[j], left %= at_once;
        continue;
      }
      const int64_t now = std::min(left, first->second);
      done[first->first + each[j]] += now;
      left -= now;
      if ((first->second -= now) == 0) done.erase(first);
    }
  }
  return rounds + done.rbegin()->first;
}

// Of the second launch, where each block has one scale.
struct AdjointCost {
  RingSizes sizes;
  int64_t height;
  int scales, most_resident = 2;
  RingCost of_scale[max_scales];

  // Sets each scale's bands: the plan's, or one more where that ends sooner. A few long blocks that start
  // last would have most multiprocessors wait for them. Not tried far above `least`, to save time.
  double all(RingPlan& plan, int64_t strips, int64_t resident, int64_t at_once, double least) const {
    int64_t blocks[max_scales];
    double each[max_scales];
    const auto time = [&] {
      for (int j = 0; j < scales; ++j) {
        const int64_t rows = divided(height, plan.scale_bands[j]);
        blocks[j] = strips / scales * divided(height, rows), each[j] = of_scale[j].block(rows, resident);
      }
      return makespan(at_once, blocks, each, scales);
    };
    std::fill_n(plan.scale_bands, scales, plan.bands);
    double best = time();
    for (int j = scales - 1; j >= 0 && best < 1.25 * least; --j) {
      ++plan.scale_bands[j];
      const double now = time();
      if (now < best)
        best = now;
      else
        --plan.scale_bands[j];
    }
    return best;
  }
};

AdjointCost adjoint_cost_of(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius, gradients = gradients_of(p);
  AdjointCost cost{};
  cost.height = p.height, cost.scales = p.scales;
  RingSizes& s = cost.sizes;
  s.capacity = (adjoint_late(radius) + 2) * adjoint_rows;
  s.chunks = (adjoint_late(radius) + 4) * adjoint_rows / 4;
  s.cells = (own + 2 * radius + 3) / 4 + 2;
  s.map_pitch = RingSizes::odd_fours(own + 2 * radius), s.ring_pitch = RingSizes::odd_fours(own);
  s.maps = 2 + gradients + (p.l1_weight != 0 && p.l1_windowed);
  s.maps_at = 0;
  s.ring = s.maps_at + 2 * s.maps * adjoint_rows * s.map_pitch;
  s.bases = s.ring + s.maps * s.capacity * s.ring_pitch;
  s.taps = s.bases + rounded(2 * s.chunks * s.cells, 4);
  s.queues = s.taps + rounded(2 * radius + 4, 4);
  s.end = s.queues + sizeof(AdjointPlane) / arithmetic_size(p);
  const int warps = adjoint_threads_of(p, s.end) / 32, tasks = adjoint_rows / 4 * warps_of(own);
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius;
    const double each = (2.0 + gradients) / 3 * (21 * (2 * r + 1) + 390);
    const double work = 2 * tasks * each + adjoint_rows * (140 + 45 * warps_of(own + 2 * r));
    RingCost& one = cost.of_scale[j];
    one.chunk_rows = adjoint_rows, one.rate = 2.5, one.wait = 5;
    one.shared_phase(warps, work, each);
    one.extra = 1.5 + (work - tasks * each) * adjoint_late(r) / work;  // what comes before the first row
  }
  return cost;
}

RingPlan adjoint_plan_of(const Problem& p) {
  return remembered(2, p, [&] {
    Problem each_scale = p;
    each_scale.batch *= p.scales;
    return ring_plan(each_scale, p.height, p.width, [&](int own) { return adjoint_cost_of(p, own); });
  });
}

// Bytes of an image's parts of the gradient.
int64_t parts_of_image(const Problem& p) {
  return p.scales == 1 ? 0
                       : p.channels * p.scales * gradients_of(p) * p.height * p.width * arithmetic_size(p);
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
  const int64_t maps_of_image = tile_maps_bytes(p) / p.batch;
  const auto queue = [&](const char* name, const RingPlan& plan, int threads, auto value, auto one,
                         auto both) {
    set_ring(s, plan, block);
    block.in_fours = block.in_fours && (crop_of(p) - plan.sizes.reach) % 4 == 0;
    const bool each_scale = plan.scale_bands[0] > 0;
    int64_t bands = each_scale ? 0 : plan.bands;
    for (int j = 0; each_scale && j < p.scales; ++j) {
      params.cut[j].band_rows = int(divided(p.height, plan.scale_bands[j]));
      bands += params.cut[j].bands = int(divided(p.height, params.cut[j].band_rows));
    }
    const int64_t of_band = plan.strips * p.channels;
    for_images(s, block, of_band * bands, [&](int64_t first, int64_t images) {
      int64_t blocks = each_scale ? 0 : images * of_band * bands;
      for (int j = p.scales - 1; each_scale && j >= 0; --j) {
        params.cut[j].first_block = int(blocks);
        blocks += images * of_band * params.cut[j].bands;
      }
      char* scratch = static_cast<char*>(s.maps);
      params.maps = reinterpret_cast<T*>(scratch + first * maps_of_image);
      params.parts = reinterpret_cast<T*>(scratch + p.batch * maps_of_image + first * parts_of_image(p));
      launch(name, block.grad_y.data ? both : (block.grad_x.data ? one : value), blocks, threads,
             size_t(block.sizes.end) * sizeof(T), stream, params);
    });
  };
  const int gradients = gradients_of(p);
  queue("scales_kernel", plan_of(p), scales_threads<T>(gradients), &scales_kernel<0, T>, &scales_kernel<1, T>,
        &scales_kernel<2, T>);
  if (gradients == 0) return;
  const RingPlan plan = adjoint_plan_of(p);
  const int threads = adjoint_threads_of(p, plan.sizes.end);
  if (p.scales == 1) {
    return queue("adjoint_kernel", plan, threads, &adjoint_kernel<1, false, T>, &adjoint_kernel<1, false, T>,
                 &adjoint_kernel<2, false, T>);
  }
  queue("adjoint_kernel", plan, threads, &adjoint_kernel<1, true, T>, &adjoint_kernel<1, true, T>,
        &adjoint_kernel<2, true, T>);
  RingPlan rows{};
  rows.own = int(p.width), rows.strips = 1;
  rows.band_rows = gather_rows, rows.bands = int((p.height + gather_rows - 1) / gather_rows);
  queue("gather_kernel", rows, gather_threads, &gather_kernel<1, T>, &gather_kernel<1, T>,
        &gather_kernel<2, T>);
}

}  // namespace

size_t scales_maps_bytes(const Problem& p) {
  return tile_maps_bytes(p) + size_t(p.batch * parts_of_image(p));
}

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
