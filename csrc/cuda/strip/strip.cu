// Which strips and bands, and the launches of strip.cuh's kernels.
#include "strip.cuh"

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "../plan/plan.h"

namespace ssimloss {
namespace {

// Of one level, where the levels of a launch are cut alike. Strips of each are equally wide, in multiples of
// 8, and as wide as `own` at most, which is the first one's.
Cut of_level(const Problem& p, Cut cut) {
  cut.strips = int(divided(p.width, cut.own)), cut.bands = int(divided(p.height, cut.band_rows));
  cut.own = int(rounded(divided(p.width, cut.strips), 8));
  return cut;
}

// A multiprocessor's time is that of the scheduler with most warps, times four; and, for each round of
// blocks, that of strip_waiting_warps.
Cut least_time_of(const Similarity* levels, int count, bool pools) {
  const Problem& p = levels[0].problem;                        // the tallest and widest
  const int margin = p.gradients || pools ? strip_radius : 0;  // pooling's: threads (strip_pool.cuh)
  const Device device = current_device();
  const auto of_width = [&](int own, auto consider) {
    Cut cut;
    cut.own = own, cut.band_rows = 1;
    bool same = true;  // narrower strips make as many
    int64_t warps = 0;
    for (int j = 0; j < count; ++j) {
      same = same && !narrowest(levels[j].problem.width, own);
      warps = std::max(warps, divided(of_level(levels[j].problem, cut).own + 2 * margin, 32));
    }
    if (same) return;
    // Warps at once, as far as registers go. Plans still count one block of both gradients of a map or of
    // levels, which took more than half of the registers until 2026-11-30.
    const bool large = p.gradients == 2 && (p.grad_map.data || p.sum_difference || pools);
    const int64_t most = divided((large ? 1 : strip_blocks(p.gradients)) * strip_threads / 32, schedulers);
    const int64_t resident = resident_of(device, most * schedulers / warps, strip_shared_pooling);
    const int64_t at_once = resident * device.multiprocessors;
    int64_t beyond = 2 * strip_radius + (p.gradients ? 2 * strip_radius : 0);  // rows that a block reads
    if (pools) beyond += strip_rows - 1;                                       // see strip_pool.cuh
    const auto round = [&](int64_t blocks) {
      return blocks ? schedulers * divided(blocks * warps, schedulers) + strip_waiting_warps : 0;
    };
    for (int64_t bands = 1; bands <= 4096; ++bands) {
      cut.band_rows = int(divided(p.height, bands));
      int64_t blocks = 0;
      for (int j = 0; j < count; ++j)
        blocks += p.batch * p.channels * of_level(levels[j].problem, cut).pieces();
      if (bands > 1 && (cut.band_rows < strip_rows || blocks > 4 * at_once)) return;
      consider(bands, [&](Cut& of_bands, double) {
        of_bands.threads = int(32 * warps);
        const int64_t last = divided(blocks % at_once, device.multiprocessors);
        const double chunks = double(divided(of_bands.band_rows + beyond, strip_rows)) + start_chunks;
        return chunks * double(blocks / at_once * round(resident) + round(last)) / schedulers *
               strip_instructions[p.gradients];
      });
    }
  };
  return least_time(p.height, p.width, int(strip_threads - 2 * margin) / 8 * 8, strip_narrower, of_width);
}

// Sets the cuts of the levels of a launch.
void plan(Similarity* levels, int count, bool pools) {
  const Problem& p = levels[0].problem;
  const char* kernel =
      pools ? "strip_kernel that pools" : (p.sum_difference ? "levels_kernel" : "strip_kernel");
  const Cut cut =
      plan_for(strip_family, kernel, p, count, [&] { return least_time_of(levels, count, pools); });
  for (int j = 0; j < count; ++j) levels[j].cut = of_level(levels[j].problem, cut);
}
Cut plan_of(const Problem& p) {
  Similarity one{};
  one.problem = p;
  plan(&one, 1, false);
  return one.cut;
}

void set_params(const Similarity& s, bool pools, StripParams& params) {
  const Problem& p = s.problem;
  set_problem(s, s.cut, params);
  params.filled = params.own + (p.gradients || pools ? 28 : 20);  // 12 before the own ones
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

// start(params, first image, blocks) for as many images at a time as a grid has room for.
template <class Start>
void each_launch(const Similarity* levels, int count, bool pools, Start start) {
  const Problem& p = levels[0].problem;
  LevelsParams params{};
  int64_t pieces = 0;
  for (int j = 0; j < count; ++j) {
    set_params(levels[j], pools, params.level[j]);
    pieces += levels[j].cut.pieces();
  }
  for_batches(p.batch, pieces * p.channels, [&](int64_t first, int64_t images) {
    int64_t blocks = 0;
    for (int j = 0; j < levels_at_once; ++j) {
      params.first_block[j] = j < count ? int(blocks) : INT_MAX;
      if (j >= count) continue;
      set_images(levels[j], first, params.level[j]);
      blocks += images * p.channels * levels[j].cut.pieces();
    }
    start(params, first, blocks);
  });
}

void similarity(const Similarity& s, void* stream) {
  const bool maps = s.problem.loss_map.data || s.problem.grad_map.data;
  const auto kernel = for_gradients(s.problem.gradients, [&](auto n) {
    return maps ? &strip_kernel<n.value, true, false> : &strip_kernel<n.value, false, false>;
  });
  each_launch(&s, 1, false, [&](LevelsParams& params, int64_t, int64_t blocks) {
    launch("strip_kernel", kernel, blocks, s.cut.threads, strip_shared, stream, params.level[0]);
  });
}

}  // namespace

const Family strip_family = {"strip", &plan_of, &similarity};

void strip_plan(Similarity* levels, int count) {
  plan(levels, 1, true);
  for (int done = 1; done < count; done += levels_at_once)
    plan(levels + done, std::min(levels_at_once, count - done), false);
}

int strip_finest(const Similarity* levels, int count, void* offsets, void* stream) {
  const int pooled = std::min(count - 1, pooled_levels);
  const auto kernel =
      for_gradients(levels[0].problem.gradients, [](auto n) { return &strip_kernel<n.value, false, true>; });
  each_launch(levels, 1, true, [&](LevelsParams& params, int64_t first, int64_t blocks) {
    StripParams& finest = params.level[0];
    PooledLevels& to = finest.pooled = {};
    const OddSide odd_side = levels[0].problem.odd_side;
    Halving down{finest.height, odd_side}, across{finest.width, odd_side};
    to.repeats = odd_side == OddSide::edge;
    for (int j = 0; j < pooled_levels; ++j) {
      to.shift_h |= down.zeros() << j, to.shift_w |= across.zeros() << j;
      down.n = to.height[j] = down.size(), across.n = to.width[j] = across.size();
      if (j >= pooled) continue;
      const Problem& coarse = levels[j + 1].problem;
      to.m[j] = static_cast<float*>(from_image(coarse.x, first).data);
      to.d[j] = static_cast<float*>(from_image(coarse.y, first).data);
    }
    to.count = pooled;
    to.offsets = static_cast<float*>(offsets) + first * finest.channels;
    launch("strip_kernel", kernel, blocks, levels[0].cut.threads, strip_shared_pooling, stream, finest);
  });
  return pooled;
}

void strip_coarser(const Similarity* levels, int count, void* stream) {
  const auto kernel =
      for_gradients(levels[0].problem.gradients, [](auto n) { return &levels_kernel<n.value>; });
  for (int done = 1; done < count; done += levels_at_once) {
    const auto start = [&](LevelsParams& params, int64_t, int64_t blocks) {
      launch("levels_kernel", kernel, blocks, levels[done].cut.threads, strip_shared, stream, params);
    };
    each_launch(levels + done, std::min(levels_at_once, count - done), false, start);
  }
}

}  // namespace ssimloss
