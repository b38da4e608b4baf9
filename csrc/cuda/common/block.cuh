// What the blocks of all kernels do alike: which piece of which plane is theirs, how pixels, what padding
// adds and the incoming gradient are read, how a gradient is written, and the block's sums.
#pragma once

#include "params.h"

namespace ssimloss {

#include "../../ssim_math.h"

// ---- Sums over a block's threads in a fixed order.
template <int lanes>
INLINE double sum_lanes(double v) {  // over so many threads side by side, in the first of them
  for (int step = lanes / 2; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step, lanes);
  return v;
}
// The sums of a and b over all threads of the block, in thread 0. room: 2 doubles for each warp.
INLINE void sum_block(double& a, double& b, double* room) {
  a = sum_lanes<32>(a), b = sum_lanes<32>(b);
  const int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) room[2 * warp] = a, room[2 * warp + 1] = b;
  __syncthreads();
  if (threadIdx.x != 0) return;
  a = b = 0;
  for (int i = 0; i < warps; ++i) a += room[2 * i], b += room[2 * i + 1];
}

// Loss `at` of an output, float64 or float32.
INLINE void put_loss(void* losses, bool as_double, int64_t at, double loss) {
  if (as_double) {
    static_cast<double*>(losses)[at] = loss;
  } else {
    static_cast<float*>(losses)[at] = float(loss);
  }
}

// m = x + y and d = x - y of a pixel, or a base: what is taken off both.
template <class T>
struct Pair {
  T m, d;
};
template <class T>
INLINE Pair<T> operator+(Pair<T> a, Pair<T> b) {
  return {a.m + b.m, a.d + b.d};
}
template <class T>
INLINE Pair<T> operator-(Pair<T> a, Pair<T> b) {
  return {a.m - b.m, a.d - b.d};
}

// A base from three values, of(0) to of(2): the middle one, so that no single huge one or NaN spreads.
template <class Of>
INLINE auto base_of_three(Of of) {
  const auto a = of(0), b = of(1), c = of(2);
  return decltype(of(0)){finite_or_zero(middle(a.m, b.m, c.m)), finite_or_zero(middle(a.d, b.d, c.d))};
}
// A base for K windows side by side, from their inputs of(0) to of(K - 1 + 2 radius): the one in the middle;
// where windows are so narrow that they share none, the middle one of three.
template <int K, class Of>
INLINE auto base_of_windows(int radius, Of of) {
  if (K == 4 && radius < 2) return base_of_three([&](int i) { return of(radius + i + i / 2); });
  const auto v = of(radius + (K - 1) / 2);
  return decltype(of(0)){finite_or_zero(v.m), finite_or_zero(v.d)};
}

// From the mean under a window of v less a value near by, and from that of its square.
template <class T>
INLINE T variance(int radius, T mean, T square) {
  return radius == 0 ? T(0) : not_negative(square - mean * mean);
}

// In the phases along rows a thread has a row and a group of K columns; for K = 8, 8 lanes have two rows of
// four groups.
template <int K>
INLINE int row_of_lane(int thread) {
  return K == 8 ? thread % 32 / 8 * 2 + thread / 4 % 2 : thread % 32 / 8;
}
template <int K>
INLINE int group_of_lane(int thread, int task) {
  return K == 8 ? 4 * task + thread % 4 : 8 * task + thread % 8;
}

