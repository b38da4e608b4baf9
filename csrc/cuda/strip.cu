// Which strips and bands, and the launch of strip.cuh's kernels.
#include "strip.cuh"

#include <algorithm>
#include <cstdlib>

#include "set_images.h"

namespace ssimloss {
namespace {

struct Plan {
  int strips, bands, band_rows;
};

// The least time: rounds of blocks that the device runs at once, times a block's work.
Plan plan_of(const Problem& p) {
  const bool two_gradients = p.grad_y.data, map_gradient = p.grad_map.data;
  const int64_t at_once = (two_gradients || map_gradient ? 1 : 2) * current_device().multiprocessors;
  const int64_t margin = wants_gradient(p) ? 2 * strip_radius : strip_radius;
  const int64_t strips = (p.width + strip_own - 1) / strip_own;
  Plan best{};
  double least = 0;
  for (int64_t bands = 1; bands <= 4096; ++bands) {
    const int64_t rows = (p.height + bands - 1) / bands;
    if (bands > 1 && rows < 8) break;
    const int64_t blocks = p.batch * p.channels * strips * bands;
    const double rounds = double((blocks + at_once - 1) / at_once);
    // A block's chunks, and what starting one costs in chunks.
    const double time = rounds * (double((rows + 2 * margin + strip_rows - 1) / strip_rows) + 1.5);
    if (best.bands && time >= least) continue;
    least = time;
    best = {int(strips), int((p.height + rows - 1) / rows), int(rows)};
  }
  return best;
}

template <int Gradients, bool Maps>
void start(const StripParams& params, int64_t blocks, void* stream) {
  launch("strip_kernel", &strip_kernel<Gradients, Maps>, blocks, strip_threads, strip_shared, stream, params);
}

template <bool Maps>
void with_gradients(const StripParams& params, int64_t blocks, void* stream) {
  if (params.grad_y.data) return start<2, Maps>(params, blocks, stream);
  if (params.grad_x.data) return start<1, Maps>(params, blocks, stream);
  start<0, Maps>(params, blocks, stream);
}

}  // namespace

bool strip_takes(const Problem& p) {
  const bool maps = p.loss_map.data || p.grad_map.data;
  return p.scales == 1 && p.windows[0].radius == strip_radius && p.x.dtype != DType::float64 &&
         !(maps && p.l1_windowed && p.l1_weight != 0);
}

int64_t strip_pieces(const Problem& p) {
  const Plan plan = plan_of(p);
  return int64_t(plan.strips) * plan.bands;
}

void strip_similarity(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  const Plan plan = plan_of(p);
  StripParams params{};
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.dtype = p.x.dtype, params.pyramid = p.sum_difference;
  params.padding = p.padding;
  params.strips = plan.strips, params.bands = plan.bands, params.band_rows = plan.band_rows;
  params.channel_first = p.x.stride_c == 1 && p.channels > 1;
  params.in_fours = in_fours(p.x) && in_fours(p.y) && in_fours(p.grad_x) && in_fours(p.grad_y);
  for (int t = 0; t <= strip_radius; ++t) params.taps[t] = float(p.windows[0].weights[t]);
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

  const int64_t pieces = int64_t(plan.strips) * plan.bands, in_image = pieces * p.channels;
  const int64_t images =
      std::min(p.batch, std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, in_image)));
  for (int64_t first = 0; first < p.batch; first += images) {
    set_images(s, first, in_image, params.offsets, params);
    const int64_t blocks = std::min(images, p.batch - first) * in_image;
    const bool maps = params.loss_map.data || params.grad_map.data;
    maps ? with_gradients<true>(params, blocks, stream) : with_gradients<false>(params, blocks, stream);
  }
}

}  // namespace ssimloss
