// The kernels of volumes: windows of up to 65 taps along each of depth, height and width, any dtype, in
// launches that hand over in global memory:
//   moments   a block owns 32 x 32 places of one slice (16 x 32 in float64): means and variances along the
//             rows and down the columns, by ../common/tile.cuh -> scratch
//   depth     a thread has 4 positions, one behind the other: means and variances along the depth; the loss
//             and its sum, and the coefficients b_m, b_d, a (or a_m, a_d) -> maps
//   spread    the maps blurred along the depth, in the place of the moments -> scratch
//   voxels    blurred along the rows and down the columns of a slice, as in `moments` -> gradient
//
// For each voxel and radius r, with h = (32 + 2 r) / 32 the halo: FMA, moments (2 r + 1) (4 h + 4), depth
// (2 r + 1) 4, spread (2 r + 1) 3, voxels (2 r + 1) (3 h + 3); bytes of float32 from and to global memory: 16
// of moments written, 4 (4 + 2 r) read; 12 of maps written, 3 (4 + 2 r) read, 12 written, 12 h^2 read; x and
// y for each input of each window from the caches.
#pragma once

#include "../common/tile.cuh"

namespace ssimloss {

// Blocks a multiprocessor, as tile_blocks: less is done at once than in the tiles' gradient.
template <class T>
constexpr int volume_blocks = sizeof(T) == 4 ? 3 : 1;
// Places along the depth that a block has, in columns of tile_outputs a thread.
constexpr int volume_rows = tile_height / tile_outputs;

struct VolumeView {
  View first;  // the slice of depth 0
  int64_t d;

  INLINE int64_t at(int64_t n, int64_t c, int64_t z, int64_t row, int64_t col) const {
    return first.at(n, c, row, col) + z * d;
  }
};

// One side of a volume.
template <class T>
struct VolumeSide {
  int size, crop;
  HalfWindow<T> window;
  __host__ __device__ int positions() const { return size - 2 * crop; }
  INLINE bool has_position(int i) const { return i >= crop && i < size - crop; }
};

// T: the arithmetic type.
template <class T>
struct VolumeParams {
  VolumeView x, y, grad_x, grad_y, loss_map, grad_map;
  Padding padding;
  bool l1, gradient, both;
  int channels;
  int64_t first_plane;  // of this launch
  VolumeSide<T> d, h, w;
  T c1, c2, inverse_range, ssim_weight, l1_weight, ssim_gain, l1_gain;
  const double* inverse_ranges;  // one a volume, in the place of inverse_range; or null
  Scalars incoming;
  T* moments;    // [planes][4][depth][positions down][positions across], of m, d: means and variances
  T* maps;       // [planes][3 or 4][positions of each side]
  double* sums;  // [planes][pieces][2], of all planes; or null
  int across, down, deep;  // blocks of a plane, of this launch
};

// A block's plane, and its place there.
template <class T>
struct VolumeBlock {
  const VolumeParams<T>& p;
  int index, across, down, deep;
  int64_t plane, image, channel;  // plane: of this launch

  INLINE explicit VolumeBlock(const VolumeParams<T>& params) : p(params) {
    const int pieces = p.across * p.down * p.deep;
    plane = blockIdx.x / pieces, index = blockIdx.x % pieces;
    across = index % p.across, down = index / p.across % p.down, deep = index / p.across / p.down;
    image = (p.first_plane + plane) / p.channels, channel = (p.first_plane + plane) % p.channels;
  }
  INLINE Tile<T> tile(int first_row, int first_col) const {
    return {first_row + down * tile_height, first_col + across * tile_width<T>};
  }
  // A thread's row and column in the kernels along the depth.
  INLINE int row() const { return p.h.crop + down * volume_rows + int(threadIdx.x) / tile_width<T>; }
  INLINE int col() const { return p.w.crop + across * tile_width<T> + int(threadIdx.x) % tile_width<T>; }

  // Where along a side what padding adds is found; -1: it is a zero.
  INLINE int source(const VolumeSide<T>& side, int i) const {
    if (p.padding == Padding::reflect) i = mirrored(i, side.size);
    return i >= 0 && i < side.size ? i : -1;
  }
  INLINE bool has_position(int row, int col) const { return p.h.has_position(row) && p.w.has_position(col); }
  // What reflecting at the edges of all sides multiplies a map by.
  INLINE T edges(int z, int row, int col) const {
    const auto edge = [&](const VolumeSide<T>& side, int i) {
      return is_edge(i, side.size, p.padding) ? T(2) : T(1);
    };
    return edge(p.d, z) * edge(p.h, row) * edge(p.w, col);
  }

