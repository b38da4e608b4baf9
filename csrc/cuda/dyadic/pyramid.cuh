// The dyadic form's own kernels: halved images where the strips do not make them, and what becomes of the
// levels' sums and gradients.
//
//   pool     a thread owns one pixel of a level: the 2 x 2 means of m = x + y and d = x - y of the level
//            above. Reads 4 pixels of two images, writes one of each: 8 bytes an element of the finer level,
//            2 written
//   combine  its first blocks own the losses: the levels' partial sums in a fixed order, the logarithms of
//            ssim_math's dyadic form, the mean over planes. The others own some rows of one plane of the
//            finest level each; they work the levels' factors out for themselves (a few thousand bytes from
//            the L2 cache; there are few of them) and give gradient * factor + that of the pixels above it
//            / 4, / 16, ... (the adjoint of pool): 4 bytes read (8 + 4 more for l1), 4 written a gradient
#pragma once

#include "../api.h"
#include "../common/block.cuh"
#include "../common/cover.cuh"
#include "../common/offset.cuh"

namespace ssimloss {

struct PoolParams {
  View x, y;  // images, or m and d
  View m, d;  // out, d less the plane's offset (offset.cuh)
  DType dtype;
  bool pyramid;
  int channels, height, width;  // of x and y
  double inverse_range;
  void* offsets;  // [planes]: written by the first level, read by all
};

// T: the arithmetic type, and that of m and d.
template <class T>
__global__ void __launch_bounds__(256) pool_kernel(const __grid_constant__ PoolParams p) {
  const int height = p.height / 2 + p.height % 2, width = p.width / 2 + p.width % 2;
  const int64_t blocks_a_plane = (int64_t(height) * width + 255) / 256;
  const int64_t plane = blockIdx.x / blocks_a_plane;
  const int64_t at = blockIdx.x % blocks_a_plane * 256 + threadIdx.x;
  if (at >= int64_t(height) * width) return;
  const int64_t image = plane / p.channels, channel = plane % p.channels;
  const auto pixel = [&](const View& of, int64_t row, int64_t col) {
    return read_pixel<T>(of.data, p.dtype, of.at(image, channel, row, col));
  };
  T* offsets = static_cast<T*>(p.offsets);
  const auto difference = [&](int64_t row, int64_t col) {
    return pixel(p.x, row, col) - pixel(p.y, row, col);
  };
  const T offset = p.pyramid ? offsets[plane] : offset_of<T>(difference, p.height, p.width, p.inverse_range);
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
    const T a = pixel(p.x, from, at_col), b = pixel(p.y, from, at_col);
    m[i] = p.pyramid ? a : (a + b) * T(p.inverse_range);
    d[i] = p.pyramid ? b : (a - b) * T(p.inverse_range) - offset;
  }
  p.m.plane<T>(image, channel)[row * p.m.h + col * p.m.w] = T(0.25) * ((m[0] + m[1]) + (m[2] + m[3]));
  p.d.plane<T>(image, channel)[row * p.d.h + col * p.d.w] = T(0.25) * ((d[0] + d[1]) + (d[2] + d[3]));
}

struct CombineParams {
  int levels;
  const double* sums[cuda_max_levels];  // [planes][pieces][2]
  int64_t pieces[cuda_max_levels];
  double count[cuda_max_levels];  // positions of a plane
  double weights[cuda_max_levels];
  double ssim_weight, l1_weight;
  // Losses, each the mean of as many planes; every loss_stride-th number of `losses` is one.
  int64_t outputs, planes_an_output;
  void* losses;
  bool losses_double;
  int loss_stride;
  int loss_blocks;
  // Gradients of planes [first_plane, ...).
  int64_t first_plane;
  int channels, height, width, rows;  // rows a block
  DType dtype;
  View fine[2];                            // in and out: the gradients to x and y; the second may be absent
  const void* coarse[2][cuda_max_levels];  // [planes][height][width] of levels 1, 2, ...
  // l1: its gradient is sign(x - y) * gain * incoming * cover; gain 0 without.
  View x, y;
  double l1_gain;
  Padding padding;
  int radius;
  double taps[cuda_max_radius + 1];
  Incoming incoming;
};

constexpr int combine_threads = 256;
constexpr int sum_lanes = 8;  // add up the pieces of one level and plane
constexpr int sums_at_once = combine_threads / sum_lanes;
static_assert(sums_at_once >= 2 * cuda_max_levels);
constexpr size_t combine_shared = 2 * sums_at_once * sizeof(double);

// The mean ssim and l1 terms of levels of planes [first, first + planes), into ssim[planes][levels] and, of
// the finest, l1[planes]. A barrier must follow.
__device__ inline void means_of(const CombineParams& p, int64_t first, int planes, double* ssim, double* l1) {
  const int sum = int(threadIdx.x) / sum_lanes, plane = sum / p.levels, level = sum % p.levels;
  const bool exists = plane < planes;
  double of_ssim = 0, of_l1 = 0;
  if (exists) {
    const double* sums = p.sums[level] + 2 * (first + plane) * p.pieces[level];
#pragma unroll 4
    for (int64_t i = threadIdx.x % sum_lanes; i < p.pieces[level]; i += sum_lanes)
      of_ssim += sums[2 * i], of_l1 += sums[2 * i + 1];
  }
#pragma unroll
  for (int step = sum_lanes / 2; step > 0; step /= 2) {
    of_ssim += __shfl_down_sync(0xffffffffu, of_ssim, step, sum_lanes);
    of_l1 += __shfl_down_sync(0xffffffffu, of_l1, step, sum_lanes);
  }
  if (!exists || threadIdx.x % sum_lanes != 0) return;
  ssim[sum] = of_ssim / p.count[level];
  if (level == 0) l1[plane] = of_l1 / p.count[0];
}

