// SSIM under one window of up to 33 taps, value and gradient in one launch, where strip.cuh does not reach:
// other sizes than 11 taps, and windowed l1 in a map.
//
// A block owns a strip of columns and a band of rows of one plane. It streams down the band in chunks of K
// rows, K = 8, or 4 for windows of up to 7 taps. Everything lies in shared memory, the pixels and the maps in
// rings of the rows that a window reaches; two barriers a chunk:
//   A  moments_down    means and variances of m and d of K rows of a column, from the ring of pixels
//      maps_along      the maps of the chunk before, K columns of a row blurred into the ring of maps
//   B  fill            cp.async of the next K rows of x and y, as they are, into the ring of pixels
//      positions       the same means and variances along the row, K columns a thread; the formula; maps
//      gradient_down   of the chunk before: K rows of a column, from the ring of maps and from x and y, read
//                      again (they are in the L2 cache by then)
// A warp takes 32 columns of one of these at a time, so that in A and in B all warps have work.
//
// Means, and the maps' a, are relative to the base of their cell of K x K pixels: ring_block.cuh.
//
// For each element and one gradient, W own columns and radius r, K = 8 (h = 1 + 4 r / W, g = 1 + 2 r / W):
//   FMA: (2 r + 1) (4 h + 4 g + 6), and (1 + r / 4) (6 h + 5 g + 5) pointwise ones, and about 80
//   shared memory: accesses of 4 bytes (2 h + 3) (1 + r / 4) read, 4 h written; accesses of 16 bytes
//     (1 + r / 4) (4 g + 3) / 4 read, 3 (g + 1) / 4 written; taps (7 accesses of 16 bytes an output of 8)
//   bytes: 8 read and 4 written in DRAM, 8 read again in L2, 8 (h - 1) of the neighbouring strips
// all of it times (rows + 4 r) / rows of a band. Machine instructions:
// benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include "ring_moments.cuh"

namespace ssimloss {

// Weighted: see ring_moments.cuh; with one gradient, of a mean, and without a blurred l1.
template <int K, int Gradients, bool Weighted>
class Ring : RingMoments {
  static constexpr int M = Gradients == 2 ? 4 : 3;  // maps: b_m, b_d, a_m + a_d, a_m - a_d

 public:
  INLINE Ring(const RingParams& params) : RingMoments(params), window{p.radius, taps, p.rim} {
    load_taps(p.taps, p.radius, taps);
  }

  INLINE void run() {
    const int first = row0 - s.margin;  // row of positions
    const int end = first + divided_up(row1 - row0 + (Gradients ? s.lag : 0), K) * K;
    const int down_tasks = divided_up(K * groups() + 2 * p.radius, 32),
              across_tasks = divided_up(K * groups(), 32);
    const int own_tasks = Gradients ? divided_up(col1 - col0, 32) : 0;
    int slot = 0, kept = 0;  // of this chunk in the rings, and of its bases
#pragma unroll 1
    for (int row = first - K; row < end + (Gradients ? K : 0); row += K) {  // the first turn only fills
      const bool now = row >= first && row < end, before = Gradients && row > first;
#pragma unroll 1
      for (int task = warp(); task < down_tasks + own_tasks; task += ring_threads / 32) {
        if (task < down_tasks) {
          if (now) down(row, slot, kept, 32 * task + lane());
        } else if (before) {
          blur_maps(previous(slot, K, s.capacity), previous(kept, 1, s.chunks), task - down_tasks);
        }
      }
      __syncthreads();
      if (row + K < end) {
        const int from = row + K + (row < first ? -p.radius : p.radius);
        const int to = row < first ? 0 : next(slot, 2 * p.radius + K, s.capacity);
        const int count = row < first ? 2 * p.radius + K : K;
        if (Weighted) fill_weights(from, to, count);
        fill<Weighted>(from, to, count);
      }
#pragma unroll 1
      for (int task = warp(); task < across_tasks + own_tasks; task += ring_threads / 32) {
        if (task < across_tasks) {
          if (now) positions(row, kept, task);
        } else if (before) {
          gradient_down(row - K + s.margin - s.lag, slot, previous(kept, 1, s.chunks),
                        32 * (task - across_tasks) + lane());
        }
      }
      __pipeline_wait_prior(0);
      __syncthreads();
      if (row < first) continue;
      slot = next(slot, K, s.capacity), kept = next(kept, 1, s.chunks);
    }
    plane.template write_sums<false, Weighted>(row0, col0, sum_ssim, sum_l1, raw);
  }

