// What the kernels of tiles.cuh share: their parameters, the pixels of a plane, and a thread's windows.
#pragma once

#include <type_traits>

#include "../common/pixels.cuh"

namespace ssimloss {

constexpr int tile_outputs = 4;  // a thread makes side by side, or one below the other
constexpr int tile_height = 32;

template <class T>
constexpr int tile_width = sizeof(T) == 8 ? 16 : 32;
template <class T>
constexpr int tile_threads = tile_width<T> * tile_height / tile_outputs;

template <class T>
struct TileParams {
  View x, y;
  View grad_x, grad_y, loss_map, grad_map;
  DType grad_map_dtype;
  bool pyramid;   // x and y are m and d
  bool gradient;  // positions: maps are wanted
  bool both;      // gradients
  bool luminance, l1, l1_windowed;
  int channels, height, width, crop;
  int tiles_across, tiles_down;
  Padding padding;
  int scales;
  int radius[max_scales];
  T taps[max_scales][33];
  T c1, c2, inverse_range, ssim_weight, l1_weight, ssim_gain, l1_gain;
  const void* incoming;
  bool incoming_double;
  int64_t incoming_stride;
  const T* offsets;
  double* sums;  // [planes][tiles][2]
  T* maps;       // [planes][map][height - 2 crop][width - 2 crop]
};

template <class T>
__host__ __device__ inline int maps_a_scale(const TileParams<T>& p) {
  return p.both ? 4 : 3;
}
template <class T>
__host__ __device__ inline int all_maps(const TileParams<T>& p) {  // the last one is l1's gain
  return p.scales * maps_a_scale(p) + (p.l1 && p.l1_windowed ? 1 : 0);
}

// One plane: pixels in the arithmetic type, with what padding adds.
template <class E, class T>
struct Plane {
  const TileParams<T>& p;
  int image, channel;
  const E *x, *y;
  T pad_d;
  bool inside = false;  // all that is going to be read is in the image

  __device__ Plane(const TileParams<T>& params, int plane)
      : p(params),
        image(plane / params.channels),
        channel(plane % params.channels),
        x(params.x.template plane<E>(image, channel)),
        y(params.y.template plane<E>(image, channel)),
        pad_d(params.pyramid ? -params.offsets[plane] : T(0)) {}

  // m and d at any place, also outside.
  __device__ __forceinline__ void read(int row, int col, T& m, T& d) const {
    if (!inside) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
      if (row < 0 || row >= p.height || col < 0 || col >= p.width) {
        m = 0, d = pad_d;
        return;
      }
    }
    const T a = T(wide(x[row * p.x.h + col * p.x.w])), b = T(wide(y[row * p.y.h + col * p.y.w]));
    m = p.pyramid ? a : (a + b) * p.inverse_range;
    d = p.pyramid ? b : (a - b) * p.inverse_range;
  }

  // Rows [row, row + tile_height) and columns [col, col + tile_width) with a window's reach around them.
  __device__ __forceinline__ void reach(int row, int col, int radius) {
    inside = row >= radius && row + tile_height + radius <= p.height && col >= radius &&
             col + tile_width<T> + radius <= p.width;
  }

  __device__ __forceinline__ bool has_position(int row, int col) const {
    return row >= p.crop && row < p.height - p.crop && col >= p.crop && col < p.width - p.crop;
  }

  __device__ __forceinline__ T incoming_at(int row, int col) const {
    if (!p.grad_map.data) return T(1);
    const View& map = p.grad_map;
    return T(read_as(map.data, p.grad_map_dtype,
                     image * map.n + channel * map.c + (row - p.crop) * map.h + (col - p.crop) * map.w));
  }
  __device__ __forceinline__ T incoming() const {
    if (!p.incoming) return T(1);
    const int64_t at = image * p.incoming_stride;
    return p.incoming_double ? T(static_cast<const double*>(p.incoming)[at])
                             : T(static_cast<const float*>(p.incoming)[at]);
  }
};

template <class T>
__device__ __forceinline__ T magnitude(T v) {  // NaN stays NaN
  return v < 0 ? -v : v;
}

// A finite value from inside every one of a thread's windows; narrow windows share none: then the middle
// one of three, so that no huge one spreads. read(i, m, d), i from 0 to tile_outputs - 1 + 2 radius.
template <class T>
struct Base {
  T m, d;
};
template <class T>
__device__ __forceinline__ T between(T v, T a, T b) {
  const T low = a < b ? a : b, high = a < b ? b : a;
  return v < low ? low : (v > high ? high : v);
}
template <class T, class Read>
__device__ __forceinline__ Base<T> typical(int radius, Read read) {
  Base<T> v;
  read(radius + (tile_outputs - 1) / 2, v.m, v.d);
  if (2 * radius + 1 < tile_outputs) {
    Base<T> a, b;
    read(radius, a.m, a.d);
    read(radius + tile_outputs - 1, b.m, b.d);
    v.m = between(v.m, a.m, b.m), v.d = between(v.d, a.d, b.d);
  }
  if (v.m - v.m != T(0)) v.m = 0;
  if (v.d - v.d != T(0)) v.d = 0;
  return v;
}

// The weights of input i for outputs 0, 1, 2, 3, one step after the other.
template <class T>
struct Sliding {
  const T* taps;
  int radius, input = -1;
  T w[tile_outputs] = {};

  __device__ __forceinline__ void next() {
#pragma unroll
    for (int o = tile_outputs - 1; o > 0; --o) w[o] = w[o - 1];
    const int t = ++input - radius;
    w[0] = t <= radius ? taps[t < 0 ? -t : t] : T(0);
  }
};

// sums += w v. At the ends only for the outputs whose window holds v: 0 * NaN would be NaN.
template <bool Ends, class T>
__device__ __forceinline__ void add(const Sliding<T>& by, T v, T (&sums)[tile_outputs]) {
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    if (!Ends || (by.input >= o && by.input - o <= 2 * by.radius)) sums[o] += by.w[o] * v;
  }
}

// f(i, weights, ends) for every input i of a thread's windows.
template <class T, class F>
__device__ __forceinline__ void each_input(const T* taps, int radius, F f) {
  Sliding<T> weights{taps, radius};
  int i = 0;
  for (; i < tile_outputs - 1; ++i) weights.next(), f(i, weights, std::true_type{});
  for (; i <= 2 * radius; ++i) weights.next(), f(i, weights, std::false_type{});
  for (; i < tile_outputs + 2 * radius; ++i) weights.next(), f(i, weights, std::true_type{});
}

}  // namespace ssimloss
