// The general kernels: any radius up to 32, up to 16 scales, any dtype; two launches where a gradient is
// wanted. They take float64, and what ring.cuh and scales.cuh have not the shared memory for on a device
// (Turing: the default five scales).
//
//   positions   a block owns 32 x 32 positions of one plane (16 x 32 in float64). For each scale it makes
//               means and variances along the rows (4 columns a thread, pixels from L1) into shared memory,
//               then down the columns (4 rows a thread); after the last scale the product of all, its sum,
//               and of each scale the coefficients b_m, b_d, a (or a_m, a_d) into maps in global memory
//   gradient    a block owns as many pixels; the same two passes blur the maps
// Means and variances are worked out as in ../ring/ring_moments.cuh. Each a is relative to the pixel of its
// own place: differences alone.
//
// For each element and scale of radius r, with h = (32 + 2 r) / 32 the halo:
//   FMA: positions (2 r + 1) (4 h + 4), gradient (2 r + 1) (3 h + 3)
//   shared memory, in accesses of 4 bytes: 4 h written, 4 (4 + 2 r) / 4 read; gradient 3 h, 3 (4 + 2 r) / 4
//   bytes: 8 read, 12 of maps written and read; from L1 8 (4 + 2 r) (h + 1) / 4 and as many for the gradient
#pragma once

#include "../common/formulas.cuh"
#include "tile_plane.cuh"

