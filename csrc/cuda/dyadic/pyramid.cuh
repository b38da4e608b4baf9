// The dyadic form's own kernels: halved images where the strips do not make them, and what becomes of the
// levels' sums and gradients.
//
//   pool     a thread owns one pixel of a level: the 2 x 2 means of m = x + y and d = x - y of the level
//            above, under its mask, if there is one. Reads 4 pixels of two images, writes one of each: 8
//            bytes an element of the finer level, 2 written
//   combine  its first blocks own the losses: the levels' partial sums in a fixed order, the logarithms of
//            ssim_math's dyadic form, the mean over planes. The others own some rows of one plane of the
//            finest level each; they work the levels' factors out for themselves (a few thousand bytes from
//            the L2 cache; there are few of them) and give gradient * factor + that of the pixels above it
//            / 4, / 16, ... (the adjoint of pool): 4 bytes read (8 + 4 more for l1), 4 written a gradient
#pragma once

#include "../../windows.h"
#include "../common/block.cuh"

namespace ssimloss {

// T: the arithmetic type, and that of m and d.
template <class T>
struct PoolParams : KernelParams<T> {
  View m, d;         // out, d less the plane's offset
  View next_mask;    // out, under a mask: then m and d are means under it
  T* plane_offsets;  // out, written by the first level
  OddSide odd_side;
};

template <class T, bool Weighted>
__global__ void __launch_bounds__(256) pool_kernel(const __grid_constant__ PoolParams<T> p) {
  const Halving down{p.height, p.odd_side}, across{p.width, p.odd_side};
  const int64_t size = int64_t(down.size()) * across.size(), blocks_a_plane = (size + 255) / 256;
  const int index = int(blockIdx.x / blocks_a_plane);
  const Plane<T> plane{p, index / p.channels, index % p.channels};
  const int64_t at = blockIdx.x % blocks_a_plane * 256 + threadIdx.x;
  if (at >= size) return;
  const T offset = p.pyramid ? -plane.pad_d() : Weighted ? T(plane.weights().offset) : plane.offset();
  if (!p.pyramid && at == 0) p.plane_offsets[index] = offset;

  const int row = int(at / across.size()), col = int(at % across.size());
  Pair<T> v[4];
  T weight[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int from = i / 2 ? down.second(row) : down.first(row);
    const int from_col = i % 2 ? across.second(col) : across.first(col);
    v[i] = {T(0), -offset};
    if constexpr (Weighted) {  // a zero before the first pixel weighs as that
      weight[i] = plane.weight(max(from, 0), max(from_col, 0));
      if (weight[i] == 0) v[i] = {};
      if (weight[i] == 0) continue;
    }
    if (from >= 0 && from_col >= 0)
      v[i] = plane.template pixel<Weighted>(from, from_col) - Pair<T>{T(0), p.pyramid ? T(0) : offset};
    if constexpr (Weighted) v[i] = {weight[i] * v[i].m, weight[i] * v[i].d};
  }
  const Pair<T> sum = (v[0] + v[1]) + (v[2] + v[3]);
  T by = T(0.25);
  if constexpr (Weighted) {
    const T all = (weight[0] + weight[1]) + (weight[2] + weight[3]);
    by = all == 0 ? T(0) : T(1) / all;
    p.next_mask.template element<T>(p.next_mask.at(plane.image, plane.channel, row, col)) =
        T(0.25) * (all / p.weight_unit);
  }
  const int64_t to = p.m.at(plane.image, plane.channel, row, col);
  p.m.template element<T>(to) = by * sum.m, p.d.template element<T>(to) = by * sum.d;
}

// Of the finest level, whose gradients are in and out.
template <class T>
struct CombineParams : KernelParams<T> {
  int levels;
  struct {
    const double* sums;  // [planes][pieces][2]
    int64_t pieces;
    double count;  // positions of a plane; under a mask 1, as the sums are means
    double weight;
    const T* gradient[2];  // of x and y, [planes][height][width] but of the finest
    const T* mask;         // the same
  } level[cuda_max_levels];
  OddSide odd_side;
  bool clamp;
  double of_ssim, of_l1;  // weights of the two terms
  // Losses, each the mean of as many planes; every loss_stride-th number of `losses` is one.
  int64_t outputs, planes_an_output;
  void* losses;
  bool losses_double;
  int loss_stride;
  int loss_blocks;
  int rows;  // a block of gradients
  double taps[cuda_max_radius + 1];
  // Under weights: l1's gradient, and what all gradients are multiplied by.
  View l1_gradient;
  double grad_scale;
};

constexpr int combine_threads = 256;
constexpr int lanes_a_sum = 8;  // add up the pieces of one level and plane
constexpr int sums_at_once = combine_threads / lanes_a_sum;
static_assert(sums_at_once >= 2 * cuda_max_levels);
constexpr size_t combine_shared = 2 * sums_at_once * sizeof(double);

// The mean ssim and l1 terms of levels of planes [first, first + planes), into ssim[planes][levels] and, of
// the finest, l1[planes]. A barrier must follow.
template <class T>
__device__ inline void means_of(const CombineParams<T>& p, int64_t first, int planes, double* ssim,
                                double* l1) {
  const int sum = int(threadIdx.x) / lanes_a_sum, plane = sum / p.levels, level = sum % p.levels;
  const bool exists = plane < planes;
  double of_ssim = 0, of_l1 = 0;
  if (exists) {
    const double* sums = p.level[level].sums + 2 * (first + plane) * p.level[level].pieces;
#pragma unroll 4
    for (int64_t i = threadIdx.x % lanes_a_sum; i < p.level[level].pieces; i += lanes_a_sum)
      of_ssim += sums[2 * i], of_l1 += sums[2 * i + 1];
  }
  of_ssim = sum_lanes<lanes_a_sum>(of_ssim), of_l1 = sum_lanes<lanes_a_sum>(of_l1);
  if (!exists || threadIdx.x % lanes_a_sum != 0) return;
  ssim[sum] = of_ssim / p.level[level].count;
  if (level == 0) l1[plane] = of_l1 / p.level[0].count;
}

template <class T>
__device__ inline double log_product(const CombineParams<T>& p, const double* ssim) {  // [levels]
  double logs = 0;
  for (int level = 0; level < p.levels; ++level)
    logs += log_power(ssim[level], p.level[level].weight, p.clamp).value;
  return logs;
}

template <bool Weighted, class T>
__device__ inline void loss_of(const CombineParams<T>& p, int64_t output, double* ssim, double* l1) {
  const int at_once = sums_at_once / p.levels;
  double loss = 0, nothing = 0;
  for (int64_t done = 0; done < p.planes_an_output; done += at_once) {
    const int64_t left = p.planes_an_output - done;
    const int planes = left < at_once ? int(left) : at_once;
    const int64_t first = output * p.planes_an_output + done;
    means_of(p, first, planes, ssim, l1);
    __syncthreads();
    if (int(threadIdx.x) < planes) {
      const double counts = Weighted && p.of_planes ? p.of_planes[first + threadIdx.x].planes : 1;
      loss += counts * p.of_ssim * -expm1(log_product(p, ssim + int(threadIdx.x) * p.levels));
      if (p.of_l1 != 0) loss += p.of_l1 * l1[threadIdx.x];
    }
    __syncthreads();
  }
  sum_block(loss, nothing, ssim);
  if (threadIdx.x != 0) return;
  put_loss(p.losses, p.losses_double, output * p.loss_stride, loss / double(p.planes_an_output));
}

// Weighted: with a number of blocks, or ptxas takes so few registers that some spill.
template <class T, bool Weighted>
__global__ void __launch_bounds__(combine_threads, Weighted ? 4 : 0)
    combine_kernel(const __grid_constant__ CombineParams<T> p) {
  double *ssim = reinterpret_cast<double*>(ssimloss_shared), *l1 = ssim + sums_at_once;
  if (int(blockIdx.x) < p.loss_blocks) {
    for (int64_t output = blockIdx.x; output < p.outputs; output += p.loss_blocks) {
      loss_of<Weighted>(p, output, ssim, l1);
      __syncthreads();  // its sum has been read
    }
    return;
  }
  const int block = int(blockIdx.x) - p.loss_blocks, blocks_a_plane = (p.height + p.rows - 1) / p.rows;
  const int index = block / blocks_a_plane, first_row = block % blocks_a_plane * p.rows;
  const Plane<T> plane{p, index / p.channels, index % p.channels};

  // The product's derivative with respect to each level's mean, times the share of a pixel in its pixels.
  const double incoming = p.incoming.template of<double>(plane.image);
  means_of(p, index, 1, ssim, l1);
  __syncthreads();
  T* factors = reinterpret_cast<T*>(l1);  // [levels], and one more; the l1 term's mean has no use here
  if (int(threadIdx.x) < p.levels) {
    const int level = int(threadIdx.x);
    const double slope = log_power(ssim[level], p.level[level].weight, p.clamp).slope;
    double factor = incoming * exp(log_product(p, ssim)) * slope / double(int64_t(1) << 2 * level);
    if (Weighted) factor *= p.grad_scale / p.level[level].count * plane.weights().planes;
    factors[level] = T(factor);
  }
  if (Weighted && int(threadIdx.x) == p.levels)  // l1's
    factors[p.levels] = T(incoming * p.grad_scale / p.level[0].count);
  __syncthreads();

  const int rows = p.height - first_row < p.rows ? p.height - first_row : p.rows;
  for (unsigned at = threadIdx.x; at < unsigned(rows) * unsigned(p.width); at += combine_threads) {
    const int row0 = first_row + int(at / unsigned(p.width)), col0 = int(at % unsigned(p.width));
    T by_l1 = 0;
    if (!Weighted && p.l1_gain != 0) {  // sign(x - y) * gain * incoming * cover
      const T gain = p.l1_gain * T(incoming) *
                     T(cover(row0, p.height, p.padding, p.taps, p.radius) *
                       cover(col0, p.width, p.padding, p.taps, p.radius));
      by_l1 = gradient_of_l1(plane.difference(row0, col0), gain);
    }
    T own = 1;
    if constexpr (Weighted) {
      own = plane.weight(row0, col0) / p.weight_unit;
      if (p.l1_gradient.data) {
        by_l1 = factors[p.levels] *
                p.l1_gradient.template element<T>(p.l1_gradient.at(plane.image, plane.channel, row0, col0));
      }
    }
#pragma unroll
    for (int of_y = 0; of_y < (Weighted ? 1 : 2); ++of_y) {
      const View fine = of_y ? p.grad_y : p.grad_x;
      if (!fine.data) continue;
      const int64_t place = fine.at(plane.image, plane.channel, row0, col0);
      T* const alone = static_cast<T*>(fine.data) + (Weighted ? place : 0);
      T gradient = (Weighted ? *alone : fine.template read<T>(place)) * factors[0];
      T share = 1;
      int row = row0, col = col0;
      Halving down{p.height, p.odd_side}, across{p.width, p.odd_side};
      for (int level = 1; level < p.levels; ++level) {
        const int times = down.times(row) * across.times(col);
        if (times == 0) break;
        if (times > 1) share *= T(times);
        row = down.of(row), col = across.of(col);
        down.n = down.size(), across.n = across.size();
        const int64_t at = (int64_t(index) * down.n + row) * across.n + col;
        T coarse = p.level[level].gradient[of_y][at];
        if (Weighted && p.mask.data) {
          const T all = p.level[level].mask[at];
          coarse = all == 0 ? T(0) : coarse * (own / all);
        }
        gradient += factors[level] * share * coarse;
      }
      if (Weighted) {
        *alone = own == 0 ? T(0) : gradient + by_l1;  // where a factor is NaN, too
      } else {
        fine.write(gradient + (of_y ? -by_l1 : by_l1), place);
      }
    }
  }
}

}  // namespace ssimloss