  // m and d at any place, also outside.
  INLINE Pair<T> read(int z, int row, int col) const {
    z = source(p.d, z), row = source(p.h, row), col = source(p.w, col);
    if (z < 0 || row < 0 || col < 0) return {T(0), T(0)};
    const T a = p.x.first.template read<T>(p.x.at(image, channel, z, row, col));
    const T b = p.y.first.template read<T>(p.y.at(image, channel, z, row, col));
    const T scale = p.inverse_ranges ? T(p.inverse_ranges[image]) : p.inverse_range;
    return {(a + b) * scale, (a - b) * scale};
  }

  // Moments and maps of a place, whose planes are so far apart; rows and columns are those of the volume.
  INLINE int64_t moments_apart() const { return p.d.size * slice(); }
  INLINE int64_t maps_apart() const { return p.d.positions() * slice(); }
  INLINE T* moments_at(int z, int row, int col) const {
    return p.moments + plane * 4 * moments_apart() + z * slice() + in_slice(row, col);
  }
  INLINE T* maps_at(int z, int row, int col) const {
    return p.maps + plane * (3 + p.both) * maps_apart() + (z - p.d.crop) * slice() + in_slice(row, col);
  }

  // A term's gain times the incoming gradient: that of the plane's loss, and that of a map at a position,
  // which is 0 where there is none.
  INLINE T gain(T of_term, int z, int row, int col) const {
    of_term *= p.incoming.template of<T>(image);
    if (!p.grad_map.first.data) return of_term;
    if (!p.d.has_position(z) || !has_position(row, col)) return T(0);
    const int64_t at = p.grad_map.at(image, channel, z - p.d.crop, row - p.h.crop, col - p.w.crop);
    return of_term * p.grad_map.first.template element<T>(at);
  }

 private:
  INLINE int64_t slice() const { return int64_t(p.h.positions()) * p.w.positions(); }
  INLINE int64_t in_slice(int row, int col) const {
    return int64_t(row - p.h.crop) * p.w.positions() + (col - p.w.crop);
  }
};

// ---- Means and variances in one slice, at the positions' rows and columns.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>, volume_blocks<T>)
    moments_kernel(const __grid_constant__ VolumeParams<T> p) {
  const VolumeBlock<T> block(p);
  const Tile<T> tile = block.tile(p.h.crop, p.w.crop);
  const int z = block.deep, row = tile.row0 + tile.group, col = tile.col0 + tile.col;
  const auto read = [&](int at_row, int at_col) { return block.read(z, at_row, at_col); };
  Numbers<T> out[tile_outputs];
  const Pair<T> base = moments_of_tile(tile, p.w.window, p.h.window, false, read, out);
  make_own(base, [&](int o) { return read(row + o, col); }, out);
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    if (!block.has_position(row + o, col)) continue;
    Planes{true, false}.store(out[o], block.moments_at(z, row + o, col), block.moments_apart());
  }
}

// ---- Losses and coefficients at the positions.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>) depth_kernel(const __grid_constant__ VolumeParams<T> p) {
  constexpr Planes planes{true, false};
  const Planes maps{p.both, false};
  const VolumeBlock<T> at(p);
  const int first = p.d.crop + at.deep * tile_outputs, row = at.row(), col = at.col();
  const int radius = p.d.window.radius;
  const bool one_voxel = radius + p.h.window.radius + p.w.window.radius == 0;
  double sum_ssim = 0, sum_l1 = 0;
  if (at.has_position(row, col)) {
    const auto read = [&](int i) { return at.read(first - radius + i, row, col); };
    const auto before = [&](int i) {
      const int z = at.source(p.d, first - radius + i);
      return z < 0 ? Numbers<T>{} : planes.load(at.moments_at(z, row, col), at.moments_apart());
    };
    Numbers<T> mu[tile_outputs];
    const Pair<T> base = moments_of(p.d.window, false, read, before, mu);
#pragma unroll 1
    for (int o = 0; o < tile_outputs; ++o) {
      const int z = first + o;
      if (!p.d.has_position(z)) continue;
      const Pair<T> own = read(radius + o);
      const Moments<T> here{mu[o][0] + base.m, mu[o][1] + base.d, mu[o][2], mu[o][3]};
      const Dissimilarity<T> e = dissimilarity<true>(here, p.c1, p.c2);
      const T loss = not_negative(e.e_l + e.e_cs - e.e_l * e.e_cs);
      sum_ssim += double(loss);
      if (p.loss_map.first.data) {
        p.loss_map.first.template element<T>(
            p.loss_map.at(at.image, at.channel, z - p.d.crop, row - p.h.crop, col - p.w.crop)) =
            p.ssim_weight * loss + (p.l1 ? p.l1_weight * magnitude(own.d) : T(0));
      }
      if (!p.gradient) continue;
      const T gain = at.gain(p.ssim_gain, z, row, col) * at.edges(z, row, col);
      // One voxel has no variance, but large terms that would have to cancel.
      const T g_cs = one_voxel ? T(0) : gain * e.l;
      const Coefficients<T> c = coefficients<true, T>(here, e, (own.m - base.m) - mu[o][0],
                                                      (own.d - base.d) - mu[o][1], gain * e.cs, g_cs);
      maps.store(Numbers<T>{c.b_m, c.b_d, p.both ? c.a_m : c.a_m + c.a_d, c.a_d}, at.maps_at(z, row, col),
                 at.maps_apart());
    }
  }
  if (!p.sums) return;
  const int pieces = p.across * p.down * p.deep;
  const int64_t slice = int64_t(p.h.size) * p.w.size, voxels = p.l1 ? slice * p.d.size : 0;
