// The general kernels: any radius up to 32, up to 16 scales, any dtype; two launches where a gradient is
// wanted. They take float64, and what ring.cuh and scales.cuh have not the shared memory for on a device
// (Turing: the default five scales).
//
//   positions   a block owns 32 x 32 positions of one plane (16 x 32 in float64). For each scale it makes
//               means and variances along the rows (4 columns a thread, pixels from L1) into shared memory,
//               then down the columns (4 rows a thread); after the last scale the product of all, its sum,
//               and of each scale the coefficients b_m, b_d, a (or a_m, a_d) into maps in global memory
//   gradient    a block owns as many pixels; the same two passes blur the maps
// Means and variances are worked out as in ../ring/ring_block.cuh. Each a is relative to the pixel of its
// own place: differences alone.
//
// For each element and scale of radius r, with h = (32 + 2 r) / 32 the halo:
//   FMA: positions (2 r + 1) (4 h + 4), gradient (2 r + 1) (3 h + 3)
//   shared memory, in accesses of 4 bytes: 4 h written, 4 (4 + 2 r) / 4 read; gradient 3 h, 3 (4 + 2 r) / 4
//   bytes: 8 read, 12 of maps written and read; from L1 8 (4 + 2 r) (h + 1) / 4 and as many for the gradient
#pragma once

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
  T* maps;                     // [planes][map][height - 2 crop][width - 2 crop]
  int maps_a_scale, all_maps;  // of a plane; the last one of all is l1's gain, where l1 is windowed
};

// A block's tile, whose first row and column are row0 and col0; within it a thread has 4 rows from `group` on
// of column `col`. And its plane: pixels in the arithmetic type, with what padding adds.
template <class T>
struct TilePlane {
  const TileParams<T>& p;
  int row0, col0;
  int col = int(threadIdx.x) % tile_width<T>, group = int(threadIdx.x) / tile_width<T> * tile_outputs;
  Plane<T> plane;
  T pad_d = plane.pad_d();
  bool inside = false;  // all that is going to be read is in the image

  INLINE TilePlane(const TileParams<T>& params, int first)
      : TilePlane(params, first, piece_of(params, int(blockIdx.x), params.bands, params.band_rows)) {}
  INLINE TilePlane(const TileParams<T>& params, int first, const Piece& own)
      : p(params), row0(first + own.row), col0(first + own.col), plane{params, own.image, own.channel} {}

  // f(row, first column) for every 4 columns of so many rows, which the threads take in turn.
  template <class F>
  INLINE void each_line(int rows, F f) const {
    constexpr int groups = tile_width<T> / tile_outputs;
    for (int task = int(threadIdx.x); task < rows * groups; task += tile_threads<T>)
      f(task / groups, task % groups * tile_outputs);
  }

  // m and d at any place, also outside.
  INLINE Pair<T> read(int row, int col) const {
    if (!inside) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
      if (row < 0 || row >= p.height || col < 0 || col >= p.width) return {T(0), pad_d};
    }
    return plane.pixel(row, col);
  }

  // Rows [row, row + tile_height) and columns [col, col + tile_width) with a window's reach around them.
  INLINE void reach(int row, int col, int radius) {
    inside = row >= radius && row + tile_height + radius <= p.height && col >= radius &&
             col + tile_width<T> + radius <= p.width;
  }
};

// f(i, add) for every input i of a thread's windows, from 0 to tile_outputs - 1 + 2 radius, where add(v,
// sums) adds v to sums[o] with the weight that the input has in window o. An input is used for the windows
// that hold it and no others: 0 * NaN would be NaN.
template <class T, class F>
INLINE void each_input(const T* taps, int radius, F f) {
  T w[tile_outputs] = {};
  const auto input = [&](int i, auto ends) {
#pragma unroll
    for (int o = tile_outputs - 1; o > 0; --o) w[o] = w[o - 1];
    const int t = i - radius;
    w[0] = t <= radius ? taps[t < 0 ? -t : t] : T(0);
    f(i, [&](T v, T(&sums)[tile_outputs]) {
#pragma unroll
      for (int o = 0; o < tile_outputs; ++o) {
        if (!decltype(ends)::value || (i >= o && i - o <= 2 * radius)) sums[o] += w[o] * v;
      }
    });
  };
  int i = 0;
#pragma unroll 1  // three copies would spill
  for (; i < tile_outputs - 1; ++i) input(i, std::true_type{});
  for (; i <= 2 * radius; ++i) input(i, std::false_type{});
  for (; i < tile_outputs + 2 * radius; ++i) input(i, std::true_type{});
}

