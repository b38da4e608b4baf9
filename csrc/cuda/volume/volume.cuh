// The kernels of volumes: windows of up to 65 taps along each of depth, height and width, any dtype, in
// launches that hand over in global memory:
//   moments   a block owns 32 x 32 places of one slice (16 x 32 in float64): means and variances along the
//   rows
//             (4 columns a thread) into shared memory, then down the columns (4 rows a thread) -> scratch
//   depth     a thread has 4 positions, one behind the other: means and variances along the depth; the loss,
//   its
//             sum, and the coefficients b_m, b_d, a (or a_m, a_d) -> maps
//   spread    the maps blurred along the depth, in the place of the moments -> scratch
//   voxels    blurred along the rows and down the columns of a slice, as in `moments` -> gradient
// Digits: a mean is kept relative to the voxel of its own place, a variance goes on from one direction to the
// next by the law of total variance (the mean of the variances and the variance of the means), and a
// coefficient a is relative to the voxel of its own place: differences alone, as in ../tiles.
//
// For each voxel and radius r, with h = (32 + 2 r) / 32 the halo: FMA, moments (2 r + 1) (4 h + 4), depth
// (2 r + 1) 4, spread (2 r + 1) 3, voxels (2 r + 1) (3 h + 3); bytes of float32 from and to global memory: 16
// of moments written, 4 (4 + 2 r) read; 12 of maps written, 3 (4 + 2 r) read, 12 written, 12 h^2 read; x and
// y for each input of each window from the caches.
#pragma once

#include "../common/block.cuh"

namespace ssimloss {

constexpr int volume_outputs = 4;  // a thread makes, side by side
constexpr int volume_rows = 32;    // of a tile

template <class T>
constexpr int volume_columns = sizeof(T) == 8 ? 16 : 32;
template <class T>
constexpr int volume_threads = volume_columns<T> * volume_rows / volume_outputs;

struct VolumeView {
  View first;  // the slice of depth 0
  int64_t d;

  INLINE int64_t at(int64_t n, int64_t c, int64_t z, int64_t row, int64_t col) const {
    return first.at(n, c, row, col) + z * d;
  }
  template <class T>
  INLINE T read(int64_t place) const {
    return with_type<T>(first.dtype,
                        [&](auto* tag) -> T { return wide(static_cast<decltype(tag)>(first.data)[place]); });
  }
  template <class T>
  INLINE void write(T v, int64_t place) const {
    with_type<T>(first.dtype, [&](auto* tag) { narrow(v, static_cast<decltype(tag)>(first.data)[place]); });
  }
};

// One side of a volume.
struct VolumeSide {
  int size, radius, crop;
  __host__ __device__ int positions() const { return size - 2 * crop; }
};

// T: the arithmetic type.
template <class T>
struct VolumeParams {
  VolumeView x, y, grad_x, grad_y, loss_map, grad_map;
  bool reflect, l1, gradient, both;
  int channels;
  int64_t first_plane;  // of this launch
  VolumeSide d, h, w;
  T taps[3][2 * 32 + 1];
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

  // Where along a side what padding adds is found; -1: it is a zero.
  INLINE int source(const VolumeSide& side, int i) const {
    if (p.reflect) i = mirrored(i, side.size);
    return i >= 0 && i < side.size ? i : -1;
  }
  INLINE bool has_position(const VolumeSide& side, int i) const {
    return i >= side.crop && i < side.size - side.crop;
  }
  INLINE T edge(const VolumeSide& side, int i) const {
    return is_edge(i, side.size, p.reflect ? Padding::reflect : Padding::zeros) ? T(2) : T(1);
  }

