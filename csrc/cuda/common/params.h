// What every kernel of a problem is told, and how a batch becomes launches.
#pragma once

#include <algorithm>

#include "../route.h"
#include "launch.h"
#include "pixels.cuh"

namespace ssimloss {

// T: the arithmetic type.
template <class T>
struct KernelParams {
  View x, y;  // images; of a level of the pyramid m and d, less the plane's offset
  View grad_x, grad_y, loss_map, grad_map;
  Padding padding;
  bool pyramid;          // x and y are m and d
  bool l1, l1_windowed;  // of the pixels or, l1_windowed, blurred
  bool channel_first;    // blocks beside each other: channels of one strip
  bool in_fours;         // see pixels.cuh
  int channels, height, width;
  int64_t map_width, map_size;        // positions of a row, of a plane
  int radius, crop;                   // of the largest window; where positions begin
  int own, strips, bands, band_rows;  // columns of a strip, a multiple of 8; of one plane
  T c1, c2, inverse_range;
  const double* inverse_ranges;  // one an image, in its place; or null
  T luminance;                   // 1, or 0: cs alone
  T ssim_weight, l1_weight, ssim_gain, l1_gain;
  Scalars incoming;
  const T* offsets;  // of a pyramid: what was taken off d, per plane
  double* sums;      // [planes][pieces][2]
  View mask;         // weights of pixels, of type T; absent: 1, and under padding "normalized" 0 outside
  T weight_unit;     // what they are multiplied by
  const PlaneWeights* of_planes;  // [planes], under a mask; else null
};

// All but what differs from image to image.
template <class T>
void set_problem(const Similarity& s, const Cut& cut, KernelParams<T>& params) {
  const Problem& p = s.problem;
  params.own = cut.own, params.strips = cut.strips;
  params.bands = cut.bands, params.band_rows = cut.band_rows;
  params.padding = p.padding;
  params.pyramid = p.sum_difference, params.l1 = p.l1_weight != 0;
  params.l1_windowed = has_windowed_l1(p);
  params.channel_first = p.x.stride_c == 1 && p.channels > 1;
  params.in_fours = in_fours(p.x) && in_fours(p.y);
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.radius = largest_radius(p), params.crop = int(crop_of(p));
  params.map_width = p.width - 2 * params.crop;
  params.map_size = params.map_width * (p.height - 2 * params.crop);
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.luminance = p.luminance ? T(1) : T(0);
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(s.ssim_gain), params.l1_gain = T(s.l1_gain);
  params.weight_unit = T(weight_unit(p));
}

// What differs, from image `first` on.
template <class T>
void set_images(const Similarity& all, int64_t first, KernelParams<T>& params) {
  const Similarity s = from_image(all, first);
  const Problem& p = s.problem;
  params.x = view(p.x), params.y = view(p.y);
  params.grad_x = view(p.grad_x), params.grad_y = view(p.grad_y);
  params.loss_map = view(p.loss_map), params.grad_map = view(p.grad_map);
  params.incoming = s.incoming, params.inverse_ranges = p.inverse_ranges;
  params.offsets = static_cast<const T*>(s.offsets);
  params.sums = s.sums;
  params.mask = view(p.mask), params.of_planes = s.weights;
}

// start(first image, images) for as many images at a time as a launch has blocks for, `blocks` an image.
template <class Start>
void for_batches(int64_t batch, int64_t blocks, Start start) {
  const int64_t most = std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, blocks));
  for (int64_t first = 0; first < batch; first += most) start(first, std::min(most, batch - first));
}

// The blocks of the cut, of the whole batch; params is what set_problem left.
template <class Params>
void launch_images(const char* name, void (*kernel)(Params), const Similarity& s, int threads, size_t shared,
                   void* stream, Params& params) {
  const int64_t in_image = s.cut.pieces() * s.problem.channels;
  for_batches(s.problem.batch, in_image, [&](int64_t first, int64_t images) {
    set_images(s, first, params);
    launch(name, kernel, images * in_image, threads, shared, stream, params);
  });
}

// The kernel for so many gradients: of(a constant 0, 1 or 2).
template <class Of>
auto for_gradients(int gradients, Of of) {
  if (gradients == 0) return of(std::integral_constant<int, 0>{});
  return gradients == 1 ? of(std::integral_constant<int, 1>{}) : of(std::integral_constant<int, 2>{});
}

}  // namespace ssimloss