// ---- Means and variances under 4 windows side by side. read(i): the pixel of input i; quantities(i, pixel,
// base) of that input: its means less the base, their squares and variances, and the mean of |d|.
template <class T>
struct TileMoments {
  Moments<T> at[tile_outputs];  // mu relative to the base
  Pair<T> base;
  T l1[tile_outputs];
};
template <class T, class Read, class Quantities>
INLINE void moments_of(const T* taps, int radius, bool with_l1, Read read, Quantities quantities,
                       TileMoments<T>& out) {
  out.base = base_of_windows<tile_outputs>(radius, read);
  T sums[5][tile_outputs] = {};
  each_input(taps, radius, [&](int i, auto add) {
    const Some<5, T> v = quantities(i, read(i), out.base);
#pragma unroll
    for (int q = 0; q < 5; ++q) {
      if (q < 4 || with_l1) add(v[q], sums[q]);
    }
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    out.at[o] = {sums[0][o], sums[1][o], variance(radius, sums[0][o], sums[2][o]),
                 variance(radius, sums[1][o], sums[3][o])};
    out.l1[o] = sums[4][o];
  }
}

template <class T>
__global__ void __launch_bounds__(tile_threads<T>) positions_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int width = tile_width<T>, outputs = tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  TilePlane<T> tile(p, p.crop);
  const Plane<T>& plane = tile.plane;

  TileMoments<T> mu[max_scales];
  for (int j = 0; j < p.scales; ++j) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = j == p.scales - 1 && p.l1_windowed;
    tile.reach(tile.row0, tile.col0, radius);
    if (j > 0) __syncthreads();
    // Along the rows: means relative to their own pixel.
    tile.each_line(rows, [&](int line, int first) {
      const int row = tile.row0 - radius + line, col = tile.col0 + first - radius;
      const auto read = [&](int i) { return tile.read(row, col + i); };
      const auto quantities = [&](int, Pair<T> pixel, Pair<T> base) {
        const Pair<T> v = pixel - base;
        return Some<5, T>{v.m, v.d, v.m * v.m, v.d * v.d, magnitude(pixel.d)};
      };
      TileMoments<T> along;
      moments_of(p.taps[j], radius, with_l1, read, quantities, along);
      T* to = slots + line * width + first;
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
        const Pair<T> by = along.base - read(radius + o);
        to[o] = along.at[o].mu_m + by.m, to[pitch + o] = along.at[o].mu_d + by.d;
        to[2 * pitch + o] = along.at[o].s_mm, to[3 * pitch + o] = along.at[o].s_dd;
        if (with_l1) to[4 * pitch + o] = along.l1[o];
      }
    });
    __syncthreads();
    // Down the columns.
    const T* in = slots + tile.group * width + tile.col;
    const auto read = [&](int i) {
      return tile.read(tile.row0 + tile.group - radius + i, tile.col0 + tile.col);
    };
    const auto quantities = [&](int i, Pair<T> pixel, Pair<T> base) {
      const T* from = in + i * width;
      const Pair<T> v = (pixel - base) + Pair<T>{from[0], from[pitch]};
      return Some<5, T>{v.m, v.d, v.m * v.m + from[2 * pitch], v.d * v.d + from[3 * pitch],
                        with_l1 ? from[4 * pitch] : T(0)};
    };
    moments_of(p.taps[j], radius, with_l1, read, quantities, mu[j]);
  }

  tile.inside = false;
  const int last = p.scales - 1, each = p.maps_a_scale, col = tile.col0 + tile.col;
  const T ssim_gain = p.ssim_gain * plane.incoming(), l1_gain = p.l1_gain * plane.incoming();
  double sum_ssim = 0, sum_l1 = 0;