#pragma unroll 1
  for (int64_t i = int64_t(at.index) * blockDim.x + threadIdx.x; i < voxels;
       i += int64_t(pieces) * blockDim.x) {
    sum_l1 += double(magnitude(at.read(int(i / slice), int(i % slice / p.w.size), int(i % p.w.size)).d));
  }
  sum_block(sum_ssim, sum_l1, reinterpret_cast<double*>(ssimloss_shared));
  if (threadIdx.x != 0) return;
  double* sums = p.sums + 2 * ((p.first_plane + at.plane) * pieces + at.index);
  sums[0] = sum_ssim, sums[1] = sum_l1;
}

// ---- The maps along the depth, at all slices of the volume.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>) spread_kernel(const __grid_constant__ VolumeParams<T> p) {
  const Planes maps{p.both, false};
  const VolumeBlock<T> at(p);
  const int first = at.deep * tile_outputs, row = at.row(), col = at.col(), radius = p.d.window.radius;
  if (!at.has_position(row, col)) return;
  Numbers<T> out[tile_outputs];
  maps_of(
      p.d.window, maps, [&](int i) { return at.read(first - radius + i, row, col); },
      [&](int i, Numbers<T>& v) {
        const int z = at.source(p.d, first - radius + i);
        if (!p.d.has_position(z)) return false;
        v = maps.load(at.maps_at(z, row, col), at.maps_apart());
        return true;
      },
      out);
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    if (first + o >= p.d.size) break;
    maps.store(out[o], at.moments_at(first + o, row, col), at.moments_apart());
  }
}

// ---- The gradient of each voxel of a slice.
template <class T>
__global__ void __launch_bounds__(tile_threads<T>, volume_blocks<T>)
    voxels_kernel(const __grid_constant__ VolumeParams<T> p) {
  const Planes maps{p.both, false};
  const VolumeBlock<T> block(p);
  const Tile<T> tile = block.tile(0, 0);
  const int z = block.deep, first_row = tile.row0 + tile.group, col = tile.col0 + tile.col;
  Numbers<T> out[tile_outputs];
  maps_of_tile(
      tile, p.w.window, p.h.window, maps,
      [&](int at_row, int at_col) { return block.read(z, at_row, at_col); },
      [&](int at_row, int at_col, Numbers<T>& v) {
        at_row = block.source(p.h, at_row), at_col = block.source(p.w, at_col);
        if (!block.has_position(at_row, at_col)) return false;
        v = maps.load(block.moments_at(z, at_row, at_col), block.moments_apart());
        return true;
      },
      out);
  if (col >= p.w.size) return;
#pragma unroll 1
  for (int o = 0; o < tile_outputs; ++o) {
    const int row = first_row + o;
    if (row >= p.h.size) break;
    const T weight = T(1) / block.edges(z, row, col);
    T of_x = weight * (p.both ? out[o][2] + out[o][3] : out[o][2]), of_y = weight * (out[o][2] - out[o][3]);
    if (p.l1) {
      const T by = gradient_of_l1(block.read(z, row, col).d, block.gain(p.l1_gain, z, row, col));
      of_x += by, of_y -= by;
    }
    p.grad_x.first.write(of_x, p.grad_x.at(block.image, block.channel, z, row, col));
    if (p.both) p.grad_y.first.write(of_y, p.grad_y.at(block.image, block.channel, z, row, col));
  }
}

}  // namespace ssimloss
