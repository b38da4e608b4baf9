// The gradient from the maps of all scales that scales.cuh left in global memory: the second launch.
//
// A block owns a strip of columns and a band of rows of pixels of one plane, and keeps their gradient in
// shared memory while it takes one scale after the other. Of a scale it streams down the band in chunks of 16
// rows:
//   near     the bases of the chunk after the next, each the middle of three pixels of its cell
//   fill     the next chunk's maps into one of two buffers, mirrored or 0 where padding says so, their a
//            moved from the pixel of their own place to their cell's base
//   along    the chunk, 8 columns of a row a thread, blurred into the ring of maps
//   down     8 rows of a column a thread, as soon as all rows of their windows are in the ring: added to the
//            gradient
// with one barrier a chunk; a warp takes one row of fill, or 32 columns and 8 rows (windows of up to 7 taps:
// 4) of the others, at a time.
//
// For each element, scale of radius r and one gradient, W own columns, B rows of a band, g = 1 + (2 r + 16) /
// B:
//   FMA: (2 r + 1) (3 g + 3), 2.5 (1 + r / 4) (g + 1) pointwise ones
//   shared memory: accesses of 4 bytes 3 g (1 + 2 r / W) written, 3 (1 + r / 4) read, 2 for the sum; of 16
//   bytes
//     3 g (1 + r / 4) / 4 read, 3 g / 4 written
//   bytes: 12 g (1 + 2 r / W) of maps and 8 of pixels read (from the L2 cache where the scale before left
//   them)
// Machine instructions: benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include "ring_maps.cuh"
#include "scales.cuh"

namespace ssimloss {

constexpr int adjoint_rows = 16;  // of a chunk
// Chunks after its first one until a window of a chunk's rows is whole.
__host__ __device__ constexpr int adjoint_late(int radius) {
  return (adjoint_rows - 1 + 2 * radius) / adjoint_rows;
}

template <int Gradients, class T>
class Adjoint : RingMoments<T> {
  using Base = RingMoments<T>;
  using Base::crop, Base::reading, Base::next, Base::divided, Base::warp, Base::lane;
  using Base::p, Base::s, Base::maps, Base::ring, Base::bases, Base::image, Base::channel, Base::row0,
      Base::row1, Base::col0, Base::col1;
  static constexpr int R = adjoint_rows;
  static constexpr int M = Gradients == 2 ? 4 : 3;

 public:
  __device__ __forceinline__ Adjoint(const ScalesParams<T>& params, unsigned char* shared)
      : Base(params.block, shared), all(params), sums(this->raw) {
    load_taps(all, this->taps);
  }

  __device__ __forceinline__ void run() {
    for (int i = int(threadIdx.x); i < Gradients * s.each_raw; i += ring_threads) sums[i] = 0;
    const int columns = divided(col1 - col0, 32), steps = divided(row1 - row0, R);
#pragma unroll 1
    for (int j = 0; j < all.scales; ++j) {
      const int r = all.radius[j], late = adjoint_late(r), loads = steps + late, parts = R / (r < 4 ? 4 : 8);
#pragma unroll 1
      for (int k = -2; k <= loads; ++k) {
        const int down_tasks = k > late ? parts * columns : 0;
        const int along_tasks = k >= 0 && k < loads ? parts * columns : 0;
        const int fill_tasks = k + 1 >= 0 && k + 1 < loads ? R : 0, near_tasks = k + 2 < loads ? 1 : 0;
#pragma unroll 1
        for (int task = warp(); task < down_tasks + along_tasks + fill_tasks + near_tasks;
             task += ring_threads / 32) {
          int rest = task;
          if (rest < down_tasks) {
            r < 4 ? down<4>(j, k - 1 - late, rest) : down<8>(j, k - 1 - late, rest);
          } else if ((rest -= down_tasks) < along_tasks) {
            r < 4 ? along<4>(j, k, rest) : along<8>(j, k, rest);
          } else if ((rest -= along_tasks) < fill_tasks) {
            this->with_type([&](auto* tag) { fill_line(tag, j, k + 1, rest); });
          } else {
            this->with_type([&](auto* tag) { find_bases(tag, j, k + 2); });
          }
        }
        __syncthreads();
      }
    }
    this->with_type([&](auto* tag) { write(tag); });
  }

 private:
  const ScalesParams<T>& all;
  T* sums;  // [gradient][band_rows][ring_pitch]

  __device__ __forceinline__ RingWindow<T> window_of(int j) const {
    const T* own = this->taps + all.taps_at[j];
    return {all.radius[j], own, own + 3};
  }
  // Cells of scale j have 4 or 8 rows and columns; shifts, as divisions cost 20 instructions.
  __device__ __forceinline__ int cell_shift(int j) const { return all.radius[j] < 4 ? 2 : 3; }
  // The bases of a row of cells, counted from the first row of the scale on.
  __device__ __forceinline__ int bases_at(int cell_row) const { return cell_row % s.chunks * 2 * s.cells; }
  __device__ __forceinline__ int capacity(int j) const { return (adjoint_late(all.radius[j]) + 2) * R; }
  __device__ __forceinline__ bool l1_of(int j) const { return p.l1 && p.l1_windowed && j == all.scales - 1; }
  __device__ __forceinline__ T* maps_of(int k, int line) const {
    return maps + k % 2 * s.maps * R * s.map_pitch + line * s.map_pitch;
  }

