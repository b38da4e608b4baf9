// The gradient from the maps of all scales that scales.cuh left in global memory: the second launch, or,
// where there are several scales, the second and the third.
//
// A block owns a strip of columns and a band of rows of pixels of one plane and one scale. It streams down
// the band in chunks of 16 rows:
//   near     the bases of the chunk after the next, each the middle of three pixels of its cell
//   fill     the next chunk's maps into one of two buffers, mirrored or 0 where padding says so, their a
//            moved from the pixel of their own place to their cell's base
//   along    the chunk, 4 columns of a row a thread, blurred into the ring of maps
//   down     4 rows of a column a thread, as soon as all rows of their windows are in the ring: the gradient,
//            or with several scales this one's part of it, which gather_kernel adds up
// with one barrier a chunk; a warp takes one row of fill, one row of cells, or 32 columns and 4 rows of the
// others at a time. Blocks of the largest scale come first, so that the last ones to start are short; for the
// same reason one scale may have a band more than another (AdjointCost in scales.cu).
//
// For each element, scale of radius r and one gradient, W own columns, B rows of a band, g = 1 + (2 r + 16) /
// B:
//   FMA: (2 r + 1) (3 g + 3), 2.5 (1 + r / 2) (g + 1) pointwise ones
//   shared memory: accesses of 4 bytes 3 g (1 + 2 r / W) written, 3 (1 + r / 2) read; of 16 bytes
//     3 g (1 + r / 2) / 4 read, 3 g / 4 written
//   bytes: 12 g (1 + 2 r / W) of maps and 8 of pixels read, 4 written (and read again, with several scales)
// Machine instructions: benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include "scales.cuh"

namespace ssimloss {

constexpr int adjoint_rows = 16;  // of a chunk
// Chunks after its first one until a window of a chunk's rows is whole.
__host__ __device__ constexpr int adjoint_late(int radius) {
  return (adjoint_rows - 1 + 2 * radius) / adjoint_rows;
}

// Threads of a multiprocessor, in one block or two. More would spill on some architecture.
__host__ __device__ constexpr int adjoint_threads(int gradients, bool weighted) {
  return gradients == 2 || weighted ? 512 : 768;
}
constexpr int gather_threads = 256, gather_rows = 4;
// Blocks a multiprocessor for one gradient: ptxas may take 48 registers by itself, where 40 will do. Turing
// has no room for as many threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
constexpr int gather_blocks(int gradients) { return gradients == 1 ? 6 : 0; }
#else
constexpr int gather_blocks(int) { return 0; }  // ptxas chooses
#endif

// Of a plane, scale j, gradient q: the part of the gradient.
template <int Gradients>
INLINE float* part_of(const ScalesParams& all, int64_t plane, int j, int q) {
  return all.parts + ((plane * all.scales + j) * Gradients + q) * all.rows.part_rows * all.width;
}

struct AdjointPlane {
  int64_t maps, part;  // where the scale's maps and part of the gradient begin
  Interval interval[2];
  int chunks;
};

// Weighted: then what is left out is not read; its maps are 0.
template <int Gradients, bool Weighted>
class Adjoint : RingBlock {
  static constexpr int R = adjoint_rows, K = 4;
  static constexpr int M = Gradients == 2 ? 4 : 3;

 public:
  INLINE Adjoint(const ScalesParams& params) : Adjoint(params, scale_of(params)) {}

  INLINE void run() {
    if (threadIdx.x == 0) here().chunks = divided_up(row1 - row0, R) + late(), set_interval(-2);
    __syncthreads();
    int slot = 0, cell = 0;  // of chunk n in the ring of maps, of chunk n + 2 in that of bases: first rows
#pragma unroll 1
    for (int n = -2; n <= here().chunks; ++n) {
      if (threadIdx.x == 0) set_interval(n + 1);
      const auto cell_row = [&](int back) { return previous(again(cell), back * (R / K), cell_rows()); };
      here().interval[n & 1].each_task([&](int task) { find_bases(again(n) + 2, cell, task); },
                                       [&](int task) {
                                         down(again(n) - 1 - late(), previous(again(slot), R, capacity()),
                                              cell_row(3), task);
                                       },
                                       [&](int task) { along(again(n), slot, cell_row(2), task); },
                                       [&](int task) { fill_line(again(n) + 1, cell_row(1), task); });
      __syncthreads();
      if (n >= 0) slot = next(slot, R, capacity());
      cell = next(cell, R / K, cell_rows());
    }
  }

 private:
  const ScalesParams& all;
  const int j, r;

  INLINE Adjoint(const ScalesParams& params, int scale)
      : RingBlock(params,
                  piece_of(params, int(blockIdx.x) - params.cut[scale].first_block, params.cut[scale].bands,
                           params.cut[scale].band_rows),
                  params.cut[scale].band_rows),
        all(params),
        j(scale),
        r(params.radii[scale]) {
    set_rows(all.rows, row0, all.cut[j].band_rows);
    load_taps(all.scale_taps[j], r, taps);
    if (threadIdx.x != 0) return;
    here().maps = (plane.index() * (all.scales * M + p.l1_windowed) + j * M) * p.map_size;
    here().part = part_of<Gradients>(all, plane.index(), j, 0) - all.parts;
  }

