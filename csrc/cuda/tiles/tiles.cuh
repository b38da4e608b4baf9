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
  int piece, row0, col0;
  int col = int(threadIdx.x) % tile_width<T>, group = int(threadIdx.x) / tile_width<T> * tile_outputs;
  Plane<T> plane;
  T pad_d = plane.pad_d();
  bool inside = false;  // all that is going to be read is in the image

  __device__ __forceinline__ TilePlane(const TileParams<T>& params, int first)
      : TilePlane(params, first, int(blockIdx.x) / (params.strips * params.bands)) {}
  __device__ __forceinline__ TilePlane(const TileParams<T>& params, int first, int index)
      : p(params),
        piece(int(blockIdx.x) % (p.strips * p.bands)),
        row0(first + piece / p.strips * tile_height),
        col0(first + piece % p.strips * tile_width<T>),
        plane{params, index / p.channels, index % p.channels} {}

  // f(row, first column) for every 4 columns of so many rows, which the threads take in turn.
  template <class F>
  __device__ __forceinline__ void each_line(int rows, F f) const {
    constexpr int groups = tile_width<T> / tile_outputs;
    for (int task = int(threadIdx.x); task < rows * groups; task += tile_threads<T>)
      f(task / groups, task % groups * tile_outputs);
  }

  // m and d at any place, also outside.
  __device__ __forceinline__ void read(int row, int col, T& m, T& d) const {
    if (!inside) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
      if (row < 0 || row >= p.height || col < 0 || col >= p.width) {
        m = 0, d = pad_d;
        return;
      }
    }
    T a, b;
    plane.with_pixels(row, col, [&](auto* x, auto* y) { a = wide(*x), b = wide(*y); });
    m = p.pyramid ? a : (a + b) * p.inverse_range;
    d = p.pyramid ? b : (a - b) * p.inverse_range;
  }

  // Rows [row, row + tile_height) and columns [col, col + tile_width) with a window's reach around them.
  __device__ __forceinline__ void reach(int row, int col, int radius) {
    inside = row >= radius && row + tile_height + radius <= p.height && col >= radius &&
             col + tile_width<T> + radius <= p.width;
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

// f(i, add) for every input i of a thread's windows, from 0 to tile_outputs - 1 + 2 radius, where add(v,
// sums) adds v to sums[o] with the weight that the input has in window o. An input is used for the windows
// that hold it and no others: 0 * NaN would be NaN.
template <class T, class F>
__device__ __forceinline__ void each_input(const T* taps, int radius, F f) {
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

// ---- Means and variances of one row: 4 columns from `col`, means relative to their own pixel.
template <class T>
__device__ __forceinline__ void moments_along(const TilePlane<T>& tile, const T* taps, int radius, int row,
                                              int col, bool with_l1, T* out, int pitch) {
  const auto read = [&](int i, T& m, T& d) { tile.read(row, col - radius + i, m, d); };
  const Base<T> base = typical<T>(radius, read);
  T sums[5][tile_outputs] = {};  // of m, d, their squares, |d|
  each_input(taps, radius, [&](int i, auto add) {
    T m, d;
    read(i, m, d);
    if (with_l1) add(magnitude(d), sums[4]);
    m -= base.m, d -= base.d;
    add(m, sums[0]), add(d, sums[1]), add(m * m, sums[2]), add(d * d, sums[3]);
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    T m, d;
    read(radius + o, m, d);
    out[o] = sums[0][o] + (base.m - m);
    out[pitch + o] = sums[1][o] + (base.d - d);
    out[2 * pitch + o] = variance(radius, sums[0][o], sums[2][o]);
    out[3 * pitch + o] = variance(radius, sums[1][o], sums[3][o]);
    if (with_l1) out[4 * pitch + o] = sums[4][o];
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
__device__ __forceinline__ void moments_down(const TilePlane<T>& tile, const T* taps, int radius, int row,
                                             int col, bool with_l1, const T* in, int pitch,
                                             ColumnMoments<T>& out) {
  const auto read = [&](int i, T& m, T& d) { tile.read(row - radius + i, col, m, d); };
  const Base<T> base = typical<T>(radius, read);
  T sums[5][tile_outputs] = {};
  each_input(taps, radius, [&](int i, auto add) {
    const T* from = in + i * tile_width<T>;
    T m, d;
    read(i, m, d);
    m = (m - base.m) + from[0], d = (d - base.d) + from[pitch];
    add(m, sums[0]), add(d, sums[1]);
    add(m * m + from[2 * pitch], sums[2]), add(d * d + from[3 * pitch], sums[3]);
    if (with_l1) add(from[4 * pitch], sums[4]);
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    out.at[o] = {sums[0][o], sums[1][o], variance(radius, sums[0][o], sums[2][o]),
                 variance(radius, sums[1][o], sums[3][o])};
    out.l1[o] = sums[4][o];
  }
  out.base = base;
}

template <class T>
__global__ void __launch_bounds__(tile_threads<T>) positions_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int width = tile_width<T>, outputs = tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  TilePlane<T> tile(p, p.crop);
  const Plane<T>& plane = tile.plane;

  ColumnMoments<T> mu[max_scales];
  for (int j = 0; j < p.scales; ++j) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = j == p.scales - 1 && p.l1 && p.l1_windowed;
    tile.reach(tile.row0, tile.col0, radius);
    if (j > 0) __syncthreads();
    tile.each_line(rows, [&](int row, int first) {
      moments_along<T>(tile, p.taps[j], radius, tile.row0 - radius + row, tile.col0 + first, with_l1,
                       slots + row * width + first, pitch);
    });
    __syncthreads();
    moments_down<T>(tile, p.taps[j], radius, tile.row0 + tile.group, tile.col0 + tile.col, with_l1,
                    slots + tile.group * width + tile.col, pitch, mu[j]);
  }

  tile.inside = false;
  const int last = p.scales - 1, each = p.maps_a_scale, col = tile.col0 + tile.col;
  const int64_t map_width = p.width - 2 * p.crop, map_size = map_width * (p.height - 2 * p.crop);
  const T ssim_gain = p.ssim_gain * plane.incoming(), l1_gain = p.l1_gain * plane.incoming();
  double sum_ssim = 0, sum_l1 = 0;
#pragma unroll 1
  for (int o = 0; o < outputs; ++o) {
    const int row = tile.row0 + tile.group + o;
    if (!plane.has_position(row, col)) continue;
    const auto moments = [&](int j) {
      const ColumnMoments<T>& from = mu[j];
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
    T m, d, l1 = 0;
    tile.read(row, col, m, d);
    if (p.l1) l1 = p.l1_windowed ? mu[last].l1[o] : magnitude(d);
    sum_ssim += double(loss);
    if (p.l1_windowed) sum_l1 += double(l1);
    if (p.loss_map.data) {
      p.loss_map.write(p.ssim_weight * loss + (p.l1 ? p.l1_weight * l1 : T(0)), plane.image, plane.channel,
                       row - p.crop, col - p.crop);
    }
    if (!p.gradient) continue;

    T* map = p.maps + plane.index() * p.all_maps * map_size + (row - p.crop) * map_width + (col - p.crop);
    T gain = p.grad_map.data ? plane.incoming_at(row, col) : T(1);
    if (is_edge(row, p.height, p.padding)) gain *= T(2);
    if (is_edge(col, p.width, p.padding)) gain *= T(2);
    T before = ssim_gain * gain;
    const T g_l = before * behind[0] * dissimilarity_at(0).cs;
    before *= dissimilarity_at(last).l;
    for (int j = 0; j <= last; ++j, map += each * map_size) {
      const Dissimilarity<T> e = dissimilarity_at(j);
      const T g_cs = p.radii[j] > 0 ? before * behind[j] : T(0);  // as in ring.cuh
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
  if (p.l1 && !p.l1_windowed) plane.add_pixel_l1(tile.piece, p.strips * p.bands, sum_l1);
  __syncthreads();
  plane.write_sums(tile.piece, sum_ssim, sum_l1, slots);
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
  const int64_t map_width = p.width - 2 * p.crop, map_size = map_width * (p.height - 2 * p.crop);
  const int each = p.maps_a_scale;
  const T* maps = p.maps + plane.index() * p.all_maps * map_size;

  // Where in its map the value for a place is, or -1.
  bool all_positions = false;
  const auto place = [&](int row, int column) -> int64_t {
    if (!all_positions) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), column = mirrored(column, p.width);
      if (!plane.has_position(row, column)) return -1;
    }
    return (row - p.crop) * map_width + (column - p.crop);
  };
  // The windows of a thread over maps, those of fetch. Their a is relative to a pixel of its own before and
  // after, and to one base in between.
  const auto blur = [&](const T* taps, int radius, bool with_l1, auto read, auto fetch, T(&out)[5][outputs]) {
    const Base<T> base = typical<T>(radius, read);
    const auto move = [&](int i, T sign, T b_m, T b_d, T& one, T& two) {
      T m, d;
      read(i, m, d);
      one += sign * (b_m * (m - base.m));
      (p.both ? two : one) -= sign * (b_d * (d - base.d));
    };
    each_input(taps, radius, [&](int i, auto add) {
      T v[5];
      if (!fetch(i, v)) return;
      move(i, T(1), v[0], v[1], v[2], v[3]);
      add(v[0], out[0]), add(v[1], out[1]), add(v[2], out[2]);
      if (p.both) add(v[3], out[3]);
      if (with_l1) add(v[4], out[4]);
    });
#pragma unroll
    for (int o = 0; o < outputs; ++o) move(radius + o, T(-1), out[0][o], out[1][o], out[2][o], out[3][o]);
  };

  T sum_x[outputs] = {}, sum_y[outputs] = {}, l1[outputs] = {};
  for (int j = 0; j < p.scales; ++j, maps += each * map_size) {
    const int radius = p.radii[j], rows = tile_height + 2 * radius, pitch = rows * width;
    const bool with_l1 = p.l1 && p.l1_windowed && j == p.scales - 1;
    tile.reach(row0 - p.crop, col0 - p.crop, radius);
    all_positions = tile.inside && row0 + tile_height + radius <= p.height - p.crop &&
                    col0 + width + radius <= p.width - p.crop;
    tile.reach(row0, col0, radius);
    if (j > 0) __syncthreads();
    tile.each_line(rows, [&](int line, int first) {
      const int row = row0 - radius + line, col = col0 + first - radius;
      const auto read = [&](int i, T& m, T& d) { tile.read(row, col + i, m, d); };
      T out[5][outputs] = {};
      blur(
          p.taps[j], radius, with_l1, read,
          [&](int i, T(&v)[5]) {
            const int64_t at = place(row, col + i);
            if (at < 0) return false;
#pragma unroll
            for (int q = 0; q < 3; ++q) v[q] = maps[at + q * map_size];
            if (p.both) v[3] = maps[at + 3 * map_size];
            if (with_l1) v[4] = maps[at + each * map_size];
            return true;
          },
          out);
      T* to = slots + line * width + first;
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
#pragma unroll
        for (int q = 0; q < 5; ++q) {
          if (q < 3 || (q == 3 ? p.both : with_l1)) to[q * pitch + o] = out[q][o];
        }
      }
    });
    __syncthreads();

    const auto read = [&](int i, T& m, T& d) {
      tile.read(row0 + tile.group - radius + i, col0 + tile.col, m, d);
    };
    T out[5][outputs] = {};
    blur(
        p.taps[j], radius, with_l1, read,
        [&](int i, T(&v)[5]) {
          const T* from = slots + (tile.group + i) * width + tile.col;
#pragma unroll
          for (int q = 0; q < 5; ++q) {
            if (q < 3 || (q == 3 ? p.both : with_l1)) v[q] = from[q * pitch];
          }
          return true;
        },
        out);
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
  T difference[outputs] = {};
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
    if (!p.l1) break;
    T m;
    tile.read(first + o, col, m, difference[o]);
    if (!p.l1_windowed) continue;
    const T by = gradient_of_l1(difference[o], l1[o]);
    sum_x[o] += by, sum_y[o] -= by;
  }
  plane.write_gradient(p.both, first, 0, p.height, col, sum_x, sum_y, [&](int o) { return difference[o]; });
}

}  // namespace ssimloss