  template <class E>
  __device__ __forceinline__ void find_bases(E*, int j, int k) {
    const int r = all.radius[j], shift = cell_shift(j), side = 1 << shift;
    const int cells = (col1 - col0 + 2 * r + 8 + side - 1) >> shift;
    const E *x = p.x.template plane<E>(image, channel), *y = p.y.template plane<E>(image, channel);
    const auto value = reading(0, 0);
#pragma unroll 1
    for (int i = lane(); i < (R >> shift) * cells; i += 32) {
      const int cell_row = (R >> shift) * k + i / cells, cell = i % cells;
      const int row = cell_row << shift;
      T m[3], d[3];
#pragma unroll
      for (int u = 0; u < 3; ++u) {
        const int off = u == 0 ? side / 4 - 1 : (u + 1) * side / 4;
        const int64_t at_row = clamped(row0 - r + row + off, 0, p.height - 1);
        const int64_t at_col = clamped(col0 - r + cell * side + off, 0, p.width - 1);
        const T a = wide(x[at_row * p.x.h + at_col * p.x.w]), b = wide(y[at_row * p.y.h + at_col * p.y.w]);
        m[u] = value.m(a, b), d[u] = value.d(a, b);
      }
      T* to = bases + bases_at(cell_row) + cell;
      to[0] = finite_or_zero(middle(m[0], m[1], m[2]));
      to[s.cells] = finite_or_zero(middle(d[0], d[1], d[2]));
    }
  }

  template <class E>
  __device__ __forceinline__ void fill_line(E*, int j, int k, int line) {
    const int r = all.radius[j], shift = cell_shift(j), row = R * k + line, each = R * s.map_pitch;
    int from = row0 - r + row;
    if (p.padding == Padding::reflect) from = mirrored(from, p.height);
    const bool exists = from >= crop() && from < p.height - crop();
    const int64_t width = p.width - 2 * crop(), size = width * (p.height - 2 * crop());
    const int64_t plane = int64_t(image) * p.channels + channel;
    const int64_t count = all.scales * M + (p.l1 && p.l1_windowed ? 1 : 0);
    const T* source =
        all.maps + (plane * count + j * M) * size + (exists ? from - crop() : 0) * width - crop();
    const E* x = p.x.template plane<E>(image, channel) + (exists ? from : 0) * p.x.h;
    const E* y = p.y.template plane<E>(image, channel) + (exists ? from : 0) * p.y.h;
    const T* cells = bases + bases_at(row >> shift);
    T* to = maps_of(k, line);
    const bool with_l1 = l1_of(j);
    const auto value = reading(0, 0);
    constexpr int together = 2;  // places of a lane, whose reads wait for memory side by side
#pragma unroll 1
    for (int c = lane(); c < col1 - col0 + 2 * r; c += 32 * together) {
      T map[together][M], m[together], d[together], l1_gain[together];
      bool inside[together];
#pragma unroll
      for (int u = 0; u < together; ++u) {
        int col = col0 - r + c + 32 * u;
        if (p.padding == Padding::reflect) col = mirrored(col, p.width);
        inside[u] = exists && col >= crop() && col < p.width - crop();
        if (!inside[u]) col = crop();
        const T* at = source + col;
#pragma unroll
        for (int q = 0; q < M; ++q) map[u][q] = at[q * size];
        l1_gain[u] = with_l1 ? at[M * size] : T(0);
        const T a = wide(x[col * p.x.w]), b = wide(y[col * p.y.w]);
        m[u] = value.m(a, b), d[u] = value.d(a, b);
      }
#pragma unroll
      for (int u = 0; u < together; ++u) {
        const int at = c + 32 * u, cell = at >> shift;
        if (at >= col1 - col0 + 2 * r) continue;
        const T by_m = map[u][0] * (m[u] - cells[cell]), by_d = map[u][1] * (d[u] - cells[cell + s.cells]);
        const T one = map[u][2] + by_m;
        if (Gradients == 2) {
          const T two = map[u][M - 1] - by_d;
          map[u][2] = one + two, map[u][M - 1] = one - two;
        } else {
          map[u][2] = one - by_d;
        }
#pragma unroll
        for (int q = 0; q < M; ++q) to[q * each + at] = inside[u] ? map[u][q] : T(0);
        if (with_l1) to[M * each + at] = inside[u] ? l1_gain[u] : T(0);
      }
    }
  }