struct LogMeanOf {  // as log_mean of ../../windows.h
  double value, slope;
};
__device__ inline LogMeanOf log_mean_of(double e) {
  constexpr double knee = 0.05;
  const double m = 1 - e;
  if (m > knee) return {log1p(-e), 1 / m};
  const double slope = 1 / (2 * knee - m);
  return {log(knee * knee * slope), slope};
}

__device__ inline double log_product(const CombineParams& p, const double* ssim) {  // [levels]
  double logs = 0;
  for (int level = 0; level < p.levels; ++level) logs += p.weights[level] * log_mean_of(ssim[level]).value;
  return logs;
}

__device__ inline void loss_of(const CombineParams& p, int64_t output, double* ssim, double* l1) {
  const int at_once = sums_at_once / p.levels;
  double loss = 0, nothing = 0;
  for (int64_t done = 0; done < p.planes_an_output; done += at_once) {
    const int64_t left = p.planes_an_output - done;
    const int planes = left < at_once ? int(left) : at_once;
    means_of(p, output * p.planes_an_output + done, planes, ssim, l1);
    __syncthreads();
    if (int(threadIdx.x) < planes) {
      loss += p.ssim_weight * -expm1(log_product(p, ssim + int(threadIdx.x) * p.levels));
      if (p.l1_weight != 0) loss += p.l1_weight * l1[threadIdx.x];
    }
    __syncthreads();
  }
  sum_block(loss, nothing, ssim);
  if (threadIdx.x != 0) return;
  loss /= double(p.planes_an_output);
  if (p.losses_double) {
    static_cast<double*>(p.losses)[output * p.loss_stride] = loss;
  } else {
    static_cast<float*>(p.losses)[output * p.loss_stride] = float(loss);
  }
}

template <class T>
__global__ void __launch_bounds__(combine_threads) combine_kernel(const __grid_constant__ CombineParams p) {
  double *ssim = reinterpret_cast<double*>(ssimloss_shared), *l1 = ssim + sums_at_once;
  if (int(blockIdx.x) < p.loss_blocks) {
    for (int64_t output = blockIdx.x; output < p.outputs; output += p.loss_blocks) {
      loss_of(p, output, ssim, l1);
      __syncthreads();  // its sum has been read
    }
    return;
  }
  const int block = int(blockIdx.x) - p.loss_blocks, blocks_a_plane = (p.height + p.rows - 1) / p.rows;
  const int plane = block / blocks_a_plane, first_row = block % blocks_a_plane * p.rows;
  const int image = plane / p.channels, channel = plane % p.channels;

  // The product's derivative with respect to each level's mean, times the share of a pixel in its pixels.
  const double incoming = p.incoming.of<double>(image);
  means_of(p, p.first_plane + plane, 1, ssim, l1);
  __syncthreads();
  T* factors = reinterpret_cast<T*>(l1);  // [levels]; the l1 term's mean has no use here
  if (int(threadIdx.x) < p.levels) {
    const int level = int(threadIdx.x);
    const double slope = p.weights[level] * log_mean_of(ssim[level]).slope;
    factors[level] = T(incoming * exp(log_product(p, ssim)) * slope / double(int64_t(1) << 2 * level));
  }
  __syncthreads();

  const int rows = p.height - first_row < p.rows ? p.height - first_row : p.rows;
  for (unsigned at = threadIdx.x; at < unsigned(rows) * unsigned(p.width); at += combine_threads) {
    const int row0 = first_row + int(at / unsigned(p.width)), col0 = int(at % unsigned(p.width));
    T by_l1 = 0;
    if (p.l1_gain != 0) {
      const T gain = T(p.l1_gain) * T(incoming) *
                     T(cover(row0, p.height, p.padding, p.taps, p.radius) *
                       cover(col0, p.width, p.padding, p.taps, p.radius));
      const T x = read_pixel<T>(p.x.data, p.dtype, p.x.at(image, channel, row0, col0));
      const T y = read_pixel<T>(p.y.data, p.dtype, p.y.at(image, channel, row0, col0));
      by_l1 = gradient_of_l1(x - y, gain);
    }
#pragma unroll
    for (int of_y = 0; of_y < 2; ++of_y) {
      if (!p.fine[of_y].data) continue;
      const int64_t fine = p.fine[of_y].at(image, channel, row0, col0);
      T gradient = read_pixel<T>(p.fine[of_y].data, p.dtype, fine) * factors[0];
      int row = row0, col = col0, height = p.height, width = p.width;
      for (int level = 1; level < p.levels; ++level) {
        row = (row + height % 2) / 2, col = (col + width % 2) / 2;
        height = height / 2 + height % 2, width = width / 2 + width % 2;
        const T* coarse = static_cast<const T*>(p.coarse[of_y][level]) + int64_t(plane) * height * width;
        gradient += factors[level] * coarse[int64_t(row) * width + col];
      }
      write_pixel(gradient + (of_y ? -by_l1 : by_l1), p.fine[of_y].data, p.dtype, fine);
    }
  }
}

}  // namespace ssimloss
