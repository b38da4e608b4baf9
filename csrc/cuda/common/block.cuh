// What the blocks of all kernels do alike: which piece of which plane is theirs, how pixels, what padding
// adds and the incoming gradient are read, how a gradient is written, and the block's sums.
#pragma once

#include "params.h"

// The formulas, under the kernels' compiler flags.
#define SSIMLOSS_FORMULAS
namespace ssimloss {
#include "../../ssim_math.h"
}

namespace ssimloss {

// ---- Sums over a block's threads in a fixed order.
__device__ __forceinline__ double sum_warp(double v) {  // in lane 0
  for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step);
  return v;
}
// The sums of a and b over all threads of the block, in thread 0. room: 2 doubles for each warp.
__device__ __forceinline__ void sum_block(double& a, double& b, double* room) {
  a = sum_warp(a), b = sum_warp(b);
  const int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) room[2 * warp] = a, room[2 * warp + 1] = b;
  __syncthreads();
  if (threadIdx.x != 0) return;
  a = b = 0;
  for (int i = 0; i < warps; ++i) a += room[2 * i], b += room[2 * i + 1];
}

// From the mean under a window of v less a value near by, and from that of its square.
template <class T>
__device__ __forceinline__ T variance(int radius, T mean, T square) {
  return radius == 0 ? T(0) : not_negative(square - mean * mean);
}

// In the phases along rows a thread has a row and a group of K columns; for K = 8, 8 lanes have two rows of
// four groups.
template <int K>
__device__ __forceinline__ int row_of_lane(int thread) {
  return K == 8 ? thread % 32 / 8 * 2 + thread / 4 % 2 : thread % 32 / 8;
}
template <int K>
__device__ __forceinline__ int group_of_lane(int thread, int task) {
  return K == 8 ? 4 * task + thread % 4 : 8 * task + thread % 8;
}

// The gradient of gain * |difference|: sign(0) = 0, sign(NaN) = NaN.
template <class T>
__device__ __forceinline__ T gradient_of_l1(T difference, T gain) {
  return difference > 0 ? gain : (difference < 0 ? -gain : difference * gain);
}

// What an l1 term weighs at row or column i, where it is blurred by the window before it is summed: the sum
// of the window's taps at the positions whose window holds pixel i, 1 but near a border.
template <class T>
__device__ inline T cover(int i, int size, Padding padding, const T* taps, int radius) {
  const int crop = padding == Padding::valid ? radius : 0;
  if (i > radius + crop && i < size - 1 - radius - crop) return T(1);
  T sum = 0;
  for (int t = -radius; t <= radius; ++t) {
    int at = i + t;
    if (padding == Padding::reflect) at = mirrored(at, size);
    if (at < crop || at >= size - crop) continue;
    sum += taps[t < 0 ? -t : t] * (is_edge(at, size, padding) ? T(2) : T(1));
  }
  return is_edge(i, size, padding) ? T(0.5) * sum : sum;
}

// The first own row and column of a piece.
struct Piece {
  int image, channel, row, col;
};

template <class T>
__device__ __forceinline__ Piece piece_of(const KernelParams<T>& p, int index, int bands, int band_rows) {
  const int pieces = p.strips * bands;
  int image, channel;
  if (p.channel_first) {
    channel = index % p.channels, index /= p.channels;
    image = index / pieces, index %= pieces;
  } else {
    image = index / pieces, index %= pieces;
    channel = image % p.channels, image /= p.channels;
  }
  return {image, channel, index / p.strips * band_rows, index % p.strips * p.own};
}

// And back: which piece of its plane.
template <class T>
__device__ __forceinline__ int piece_at(const KernelParams<T>& p, int row, int col) {
  return row / p.band_rows * p.strips + col / p.own;
}

// A plane of a problem.
template <class T>
struct Plane {
  const KernelParams<T>& p;
  int image, channel;

  __device__ __forceinline__ int64_t index() const { return int64_t(image) * p.channels + channel; }
  // What zero padding is in d: of a pyramid, less what was taken off.
  __device__ __forceinline__ T pad_d() const { return p.pyramid ? -p.offsets[index()] : T(0); }

