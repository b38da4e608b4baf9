// The dyadic form's own kernels: the halved images, the product of the levels' means, and the gradient of
// the finest level from the gradients of all.
//
//   pool     a thread owns one pixel of a level: the 2 x 2 means of m = x + y and d = x - y of the level
//   above.
//            Reads 4 pixels of two images, writes one of each: 8 bytes an element of the finer level, 2
//            written
//   product  a warp owns a plane: adds the levels' partial sums in a fixed order, then the logarithms of
//            ssim_math's dyadic form; gives the plane's loss and every level's factor
//   combine  a thread owns one pixel of the finest level: gradient * factor + that of the pixels above it
//            / 4, / 16, ... (the adjoint of pool). 4 bytes read (8 + 4 more for l1), 4 written
#pragma once

#include "cuda.h"
#include "elements.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace ssimloss {

// d is stored less a value of its plane where the plane is nearly uniform: rounding a halved uniform
// difference to float32 would cost the digits of its variation.
struct PoolParams {
  View x, y;  // images, or m and d
  View m, d;  // out
  bool pyramid;
  int64_t planes;
  int channels, height, width;  // of x and y
  double inverse_range;
  void* offsets;  // [planes]: written by the first level, read by all
};

// The middle of three values of d, if all three are nearly that.
template <class E, class T>
__device__ T offset_of(const PoolParams& p, const E* x, const E* y) {
  T v[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t row = int64_t(p.height) * (2 * i + 1) / 6, col = int64_t(p.width) * (2 * i + 1) / 6;
    v[i] =
        (T(wide(x[row * p.x.h + col * p.x.w])) - T(wide(y[row * p.y.h + col * p.y.w]))) * T(p.inverse_range);
  }
  T low = v[0], high = v[0], sum = 0;
  for (int i = 0; i < 3; ++i) {
    low = v[i] < low ? v[i] : low, high = v[i] > high ? v[i] : high;
    sum += v[i];
  }
  const T middle = sum - low - high;
  const T size = middle < 0 ? -middle : middle;
  return (high - low) * T(16) < size && size <= T(2) ? middle : T(0);
}

template <class E, class T>
__global__ void __launch_bounds__(256) pool_kernel(const __grid_constant__ PoolParams p) {
  const int height = p.height / 2 + p.height % 2, width = p.width / 2 + p.width % 2;
  const int64_t blocks_a_plane = (int64_t(height) * width + 255) / 256;
  const int64_t plane = blockIdx.x / blocks_a_plane;
  const int64_t at = blockIdx.x % blocks_a_plane * 256 + threadIdx.x;
  if (at >= int64_t(height) * width) return;
  const int64_t image = plane / p.channels, channel = plane % p.channels;
  const E* x = p.x.plane<E>(image, channel);
  const E* y = p.y.plane<E>(image, channel);
  T* offsets = static_cast<T*>(p.offsets);
  const T offset = p.pyramid ? offsets[plane] : offset_of<E, T>(p, x, y);
  if (!p.pyramid && at == 0) offsets[plane] = offset;

  const int row = int(at / width), col = int(at % width);
  T m[4], d[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int from = 2 * row + i / 2 - p.height % 2, at_col = 2 * col + i % 2 - p.width % 2;
    if (from < 0 || from >= p.height || at_col < 0 || at_col >= p.width) {
      m[i] = 0, d[i] = -offset;
      continue;
    }
    const T a = T(wide(x[from * p.x.h + at_col * p.x.w])), b = T(wide(y[from * p.y.h + at_col * p.y.w]));
    m[i] = p.pyramid ? a : (a + b) * T(p.inverse_range);
    d[i] = p.pyramid ? b : (a - b) * T(p.inverse_range) - offset;
  }
  p.m.plane<T>(image, channel)[row * p.m.h + col * p.m.w] = T(0.25) * ((m[0] + m[1]) + (m[2] + m[3]));
  p.d.plane<T>(image, channel)[row * p.d.h + col * p.d.w] = T(0.25) * ((d[0] + d[1]) + (d[2] + d[3]));
}

struct ProductParams {
  int64_t planes;
  int levels, channels;
  const double* sums[cuda_max_levels];  // [planes][pieces][2]
  int64_t pieces[cuda_max_levels];
  double count[cuda_max_levels];  // positions of a plane
  double weights[cuda_max_levels];
  double ssim_weight, l1_weight;
  const void* incoming;
  bool incoming_double;
  int64_t incoming_stride;
  double* factors;  // [levels][planes]: incoming * the product's derivative with respect to m_j; or null
  double* losses;   // [planes][2]: the plane's loss, 0
};