  // m and d at any place, also outside.
  INLINE Pair<T> read(int z, int row, int col) const {
    z = source(p.d, z), row = source(p.h, row), col = source(p.w, col);
    if (z < 0 || row < 0 || col < 0) return {T(0), T(0)};
    const T a = p.x.template read<T>(p.x.at(image, channel, z, row, col));
    const T b = p.y.template read<T>(p.y.at(image, channel, z, row, col));
    const T scale = p.inverse_ranges ? T(p.inverse_ranges[image]) : p.inverse_range;
    return {(a + b) * scale, (a - b) * scale};
  }

  // Indices of moments and maps; rows and columns are those of the volume.
  INLINE int64_t moment_at(int q, int z, int row, int col) const {
    return (((plane * 4 + q) * p.d.size + z) * p.h.positions() + (row - p.h.crop)) * p.w.positions() +
           (col - p.w.crop);
  }
  INLINE int64_t map_at(int q, int z, int row, int col) const {
    const int maps = p.both ? 4 : 3;
    return (((plane * maps + q) * p.d.positions() + (z - p.d.crop)) * p.h.positions() + (row - p.h.crop)) *
               p.w.positions() +
           (col - p.w.crop);
  }

  INLINE T incoming() const { return p.incoming.template of<T>(image); }
  INLINE T incoming_at(int z, int row, int col) const {
    if (!has_position(p.d, z) || !has_position(p.h, row) || !has_position(p.w, col)) return T(0);
    const int64_t at = p.grad_map.at(image, channel, z - p.d.crop, row - p.h.crop, col - p.w.crop);
    return p.grad_map.first.dtype == DType::float64 ? T(p.grad_map.template read<double>(at))
                                                    : T(p.grad_map.template read<float>(at));
  }
};

// f(i, add) for every input i of a thread's windows, where add(v, sums) adds v with its weight to the sums of
// those windows that hold it and to no others: 0 * NaN would be NaN.
template <class T, class F>
INLINE void volume_inputs(const T* taps, int radius, F f) {
#pragma unroll 1
  for (int i = 0; i < volume_outputs + 2 * radius; ++i) {
    f(i, [&](T v, T(&sums)[volume_outputs]) {
#pragma unroll
      for (int o = 0; o < volume_outputs; ++o) {
        if (i >= o && i - o <= 2 * radius) sums[o] += taps[i - o] * v;
      }
    });
  }
}

// Means relative to a voxel or a base, and variances.
template <class T>
struct VolumeMoments {
  T m, d, mm, dd;
};

// One direction: of voxels read(i) and what the directions before made of them, from(i).
template <class T, class Read, class From>
INLINE Pair<T> volume_moments(const T* taps, int radius, Read read, From from,
                              VolumeMoments<T> (&out)[volume_outputs]) {
  const Pair<T> base = base_of_windows<volume_outputs>(radius, read);
  T sums[4][volume_outputs] = {};
  volume_inputs(taps, radius, [&](int i, auto add) {
    const VolumeMoments<T> before = from(i);
    const Pair<T> v = read(i) - base;
    const T m = v.m + before.m, d = v.d + before.d;
    add(m, sums[0]), add(d, sums[1]), add(m * m + before.mm, sums[2]), add(d * d + before.dd, sums[3]);
  });
#pragma unroll
  for (int o = 0; o < volume_outputs; ++o) {
    const T m = sums[0][o], d = sums[1][o];
    out[o] = {m, d, not_negative(sums[2][o] - m * m), not_negative(sums[3][o] - d * d)};
    if (radius == 0) out[o].mm = from(o).mm, out[o].dd = from(o).dd;
  }
  return base;
}

// The same of maps: fetch(i, v) gives b_m, b_d and the a of one place, relative to its voxel; or false where
// there are none. The results' a is relative to the voxels of their own places.
template <class T, class Read, class Fetch>
INLINE void volume_spread(const T* taps, int radius, bool both, Read read, Fetch fetch,
                          T (&out)[4][volume_outputs]) {
  const Pair<T> base = base_of_windows<volume_outputs>(radius, read);
  const auto move = [&](int i, T sign, T b_m, T b_d, T& one, T& two) {
    const Pair<T> v = read(i) - base;
    one += sign * (b_m * v.m);
    (both ? two : one) -= sign * (b_d * v.d);
  };
  volume_inputs(taps, radius, [&](int i, auto add) {
    T v[4] = {};
    if (!fetch(i, v)) return;
    move(i, T(1), v[0], v[1], v[2], v[3]);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (q < 3 || both) add(v[q], out[q]);
    }
  });
#pragma unroll
  for (int o = 0; o < volume_outputs; ++o)
    move(radius + o, T(-1), out[0][o], out[1][o], out[2][o], out[3][o]);
}