  // f(x, y): where the pixel is in both images, as pointers of the images' type.
  template <class F>
  __device__ __forceinline__ void with_pixels(int64_t row, int64_t col, F f) const {
    const int64_t in_x = p.x.at(image, channel, row, col), in_y = p.y.at(image, channel, row, col);
    with_type<T>(p.x.dtype, [&](auto* tag) {
      using P = decltype(tag);
      f(static_cast<P>(p.x.data) + in_x, static_cast<P>(p.y.data) + in_y);
    });
  }
  // x - y, in units of the images.
  __device__ __forceinline__ T difference(int64_t row, int64_t col) const {
    T difference;
    with_pixels(row, col, [&](auto* x, auto* y) { difference = wide(*x) - wide(*y); });
    return difference;
  }
  __device__ __forceinline__ T pixel_l1(int64_t row, int64_t col) const {
    return magnitude(difference(row, col) * p.inverse_range);
  }
  // A block's share of the l1 terms of all pixels, whatever the padding, where there are `blocks` of a plane.
  template <class Sum>
  __device__ __forceinline__ void add_pixel_l1(int block, int blocks, Sum& sum) const {
    const int64_t pixels = int64_t(p.height) * p.width;
#pragma unroll 1
    for (int64_t i = int64_t(block) * blockDim.x + threadIdx.x; i < pixels; i += int64_t(blocks) * blockDim.x)
      sum += Sum(pixel_l1(i / p.width, i % p.width));
  }

  // What the dyadic form takes off d before it halves it, where the plane is nearly uniform: rounding a
  // halved uniform difference to float32 would cost the digits of its variation. The middle of three values
  // of d, in units of 1, if all three are nearly that.
  __device__ T offset() const {
    T v[3];
    for (int i = 0; i < 3; ++i) {
      const int64_t row = int64_t(p.height) * (2 * i + 1) / 6, col = int64_t(p.width) * (2 * i + 1) / 6;
      v[i] = difference(row, col) * p.inverse_range;
    }
    T low = v[0], high = v[0], sum = 0;
    for (int i = 0; i < 3; ++i) {
      low = v[i] < low ? v[i] : low, high = v[i] > high ? v[i] : high;
      sum += v[i];
    }
    const T middle = sum - low - high;
    return (high - low) * T(16) < magnitude(middle) && magnitude(middle) <= T(2) ? middle : T(0);
  }

  __device__ __forceinline__ bool has_position(int row, int col) const {
    return row >= p.crop && row < p.height - p.crop && col >= p.crop && col < p.width - p.crop;
  }
  // The incoming gradient: that of the plane's loss, and that of a map at a position, which is 0 where there
  // is no position, and mirrored under reflect.
  __device__ __forceinline__ T incoming() const { return p.incoming.template of<T>(image); }
  __device__ __forceinline__ T incoming_at(int row, int col) const {
    if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
    if (!has_position(row, col)) return T(0);
    return T(p.grad_map.read_any(image, channel, row - p.crop, col - p.crop));
  }

  // The gradient at those of N pixels of a column, from row `row` on, that lie in rows [first, end): of_x
  // and, where both are wanted, of_y; halved at edges that reflect, and with the l1 term of the pixel itself,
  // whose x - y is difference(o).
  template <int N, class Difference>
  __device__ __forceinline__ void write_gradient(bool both, int row, int first, int end, int col,
                                                 T (&of_x)[N], T (&of_y)[N], Difference difference) const {
    const T col_edge = is_edge(col, p.width, p.padding) ? T(0.5) : T(1);
    const bool with_l1 = p.l1 && !p.l1_windowed;
    const T gain = with_l1 ? p.l1_gain * incoming() : T(0);
#pragma unroll
    for (int o = 0; o < N; ++o) {
      const T edge = is_edge(row + o, p.height, p.padding) ? T(0.5) * col_edge : col_edge;
      of_x[o] *= edge;
      if (both) of_y[o] *= edge;
      if (!with_l1 || row + o < first || row + o >= end) continue;
      const T by = gradient_of_l1(difference(o), p.grad_map.data ? gain * incoming_at(row + o, col) : gain);
      of_x[o] += by;
      if (both) of_y[o] -= by;
    }
    with_type<T>(p.x.dtype, [&](auto* tag) {
      const auto write = [&](const View& to, const T(&from)[N]) {
        auto* at = static_cast<decltype(tag)>(to.data) + to.at(image, channel, row, col);
#pragma unroll
        for (int o = 0; o < N; ++o) {
          if (row + o >= first && row + o < end) narrow(from[o], at[o * to.h]);
        }
      };
      write(p.grad_x, of_x);
      if (both) write(p.grad_y, of_y);
    });
  }