  // The last scale has the first blocks.
  INLINE static int scale_of(const ScalesParams& params) {
    int scale = 0;
    while (int(blockIdx.x) < params.cut[scale].first_block) ++scale;
    return scale;
  }

  // What a block keeps in shared memory to save registers.
  INLINE AdjointPlane& here() const { return *reinterpret_cast<AdjointPlane*>(shared(s.queues)); }

  INLINE RingWindow window() const { return {r, taps, taps + 3}; }
  INLINE int late() const { return adjoint_late(r); }
  INLINE int capacity() const { return (late() + 2) * R; }
  INLINE int cell_rows() const { return (late() + 4) * (R / K); }
  // Between two barriers chunk n - 1 goes down, chunk n goes along, chunk n + 1 is filled, and the bases of
  // chunk n + 2 are found. Bases come first because they wait for memory; the others are in the order of
  // their work.
  INLINE void set_interval(int n) const {
    const int of_chunk = R / K * divided_up(col1 - col0, 32), end = here().chunks;
    here().interval[n & 1].set(n + 2 < end ? R / K : 0, n > late() && n <= end ? of_chunk : 0,
                               n >= 0 && n < end ? of_chunk : 0, n >= -1 && n + 1 < end ? R : 0);
  }
  INLINE bool has_l1() const { return p.l1_windowed && j == all.scales - 1; }
  INLINE Cells row_of_cells(int row, int by) const { return cells(next(row, by, cell_rows()) * 2 * s.cells); }
  INLINE float* maps_of(int k, int line) const {
    return maps + k % 2 * s.maps * R * s.map_pitch + line * s.map_pitch;
  }

  // Of the pixels from this one on; null: all are 1.
  INLINE const float* weights_at(int row, int col) const {
    if (!Weighted || !p.mask.data) return nullptr;
    return static_cast<const float*>(p.mask.data) + p.mask.at(plane.image, plane.channel, row, col);
  }

  // Of one row of cells.
  INLINE void find_bases(int k, int cell_row, int part) {
    const int count = divided_up(col1 - col0 + 2 * r, K);
    const int row = row0 - r + R * k + K * part, col = col0 - r;
    const auto value = values({0, 0});
    const Cells to = row_of_cells(cell_row, part);
    const float* const weights = weights_at(0, 0);
    plane.with_pixels<Weighted>(0, 0, [&](auto* x, auto* y) {
#pragma unroll 1
      for (int cell = lane(); cell < count; cell += 32) {
        to.set(cell, base_of_three([&](int u) {
                 const int64_t at_row = clamped(row + cell_pixel<K>(u), 0, p.height - 1);
                 const int64_t at_col = clamped(col + K * cell + cell_pixel<K>(u), 0, p.width - 1);
                 if (Weighted && weights && weights[at_row * p.mask.h + at_col * p.mask.w] == 0.f)
                   return plane.typical();
                 return value(wide(x[at_row * p.x.h + at_col * p.x.w]),
                              wide(y[at_row * p.y.h + at_col * p.y.w]));
               }));
      }
    });
  }

  INLINE void fill_line(int k, int cell_row, int line) {
    const int first = col0 - r, count = col1 - col0 + 2 * r;
    int row = row0 - r + R * k + line;
    const bool reflect = p.padding == Padding::reflect, with_l1 = has_l1();
    if (reflect) row = mirrored(row, p.height);
    const bool exists = row >= p.crop && row < all.rows.maps_end;
    float* to = maps_of(k, line);
    // Places [begin, end) have maps, all others 0.
    const int begin = reflect ? 0 : clamped(p.crop - first, 0, count);
    const int end = !exists ? begin : (reflect ? count : clamped(p.width - p.crop - first, begin, count));
    const auto clear = [&](int from, int until) {
#pragma unroll 1
      for (int c = from + lane(); c < until; c += 32) {
#pragma unroll
        for (int q = 0; q < M; ++q) to[q * s.each_map + c] = 0.f;
        if (with_l1) to[M * s.each_map + c] = 0.f;
      }
    };
    clear(0, begin), clear(end, count);
    if (begin >= end) return;
    const float* source = all.maps + here().maps + all.rows.in_ring(row) * p.map_width + (first - p.crop);
    const Cells bases_here = row_of_cells(cell_row, line / K);
    const auto value = values({0, 0});
    const float* const weights = weights_at(row, first);
    constexpr int together = 3;  // places of a lane, whose reads wait side by side
    plane.with_pixels<Weighted>(row, first, [&](auto* x, auto* y) {
#pragma unroll 1
      for (int c = begin + lane(); c < end; c += 32 * together) {
        float map[together][M + 1];
        Pair<float> pixel[together];
#pragma unroll
        for (int u = 0; u < together; ++u) {
          int at = c + 32 * u < end ? c + 32 * u : c;
          if (reflect) at = mirrored(first + at, p.width) - first;
          const float* from = source + at;
#pragma unroll
          for (int q = 0; q < M; ++q, from += p.map_size) map[u][q] = *from;
          map[u][M] = with_l1 ? *from : 0.f;
          pixel[u] = value(wide(x[at * p.x.w]), wide(y[at * p.y.w]));
          if (Weighted && weights && weights[at * p.mask.w] == 0.f) pixel[u] = {};
        }
#pragma unroll
        for (int u = 0; u < together; ++u) {
          const int at = c + 32 * u;
          if (at >= end) break;
          const Pair<float> by = pixel[u] - bases_here[at / K];
          const float one = map[u][2] + map[u][0] * by.m, by_d = map[u][1] * by.d;
          map[u][2] = one - by_d;
          if (Gradients == 2) {
            const float two = map[u][M - 1] - by_d;
            map[u][2] = one + two, map[u][M - 1] = one - two;
          }
#pragma unroll
          for (int q = 0; q < M; ++q) to[q * s.each_map + at] = map[u][q];
          if (with_l1) to[M * s.each_map + at] = map[u][M];
        }
      }
    });
  }