 private:
  const RingWindow window;
  float sum_ssim = 0, sum_l1 = 0;

  // Not under weights: scales.cuh has them.
  INLINE bool l1_windowed() const { return !Weighted && p.l1_windowed; }
  INLINE bool of_map() const { return !Weighted && p.grad_map.data; }
  INLINE int groups() const { return divided_up(col1 - col0 + 2 * s.margin, K); }  // needed
  INLINE int cell_of(int group) const { return ssimloss::cell_of<K>(window, group); }

  // ---- Moments of rows [row, row + K) of one column, whose windows begin at slot `slot`.
  INLINE void down(int row, int slot, int kept, int column) {
    if (column >= K * groups() + 2 * p.radius) return;
    const int shift = s.reach - s.margin - p.radius;
    moments_down<K, false, Weighted>(window, row, slot, shift, column, l1_windowed(),
                                     cells(2 * kept * s.cells), moments);
    if constexpr (Weighted) {
      float* const to = moments + (of_weights() + 1) * s.each_moment + column;
#pragma unroll 1
      for (int o = 0; o < K; ++o)
        to[o * s.moment_pitch] =
            raw_weights()[next(slot, o + p.radius, s.capacity) * s.raw_pitch + shift + column];
    }
    const int own = column - s.margin - p.radius;
    if (!p.l1 || l1_windowed() || own < 0 || own >= col1 - col0) return;
#pragma unroll 1
    for (int o = 0; o < K; ++o) {
      if (row + o < row0 || row + o >= row1) continue;
      const float* at = raw + next(slot, o + p.radius, s.capacity) * s.raw_pitch + shift + column;
      const float weight = Weighted ? at[2 * s.each_raw] : 1.f;
      if (Weighted && weight == 0.f) continue;
      const float here = magnitude(values({0, 0})(at[0], at[s.each_raw]).d);
      sum_l1 += Weighted ? weight * here : here;
    }
  }

