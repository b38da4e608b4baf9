// Which strips and bands, and the launches of strip.cuh's kernels.
#include "strip.cuh"

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "set_images.h"

namespace ssimloss {
namespace {

int64_t strips_of(const Problem& p) { return (p.width + strip_own - 1) / strip_own; }

int64_t pieces_of(const Problem& p, int64_t band_rows) {
  return strips_of(p) * ((p.height + band_rows - 1) / band_rows);
}

// Rows of the bands of all `levels` of one launch, for the least time: rounds of blocks that the device runs
// at once, times a block's work. The first level is the tallest.
int64_t band_rows_of(const Problem* levels, int count, bool pools) {
  const Problem& p = levels[0];
  const bool maps_or_levels = p.grad_map.data || p.sum_difference || pools;
  const int64_t at_once =
      strip_blocks(p.grad_y.data ? 2 : 1, maps_or_levels) * current_device().multiprocessors;
  int64_t beyond = wants_gradient(p) ? 4 * strip_radius : 2 * strip_radius;
  if (pools) beyond += strip_rows - 1;  // see strip_pool.cuh
  int64_t best = 0;
  double least = 0;
  for (int64_t bands = 1; bands <= 4096; ++bands) {
    const int64_t rows = (p.height + bands - 1) / bands;
    if (bands > 1 && rows < strip_rows) break;
    int64_t blocks = 0;
    for (int j = 0; j < count; ++j) blocks += p.batch * p.channels * pieces_of(levels[j], rows);
    const double rounds = double((blocks + at_once - 1) / at_once);
    // A block's chunks, and what starting one costs in chunks.
    const double time = rounds * (double((rows + beyond + strip_rows - 1) / strip_rows) + 1.5);
    if (best && time >= least) continue;
    least = time, best = rows;
  }
  return best;
}

void set_params(const Similarity& s, int64_t band_rows, StripParams& params) {
  const Problem& p = s.problem;
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.dtype = p.x.dtype;
  params.padding = p.padding;
  params.strips = int(strips_of(p)), params.band_rows = int(band_rows);
  params.bands = int((p.height + band_rows - 1) / band_rows);
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

// start(params, first image, blocks) for as many images at a time as a grid has room for.
template <class Start>
void each_launch(const Similarity* levels, int count, bool pools, Start start) {
  Problem problems[levels_at_once] = {};
  for (int j = 0; j < count; ++j) problems[j] = levels[j].problem;
  const int64_t rows = band_rows_of(problems, count, pools);
  LevelsParams params{};
  int64_t of_image[levels_at_once], all = 0;
  for (int j = 0; j < count; ++j) {
    set_params(levels[j], rows, params.level[j]);
    all += of_image[j] = pieces_of(problems[j], rows) * problems[j].channels;
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
    start(params, first, blocks);
  }
}

template <bool Maps, bool Pools>
void start_strip(const StripParams& params, int64_t blocks, void* stream) {
  const auto kernel = params.grad_y.data   ? &strip_kernel<2, Maps, Pools>
                      : params.grad_x.data ? &strip_kernel<1, Maps, Pools>
                                           : &strip_kernel<0, Maps, Pools>;
  launch("strip_kernel", kernel, blocks, strip_threads, Pools ? strip_shared_pooling : strip_shared, stream,
         params);
}

}  // namespace

bool strip_takes(const Problem& p) {
  const bool maps = p.loss_map.data || p.grad_map.data;
  return p.scales == 1 && p.windows[0].radius == strip_radius && p.x.dtype != DType::float64 &&
         p.windows[0].weights[strip_radius] > 1e-6 &&  // StripParams::taps_down
         !(maps && p.l1_windowed && p.l1_weight != 0);
}

int64_t strip_pieces(const Problem& p) { return pieces_of(p, band_rows_of(&p, 1, false)); }

void strip_similarity(const Similarity& s, void* stream) {
  each_launch(&s, 1, false, [&](const LevelsParams& params, int64_t, int64_t blocks) {
    const StripParams& one = params.level[0];
    const bool maps = one.loss_map.data || one.grad_map.data;
    maps ? start_strip<true, false>(one, blocks, stream) : start_strip<false, false>(one, blocks, stream);
  });
}

void strip_level_pieces(const Problem* levels, int count, int64_t* pieces) {
  for (int first = 0; first < count;) {
    const int together = first == 0 ? 1 : std::min(levels_at_once, count - first);
    const int64_t rows = band_rows_of(levels + first, together, first == 0);
    for (const int end = first + together; first < end; ++first)
      pieces[first] = pieces_of(levels[first], rows);
  }
}

int strip_finest(const Similarity* levels, int count, void* offsets, void* stream) {
  const int pooled = std::min(count - 1, pooled_levels);
  each_launch(levels, 1, true, [&](const LevelsParams& params, int64_t first, int64_t blocks) {
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
    start_strip<false, true>(finest, blocks, stream);
  });
  return pooled;
}

void strip_coarser(const Similarity* levels, int count, void* stream) {
  for (int done = 1; done < count; done += levels_at_once) {
    const int together = std::min(levels_at_once, count - done);
    each_launch(levels + done, together, false, [&](const LevelsParams& params, int64_t, int64_t blocks) {
      const auto kernel = params.level[0].grad_y.data   ? &levels_kernel<2>
                          : params.level[0].grad_x.data ? &levels_kernel<1>
                                                        : &levels_kernel<0>;
      launch("levels_kernel", kernel, blocks, strip_threads, strip_shared, stream, params);
    });
  }
}

}  // namespace ssimloss