// A block's tile of a slice, whose first row and column are row0 and col0; a thread has 4 rows from `group`
// on of column `col` there.
template <class T>
struct VolumeTile : VolumeBlock<T> {
  int row0, col0;
  int col = int(threadIdx.x) % volume_columns<T>;
  int group = int(threadIdx.x) / volume_columns<T> * volume_outputs;

  INLINE VolumeTile(const VolumeParams<T>& params, int first_row, int first_col)
      : VolumeBlock<T>(params),
        row0(first_row + this->down * volume_rows),
        col0(first_col + this->across * volume_columns<T>) {}

  // f(line, first column) for every 4 columns of so many rows, which the threads take in turn.
  template <class F>
  INLINE void each_line(int rows, F f) const {
    constexpr int groups = volume_columns<T> / volume_outputs;
#pragma unroll 1
    for (int task = int(threadIdx.x); task < rows * groups; task += volume_threads<T>)
      f(task / groups, task % groups * volume_outputs);
  }
};

// ---- Means and variances in one slice, at the positions' rows and columns.
template <class T>
__global__ void __launch_bounds__(volume_threads<T>)
    moments_kernel(const __grid_constant__ VolumeParams<T> p) {
  constexpr int width = volume_columns<T>;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  const VolumeTile<T> tile(p, p.h.crop, p.w.crop);
  const int rows = volume_rows + 2 * p.h.radius, pitch = rows * width, z = tile.deep;
  tile.each_line(rows, [&](int line, int first) {
    const int row = tile.row0 - p.h.radius + line, col = tile.col0 + first - p.w.radius;
    const auto read = [&](int i) { return tile.read(z, row, col + i); };
    VolumeMoments<T> out[volume_outputs];
    const Pair<T> base =
        volume_moments(p.taps[2], p.w.radius, read, [](int) { return VolumeMoments<T>{}; }, out);
    T* to = slots + line * width + first;
#pragma unroll
    for (int o = 0; o < volume_outputs; ++o) {
      const Pair<T> own = read(p.w.radius + o);
      to[o] = out[o].m + (base.m - own.m), to[pitch + o] = out[o].d + (base.d - own.d);
      to[2 * pitch + o] = out[o].mm, to[3 * pitch + o] = out[o].dd;
    }
  });
  __syncthreads();

  const int row = tile.row0 + tile.group, col = tile.col0 + tile.col;
  const auto read = [&](int i) { return tile.read(z, row - p.h.radius + i, col); };
  const auto from = [&](int i) {
    const T* at = slots + (tile.group + i) * width + tile.col;
    return VolumeMoments<T>{at[0], at[pitch], at[2 * pitch], at[3 * pitch]};
  };
  VolumeMoments<T> out[volume_outputs];
  const Pair<T> base = volume_moments(p.taps[1], p.h.radius, read, from, out);
#pragma unroll 1
  for (int o = 0; o < volume_outputs; ++o) {
    if (!tile.has_position(p.h, row + o) || !tile.has_position(p.w, col)) continue;
    const Pair<T> own = read(p.h.radius + o);
    p.moments[tile.moment_at(0, z, row + o, col)] = out[o].m + (base.m - own.m);
    p.moments[tile.moment_at(1, z, row + o, col)] = out[o].d + (base.d - own.d);
    p.moments[tile.moment_at(2, z, row + o, col)] = out[o].mm;
    p.moments[tile.moment_at(3, z, row + o, col)] = out[o].dd;
  }
}

