// Which strips and bands, and the launches of strip.cuh's kernels.
#include "strip.cuh"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>

#include "../common/params.h"

namespace ssimloss {
namespace {

// How the levels of one launch are cut.
struct Plan {
  int64_t columns;  // of a strip at most, for the launch's warps
  int64_t margin;   // columns on each side that a block needs beyond its own
  int64_t band_rows;
  int threads;
};

// Strips are equally wide, in multiples of 8.
int64_t strips_of(const Problem& p, const Plan& plan) { return divided(p.width, plan.columns); }
int64_t own_of(const Problem& p, const Plan& plan) {
  return divided(divided(p.width, strips_of(p, plan)), 8) * 8;
}
int64_t bands_of(const Problem& p, const Plan& plan) { return divided(p.height, plan.band_rows); }

int64_t pieces_of(const Problem& p, const Plan& plan) { return strips_of(p, plan) * bands_of(p, plan); }

// For the least time; the first level is the tallest and widest. A multiprocessor's time is estimated as the
// instructions of its warps, as many as the fullest of its four parts has, times four; and, for each round of
// blocks, as much as those of five warps for waiting: with 12 warps an H100 issued 0.69 instructions a cycle.
Plan plan_of(const Problem* levels, int count, bool pools) {
  const Problem& p = levels[0];
  const Device device = current_device();
  const bool maps_or_levels = p.grad_map.data || p.sum_difference || pools;
  const int gradients = p.grad_y.data ? 2 : wants_gradient(p);
  // Warps at once, as far as registers go.
  const int64_t most = divided(strip_blocks(gradients, maps_or_levels) * strip_threads / 32, 4) * 4;
  const int64_t margin = gradients || pools ? strip_radius : 0;  // pooling's: threads (strip_pool.cuh)
  int64_t beyond = 2 * strip_radius + (gradients ? 2 * strip_radius : 0);
  if (pools) beyond += strip_rows - 1;  // see strip_pool.cuh
  Plan best{};
  double least = HUGE_VAL;
  for (int64_t warps = strip_threads / 32; warps > 0; --warps) {
    Plan plan{(32 * warps - 2 * margin) / 8 * 8, margin, 0, 0};
    for (int j = 0; j < count; ++j)
      plan.threads = std::max(plan.threads, 32 * int(divided(own_of(levels[j], plan) + 2 * margin, 32)));
    if (plan.threads < 32 * warps) continue;  // fewer warps make the same strips
    const int64_t resident = resident_of(device, most / warps, strip_shared_pooling);
    const int64_t at_once = resident * device.multiprocessors;
    const auto round = [&](int64_t blocks) { return blocks ? 4 * divided(blocks * warps, 4) + 5 : 0; };
    double shortest = HUGE_VAL;
    int64_t rows = 0;
    for (int64_t bands = 1; bands <= 4096; ++bands) {
      plan.band_rows = divided(p.height, bands);
      int64_t blocks = 0;
      for (int j = 0; j < count; ++j) blocks += p.batch * p.channels * pieces_of(levels[j], plan);
      if (bands > 1 && (plan.band_rows < strip_rows || blocks > 4 * at_once)) break;
      // A block's chunks, and what starting one costs in chunks.
      const double chunks = double(divided(plan.band_rows + beyond, strip_rows)) + 1.5;
      const int64_t last = divided(blocks % at_once, device.multiprocessors);
      const double time = chunks * double(blocks / at_once * round(resident) + round(last));
      if (time < shortest) shortest = time, rows = plan.band_rows;
    }
    plan.band_rows = rows;
    if (shortest < 0.95 * least) least = shortest, best = plan;  // narrower ones must be worth it
  }
  return best;
}

void set_params(const Similarity& s, const Plan& plan, StripParams& params) {
  const Problem& p = s.problem;
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.dtype = p.x.dtype;
  params.padding = p.padding;
  params.strips = int(strips_of(p, plan)), params.own = int(own_of(p, plan));
  params.filled = params.own + (plan.margin ? 28 : 20);  // 12 before the own ones
  params.bands = int(bands_of(p, plan)), params.band_rows = int(plan.band_rows);
  params.channel_first = p.x.stride_c == 1 && p.channels > 1;
  params.in_fours = in_fours(p.x) && in_fours(p.y) && in_fours(p.grad_x) && in_fours(p.grad_y);
  const double* taps = p.windows[0].weights;
  for (int t = 0; t <= strip_radius; ++t) {
    params.taps[t] = float(taps[t]);
    params.taps_along[t] = float(taps[t] * taps[strip_radius]);
    params.taps_down[t] = float(taps[t] / taps[strip_radius]);
  }
  double reached = 0;
  for (int j = 2 * strip_radius - 1; j >= 0; --j) {  // the newest pending output has had one row
    const int t = std::abs(j + 1 - strip_radius);
    reached += p.windows[0].weights[t];
    params.reached[j] = float(reached);
  }
  params.c1 = float(p.c1), params.c2 = float(p.c2), params.inverse_range = float(p.inverse_range);
  params.luminance = p.luminance ? 1.f : 0.f;
  params.ssim_weight = float(p.ssim_weight), params.l1_weight = float(p.l1_weight);
  params.ssim_gain = float(s.ssim_gain), params.l1_gain = float(s.l1_gain);
  params.l1 = p.l1_weight != 0, params.l1_windowed = p.l1_windowed;
  params.grad_map_dtype = p.grad_map.dtype;
  params.incoming_double = s.incoming.dtype == DType::float64, params.incoming_stride = s.incoming.stride;
}

// start(params, threads, first image, blocks) for as many images at a time as a grid has room for.
template <class Start>
void each_launch(const Similarity* levels, int count, bool pools, Start start) {
  Problem problems[levels_at_once] = {};
  for (int j = 0; j < count; ++j) problems[j] = levels[j].problem;
  const Plan plan = plan_of(problems, count, pools);
  LevelsParams params{};
  int64_t of_image[levels_at_once], all = 0;
  for (int j = 0; j < count; ++j) {
    set_params(levels[j], plan, params.level[j]);
    all += of_image[j] = pieces_of(problems[j], plan) * problems[j].channels;
  }
  const int64_t batch = problems[0].batch;
  const int64_t at_most = std::min(batch, std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, all)));
  for (int64_t first = 0; first < batch; first += at_most) {
    const int64_t images = std::min(at_most, batch - first);
    int64_t blocks = 0;
    for (int j = 0; j < levels_at_once; ++j) {
      params.first_block[j] = j < count ? int(blocks) : INT_MAX;
      if (j >= count) continue;
      set_images(levels[j], first, of_image[j], params.level[j].offsets, params.level[j]);
      blocks += images * of_image[j];
    }
    start(params, plan.threads, first, blocks);
  }
}