  // Chunk k.
  INLINE void along(int k, int slot, int cell_row, int task) {
    const int part = task % (R / K), group = group_of_lane<K>(lane(), task / (R / K));
    const int line = K * part + row_of_lane<K>(lane());
    if (K * group >= col1 - col0) return;
    float* const to = ring + (slot + line) * s.ring_pitch + K * group;
    const int first = row0 - r + R * k + K * part;
    if (p.padding != Padding::reflect && (first + K <= p.crop || first >= p.height - p.crop)) {  // no maps
#pragma unroll
      for (int q = 0; q < M; ++q) put(Some<K>{}, to + q * s.each_ring);
      if (has_l1()) put(Some<K>{}, to + M * s.each_ring);
      return;
    }
    maps_along<K, M>(window(), maps_of(k, line) + K * group, row_of_cells(cell_row, part).from(group),
                     cell_of<K>(window(), 0), has_l1(), to);
  }

  // The step-th 16 own rows, whose windows end in the chunk with this slot and row of cells.
  INLINE void down(int step, int slot, int cell_row, int task) {
    const int part = task % (R / K), column = task / (R / K) * 32 + lane();
    const int row = row0 + R * step + K * part, col = col0 + column;
    if (col >= col1 || row >= row1) return;
    slot = next(previous(slot, late() * R, capacity()), K * part, capacity());
    cell_row = next(previous(cell_row, late() * (R / K), cell_rows()), part, cell_rows());
    Some<K> out[M];
    const Some<K> difference = maps_down<Weighted>(
        window(), row, column, [&](int i) { return next(slot, i, capacity()); },
        cells(cell_of<K>(window(), column / K)),
        [&](int i) { return next(cell_row, i / K, cell_rows()) * 2 * s.cells; }, has_l1(), out);
    if (!Weighted && all.scales == 1)  // else gather_kernel does it
      return plane.write_gradient(Gradients == 2, row, 0, row1, col, out[2], out[M - 1], difference);
    float* to = all.parts + here().part + int64_t(row - all.rows.first) * p.width + col;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      if (row + o >= row1) break;
      to[o * int64_t(p.width)] = out[2][o];
      if (Gradients == 2) to[(all.rows.part_rows + o) * int64_t(p.width)] = out[M - 1][o];
    }
  }
};

template <int Gradients, bool Weighted>
__global__ void __launch_bounds__(adjoint_threads(Gradients, Weighted), 1)
    adjoint_kernel(const __grid_constant__ ScalesParams params) {
  Adjoint<Gradients, Weighted>(params).run();
}

// Adds up the scales' parts. A block has a few rows of one plane.
template <int Gradients, bool Weighted>
__global__ void __launch_bounds__(gather_threads, Weighted ? 0 : gather_blocks(Gradients))
    gather_kernel(const __grid_constant__ ScalesParams p) {
  constexpr int across = gather_threads / gather_rows;
  const int64_t size = int64_t(p.rows.part_rows) * p.width;
  const Piece own = piece_of(p, int(blockIdx.x), p.rows.bands, p.band_rows);
  const Plane<float> plane{p, own.image, own.channel};
  const int part_row = own.row + int(threadIdx.x) / across, row = p.rows.first + part_row;
  if (row >= p.rows.end) return;
#pragma unroll 1
  for (int col = int(threadIdx.x) % across; col < p.width; col += across) {
    const float* from = part_of<Gradients>(p, plane.index(), 0, 0) + int64_t(part_row) * p.width + col;
    Some<1> of_x{}, of_y{};
#pragma unroll 5
    for (int j = 0; j < p.scales; ++j) {
      of_x[0] += from[j * Gradients * size];
      if (Gradients == 2) of_y[0] += from[(2 * j + 1) * size];
    }
    const Some<1> difference{p.l1 && !p.l1_windowed ? plane.template difference<Weighted>(row, col) : 0.f};
    plane.template write_gradient<Weighted>(Gradients == 2, row, 0, p.height, col, of_x, of_y, difference);
  }
}

}  // namespace ssimloss