#pragma unroll 1
  for (int o = 0; o < outputs; ++o) {
    const int row = tile.row0 + tile.group + o;
    if (!plane.has_position(row, col)) continue;
    const auto moments = [&](int j) {
      const TileMoments<T>& from = mu[j];
      return Moments<T>{from.at[o].mu_m + from.base.m, from.at[o].mu_d + (from.base.d - tile.pad_d),
                        from.at[o].s_mm, from.at[o].s_dd};
    };
    const auto dissimilarity_at = [&](int j) {
      return j == last && p.luminance ? dissimilarity<true>(moments(j), p.c1, p.c2)
                                      : dissimilarity<false>(moments(j), p.c1, p.c2);
    };
    // The gradient with respect to one factor is the product of the others, l and all cs.
    T behind[max_scales];  // the product of the cs after j
    behind[last] = T(1);
    T loss = dissimilarity_at(last).e_l;
    for (int j = last; j >= 0; --j) {
      const Dissimilarity<T> e = dissimilarity_at(j);
      loss += e.e_cs - loss * e.e_cs;
      if (j > 0) behind[j - 1] = behind[j] * e.cs;
    }
    loss = not_negative(loss);
    const Pair<T> pixel = tile.read(row, col);
    T l1 = 0;
    if (p.l1) l1 = p.l1_windowed ? mu[last].l1[o] : magnitude(pixel.d);
    sum_ssim += double(loss);
    if (p.l1_windowed) sum_l1 += double(l1);
    if (p.loss_map.data) plane.write_loss(row, col, p.ssim_weight * loss + (p.l1 ? p.l1_weight * l1 : T(0)));
    if (!p.gradient) continue;

    T* map = p.maps + plane.index() * p.all_maps * p.map_size + (row - p.crop) * p.map_width + (col - p.crop);
    T gain = p.grad_map.data ? plane.incoming_at(row, col) : T(1);
    if (is_edge(row, p.height, p.padding)) gain *= T(2);
    if (is_edge(col, p.width, p.padding)) gain *= T(2);
    T before = ssim_gain * gain;
    const T g_l = before * behind[0] * dissimilarity_at(0).cs;
    before *= dissimilarity_at(last).l;
    for (int j = 0; j <= last; ++j, map += each * p.map_size) {
      const Dissimilarity<T> e = dissimilarity_at(j);
      const T g_cs = p.radii[j] > 0 ? before * behind[j] : T(0);  // as in ring.cuh
      const Pair<T> delta = (pixel - mu[j].base) - Pair<T>{mu[j].at[o].mu_m, mu[j].at[o].mu_d};
      const Coefficients<T> c = j == last && p.luminance
                                    ? coefficients<true, T>(moments(j), e, delta.m, delta.d, g_l, g_cs)
                                    : coefficients<false, T>(moments(j), e, delta.m, delta.d, g_l, g_cs);
      map[0] = c.b_m;
      map[p.map_size] = c.b_d;
      map[2 * p.map_size] = p.both ? c.a_m : c.a_m + c.a_d;
      if (p.both) map[3 * p.map_size] = c.a_d;
      before *= e.cs;
    }
    if (p.l1_windowed) map[0] = l1_gain * gain;
  }
  plane.template write_sums<true>(tile.row0 - p.crop, tile.col0 - p.crop, sum_ssim, sum_l1, slots);
}