  template <int K>
  __device__ __forceinline__ void along(int j, int k, int task) {
    const RingWindow<T> window = window_of(j);
    const int part = task % (R / K), group = Base::template group_of_lane<K>(task / (R / K));
    const int line = K * part + Base::template row_of_lane<K>(), rows = capacity(j);
    if (K * group >= col1 - col0) return;
    maps_along<K, M>(
        window, maps_of(k, line) + K * group, R * s.map_pitch, bases + bases_at(R / K * k + part) + group,
        s.cells, Base::template cell_of<K>(window, 0), l1_of(j),
        ring + (k % (rows / R) * R + line) * s.ring_pitch + K * group, s.capacity * s.ring_pitch);
  }

  template <int K>
  __device__ __forceinline__ void down(int j, int step, int task) {
    const RingWindow<T> window = window_of(j);
    const int part = task % (R / K), column = task / (R / K) * 32 + lane(), rows = capacity(j);
    const int begin = R * step + K * part;  // below row0
    if (column >= col1 - col0 || row0 + begin >= row1) return;
    const int slot = step % (rows / R) * R + K * part, first = begin / K % s.chunks;
    T out[M][K], l1[1][K], base_m, base_d;
    maps_down(
        window, ring + column, s.capacity * s.ring_pitch, s.ring_pitch,
        [&](int i) { return next(slot, i, rows) * s.ring_pitch; },
        bases + Base::template cell_of<K>(window, column / K), s.cells,
        [&](int i) { return next(first, i / K, s.chunks) * 2 * s.cells; }, l1_of(j), out, l1, base_m, base_d);
    T a[K], b[K];
    const int row = row0 + begin, col = col0 + column;
    this->with_type([&](auto* tag) {
      using E = std::remove_pointer_t<decltype(tag)>;
      const E* x = p.x.template plane<E>(image, channel) + row * p.x.h + col * p.x.w;
      const E* y = p.y.template plane<E>(image, channel) + row * p.y.h + col * p.y.w;
#pragma unroll
      for (int o = 0; o < K; ++o) {
        if (row + o < row1) a[o] = wide(x[o * p.x.h]), b[o] = wide(y[o * p.y.h]);
      }
    });
    const auto value = reading(base_m, base_d);
    T* to = sums + begin * s.ring_pitch + column;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      if (row + o >= row1) continue;
      const T by_m = value.m(a[o], b[o]) * out[0][o], by_d = value.d(a[o], b[o]) * out[1][o];
      T l1_by = 0;
      if (l1_of(j)) {  // sign(0) = 0, sign(NaN) = NaN
        const T difference = a[o] - b[o];
        l1_by = difference > 0 ? l1[0][o] : (difference < 0 ? -l1[0][o] : difference * l1[0][o]);
      }
      to[o * s.ring_pitch] += ((out[2][o] - by_m) + by_d) + l1_by;
      if (Gradients == 2) to[s.each_raw + o * s.ring_pitch] += ((out[M - 1][o] - by_m) - by_d) - l1_by;
    }
  }

  template <class E>
  __device__ __forceinline__ void write(E*) const {
    const int width = col1 - col0, count = (row1 - row0) * divided(width, 32);
    const bool pixel_l1 = p.l1 && !p.l1_windowed;
    const T pixel_gain = pixel_l1 ? p.l1_gain * this->incoming() : T(0);
#pragma unroll 1
    for (int task = warp(); task < count; task += ring_threads / 32) {
      const int line = task % (row1 - row0), column = task / (row1 - row0) * 32 + lane();
      if (column >= width) continue;
      const int64_t row = row0 + line, col = col0 + column;
      T edge = is_edge(int(row), p.height, p.padding) ? T(0.5) : T(1);
      if (is_edge(int(col), p.width, p.padding)) edge *= T(0.5);
      T by = 0;
      if (pixel_l1) {
        T gain = pixel_gain;
        if (p.grad_map.data) gain *= this->incoming_at(int(row), int(col));
        const T difference = wide(p.x.template plane<E>(image, channel)[row * p.x.h + col * p.x.w]) -
                             wide(p.y.template plane<E>(image, channel)[row * p.y.h + col * p.y.w]);
        by = difference > 0 ? gain : (difference < 0 ? -gain : difference * gain);
      }
      const T* from = sums + line * s.ring_pitch + column;
      narrow(edge * from[0] + by,
             p.grad_x.template plane<E>(image, channel)[row * p.grad_x.h + col * p.grad_x.w]);
      if (Gradients == 2)
        narrow(edge * from[s.each_raw] - by,
               p.grad_y.template plane<E>(image, channel)[row * p.grad_y.h + col * p.grad_y.w]);
    }
  }
};

template <int Gradients, class T>
__global__ void __launch_bounds__(ring_threads, sizeof(T) == 8 || Gradients == 2 ? 1 : 2)
    adjoint_kernel(const __grid_constant__ ScalesParams<T> params) {
  Adjoint<Gradients, T>(params, ssimloss_shared).run();
}

}  // namespace ssimloss
