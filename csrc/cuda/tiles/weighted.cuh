// tiles.cuh under weights: for float64 images. The plainest: a thread reads each pixel and each map under its
// windows one by one.
//
//   positions           the base of a position is its own pixel, which is kept, or there is nothing to do
//   weighted_gradient   a pixel's weight times the maps around it; one gradient at a time
//
// For each element and scale of radius r: (2 r + 1)^2 times 12 FMA, and for a gradient as many again.
// Included by tiles.cuh, between its pixels and its kernels.
#pragma once

namespace ssimloss {

// f(dy, dx, weight of the window) for all places of a window.
template <class T, class F>
INLINE void each_place(const HalfWindow<T>& window, F f) {
  const int r = window.radius;
#pragma unroll 1
  for (int dy = -r; dy <= r; ++dy) {
    const T down = window.taps[dy < 0 ? -dy : dy];
#pragma unroll 1
    for (int dx = -r; dx <= r; ++dx) f(dy, dx, down * window.taps[dx < 0 ? -dx : dx]);
  }
}

// Of a thread's positions: means less the pixel there, variances and the mean of |d|, and the inverses of the
// blurred weights.
template <class T>
INLINE void weighted_moments(const TilePixels<T>& pixels, const Tile<T>& tile, const HalfWindow<T>& window,
                             Numbers<T> (&out)[tile_outputs], T (&inverse)[tile_outputs]) {
  const Plane<T>& plane = pixels.plane;
#pragma unroll 1
  for (int o = 0; o < tile_outputs; ++o) {
    const int row = tile.row0 + tile.group + o, col = tile.col0 + tile.col;
    if (!plane.has_position(row, col) || plane.weight(row, col) == 0) continue;
    const Pair<T> pixel = plane.pixel(row, col);
    Numbers<T> sums{};
    T weights = 0;
    each_place(window, [&](int dy, int dx, T tap) {
      tap *= plane.weight_around(row + dy, col + dx);
      if (tap == 0) return;
      const Pair<T> here = pixels.read(row + dy, col + dx), by = here - pixel;
      weights += tap;
      sums[0] += tap * by.m, sums[1] += tap * by.d;
      sums[2] += tap * by.m * by.m, sums[3] += tap * by.d * by.d, sums[4] += tap * magnitude(here.d);
    });
    const T by = inverse[o] = T(1) / weights;
#pragma unroll
    for (int q = 0; q < 5; ++q) sums[q] *= by;
    sums[2] = variance(window.radius, sums[0], sums[2]), sums[3] = variance(window.radius, sums[1], sums[3]);
    out[o] = sums;
  }
}

// A position of weight 0.
template <class T>
INLINE void leave_out(const TileParams<T>& p, const Plane<T>& plane, int row, int col) {
  if (p.loss_map.data) plane.write_loss(row, col, T(0));
  if (!p.gradient) return;
  T* map =
      p.maps + plane.index() * p.all_maps * p.map_size + p.rows.in_ring(row) * p.map_width + (col - p.crop);
#pragma unroll 1
  for (int q = 0; q < p.all_maps; ++q) map[q * p.map_size] = T(0);
}

template <class T>
__global__ void __launch_bounds__(tile_threads<T>)
    weighted_gradient_kernel(const __grid_constant__ TileParams<T> p) {
  constexpr int outputs = tile_outputs;
  const Piece own = piece_of(p, int(blockIdx.x), p.rows.bands, p.band_rows);
  const Tile<T> tile{p.rows.first + own.row, own.col};
  const Plane<T> plane{p, own.image, own.channel};
  const int first = tile.row0 + tile.group, col = tile.col0 + tile.col;
  if (col >= p.width) return;
#pragma unroll 1
  for (int o = 0; o < outputs; ++o) {
    const int row = first + o;
    if (row >= p.height) return;
    Some<1, T> gradient{}, nothing{}, difference{};
    if (plane.weight(row, col) != 0) {
      const Pair<T> pixel = plane.pixel(row, col);
      T l1 = 0;
      const T* maps = p.maps + plane.index() * p.all_maps * p.map_size;
#pragma unroll 1
      for (int j = 0; j < p.scales; ++j, maps += p.maps_a_scale * p.map_size) {
        each_place(p.windows[j], [&](int dy, int dx, T tap) {
          int at_row = row + dy, at_col = col + dx;
          if (p.padding == Padding::reflect)
            at_row = mirrored(at_row, p.height), at_col = mirrored(at_col, p.width);
          if (!plane.has_position(at_row, at_col) || plane.weight(at_row, at_col) == 0) return;
          const T* map = maps + (p.rows.in_ring(at_row) * p.map_width + (at_col - p.crop));
          const Pair<T> by = pixel - plane.pixel(at_row, at_col);
          gradient[0] += tap * (map[2 * p.map_size] - map[0] * by.m + map[p.map_size] * by.d);
          if (p.l1_windowed && j == p.scales - 1) l1 += tap * map[p.maps_a_scale * p.map_size];
        });
      }
      if (p.l1_windowed) gradient[0] += gradient_of_l1(pixel.d, l1);
      difference[0] = pixel.d;
    }
    plane.template write_gradient<true>(false, row, 0, p.height, col, gradient, nothing, difference);
  }
}

}  // namespace ssimloss