  // The block's sums, added in a fixed order, as those of piece `piece`. room: shared memory of two doubles
  // for each warp.
  __device__ __forceinline__ void write_sums(int piece, double ssim, double l1, void* room) const {
    sum_block(ssim, l1, static_cast<double*>(room));
    if (threadIdx.x != 0) return;
    double* sums = p.sums + 2 * (index() * p.strips * p.bands + piece);
    sums[0] = ssim, sums[1] = l1;
  }
};

// m or d in units of the data range, less a base, from values a of x and b of y.
struct Reading {
  float by_b, scale, base;
  __device__ __forceinline__ float operator()(float a, float b) const {
    return fmaf(fmaf(by_b, b, a), scale, -base);
  }
};

// ---- Rows of pixels on their way into shared memory, with what padding adds. Of columns [first, first +
// count) of a row each of `lanes` threads in turn has four, or one where pixels do not lie in fours: four(k,
// x, y) from column first + k on, and one(k, x, y) where they are not all inside; x and y are null where
// padding is.
template <class E, class FourAt, class OneAt>
__device__ __forceinline__ void fill_row(const Plane<float>& plane, E*, int row, int first, int count,
                                         int lane, int lanes, FourAt four, OneAt one) {
  const KernelParams<float>& p = plane.p;
  const bool reflect = p.padding == Padding::reflect;
  if (reflect) row = mirrored(row, p.height);
  const bool exists = row >= 0 && row < p.height;
  const E* x = p.x.plane<E>(plane.image, plane.channel) + (exists ? row : 0) * p.x.h;
  const E* y = p.y.plane<E>(plane.image, plane.channel) + (exists ? row : 0) * p.y.h;
  const int step = p.in_fours ? 4 : 1;
#pragma unroll 1
  for (int k = step * lane; k < count; k += step * lanes) {
    const int from = first + k;
    if (p.in_fours && exists && from >= 0 && from + 4 <= p.width) {
      four(k, x + from, y + from);
      continue;
    }
    if (p.in_fours && !reflect && (!exists || from <= -4 || from >= p.width)) {
      four(k, static_cast<const E*>(nullptr), static_cast<const E*>(nullptr));
      continue;
    }
#pragma unroll 1
    for (int u = 0; u < step; ++u) {
      const int col = reflect ? mirrored(from + u, p.width) : from + u;
      const bool inside = exists && col >= 0 && col < p.width;
      one(k + u, inside ? x + col * p.x.w : nullptr, inside ? y + col * p.y.w : nullptr);
    }
  }
}
// The same into two rows of float, as they are: x, and 0 where padding is; y, and pad_d.
template <class E>
__device__ __forceinline__ void copy_row(const Plane<float>& plane, E* tag, int row, int first, int count,
                                         int lane, int lanes, float pad_d, float* to_x, float* to_y) {
  fill_row(
      plane, tag, row, first, count, lane, lanes,
      [&](int k, const E* x, const E* y) {
        if (x) return copy_four(x, to_x + k), copy_four(y, to_y + k);
        put<4>({0.f, 0.f, 0.f, 0.f}, to_x + k), put<4>({pad_d, pad_d, pad_d, pad_d}, to_y + k);
      },
      [&](int k, const E* x, const E* y) {
        if (x) return copy_one(x, to_x + k), copy_one(y, to_y + k);
        to_x[k] = 0.f, to_y[k] = pad_d;
      });
}

}  // namespace ssimloss
