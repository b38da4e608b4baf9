// What the kernels of tiles.cuh share: their parameters, the pixels of a plane, and a thread's windows.
#pragma once

#include <type_traits>

#include "../common/block.cuh"

namespace ssimloss {

constexpr int tile_outputs = 4;  // a thread makes side by side, or one below the other
constexpr int tile_height = 32;

template <class T>
constexpr int tile_width = sizeof(T) == 8 ? 16 : 32;
template <class T>
constexpr int tile_threads = tile_width<T> * tile_height / tile_outputs;

// strips and bands are the tiles across and down.
template <class T>
struct TileParams : KernelParams<T> {
  bool gradient;  // positions: maps are wanted
  bool both;      // gradients
  int scales;
  int radii[max_scales];
  T taps[max_scales][33];
  T* maps;  // [planes][map][height - 2 crop][width - 2 crop]
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
template <class T>
struct Plane {
  const TileParams<T>& p;
  int image, channel;
  T pad_d;
  bool inside = false;  // all that is going to be read is in the image

  __device__ Plane(const TileParams<T>& params, int plane)
      : p(params),
        image(plane / params.channels),
        channel(plane % params.channels),
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
    const T a = read_pixel<T>(p.x.data, p.dtype, p.x.at(image, channel, row, col));
    const T b = read_pixel<T>(p.y.data, p.dtype, p.y.at(image, channel, row, col));
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
    return p.grad_map.data ? ssimloss::incoming_at(p, image, channel, row, col) : T(1);
  }
};

// A finite value from inside every one of a thread's windows; narrow windows share none: then the middle
// one of three, so that no huge one spreads. read(i, m, d), i from 0 to tile_outputs - 1 + 2 radius.
template <class T>
struct Base {
  T m, d;
};
template <class T, class Read>
__device__ __forceinline__ Base<T> typical(int radius, Read read) {
  Base<T> v;
  read(radius + (tile_outputs - 1) / 2, v.m, v.d);
  if (2 * radius + 1 < tile_outputs) {
    Base<T> a, b;
    read(radius, a.m, a.d);
    read(radius + tile_outputs - 1, b.m, b.d);
    v.m = middle(a.m, v.m, b.m), v.d = middle(a.d, v.d, b.d);
  }
  return {finite_or_zero(v.m), finite_or_zero(v.d)};
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