template <bool Maps, bool Pools>
void start_strip(const StripParams& params, int threads, int64_t blocks, void* stream) {
  const auto kernel = params.grad_y.data   ? &strip_kernel<2, Maps, Pools>
                      : params.grad_x.data ? &strip_kernel<1, Maps, Pools>
                                           : &strip_kernel<0, Maps, Pools>;
  launch("strip_kernel", kernel, blocks, threads, Pools ? strip_shared_pooling : strip_shared, stream,
         params);
}

}  // namespace

bool strip_takes(const Problem& p) {
  const bool maps = p.loss_map.data || p.grad_map.data;
  return p.scales == 1 && p.windows[0].radius == strip_radius && p.x.dtype != DType::float64 &&
         p.windows[0].weights[strip_radius] > 1e-6 &&  // StripParams::taps_down
         !(maps && p.l1_windowed && p.l1_weight != 0);
}

int64_t strip_pieces(const Problem& p) { return pieces_of(p, plan_of(&p, 1, false)); }

void strip_similarity(const Similarity& s, void* stream) {
  each_launch(&s, 1, false, [&](const LevelsParams& params, int threads, int64_t, int64_t blocks) {
    const StripParams& one = params.level[0];
    const bool maps = one.loss_map.data || one.grad_map.data;
    maps ? start_strip<true, false>(one, threads, blocks, stream)
         : start_strip<false, false>(one, threads, blocks, stream);
  });
}

void strip_level_pieces(const Problem* levels, int count, int64_t* pieces) {
  for (int first = 0; first < count;) {
    const int together = first == 0 ? 1 : std::min(levels_at_once, count - first);
    const Plan plan = plan_of(levels + first, together, first == 0);
    for (const int end = first + together; first < end; ++first)
      pieces[first] = pieces_of(levels[first], plan);
  }
}

int strip_finest(const Similarity* levels, int count, void* offsets, void* stream) {
  const int pooled = std::min(count - 1, pooled_levels);
  each_launch(levels, 1, true, [&](const LevelsParams& params, int threads, int64_t first, int64_t blocks) {
    StripParams finest = params.level[0];
    PooledLevels& to = finest.pooled;
    int height = finest.height, width = finest.width;
    for (int j = 0; j < pooled_levels; ++j) {
      to.shift_h |= (height & 1) << j, to.shift_w |= (width & 1) << j;
      to.height[j] = height = (height + 1) / 2, to.width[j] = width = (width + 1) / 2;
      if (j >= pooled) continue;
      const Problem& coarse = levels[j + 1].problem;
      to.m[j] = static_cast<float*>(from_image(coarse.x, first).data);
      to.d[j] = static_cast<float*>(from_image(coarse.y, first).data);
    }
    to.count = pooled;
    to.offsets = static_cast<float*>(offsets) + first * finest.channels;
    start_strip<false, true>(finest, threads, blocks, stream);
  });
  return pooled;
}

void strip_coarser(const Similarity* levels, int count, void* stream) {
  for (int done = 1; done < count; done += levels_at_once) {
    const int together = std::min(levels_at_once, count - done);
    each_launch(levels + done, together, false,
                [&](const LevelsParams& params, int threads, int64_t, int64_t blocks) {
                  const auto kernel = params.level[0].grad_y.data   ? &levels_kernel<2>
                                      : params.level[0].grad_x.data ? &levels_kernel<1>
                                                                    : &levels_kernel<0>;
                  launch("levels_kernel", kernel, blocks, threads, strip_shared, stream, params);
                });
  }
}

}  // namespace ssimloss