// ---- The gradient of each pixel from the maps of all scales; maps are mirrored under reflect.
// Two blocks a multiprocessor in float, one in double: without a number ptxas aims at more, and spills on
// some.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>, sizeof(T) == 4 ? 2 : 1)
    gradient_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int width = tile_width<T>, outputs = tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  TilePlane<T> tile(p, 0);
  const Plane<T>& plane = tile.plane;
  const int row0 = tile.row0, col0 = tile.col0;
  const int each = p.maps_a_scale;  // where l1's gain is
  const auto has = [&](int q, bool with_l1) { return q < 3 || (q == 3 ? p.both : with_l1); };
  const T* maps = p.maps + plane.index() * p.all_maps * p.map_size;

  // f(where the first of the maps has the value for a place), if there is one.
  bool all_positions = false;
  const auto place = [&](int row, int column, auto f) {
    if (!all_positions) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), column = mirrored(column, p.width);
      if (!plane.has_position(row, column)) return;
    }
    f(maps + ((row - p.crop) * p.map_width + (column - p.crop)));
  };
  // The windows of a thread over maps. with_input(i, f): f(where the first one has input i), if it does; the
  // others are `stride` apart. Their a is relative to a pixel of its own before and after, and to one base in
  // between.
  const auto blur = [&](const T* taps, int radius, bool with_l1, auto read, auto with_input, auto stride,
                        T(&out)[5][outputs]) {
    const Pair<T> base = base_of_windows<outputs>(radius, read);
    const auto move = [&](int i, T sign, T b_m, T b_d, T& one, T& two) {
      const Pair<T> by = read(i) - base;
      one += sign * (b_m * by.m);
      (p.both ? two : one) -= sign * (b_d * by.d);
    };
    each_input(taps, radius, [&](int i, auto add) {
      with_input(i, [&](const T* at) {
        T v[5];
#pragma unroll
        for (int q = 0; q < 5; ++q) {
          if (has(q, with_l1)) v[q] = at[(q < 4 ? q : each) * stride];
        }
        move(i, T(1), v[0], v[1], v[2], v[3]);
#pragma unroll
        for (int q = 0; q < 5; ++q) {
          if (has(q, with_l1)) add(v[q], out[q]);
        }
      });
    });
#pragma unroll
    for (int o = 0; o < outputs; ++o) move(radius + o, T(-1), out[0][o], out[1][o], out[2][o], out[3][o]);
  };

  Some<outputs, T> sum_x{}, sum_y{}, difference{};
  T l1[outputs] = {};
  for (int j = 0; j < p.scales; ++j, maps += each * p.map_size) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = p.l1_windowed && j == p.scales - 1;
    tile.reach(row0 - p.crop, col0 - p.crop, radius);
    all_positions = tile.inside && row0 + tile_height + radius <= p.height - p.crop &&
                    col0 + width + radius <= p.width - p.crop;
    tile.reach(row0, col0, radius);
    if (j > 0) __syncthreads();
    tile.each_line(rows, [&](int line, int first) {
      const int row = row0 - radius + line, col = col0 + first - radius;
      T out[5][outputs] = {};
      blur(
          p.taps[j], radius, with_l1, [&](int i) { return tile.read(row, col + i); },
          [&](int i, auto f) { place(row, col + i, f); }, p.map_size, out);
      T* to = slots + line * width + first;
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
#pragma unroll
        for (int q = 0; q < 5; ++q) {
          if (has(q, with_l1)) to[(q < 4 ? q : each) * pitch + o] = out[q][o];
        }
      }
    });
    __syncthreads();

    const T* from = slots + tile.group * width + tile.col;
    T out[5][outputs] = {};
    blur(
        p.taps[j], radius, with_l1,
        [&](int i) { return tile.read(row0 + tile.group - radius + i, col0 + tile.col); },
        [&](int i, auto f) { f(from + i * width); }, pitch, out);
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      sum_x[o] += p.both ? out[2][o] + out[3][o] : out[2][o];
      if (p.both) sum_y[o] += out[2][o] - out[3][o];
      if (with_l1) l1[o] = out[4][o];
    }
  }

  tile.inside = false;
  const int first = row0 + tile.group, col = col0 + tile.col;
  if (col >= p.width) return;
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
    if (!p.l1) break;
    difference[o] = tile.read(first + o, col).d;
    if (!p.l1_windowed) continue;
    const T by = gradient_of_l1(difference[o], l1[o]);
    sum_x[o] += by, sum_y[o] -= by;
  }
  plane.write_gradient(p.both, first, 0, p.height, col, sum_x, sum_y, difference);
}

}  // namespace ssimloss
