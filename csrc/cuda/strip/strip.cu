// Which strips and bands, and the launches of strip.cuh's kernels.
#include "strip.cuh"

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "../plan/plan.h"
#include "../route.h"

namespace ssimloss {
namespace {

// How the levels of one launch are cut. Strips of each are equally wide, in multiples of 8, and as wide as
// `own` at most, which is the first one's.
int64_t strips_of(const Problem& p, const Cut& cut) { return divided(p.width, cut.own); }
int64_t own_of(const Problem& p, const Cut& cut) {
  return divided(divided(p.width, strips_of(p, cut)), 8) * 8;
}
int64_t bands_of(const Problem& p, const Cut& cut) { return divided(p.height, cut.band_rows); }
int64_t pieces_of(const Problem& p, const Cut& cut) { return strips_of(p, cut) * bands_of(p, cut); }

// A family for least_time. A multiprocessor's time is that of the scheduler with most warps, times four; and,
// for each round of blocks, that of strip_waiting_warps.
struct StripSearch {
  const Problem* levels;
  int count;
  bool pools;
  int64_t height = levels[0].height, width = levels[0].width;  // the first level is the tallest and widest
  int gradients = levels[0].gradients;
  int64_t margin = gradients || pools ? strip_radius : 0;  // pooling's: threads (strip_pool.cuh)
  int widest = int(strip_threads - 2 * margin) / 8 * 8;
  double gain = strip_narrower;
  Device device = current_device();
  int own = 0;
  int64_t warps = 0, resident = 0;

  bool set(int columns) {
    bool same = true;  // narrower strips make as many
    for (int j = 0; j < count; ++j) same = same && !narrowest(levels[j].width, columns);
    if (same) return false;
    warps = 0;
    Cut cut;
    cut.own = own = columns;
    for (int j = 0; j < count; ++j) warps = std::max(warps, divided(own_of(levels[j], cut) + 2 * margin, 32));
    // Warps at once, as far as registers go.
    const bool maps_or_levels = levels[0].grad_map.data || levels[0].sum_difference || pools;
    const int64_t most = strip_blocks(gradients, maps_or_levels) * strip_threads / 32;
    resident = resident_of(device, divided(most, schedulers) * schedulers / warps, strip_shared_pooling);
    return true;
  }

  int64_t blocks(const Cut& cut) const {
    int64_t all = 0;
    for (int j = 0; j < count; ++j) all += levels[0].batch * levels[0].channels * pieces_of(levels[j], cut);
    return all;
  }

  template <class F>
  void each_bands(F f) const {
    for (int64_t bands = 1; bands <= 4096; ++bands) {
      Cut cut;
      cut.own = own, cut.band_rows = int(divided(height, bands));
      if (bands > 1 && (cut.band_rows < strip_rows || blocks(cut) > 4 * resident * device.multiprocessors))
        return;
      f(bands);
    }
  }

  double cycles(Cut& cut, double) const {
    cut.threads = int(32 * warps);
    int64_t beyond = 2 * strip_radius + (gradients ? 2 * strip_radius : 0);  // rows that a block reads
    if (pools) beyond += strip_rows - 1;                                     // see strip_pool.cuh
    const auto round = [&](int64_t blocks) {
      return blocks ? schedulers * divided(blocks * warps, schedulers) + strip_waiting_warps : 0;
    };
    const int64_t all = blocks(cut), at_once = resident * device.multiprocessors;
    const int64_t last = divided(all % at_once, device.multiprocessors);
    const double chunks = double(divided(cut.band_rows + beyond, strip_rows)) + start_chunks;
    return chunks * double(all / at_once * round(resident) + round(last)) / schedulers *
           strip_instructions[gradients];
  }
};

Cut plan_of(const Problem* levels, int count, bool pools) {
  const char* kernel = pools ? "strip_kernel that pools" : (count > 1 ? "levels_kernel" : "strip_kernel");
  return plan_for(kernel, levels[0], count, [&] {
    StripSearch search{levels, count, pools};
    return least_time(search);
  });
}

void set_params(const Similarity& s, const Cut& cut, bool pools, StripParams& params) {
  const Problem& p = s.problem;
  set_problem(s, params);
  params.strips = int(strips_of(p, cut)), params.own = int(own_of(p, cut));
  params.filled = params.own + (p.gradients || pools ? 28 : 20);  // 12 before the own ones
  params.bands = int(bands_of(p, cut)), params.band_rows = cut.band_rows;
  params.in_fours = params.in_fours && in_fours(p.grad_x) && in_fours(p.grad_y);
  const double* taps = p.windows[0].weights;
  for (int t = 0; t <= strip_radius; ++t) {
    params.taps[t] = float(taps[t]);
    params.taps_along[t] = float(taps[t] * taps[strip_radius]);
    params.taps_down[t] = float(taps[t] / taps[strip_radius]);
  }
  double reached = 0;
  for (int j = 2 * strip_radius - 1; j >= 0; --j) {  // the newest pending output has had one row
    reached += taps[std::abs(j + 1 - strip_radius)];
    params.reached[j] = float(reached);
  }
}

// start(params, threads, first image, blocks) for as many images at a time as a grid has room for.
template <class Start>
void each_launch(const Similarity* levels, int count, bool pools, Start start) {
  Problem problems[levels_at_once] = {};
  for (int j = 0; j < count; ++j) problems[j] = levels[j].problem;
  const Cut cut = plan_of(problems, count, pools);
  LevelsParams params{};
  int64_t of_image[levels_at_once], all = 0;
  for (int j = 0; j < count; ++j) {
    set_params(levels[j], cut, pools, params.level[j]);
    all += of_image[j] = pieces_of(problems[j], cut) * problems[j].channels;
  }
  for_batches(problems[0].batch, all, [&](int64_t first, int64_t images) {
    int64_t blocks = 0;
    for (int j = 0; j < levels_at_once; ++j) {
      params.first_block[j] = j < count ? int(blocks) : INT_MAX;
      if (j >= count) continue;
      set_images(levels[j], first, pieces_of(problems[j], cut), params.level[j]);
      blocks += images * of_image[j];
    }
    start(params, cut.threads, first, blocks);
  });
}

template <bool Maps, bool Pools>
void start_strip(const StripParams& params, int threads, int64_t blocks, void* stream) {
  const auto kernel = params.grad_y.data   ? &strip_kernel<2, Maps, Pools>
                      : params.grad_x.data ? &strip_kernel<1, Maps, Pools>
                                           : &strip_kernel<0, Maps, Pools>;
  launch("strip_kernel", kernel, blocks, threads, Pools ? strip_shared_pooling : strip_shared, stream,
         params);
}

void similarity(const Similarity& s, void* stream) {
  each_launch(&s, 1, false, [&](const LevelsParams& params, int threads, int64_t, int64_t blocks) {
    const StripParams& one = params.level[0];
    const bool maps = one.loss_map.data || one.grad_map.data;
    maps ? start_strip<true, false>(one, threads, blocks, stream)
         : start_strip<false, false>(one, threads, blocks, stream);
  });
}

}  // namespace

const Family strip_family = {"strip", [](const Problem& p) { return pieces_of(p, plan_of(&p, 1, false)); },
                             [](const Problem&) { return int64_t(0); }, &similarity};

void strip_level_pieces(const Problem* levels, int count, int64_t* pieces) {
  for (int first = 0; first < count;) {
    const int together = first == 0 ? 1 : std::min(levels_at_once, count - first);
    const Cut cut = plan_of(levels + first, together, first == 0);
    for (const int end = first + together; first < end; ++first)
      pieces[first] = pieces_of(levels[first], cut);
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