// The gradient of gain * |difference|: sign(0) = 0, sign(NaN) = NaN.
template <class T>
INLINE T gradient_of_l1(T difference, T gain) {
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

// See Plane::offset.
template <class T>
__device__ inline T offset_of(const T (&v)[3]) {
  T low = v[0], high = v[0], sum = 0;
  for (int i = 0; i < 3; ++i) {
    low = v[i] < low ? v[i] : low, high = v[i] > high ? v[i] : high;
    sum += v[i];
  }
  const T middle = sum - low - high;
  return (high - low) * T(16) < magnitude(middle) && magnitude(middle) <= T(2) ? middle : T(0);
}

// The first own row and column of a piece.
struct Piece {
  int image, channel, row, col;
};

template <class T>
INLINE Piece piece_of(const KernelParams<T>& p, int index, int bands, int band_rows) {
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

// A plane of a problem.
template <class T>
struct Plane {
  const KernelParams<T>& p;
  int image, channel;

  INLINE int64_t index() const { return int64_t(image) * p.channels + channel; }
  // What zero padding is in d: of a pyramid, less what was taken off.
  INLINE T pad_d() const { return p.pyramid ? -p.offsets[index()] : T(0); }

  // What pixels are multiplied by, to be in units of the data range.
  INLINE T inverse_range() const { return p.inverse_ranges ? T(p.inverse_ranges[image]) : p.inverse_range; }

  // f(a null pointer of the images' type). Weighted: kernels of weights take images of type T alone.
  template <bool Weighted = false, class F>
  INLINE void with_type(F f) const {
    if constexpr (Weighted) {
      f(static_cast<T*>(nullptr));
    } else {
      ssimloss::with_type<T>(p.x.dtype, f);
    }
  }
  // f(x, y): where the pixel is in both images, as pointers of the images' type.
  template <bool Weighted = false, class F>
  INLINE void with_pixels(int64_t row, int64_t col, F f) const {
    const int64_t in_x = p.x.at(image, channel, row, col), in_y = p.y.at(image, channel, row, col);
    with_type<Weighted>([&](auto* tag) {
      using P = decltype(tag);
      f(static_cast<P>(p.x.data) + in_x, static_cast<P>(p.y.data) + in_y);
    });
  }
  // m and d in units of the data range.
  template <bool Weighted = false>
  INLINE Pair<T> pixel(int64_t row, int64_t col) const {
    const T range = inverse_range();
    T a, b;
    with_pixels<Weighted>(row, col, [&](auto* x, auto* y) { a = wide(*x), b = wide(*y); });
    return {p.pyramid ? a : (a + b) * range, p.pyramid ? b : (a - b) * range};
  }
  // x - y, in units of the images.
  template <bool Weighted = false>
  INLINE T difference(int64_t row, int64_t col) const {
    T difference;
    with_pixels<Weighted>(row, col, [&](auto* x, auto* y) { difference = wide(*x) - wide(*y); });
    return difference;
  }
  template <bool Weighted = false>
  INLINE T pixel_l1(int64_t row, int64_t col) const {
    return magnitude(difference<Weighted>(row, col) * inverse_range());
  }
  // What the dyadic form takes off d before it halves it, where the plane is nearly uniform: rounding a
  // halved uniform difference to float32 would cost the digits of its variation. The middle of three values
  // of d, in units of 1, if all three are nearly that.
  __device__ T offset() const {
    T v[3];
    for (int i = 0; i < 3; ++i) {
      const int64_t row = int64_t(p.height) * (2 * i + 1) / 6, col = int64_t(p.width) * (2 * i + 1) / 6;
      v[i] = difference(row, col) * inverse_range();
    }
    return offset_of(v);
  }

  // ---- Under weights: what is known of the plane; and the weight of a pixel, and of what padding adds:
  // zeros weigh as the pixel next to them.
  INLINE PlaneWeights weights() const {
    return p.of_planes ? p.of_planes[index()] : PlaneWeights{1, 1, 0, 0, 0, 1};
  }
  INLINE Pair<T> typical() const {
    return p.of_planes ? Pair<T>{T(p.of_planes[index()].m), T(p.of_planes[index()].d)} : Pair<T>{};
  }
  INLINE T weight(int row, int col) const {
    if (!p.mask.data) return T(1);
    return static_cast<const T*>(p.mask.data)[p.mask.at(image, channel, row, col)] * p.weight_unit;
  }
  INLINE T weight_around(int row, int col) const {
    if (row < 0 || row >= p.height || col < 0 || col >= p.width) {
      if (p.padding == Padding::normalized) return T(0);
      const bool reflect = p.padding == Padding::reflect;
      row = clamped(reflect ? mirrored(row, p.height) : row, 0, p.height - 1);
      col = clamped(reflect ? mirrored(col, p.width) : col, 0, p.width - 1);
    }
    return weight(row, col);
  }

  INLINE bool has_position(int row, int col) const {
    return row >= p.crop && row < p.height - p.crop && col >= p.crop && col < p.width - p.crop;
  }
  // The incoming gradient: that of the plane's loss, and that of a map at a position, which is 0 where there
  // is no position, and mirrored under reflect.
  INLINE T incoming() const { return p.incoming.template of<T>(image); }
  INLINE T incoming_at(int row, int col) const {
    if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
    if (!has_position(row, col)) return T(0);
    return p.grad_map.template element<T>(p.grad_map.at(image, channel, row - p.crop, col - p.crop));
  }
  INLINE void write_loss(int row, int col, T loss) const {  // of a position
    p.loss_map.template element<T>(p.loss_map.at(image, channel, row - p.crop, col - p.crop)) = loss;
  }

  // The gradient at those of N pixels of a column, from row `row` on, that lie in rows [first, end): of_x
  // and, where both are wanted, of_y; halved at edges that reflect, and with the l1 term of the pixel itself,
  // whose x - y is `difference`. Weighted: all of it times the pixel's weight, which a map's l1 has already.
  template <bool Weighted = false, int N>
  INLINE void write_gradient(bool both, int row, int first, int end, int col, Some<N, T>& of_x,
                             Some<N, T>& of_y, const Some<N, T>& difference) const {
    const T col_edge = is_edge(col, p.width, p.padding) ? T(0.5) : T(1);
    const bool with_l1 = p.l1 && !p.l1_windowed;
    T gain = with_l1 ? p.l1_gain * incoming() : T(0);
    if (Weighted && with_l1) gain *= T(weights().l1);
#pragma unroll
    for (int o = 0; o < N; ++o) {
      T edge = is_edge(row + o, p.height, p.padding) ? T(0.5) * col_edge : col_edge, weight_here = 1;
      if constexpr (Weighted) {
        weight_here = row + o >= first && row + o < end ? weight(row + o, col) : T(0);
        edge *= weight_here;
      }
      of_x[o] *= edge;
      if (both) of_y[o] *= edge;
      if (Weighted && weight_here == 0) {
        of_x[o] = of_y[o] = T(0);
        continue;
      }
      if (!with_l1 || row + o < first || row + o >= end) continue;
      const T own = Weighted ? gain * weight_here : gain;
      const T by = gradient_of_l1(difference[o], p.grad_map.data ? gain * incoming_at(row + o, col) : own);
      of_x[o] += by;
      if (both) of_y[o] -= by;
    }
    with_type<Weighted>([&](auto* tag) {
      const auto write = [&](const View& to, const Some<N, T>& from) {
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

  // The block's sums, added in a fixed order, as those of the piece that owns this row and column. AllPixels:
  // with its share of the l1 terms of the plane's pixels, whatever the padding, where these are not blurred.
  // room: shared memory of two doubles for each warp.
  template <bool AllPixels = false, bool Weighted = false, class Sum>
  INLINE void write_sums(int row, int col, Sum ssim, Sum l1, void* room) const {
    if (!p.sums) return;
    const int piece = row / p.band_rows * p.strips + col / p.own, pieces = p.strips * p.bands;
    if (AllPixels && p.l1 && !p.l1_windowed) {
      const int64_t pixels = int64_t(p.height) * p.width, step = int64_t(pieces) * blockDim.x;
#pragma unroll 1
      for (int64_t i = int64_t(piece) * blockDim.x + threadIdx.x; i < pixels; i += step) {
        const T here = Weighted ? weight(int(i / p.width), int(i % p.width)) : T(1);
        if (Weighted && here == 0) continue;
        const T one = pixel_l1<Weighted>(i / p.width, i % p.width);
        l1 += Sum(Weighted ? here * one : one);
      }
    }
    double all_ssim = ssim, all_l1 = l1;
    sum_block(all_ssim, all_l1, static_cast<double*>(room));
    if (threadIdx.x != 0) return;
    double* sums = p.sums + 2 * (index() * pieces + piece);
    if (Weighted) all_ssim *= weights().ssim, all_l1 *= weights().l1;
    sums[0] = all_ssim, sums[1] = all_l1;
  }
};

// m or d in units of the data range, less a base, from values a of x and b of y.
struct Reading {
  float by_b, scale, base;
  INLINE float operator()(float a, float b) const { return fmaf(fmaf(by_b, b, a), scale, -base); }
};

// Both. Of a pyramid m is x and d is y; the other one is then multiplied by 0, as a NaN reaches the whole
// plane anyway. Sums: x is x + y, or m, and y is x - y, or d.
template <bool Sums = false>
struct Values {
  Reading of_m, of_d;
  bool pyramid;

  INLINE Values(bool pyramid_, float inverse_range, Pair<float> base) : pyramid(pyramid_) {
    const float by = pyramid ? 0.f : 1.f, scale = pyramid ? 1.f : inverse_range;
    of_m = {by, scale, base.m}, of_d = {-by, scale, base.d};
  }
  INLINE const Reading& of(bool d) const { return d ? of_d : of_m; }
  INLINE Pair<float> operator()(float x, float y) const {
    if (Sums) return {x * of_m.scale - of_m.base, y * of_d.scale - of_d.base};
    return {of_m(x, y), of_d(pyramid ? y : x, y)};
  }
};

// The bases of cells side by side in shared memory: those of m, and `d` elements further those of d.
struct Cells {
  float* m;
  int d;
  INLINE Pair<float> operator[](int cell) const { return {m[cell], m[cell + d]}; }
  INLINE Cells from(int first) const { return {m + first, d}; }
  INLINE void set(int cell, Pair<float> base) const { m[cell] = base.m, m[cell + d] = base.d; }
};

// ---- Rows of pixels on their way into shared memory, with what padding adds. Of columns [first, first +
// count) of a row each of `lanes` threads in turn has four, or one where pixels do not lie in fours: four(k,
// x, y) from column first + k on, and one(k, x, y) where they are not all inside; x and y are null where
// padding is.
template <class E, class FourAt, class OneAt>
INLINE void fill_row(const Plane<float>& plane, E*, int row, int first, int count, int lane, int lanes,
                     FourAt four, OneAt one) {
  const KernelParams<float>& p = plane.p;
  const bool reflect = p.padding == Padding::reflect;
  if (reflect) row = mirrored(row, p.height);
  const bool exists = row >= 0 && row < p.height;
  const auto row_of = [&](const View& v) {
    return static_cast<const E*>(v.data) + v.at(plane.image, plane.channel, exists ? row : 0, 0);
  };
  const E *x = row_of(p.x), *y = row_of(p.y);
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
INLINE void copy_row(const Plane<float>& plane, E* tag, int row, int first, int count, int lane, int lanes,
                     float pad_d, float* to_x, float* to_y) {
  fill_row(
      plane, tag, row, first, count, lane, lanes,
      [&](int k, const E* x, const E* y) {
        if (x) return copy<4>(x, to_x + k), copy<4>(y, to_y + k);
        put(Some<4>{}, to_x + k), put(Some<4>{pad_d, pad_d, pad_d, pad_d}, to_y + k);
      },
      [&](int k, const E* x, const E* y) {
        if (x) return copy<1>(x, to_x + k), copy<1>(y, to_y + k);
        to_x[k] = 0.f, to_y[k] = pad_d;
      });
}

}  // namespace ssimloss