__global__ void __launch_bounds__(32) product_kernel(const __grid_constant__ ProductParams p) {
  const int64_t plane = blockIdx.x;
  double logs = 0, l1 = 0, slopes[cuda_max_levels];
  for (int level = 0; level < p.levels; ++level) {
    const double* sums = p.sums[level] + 2 * plane * p.pieces[level];
    double ssim = 0, level_l1 = 0;
    for (int64_t i = threadIdx.x; i < p.pieces[level]; i += 32)
      ssim += sums[2 * i], level_l1 += sums[2 * i + 1];
    ssim = sum_warp(ssim), level_l1 = sum_warp(level_l1);
    // As log_mean of ../options.h.
    constexpr double knee = 0.05;
    const double e = ssim / p.count[level], m = 1 - e;
    const double value = m > knee ? log1p(-e) : log(knee) + (m - knee) / knee;
    const double slope = m > knee ? 1 / m : (m <= knee ? 1 / knee : m);  // m if NaN
    logs += p.weights[level] * value;
    slopes[level] = p.weights[level] * slope;
    if (level == 0 && p.l1_weight != 0) l1 = p.l1_weight * (level_l1 / p.count[0]);
  }
  if (threadIdx.x != 0) return;
  p.losses[2 * plane] = l1 + p.ssim_weight * -expm1(logs), p.losses[2 * plane + 1] = 0;
  if (!p.factors) return;
  double incoming = 1;
  if (p.incoming) {
    const int64_t at = plane / p.channels * p.incoming_stride;
    incoming = p.incoming_double ? static_cast<const double*>(p.incoming)[at]
                                 : double(static_cast<const float*>(p.incoming)[at]);
  }
  const double product = exp(logs);
  for (int level = 0; level < p.levels; ++level)
    p.factors[level * p.planes + plane] = incoming * product * slopes[level];
}

struct CombineParams {
  View fine;  // in and out
  int levels;
  int64_t planes;
  int channels, height, width;
  const void* coarse[cuda_max_levels];  // [planes][height][width] of levels 1, 2, ...
  const double* factors;                // [levels][planes]
  // l1: its gradient is sign(x - y) * gain * incoming * cover; gain 0 without.
  View x, y;
  double l1_gain;
  bool negative;  // the gradient to y
  Padding padding;
  int radius;
  double taps[cuda_max_radius + 1];
  const void* incoming;
  bool incoming_double;
  int64_t incoming_stride;
};

template <class E, class T>
__global__ void __launch_bounds__(256) combine_kernel(const __grid_constant__ CombineParams p) {
  const int64_t blocks_a_plane = (int64_t(p.height) * p.width + 255) / 256;
  const int64_t plane = blockIdx.x / blocks_a_plane;
  const int64_t at = blockIdx.x % blocks_a_plane * 256 + threadIdx.x;
  if (at >= int64_t(p.height) * p.width) return;
  const int64_t image = plane / p.channels, channel = plane % p.channels;
  const int row0 = int(at / p.width), col0 = int(at % p.width);
  E& fine = p.fine.plane<E>(image, channel)[row0 * p.fine.h + col0 * p.fine.w];
  T gradient = T(wide(fine)) * T(p.factors[plane]);
  int row = row0, col = col0, height = p.height, width = p.width;
  T share = 1;
  for (int level = 1; level < p.levels; ++level) {
    row = (row + height % 2) / 2, col = (col + width % 2) / 2;
    height = height / 2 + height % 2, width = width / 2 + width % 2;
    share *= T(0.25);
    const T* coarse = static_cast<const T*>(p.coarse[level]) + plane * height * width;
    gradient += share * T(p.factors[level * p.planes + plane]) * coarse[int64_t(row) * width + col];
  }
  if (p.l1_gain != 0) {
    T gain = T(p.l1_gain) * T(cover(row0, p.height, p.padding, p.taps, p.radius) *
                              cover(col0, p.width, p.padding, p.taps, p.radius));
    if (p.incoming) {
      const int64_t of = image * p.incoming_stride;
      gain *= p.incoming_double ? T(static_cast<const double*>(p.incoming)[of])
                                : T(static_cast<const float*>(p.incoming)[of]);
    }
    const T d = T(wide(p.x.plane<E>(image, channel)[row0 * p.x.h + col0 * p.x.w])) -
                T(wide(p.y.plane<E>(image, channel)[row0 * p.y.h + col0 * p.y.w]));
    const T by = d > 0 ? gain : (d < 0 ? -gain : d * gain);  // sign(0) = 0, sign(NaN) = NaN
    gradient += p.negative ? -by : by;
  }
  narrow(gradient, fine);
}

struct ScaleParams {
  View images;
  int channels, height, width;
  const void* by;
  bool by_double;
  int64_t by_stride;
  double factor;
};

// Grid-stride over each image's pixels; a block whose factor is 1 is done at once.
template <class E, class T>
__global__ void __launch_bounds__(256) scale_kernel(const __grid_constant__ ScaleParams p) {
  const int64_t pixels = int64_t(p.height) * p.width, blocks_a_plane = (pixels + 1023) / 1024;
  const int64_t plane = blockIdx.x / blocks_a_plane, first = blockIdx.x % blocks_a_plane * 1024;
  const int64_t image = plane / p.channels, channel = plane % p.channels;
  double factor = p.factor;
  if (p.by) {
    const int64_t at = image * p.by_stride;
    factor *=
        p.by_double ? static_cast<const double*>(p.by)[at] : double(static_cast<const float*>(p.by)[at]);
  }
  if (factor == 1) return;
  E* values = p.images.plane<E>(image, channel);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t at = first + i * 256 + threadIdx.x;
    if (at >= pixels) return;
    E& value = values[at / p.width * p.images.h + at % p.width * p.images.w];
    narrow(T(wide(value)) * T(factor), value);
  }
}

}  // namespace ssimloss