namespace ssimloss {

// ---- Means and variances of one row: 4 columns from `col`, means relative to their own pixel.
template <class T>
__device__ __forceinline__ void moments_along(const Plane<T>& plane, const T* taps, int radius, int row,
                                              int col, bool with_l1, T* out, int pitch) {
  const auto read = [&](int i, T& m, T& d) { plane.read(row, col - radius + i, m, d); };
  const Base<T> base = typical<T>(radius, read);
  T mean_m[tile_outputs] = {}, mean_d[tile_outputs] = {}, square_m[tile_outputs] = {},
    square_d[tile_outputs] = {}, l1[tile_outputs] = {};
  each_input(taps, radius, [&](int i, const Sliding<T>& weights, auto ends) {
    T m, d;
    read(i, m, d);
    if (with_l1) add<ends>(weights, magnitude(d), l1);
    m -= base.m, d -= base.d;
    add<ends>(weights, m, mean_m);
    add<ends>(weights, d, mean_d);
    add<ends>(weights, m * m, square_m);
    add<ends>(weights, d * d, square_d);
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    T m, d;
    read(radius + o, m, d);
    out[o] = mean_m[o] + (base.m - m);
    out[pitch + o] = radius == 0 ? T(0) : not_negative(square_m[o] - mean_m[o] * mean_m[o]);
    out[2 * pitch + o] = mean_d[o] + (base.d - d);
    out[3 * pitch + o] = radius == 0 ? T(0) : not_negative(square_d[o] - mean_d[o] * mean_d[o]);
    if (with_l1) out[4 * pitch + o] = l1[o];
  }
}

// ---- The same down one column: 4 positions from `row`. in: [quantity][rows][width], from row - radius.
template <class T>
struct ColumnMoments {
  Moments<T> at[tile_outputs];  // mu relative to the base
  Base<T> base;
  T l1[tile_outputs];
};
template <class T>
__device__ __forceinline__ void moments_down(const Plane<T>& plane, const T* taps, int radius, int row,
                                             int col, bool with_l1, const T* in, int pitch,
                                             ColumnMoments<T>& out) {
  const auto read = [&](int i, T& m, T& d) { plane.read(row - radius + i, col, m, d); };
  const Base<T> base = typical<T>(radius, read);
  T mean_m[tile_outputs] = {}, mean_d[tile_outputs] = {}, square_m[tile_outputs] = {},
    square_d[tile_outputs] = {}, l1[tile_outputs] = {};
  each_input(taps, radius, [&](int i, const Sliding<T>& weights, auto ends) {
    const T* from = in + i * tile_width<T>;
    T m, d;
    read(i, m, d);
    m = (m - base.m) + from[0], d = (d - base.d) + from[2 * pitch];
    add<ends>(weights, m, mean_m);
    add<ends>(weights, d, mean_d);
    add<ends>(weights, m * m + from[pitch], square_m);
    add<ends>(weights, d * d + from[3 * pitch], square_d);
    if (with_l1) add<ends>(weights, from[4 * pitch], l1);
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    const T* own = in + o * tile_width<T>;  // of radius 0
    out.at[o] = {mean_m[o], mean_d[o],
                 radius == 0 ? own[pitch] : not_negative(square_m[o] - mean_m[o] * mean_m[o]),
                 radius == 0 ? own[3 * pitch] : not_negative(square_d[o] - mean_d[o] * mean_d[o])};
    out.l1[o] = l1[o];
  }
  out.base = base;
}

template <class T>
__global__ void __launch_bounds__(tile_threads<T>) positions_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int width = tile_width<T>, threads = tile_threads<T>, outputs = tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  const int tiles = p.strips * p.bands;
  const int tile = int(blockIdx.x) % tiles, index = int(blockIdx.x) / tiles;
  Plane<T> plane(p, index);
  const int row0 = p.crop + tile / p.strips * tile_height, col0 = p.crop + tile % p.strips * width;
  const int col = int(threadIdx.x) % width, group = int(threadIdx.x) / width * outputs;

  ColumnMoments<T> mu[max_scales];
  for (int j = 0; j < p.scales; ++j) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = j == p.scales - 1 && p.l1 && p.l1_windowed;
    plane.reach(row0, col0, radius);
    if (j > 0) __syncthreads();
    for (int task = int(threadIdx.x); task < rows * (width / outputs); task += threads) {
      const int row = task / (width / outputs), first = task % (width / outputs) * outputs;
      moments_along<T>(plane, p.taps[j], radius, row0 - radius + row, col0 + first, with_l1,
                       slots + row * width + first, pitch);
    }
    __syncthreads();
    moments_down<T>(plane, p.taps[j], radius, row0 + group, col0 + col, with_l1, slots + group * width + col,
                    pitch, mu[j]);
  }

  plane.inside = false;
  const int last = p.scales - 1;
  const int64_t map_width = p.width - 2 * p.crop, map_size = map_width * (p.height - 2 * p.crop);
  const int each = maps_a_scale(p);
  const T ssim_gain = p.ssim_gain * p.incoming.template of<T>(plane.image),
          l1_gain = p.l1_gain * p.incoming.template of<T>(plane.image);
  double sum_ssim = 0, sum_l1 = 0;
#pragma unroll 1
  for (int o = 0; o < outputs; ++o) {
    const int row = row0 + group + o, at_col = col0 + col;
    if (!plane.has_position(row, at_col)) continue;
    const auto moments = [&](int j) {
      const ColumnMoments<T>& from = mu[j];
      return Moments<T>{from.at[o].mu_m + from.base.m, from.at[o].mu_d + (from.base.d - plane.pad_d),
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
    T m, d, l1 = 0;
    plane.read(row, at_col, m, d);
    if (p.l1) l1 = p.l1_windowed ? mu[last].l1[o] : magnitude(d);
    sum_ssim += double(loss);
    if (p.l1_windowed) sum_l1 += double(l1);
    if (p.loss_map.data) {
      p.loss_map.template plane<T>(
          plane.image, plane.channel)[(row - p.crop) * p.loss_map.h + (at_col - p.crop) * p.loss_map.w] =
          p.ssim_weight * loss + (p.l1 ? p.l1_weight * l1 : T(0));
    }
    if (!p.gradient) continue;

    T* map =
        p.maps + int64_t(index) * all_maps(p) * map_size + (row - p.crop) * map_width + (at_col - p.crop);
    T gain = plane.incoming_at(row, at_col);
    if (is_edge(row, p.height, p.padding)) gain *= T(2);
    if (is_edge(at_col, p.width, p.padding)) gain *= T(2);
    T before = ssim_gain * gain;
    const T g_l = before * behind[0] * dissimilarity_at(0).cs;
    before *= dissimilarity_at(last).l;
    for (int j = 0; j <= last; ++j, map += each * map_size) {
      const Dissimilarity<T> e = dissimilarity_at(j);
      const T g_cs = before * behind[j];
      const T delta_m = (m - mu[j].base.m) - mu[j].at[o].mu_m,
              delta_d = (d - mu[j].base.d) - mu[j].at[o].mu_d;
      const Coefficients<T> c = j == last && p.luminance
                                    ? coefficients<true, T>(moments(j), e, delta_m, delta_d, g_l, g_cs)
                                    : coefficients<false, T>(moments(j), e, delta_m, delta_d, g_l, g_cs);
      map[0] = c.b_m;
      map[map_size] = c.b_d;
      map[2 * map_size] = p.both ? c.a_m : c.a_m + c.a_d;
      if (p.both) map[3 * map_size] = c.a_d;
      before *= e.cs;
    }
    if (p.l1 && p.l1_windowed) map[0] = l1_gain * gain;
  }
  if (!p.sums) return;
  if (p.l1 && !p.l1_windowed) {  // every pixel, whatever the padding: shared out over the tiles
    const int64_t pixels = int64_t(p.height) * p.width;
    for (int64_t i = int64_t(tile) * threads + threadIdx.x; i < pixels; i += int64_t(tiles) * threads) {
      T m, d;
      plane.read(int(i / p.width), int(i % p.width), m, d);
      sum_l1 += double(magnitude(d));
    }
  }
  __syncthreads();
  write_sums(p, index, tile, sum_ssim, sum_l1, slots);
}

// ---- The gradient of each pixel from the maps of all scales; maps are mirrored under reflect.
// One block a multiprocessor is asked for at least: without a number ptxas aims at more, and spills on some.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>, 1)
    gradient_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int width = tile_width<T>, threads = tile_threads<T>, outputs = tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  const int tiles = p.strips * p.bands;
  const int tile = int(blockIdx.x) % tiles, index = int(blockIdx.x) / tiles;
  Plane<T> plane(p, index);
  const int row0 = tile / p.strips * tile_height, col0 = tile % p.strips * width;
  const int col = int(threadIdx.x) % width, group = int(threadIdx.x) / width * outputs;
  const int64_t map_width = p.width - 2 * p.crop, map_size = map_width * (p.height - 2 * p.crop);
  const int each = maps_a_scale(p);
  const bool windowed_l1 = p.l1 && p.l1_windowed;
  const T* maps = p.maps + int64_t(index) * all_maps(p) * map_size;

  // Where in its map the value for a place is, or -1.
  bool all_positions = false;
  const auto place = [&](int row, int column) -> int64_t {
    if (all_positions) return (row - p.crop) * map_width + (column - p.crop);
    if (p.padding == Padding::reflect) row = mirrored(row, p.height), column = mirrored(column, p.width);
    if (!plane.has_position(row, column)) return -1;
    return (row - p.crop) * map_width + (column - p.crop);
  };

  T sum_x[outputs] = {}, sum_y[outputs] = {}, l1[outputs] = {};
  for (int j = 0; j < p.scales; ++j, maps += each * map_size) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = windowed_l1 && j == p.scales - 1;
    plane.reach(row0 - p.crop, col0 - p.crop, radius);
    all_positions = plane.inside && row0 + tile_height + radius <= p.height - p.crop &&
                    col0 + width + radius <= p.width - p.crop;
    plane.reach(row0, col0, radius);
    if (j > 0) __syncthreads();
    for (int task = int(threadIdx.x); task < rows * (width / outputs); task += threads) {
      const int row = row0 - radius + task / (width / outputs),
                first = col0 + task % (width / outputs) * outputs;
      const auto read = [&](int i, T& m, T& d) { plane.read(row, first - radius + i, m, d); };
      const Base<T> base = typical<T>(radius, read);
      T out[5][outputs] = {};
      each_input(p.taps[j], radius, [&](int i, const Sliding<T>& weights, auto ends) {
        const int64_t at = place(row, first - radius + i);
        if (at < 0) return;
        T m, d;
        read(i, m, d);
        const T b_m = maps[at], b_d = maps[at + map_size];
        const T moved_m = b_m * (m - base.m), moved_d = b_d * (d - base.d);
        const T a = maps[at + 2 * map_size] + moved_m;
        add<ends>(weights, b_m, out[0]);
        add<ends>(weights, b_d, out[1]);
        add<ends>(weights, p.both ? a : a - moved_d, out[2]);
        if (p.both) add<ends>(weights, maps[at + 3 * map_size] - moved_d, out[3]);
        if (with_l1) add<ends>(weights, maps[at + each * map_size], out[4]);
      });
      T* to = slots + (row - row0 + radius) * width + (first - col0);
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
        T m, d;
        read(radius + o, m, d);
        const T moved_m = out[0][o] * (m - base.m), moved_d = out[1][o] * (d - base.d);
        to[o] = out[0][o];
        to[pitch + o] = out[1][o];
        to[2 * pitch + o] = p.both ? out[2][o] - moved_m : out[2][o] - moved_m + moved_d;
        if (p.both) to[3 * pitch + o] = out[3][o] + moved_d;
        if (with_l1) to[4 * pitch + o] = out[4][o];
      }
    }
    __syncthreads();

    const auto read = [&](int i, T& m, T& d) { plane.read(row0 + group - radius + i, col0 + col, m, d); };
    const Base<T> base = typical<T>(radius, read);
    T out[4][outputs] = {};
    each_input(p.taps[j], radius, [&](int i, const Sliding<T>& weights, auto ends) {
      const T* from = slots + (group + i) * width + col;
      T m, d;
      read(i, m, d);
      const T b_m = from[0], b_d = from[pitch];
      const T moved_m = b_m * (m - base.m), moved_d = b_d * (d - base.d);
      const T a = from[2 * pitch] + moved_m;
      add<ends>(weights, b_m, out[0]);
      add<ends>(weights, b_d, out[1]);
      add<ends>(weights, p.both ? a : a - moved_d, out[2]);
      if (p.both) add<ends>(weights, from[3 * pitch] - moved_d, out[3]);
      if (with_l1) add<ends>(weights, from[4 * pitch], l1);
    });
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      T m, d;
      read(radius + o, m, d);
      const T moved_m = out[0][o] * (m - base.m), moved_d = out[1][o] * (d - base.d);
      const T by_m = out[2][o] - moved_m, by_d = out[3][o] + moved_d;
      sum_x[o] += p.both ? by_m + by_d : by_m + moved_d;
      if (p.both) sum_y[o] += by_m - by_d;
    }
  }

  plane.inside = false;
  const T pixel_gain = p.l1 && !p.l1_windowed ? p.l1_gain * p.incoming.template of<T>(plane.image) : T(0);
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
    const int row = row0 + group + o, at_col = col0 + col;
    if (row >= p.height || at_col >= p.width) continue;
    T edge = T(1);
    if (is_edge(row, p.height, p.padding)) edge *= T(0.5);
    if (is_edge(at_col, p.width, p.padding)) edge *= T(0.5);
    T x = edge * sum_x[o], y = edge * sum_y[o];
    if (p.l1) {
      T gain = edge * l1[o];
      if (!p.l1_windowed) {
        gain = pixel_gain * plane.incoming_at(row, at_col);
      }
      T m, d;
      plane.read(row, at_col, m, d);
      const T by = gradient_of_l1(d, gain);
      x += by, y -= by;
    }
    write_pixel(x, p.grad_x.data, p.dtype, p.grad_x.at(plane.image, plane.channel, row, at_col));
    if (p.both) write_pixel(y, p.grad_y.data, p.dtype, p.grad_y.at(plane.image, plane.channel, row, at_col));
  }
}

}  // namespace ssimloss
