// The general kernels: any radius up to 32, up to 16 scales, any dtype; two launches where a gradient is
// wanted. They take float64, and what ring.cuh and scales.cuh have not the shared memory for on a device
// (Turing: the default five scales).
//
//   positions   a block owns 32 x 32 positions of one plane (16 x 32 in float64). For each scale it makes
//               means and variances by ../common/tile.cuh, pixels from L1; after the last scale the product
//               of all, its sum, and of each scale the coefficients b_m, b_d, a (or a_m, a_d) into maps in
//               global memory
//   gradient    a block owns as many pixels; the same two passes blur the maps
//
// For each element and scale of radius r, with h = (32 + 2 r) / 32 the halo:
//   FMA: positions (2 r + 1) (4 h + 4), gradient (2 r + 1) (3 h + 3)
//   shared memory, in accesses of 4 bytes: 4 h written, 4 (4 + 2 r) / 4 read; gradient 3 h, 3 (4 + 2 r) / 4
//   bytes: 8 read, 12 of maps written and read; from L1 8 (4 + 2 r) (h + 1) / 4 and as many for the gradient
#pragma once

#include "../common/portions.h"
#include "../common/tile.cuh"

namespace ssimloss {

// strips and bands are the tiles across and down.
template <class T>
struct TileParams : KernelParams<T> {
  bool gradient;  // positions: maps are wanted
  bool both;      // gradients
  int scales;
  HalfWindow<T> windows[max_scales];
  LaunchRows rows;
  T* maps;                     // [planes][map][rows.ring_rows][width - 2 crop]
  int maps_a_scale, all_maps;  // of a plane; the last one of all is l1's gain, where l1 is windowed
};

// Pixels of a block's plane in the arithmetic type, with what padding adds.
template <class T>
struct TilePixels {
  Plane<T> plane;
  T pad_d = plane.pad_d();
  bool inside = false;  // all that is going to be read is in the image

  // m and d at any place, also outside.
  INLINE Pair<T> read(int row, int col) const {
    const KernelParams<T>& p = plane.p;
    if (!inside) {
      if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
      if (row < 0 || row >= p.height || col < 0 || col >= p.width) return {T(0), pad_d};
    }
    return plane.pixel(row, col);
  }