// Of the kernels along the depth: a thread's row and column, and the first of its 4 places.
template <class T>
struct VolumeColumn : VolumeBlock<T> {
  int z, row, col;
  bool exists;

  INLINE VolumeColumn(const VolumeParams<T>& params, int first)
      : VolumeBlock<T>(params),
        z(first + this->deep * volume_outputs),
        row(params.h.crop + this->down * (volume_rows / volume_outputs) +
            int(threadIdx.x) / volume_columns<T>),
        col(params.w.crop + this->across * volume_columns<T> + int(threadIdx.x) % volume_columns<T>),
        exists(this->has_position(params.h, row) && this->has_position(params.w, col)) {}
};

// ---- Losses and coefficients at the positions.
template <class T>
__global__ void __launch_bounds__(volume_threads<T>) depth_kernel(const __grid_constant__ VolumeParams<T> p) {
  const VolumeColumn<T> at(p, p.d.crop);
  const int row = at.row, col = at.col, radius = p.d.radius;
  const bool one_voxel = radius + p.h.radius + p.w.radius == 0;
  double sum_ssim = 0, sum_l1 = 0;
  if (at.exists) {
    const auto read = [&](int i) { return at.read(at.z - radius + i, row, col); };
    const auto from = [&](int i) {
      const int z = at.source(p.d, at.z - radius + i);
      if (z < 0) return VolumeMoments<T>{};
      return VolumeMoments<T>{
          p.moments[at.moment_at(0, z, row, col)], p.moments[at.moment_at(1, z, row, col)],
          p.moments[at.moment_at(2, z, row, col)], p.moments[at.moment_at(3, z, row, col)]};
    };
    VolumeMoments<T> mu[volume_outputs];
    const Pair<T> base = volume_moments(p.taps[0], radius, read, from, mu);
#pragma unroll 1
    for (int o = 0; o < volume_outputs; ++o) {
      const int z = at.z + o;
      if (!at.has_position(p.d, z)) continue;
      const Pair<T> own = read(radius + o);
      const Moments<T> here{mu[o].m + base.m, mu[o].d + base.d, mu[o].mm, mu[o].dd};
      const Dissimilarity<T> e = dissimilarity<true>(here, p.c1, p.c2);
      const T loss = not_negative(e.e_l + e.e_cs - e.e_l * e.e_cs);
      sum_ssim += double(loss);
      if (p.loss_map.first.data) {
        p.loss_map.write(p.ssim_weight * loss + (p.l1 ? p.l1_weight * magnitude(own.d) : T(0)),
                         p.loss_map.at(at.image, at.channel, z - p.d.crop, row - p.h.crop, col - p.w.crop));
      }
      if (!p.gradient) continue;
      T gain = p.ssim_gain * at.incoming() * at.edge(p.d, z) * at.edge(p.h, row) * at.edge(p.w, col);
      if (p.grad_map.first.data) gain *= at.incoming_at(z, row, col);
      // One voxel has no variance, but large terms that would have to cancel.
      const T g_cs = one_voxel ? T(0) : gain * e.l;
      const Coefficients<T> c = coefficients<true, T>(here, e, (own.m - base.m) - mu[o].m,
                                                      (own.d - base.d) - mu[o].d, gain * e.cs, g_cs);
      p.maps[at.map_at(0, z, row, col)] = c.b_m;
      p.maps[at.map_at(1, z, row, col)] = c.b_d;
      p.maps[at.map_at(2, z, row, col)] = p.both ? c.a_m : c.a_m + c.a_d;
      if (p.both) p.maps[at.map_at(3, z, row, col)] = c.a_d;
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
__global__ void __launch_bounds__(volume_threads<T>)
    spread_kernel(const __grid_constant__ VolumeParams<T> p) {
  const VolumeColumn<T> at(p, 0);
  if (!at.exists) return;
  const int row = at.row, col = at.col, radius = p.d.radius;
  const auto read = [&](int i) { return at.read(at.z - radius + i, row, col); };
  T out[4][volume_outputs] = {};
  volume_spread(
      p.taps[0], radius, p.both, read,
      [&](int i, T(&v)[4]) {
        const int z = at.source(p.d, at.z - radius + i);
        if (z < 0 || !at.has_position(p.d, z)) return false;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          if (q < 3 || p.both) v[q] = p.maps[at.map_at(q, z, row, col)];
        }
        return true;
      },
      out);
#pragma unroll
  for (int o = 0; o < volume_outputs; ++o) {
    if (at.z + o >= p.d.size) break;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (q < 3 || p.both) p.moments[at.moment_at(q, at.z + o, row, col)] = out[q][o];
    }
  }
}

// ---- The gradient of each voxel of a slice.
template <class T>
__global__ void __launch_bounds__(volume_threads<T>, sizeof(T) == 4 ? 2 : 1)
    voxels_kernel(const __grid_constant__ VolumeParams<T> p) {
  constexpr int width = volume_columns<T>;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  const VolumeTile<T> tile(p, 0, 0);
  const int rows = volume_rows + 2 * p.h.radius, pitch = rows * width, z = tile.deep;
  tile.each_line(rows, [&](int line, int first) {
    const int row = tile.row0 - p.h.radius + line, col = tile.col0 + first - p.w.radius;
    T out[4][volume_outputs] = {};
    volume_spread(
        p.taps[2], p.w.radius, p.both, [&](int i) { return tile.read(z, row, col + i); },
        [&](int i, T(&v)[4]) {
          const int from_row = tile.source(p.h, row), from_col = tile.source(p.w, col + i);
          if (from_row < 0 || from_col < 0 || !tile.has_position(p.h, from_row) ||
              !tile.has_position(p.w, from_col))
            return false;
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            if (q < 3 || p.both) v[q] = p.moments[tile.moment_at(q, z, from_row, from_col)];
          }
          return true;
        },
        out);
    T* to = slots + line * width + first;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
#pragma unroll
      for (int o = 0; o < volume_outputs; ++o) {
        if (q < 3 || p.both) to[q * pitch + o] = out[q][o];
      }
    }
  });
  __syncthreads();

  const int first_row = tile.row0 + tile.group, col = tile.col0 + tile.col;
  T out[4][volume_outputs] = {};
  volume_spread(
      p.taps[1], p.h.radius, p.both, [&](int i) { return tile.read(z, first_row - p.h.radius + i, col); },
      [&](int i, T(&v)[4]) {
        const T* from = slots + (tile.group + i) * width + tile.col;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          if (q < 3 || p.both) v[q] = from[q * pitch];
        }
        return true;
      },
      out);
  if (col >= p.w.size) return;
#pragma unroll 1
  for (int o = 0; o < volume_outputs; ++o) {
    const int row = first_row + o;
    if (row >= p.h.size) break;
    const T weight = T(1) / (tile.edge(p.d, z) * tile.edge(p.h, row) * tile.edge(p.w, col));
    T of_x = weight * (p.both ? out[2][o] + out[3][o] : out[2][o]), of_y = weight * (out[2][o] - out[3][o]);
    if (p.l1) {
      T gain = p.l1_gain * tile.incoming();
      if (p.grad_map.first.data) gain *= tile.incoming_at(z, row, col);
      const T by = gradient_of_l1(tile.read(z, row, col).d, gain);
      of_x += by, of_y -= by;
    }
    p.grad_x.write(of_x, p.grad_x.at(tile.image, tile.channel, z, row, col));
    if (p.both) p.grad_y.write(of_y, p.grad_y.at(tile.image, tile.channel, z, row, col));
  }
}

}  // namespace ssimloss