  // ---- Losses, and maps where a gradient is wanted, at K columns of one row of positions.
  INLINE void positions(int first_row, int kept, int task) {
    const int line = row_of_lane<K>(lane()), group = group_of_lane<K>(lane(), task);
    const int row = first_row + line;
    if (group >= groups()) return;
    const float* from = moments + line * s.moment_pitch + K * group;
    RowMoments<K> at;
    const Some<K> inverse = moments_along<Weighted>(window, from, cells(2 * kept * s.cells + group), at);
    Some<K> l1;
    if (l1_windowed())
      l1 = blur_along<Weighted>(window, from + 4 * s.each_moment, from + of_weights() * s.each_moment,
                                inverse);
    const auto weight_of = [&](int o) { return from[(of_weights() + 1) * s.each_moment + p.radius + o]; };

    // Where positions are that matter here. Under reflect those outside mirror those inside.
    const bool reflect = p.padding == Padding::reflect;
    const bool row_exists = reflect || (row >= p.crop && row < p.height - p.crop);
    const bool row_own = row_exists && row >= row0 && row < row1;
    const float row_gain =
        Gradients ? plane.incoming() * (is_edge(row, p.height, p.padding) ? 2.f : 1.f) : 0.f;
    float block_ssim = 0, block_l1 = 0;
    const float ssim_gain = Weighted ? p.ssim_gain * float(plane.weights().ssim) : p.ssim_gain;
    float* to = maps + line * s.map_pitch + K * group;
    const int first_col = col0 - s.margin + K * group;
    if (Gradients && of_map()) {
#pragma unroll 1
      for (int o = 0; o < K; ++o) to[o] = plane.incoming_at(row, first_col + o);
    }
#pragma unroll
    for (int half = 0; half < K; half += 4) {
      Some<4> map[M], l1_gain;
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const int o = half + u, col = first_col + o;
        bool exists = row_exists && (reflect || (col >= p.crop && col < p.width - p.crop));
        const float weight = Weighted ? weight_of(o) : 1.f;
        if (Weighted) exists = exists && weight != 0.f;
        const bool own = row_own && exists && col >= col0 && col < col1;
        float gain = is_edge(col, p.width, p.padding) ? 2.f * row_gain : row_gain;
        if (Gradients && of_map()) gain *= to[o];
        if (Weighted) gain *= weight * inverse[o];
        const float g = ssim_gain * gain;
        const float g_cs =
            p.radius > 0 ? g : 0.f;  // one tap has no variance, but large terms that would have to cancel
        float maps_here[4];
        const Pair<float> relative = at.relative(o);
        const float loss = loss_and_maps<Gradients>(at.moments(o, plane.pad_d()), p.c1, p.c2, p.luminance,
                                                    relative.m, relative.d, g, g_cs, maps_here);
        if (own) {
          block_ssim += Weighted ? weight * loss : loss;
          if (l1_windowed()) block_l1 += l1[o];
        }
        if constexpr (Gradients == 0) {
          map[0][u] = p.ssim_weight * loss + (l1_windowed() ? p.l1_weight * l1[o] : 0.f);
        } else {
#pragma unroll
          for (int q = 0; q < M; ++q) map[q][u] = exists ? maps_here[q] : 0.f;
          l1_gain[u] = exists ? p.l1_gain * gain : 0.f;
        }
      }
#pragma unroll
      for (int q = 0; q < (Gradients ? M : 1); ++q) {
        if (Gradients || p.loss_map.data) put(map[q], to + q * s.each_map + half);
      }
      if (Gradients && l1_windowed()) put(l1_gain, to + M * s.each_map + half);
    }
    sum_ssim += block_ssim, sum_l1 += block_l1;
    if constexpr (Gradients == 0) {
      if (!p.loss_map.data || !row_own) return;
#pragma unroll 1
      for (int o = 0; o < K; ++o) {
        const int col = first_col + o;
        if (col < p.crop || col >= p.width - p.crop || col >= col1) continue;
        float loss = to[o];
        if (p.l1 && !l1_windowed()) loss += p.l1_weight * plane.pixel_l1(row, col);
        plane.write_loss(row, col, loss);
      }
    }
  }

  // ---- The maps of one row, blurred at K own columns, into the ring; the chunk's first row is slot `slot`.
  INLINE void blur_maps(int slot, int kept, int task) {
    const int line = row_of_lane<K>(lane()), group = group_of_lane<K>(lane(), task);
    if (K * group >= col1 - col0) return;
    maps_along<K, M>(window, maps + line * s.map_pitch + K * group,
                     cells(2 * kept * s.cells + cell_of(group)), cell_of(0), l1_windowed(),
                     ring + next(slot, line, s.capacity) * s.ring_pitch + K * group);
  }

  // ---- The gradient at rows [row, row + K) of one own column, from the ring of maps: input i is `lag` - i
  // rows above the first one of the last chunk, whose bases are `kept`.
  INLINE void gradient_down(int row, int slot, int kept, int column) {
    if (column >= col1 - col0 || row + K <= row0) return;
    const auto chunk_of = [&](int i) {  // where the bases of input i are
      const int back = (s.lag + K - 1 - i) / K;
      return (kept >= back ? kept - back : kept - back + s.chunks) * 2 * s.cells;
    };
    Some<K> out[M];
    const Some<K> difference = maps_down<Weighted>(
        window, row, column, [&](int i) { return next(slot, i, s.capacity); },
        cells(cell_of(cell_of(column / K))), chunk_of, l1_windowed(), out);
    plane.template write_gradient<Weighted>(Gradients == 2, row, row0, row1, col0 + column, out[2],
                                            out[M - 1], difference);
  }
};

template <int K, int Gradients, bool Weighted>
__global__ void __launch_bounds__(ring_threads, 2) ring_kernel(const __grid_constant__ RingParams params) {
  Ring<K, Gradients, Weighted>(params).run();
}

}  // namespace ssimloss