  // Whether a tile with a window's reach around it is in the plane, or in its positions.
  INLINE bool holds(const Tile<T>& tile, int radius, int crop = 0) const {
    return tile.row0 >= crop + radius && tile.row0 + tile_height + radius <= plane.p.height - crop &&
           tile.col0 >= crop + radius && tile.col0 + tile_width<T> + radius <= plane.p.width - crop;
  }
};

}  // namespace ssimloss
#include "weighted.cuh"
namespace ssimloss {

// Those of weighted.cu: apart, as a compiler inlines less where there is more.
struct WeightedTiles {
  void (*positions)(TileParams<double>);
  void (*gradient)(TileParams<double>);
};
WeightedTiles weighted_tiles();

// Weighted: by weighted.cuh; then means are less the pixel of their own place.
template <class T, bool Weighted>
__global__ void __launch_bounds__(tile_threads<T>, tile_blocks<T>)
    positions_kernel(const __grid_constant__ TileParams<T> p) {
  const Piece own = piece_of(p, int(blockIdx.x), p.rows.bands, p.band_rows);
  const Tile<T> tile{p.rows.first + own.row, p.crop + own.col};
  TilePixels<T> pixels{{p, own.image, own.channel}};
  const Plane<T>& plane = pixels.plane;

  struct {
    Numbers<T> at[tile_outputs];  // means less the base
    Pair<T> base;
  } mu[max_scales];
  T inverse[Weighted ? max_scales : 1][tile_outputs];  // of the blurred weights
  for (int j = 0; j < p.scales; ++j) {
    const HalfWindow<T>& window = p.windows[j];
    if constexpr (Weighted) {
      mu[j].base = {};
      weighted_moments(pixels, tile, window, mu[j].at, inverse[j]);
      continue;
    }
    pixels.inside = pixels.holds(tile, window.radius);
    if (j > 0) __syncthreads();
    mu[j].base = moments_of_tile(
        tile, window, window, j == p.scales - 1 && p.l1_windowed,
        [&](int row, int col) { return pixels.read(row, col); }, mu[j].at);
  }

  pixels.inside = false;
  const int last = p.scales - 1, each = p.maps_a_scale, col = tile.col0 + tile.col;
  T ssim_gain = p.ssim_gain * plane.incoming(), l1_gain = p.l1_gain * plane.incoming();
  if constexpr (Weighted) {
    const PlaneWeights of_plane = plane.weights();
    ssim_gain *= T(of_plane.ssim), l1_gain *= T(of_plane.l1);
  }
  double sum_ssim = 0, sum_l1 = 0;
#pragma unroll 1
  for (int o = 0; o < tile_outputs; ++o) {
    const int row = tile.row0 + tile.group + o;
    if (!plane.has_position(row, col)) continue;
    const T weight = Weighted ? plane.weight(row, col) : T(1);
    if (Weighted && weight == 0) {
      leave_out(p, plane, row, col);
      continue;
    }
    Pair<T> here{};
    if constexpr (Weighted) here = plane.pixel(row, col);
    const auto moments = [&](int j) {
      const Numbers<T>& from = mu[j].at[o];
      if constexpr (Weighted)
        return Moments<T>{from[0] + here.m, from[1] + (here.d - pixels.pad_d), from[2], from[3]};
      return Moments<T>{from[0] + mu[j].base.m, from[1] + (mu[j].base.d - pixels.pad_d), from[2], from[3]};
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
    const Pair<T> pixel = Weighted ? here : pixels.read(row, col);
    T l1 = 0;
    if (p.l1) l1 = p.l1_windowed ? mu[last].at[o][4] : magnitude(pixel.d);
    sum_ssim += double(Weighted ? weight * loss : loss);
    if (p.l1_windowed) sum_l1 += double(Weighted ? weight * l1 : l1);
    if (p.loss_map.data) plane.write_loss(row, col, p.ssim_weight * loss + (p.l1 ? p.l1_weight * l1 : T(0)));
    if (!p.gradient) continue;

    T* map =
        p.maps + plane.index() * p.all_maps * p.map_size + p.rows.in_ring(row) * p.map_width + (col - p.crop);
    T gain = p.grad_map.data ? plane.incoming_at(row, col) : weight;
    if (is_edge(row, p.height, p.padding)) gain *= T(2);
    if (is_edge(col, p.width, p.padding)) gain *= T(2);
    T before = ssim_gain * gain;
    const T g_l = before * behind[0] * dissimilarity_at(0).cs;
    before *= dissimilarity_at(last).l;
    for (int j = 0; j <= last; ++j, map += each * p.map_size) {
      const Dissimilarity<T> e = dissimilarity_at(j);
      T g_cs = p.windows[j].radius > 0 ? before * behind[j] : T(0);  // as in ring.cuh
      Pair<T> delta = (pixel - mu[j].base) - Pair<T>{mu[j].at[o][0], mu[j].at[o][1]};
      T g_l_here = g_l;
      if constexpr (Weighted) {
        delta = Pair<T>{} - Pair<T>{mu[j].at[o][0], mu[j].at[o][1]};
        g_cs *= inverse[j][o], g_l_here *= inverse[j][o];
      }
      const Coefficients<T> c = j == last && p.luminance
                                    ? coefficients<true, T>(moments(j), e, delta.m, delta.d, g_l_here, g_cs)
                                    : coefficients<false, T>(moments(j), e, delta.m, delta.d, g_l_here, g_cs);
      map[0] = c.b_m;
      map[p.map_size] = c.b_d;
      map[2 * p.map_size] = p.both ? c.a_m : c.a_m + c.a_d;
      if (p.both) map[3 * p.map_size] = c.a_d;
      before *= e.cs;
    }
    if (p.l1_windowed) map[0] = Weighted ? inverse[last][o] * (l1_gain * gain) : l1_gain * gain;
  }
  plane.template write_sums<true, Weighted>(tile.row0 - p.crop, tile.col0 - p.crop, sum_ssim, sum_l1,
                                            ssimloss_shared);
}

// ---- The gradient of each pixel from the maps of all scales; maps are mirrored under reflect.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>, tile_blocks<T>)
    gradient_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int outputs = tile_outputs;
  const Piece own = piece_of(p, int(blockIdx.x), p.rows.bands, p.band_rows);
  const Tile<T> tile{p.rows.first + own.row, own.col};
  TilePixels<T> pixels{{p, own.image, own.channel}};
  const Plane<T>& plane = pixels.plane;
  const T* maps = p.maps + plane.index() * p.all_maps * p.map_size;

  Some<outputs, T> sum_x{}, sum_y{}, difference{};
  T l1[outputs] = {};
  for (int j = 0; j < p.scales; ++j, maps += p.maps_a_scale * p.map_size) {
    const HalfWindow<T>& window = p.windows[j];
    const bool all_positions = pixels.holds(tile, window.radius, p.crop);
    const Planes planes{p.both, p.l1_windowed && j == p.scales - 1};
    const auto fetch = [&](int row, int col, Numbers<T>& v) {
      if (!all_positions) {
        if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
        if (!plane.has_position(row, col)) return false;
      }
      v = planes.load(maps + (p.rows.in_ring(row) * p.map_width + (col - p.crop)), p.map_size);
      return true;
    };
    pixels.inside = pixels.holds(tile, window.radius);
    if (j > 0) __syncthreads();
    Numbers<T> out[outputs];
    maps_of_tile(
        tile, window, window, planes, [&](int row, int col) { return pixels.read(row, col); }, fetch, out);
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      sum_x[o] += p.both ? out[o][2] + out[o][3] : out[o][2];
      if (p.both) sum_y[o] += out[o][2] - out[o][3];
      if (planes.fifth) l1[o] = out[o][4];
    }
  }

  pixels.inside = false;
  const int first = tile.row0 + tile.group, col = tile.col0 + tile.col;
  if (col >= p.width) return;
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
    if (!p.l1) break;
    difference[o] = pixels.read(first + o, col).d;
    if (!p.l1_windowed) continue;
    const T by = gradient_of_l1(difference[o], l1[o]);
    sum_x[o] += by, sum_y[o] -= by;
  }
  plane.write_gradient(p.both, first, 0, p.height, col, sum_x, sum_y, difference);
}

}  // namespace ssimloss
