// The positions of several scales, or of one window of more than 33 taps: value, and maps for the gradient
// in global memory, which adjoint.cuh blurs.
//
// A block owns a strip of columns and a band of rows of positions of one plane. It streams down the band in
// chunks of 8 rows; all scales are made from one ring of the rows of x and y that the largest window reaches.
// Step j of a chunk, j from 0 to the last scale, between barriers:
//   fill      in step 0: the next 8 rows into the ring, as x + y and x - y side by side
//   down      means and variances of scale j down the columns, from the ring (ring_moments.cuh)
//   pad       those of columns of nothing but zero padding, without a window
//   along     the same of the scale before (in step 0: of the last one, of the chunk before) along the row:
//             its cs and its coefficients, times the product of what came before; and the running loss and
//             product of each position. After the last scale the coefficients of all, times the product of
//             what comes behind, go into the maps: no division, and no arrays over the scales but in shared
//             memory
// A warp takes 32 columns and 4 rows (to fill: 1; to pad: 8) of one of these at a time, whichever is next in
// a queue that all share. 8 rows took 498 us where 4 took 487 (gpu-2026-11-26.md).
//
// For each element and scale of radius r, W own columns, h = 1 + 2 r / W:
//   FMA: (2 r + 1) (4 h + 4), (1 + r / 2) (6 h + 5) pointwise ones, and about 60, 80 at the last scale
//   shared memory: accesses of 8 bytes h (1 + r / 2) read, of 4 bytes 4 h written; of 16 bytes
//     4 (1 + r / 2) / 4 + 1 read, 1 written; taps (2 of 16 bytes for 4 taps of 4 outputs)
//   bytes: 12 written; 8 h read, once for all scales
// times (rows + 8) / rows where a band is no multiple of 8. Machine instructions:
// benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include "ring_moments.cuh"

namespace ssimloss {

// Which blocks have a scale, and its bands.
struct ScaleCut {
  int first_block, bands, band_rows;
};

struct ScalesParams : RingParams {  // whose radius is the largest, and whose taps are not used
  int scales;
  int radii[max_scales], taps_at[max_scales];  // in shared memory
  float scale_taps[max_scales][33];
  ScaleCut cut[max_scales];  // of adjoint_kernel
  LaunchRows rows;
  float* maps;   // [planes][map][rows.ring_rows][width - 2 crop]
  float* parts;  // [planes][scale][gradient][rows.part_rows][width]: of the gradient, where there are several
                 // scales
};

// A block has as many threads as registers allow, because warps hide each other's waiting.
__host__ __device__ constexpr int scales_threads(int gradients, bool weighted) {
  return gradients == 2 ? 512 : (weighted ? 640 : 768);
}

// Weighted: see ring_moments.cuh; then without maps for the value alone, too.
template <int Gradients, bool Weighted>
class Scales : RingMoments {
  static constexpr int R = 8, K = 4, threads = scales_threads(Gradients, Weighted);
  static constexpr int M = Gradients == 2 ? 4 : 3;  // maps: b_m, b_d, and a or a_m and a_d; then cs

 public:
  INLINE Scales(const ScalesParams& params)
      : RingMoments(params, piece_of(params, int(blockIdx.x), params.rows.bands, params.band_rows),
                    params.band_rows, params.crop),
        all(params),
        running(ring),
        partial(shared(s.partial)),
        piece_row(row0 - params.crop + params.rows.first_band * params.band_rows) {
    set_rows(all.rows, row0 - p.crop, p.band_rows);
#pragma unroll 1
    for (int j = 0; j < all.scales; ++j) load_taps(all.scale_taps[j], all.radii[j], taps + all.taps_at[j]);
  }

  INLINE void run() {
    for (int i = int(threadIdx.x); i < 2 * 32 * tasks(own_columns()); i += threads) partial[i] = 0;
    if (threadIdx.x == 0) set_interval(-1, 0, 0);
    __syncthreads();
    const int chunks = divided_up(row1 - row0, R), r = p.radius;
    int slot = 0, turn = 0;  // of the chunk in the ring; of the two buffers of moments, and the intervals
#pragma unroll 1
    for (int n = -1; n <= chunks; ++n) {  // the first turn only fills
      const int last_step = n >= 0 && n < chunks ? all.scales - 1 : 0;
#pragma unroll 1
      for (int step = 0; step <= last_step; ++step, turn ^= 1) {
        if (threadIdx.x == 0)
          step < last_step ? set_interval(n, step + 1, turn ^ 1) : set_interval(n + 1, 0, turn ^ 1);
        const int row = row0 + R * n;
        interval(turn).each_task([&](int task) { down(step, row, slot, turn, task); },
                                 [&](int task) {
                                   const bool same = step > 0;  // chunk
                                   along(same ? step - 1 : all.scales - 1, same ? row : row - R,
                                         same ? slot : previous(slot, R, s.capacity), turn ^ 1, task);
                                 },
                                 [&](int task) { pad(step, turn, task); },
                                 [&](int task) {
                                   const int to = n < 0 ? task : next(slot, 2 * r + R + task, s.capacity);
                                   if (Weighted) fill_weights((n < 0 ? row0 - r : row + R + r) + task, to);
                                   plane.with_type<Weighted>([&](auto* tag) {
                                     fill_line(tag, (n < 0 ? row0 - r : row + R + r) + task, to);
                                   });
                                 });
        __syncthreads();
      }
      if (n >= 0) slot = next(slot, R, s.capacity);
    }
    float sum_ssim = 0, sum_l1 = 0;
    for (int i = int(threadIdx.x); i < 32 * tasks(own_columns()); i += threads)
      sum_ssim += partial[2 * i], sum_l1 += partial[2 * i + 1];
    plane.template write_sums<true, Weighted>(piece_row, col0 - p.crop, sum_ssim, sum_l1, raw);
  }

 private:
  const ScalesParams& all;
  float* running;  // [3][R][map_pitch]: the product of what came before, at last l; the loss; the gain
  float* partial;  // [lane of a task along rows][2]: sums of ssim and l1 terms, whoever takes the task
  const int piece_row;

  INLINE RingWindow window_of(int j) const {
    const float* own = taps + all.taps_at[j];
    return {all.radii[j], own, own + 3};
  }
  INLINE Interval& interval(int turn) const { return reinterpret_cast<Interval*>(shared(s.queues))[turn]; }
  // Step `step` of chunk n, heavy tasks first.
  INLINE void set_interval(int n, int step, int turn) const {
    const int chunks = divided_up(row1 - row0, R), new_rows = n < 0 ? 2 * p.radius + R : R;
    const bool goes_down = n >= 0 && n < chunks, goes_along = step > 0 || n > 0;
    const Columns columns = columns_of(goes_down ? all.radii[step] : 0);
    const int inside = columns.end - columns.begin;
    interval(turn).set(goes_down ? tasks(inside) : 0, goes_along ? tasks(own_columns()) : 0,
                       goes_down ? divided_up(columns.all - inside, 32) : 0,
                       step == 0 && n + 1 < chunks ? new_rows : 0);
  }
  INLINE int own_columns() const { return K * divided_up(col1 - col0, K); }
  // Warps' tasks in so many columns of a chunk.
  INLINE static int tasks(int columns) { return R / K * divided_up(columns, 32); }
  // Of the moments of a scale: all, and the cells [begin, end) that have pixels. The others, of zero padding
  // alone, need no window.
  struct Columns {
    int all, begin, end;
  };
  INLINE Columns columns_of(int radius) const {
    const int all = own_columns() + 2 * radius;
    // Under a mask zeros have weights.
    if (p.padding != (Weighted ? Padding::normalized : Padding::zeros)) return {all, 0, all};
    const int end = K * divided_up(p.width - col0 + radius, K);
    return {all, radius > col0 ? (radius - col0) / K * K : 0, end < all ? end : all};
  }
  INLINE float* moments_of(int parity) const { return moments + parity * s.moments * s.each_moment; }
  INLINE Cells cells_of(int parity, int part) const { return cells((R / K * parity + part) * 2 * s.cells); }

  // One row of pixels, as pairs.
  template <class E>
  INLINE void fill_line(E* tag, int row, int slot) const {
    const int again = slot < s.repeated ? 2 * s.capacity * s.raw_pitch : 0;
    using Two = Some<2>;
    const auto pair = [&](float a, float b) { return p.pyramid ? Two{a, b} : Two{a + b, a - b}; };
    const auto put_twice = [&](const auto& pixels, int k) {
      float* to = raw + 2 * (slot * s.raw_pitch + k);
      put(pixels, to);
      if (again) put(pixels, to + again);
    };
    fill_row(
        plane, tag, row, col0 - s.reach, filled, lane(), 32,
        [&](int k, const E* x, const E* y) {
          if (!x) {
            const Some<4> both{0.f, plane.pad_d(), 0.f, plane.pad_d()};
            put_twice(both, k), put_twice(both, k + 2);
            return;
          }
          const Some<4, E> a = some<4>(x), b = some<4>(y);
#pragma unroll
          for (int u = 0; u < 4; u += 2) {
            const Two one = pair(wide(a[u]), wide(b[u])), two = pair(wide(a[u + 1]), wide(b[u + 1]));
            put_twice(Some<4>{one[0], one[1], two[0], two[1]}, k + u);
          }
        },
        [&](int k, const E* x, const E* y) {
          put_twice(x ? pair(wide(*x), wide(*y)) : Two{0.f, plane.pad_d()}, k);
        });
  }

  INLINE void down(int j, int row, int slot, int parity, int task) {
    const RingWindow window = window_of(j);
    const Columns columns = columns_of(window.radius);
    const int part = task % (R / K), column = columns.begin + task / (R / K) * 32 + lane();
    if (column >= columns.end) return;
    moments_down<K, true, Weighted>(window, row + K * part,
                                    next(slot, p.radius - window.radius + K * part, s.capacity),
                                    s.reach - window.radius, column, p.l1_windowed && j == all.scales - 1,
                                    cells_of(parity, part), moments_of(parity) + K * part * s.moment_pitch);
  }

  // Columns of zero padding alone, all rows of the chunk: each cell has the padding as its base.
  INLINE void pad(int j, int parity, int task) const {
    const Columns columns = columns_of(all.radii[j]);
    int column = 32 * task + lane();
    if (column >= columns.begin) column += columns.end - columns.begin;
    if (column >= columns.all) return;
    float* const to = moments_of(parity) + column;
#pragma unroll 1
    for (int i = 0; i < s.moments * R; ++i) to[i * s.moment_pitch] = 0;
    if (column % K) return;
#pragma unroll 1
    for (int part = 0; part < R / K; ++part) cells_of(parity, part).set(column / K, {0, plane.pad_d()});
  }

  INLINE void along(int j, int first_row, int slot, int parity, int task) {
    const RingWindow window = window_of(j);
    const int part = task % (R / K), group = group_of_lane<K>(lane(), task / (R / K));
    const int line = K * part + row_of_lane<K>(lane()), row = first_row + line;
    if (K * group >= col1 - col0) return;
    const float* from = moments_of(parity) + line * s.moment_pitch + K * group;
    RowMoments<K> at;
    const bool last = j == all.scales - 1, windowed_l1 = last && p.l1_windowed;
    const Some<K> inverse = moments_along<Weighted>(window, from, cells_of(parity, part).from(group), at);
    Some<K> l1;
    if (windowed_l1)
      l1 = blur_along<Weighted>(window, from + 4 * s.each_moment, from + of_weights() * s.each_moment,
                                inverse);
    const float* weights = nullptr;  // the positions' own
    if (Weighted)
      weights = raw_weights() + next(slot, p.radius + line, s.capacity) * s.raw_pitch + s.reach + K * group;

    const int first_col = col0 + K * group;
    float* run = running + line * s.map_pitch + K * group;
    float* to = maps + j * (M + 1) * s.each_map + line * s.map_pitch + K * group;
    if (j == 0) {
      const float row_gain =
          Gradients ? plane.incoming() * (is_edge(row, p.height, p.padding) ? 2.f : 1.f) : 0.f;
      const float ssim_gain = Weighted ? p.ssim_gain * float(plane.weights().ssim) : p.ssim_gain;
#pragma unroll 1
      for (int o = 0; o < K; ++o) {
        float gain = is_edge(first_col + o, p.width, p.padding) ? 2.f * row_gain : row_gain;
        if (Gradients && p.grad_map.data) gain *= plane.incoming_at(row, first_col + o);
        if (Weighted && !p.grad_map.data) gain *= weights[o];
        run[o] = ssim_gain * gain, run[s.each_map + o] = 0, run[2 * s.each_map + o] = gain;
      }
    }
    const float* pixels =
        raw + 2 * (next(slot, p.radius + line, s.capacity) * s.raw_pitch + s.reach + K * group);
    const auto value = values<true>(at.near);
    float block_ssim = 0, block_l1 = 0;
    Some<K> before = some<K>(run), total = some<K>(run + s.each_map);
    Some<K> map[M + 1];
    const auto positions = [&](auto is_last) {  // the last scale alone has an l
      constexpr bool last = decltype(is_last)::value;
#pragma unroll
      for (int o = 0; o < K; ++o) {
        const Moments<float> mu = at.moments(o, plane.pad_d());
        Dissimilarity<float> e = dissimilarity<last>(mu, p.c1, p.c2);
        if (last) e.e_l *= p.luminance, e.inverse_a *= p.luminance, e.l = 1.f - e.e_l;
        float loss = total[o];
        if (last) loss += e.e_l - loss * e.e_l;
        loss += e.e_cs - loss * e.e_cs;
        const Some<2> both = some<2>(pixels + 2 * o);
        const Pair<float> pixel = value(both[0], both[1]);
        if (Gradients) {
          const float g_cs =
              window.radius > 0 ? before[o] * e.l : 0.f;  // one tap has no variance: see ring.cuh
          const Pair<float> delta = pixel - at.relative(o);
          const Coefficients<float> c =
              Weighted ? coefficients<last, float>(mu, e, delta.m, delta.d, before[o] * e.cs * inverse[o],
                                                   g_cs * inverse[o])
                       : coefficients<last, float>(mu, e, delta.m, delta.d, before[o] * e.cs, g_cs);
          map[0][o] = c.b_m, map[1][o] = c.b_d;
          map[2][o] = Gradients == 2 ? c.a_m : c.a_m + c.a_d;
          if (Gradients == 2) map[M - 1][o] = c.a_d;
          map[M][o] = e.cs;
          before[o] = last ? e.l : before[o] * e.cs;
        }
        if (last) {
          loss = not_negative(loss);
          const bool exists = row < row1 && first_col + o < col1 && !(Weighted && weights[o] == 0.f);
          if (exists) block_ssim += Weighted ? weights[o] * loss : loss;
          if (exists && windowed_l1) block_l1 += Weighted ? weights[o] * l1[o] : l1[o];
          loss *= p.ssim_weight;
          if (p.l1) {
            const float of_pixel = magnitude(pixel.d + (at.near.d - plane.pad_d()));
            loss += p.l1_weight * (p.l1_windowed ? l1[o] : of_pixel);
          }
        }
        total[o] = loss;
      }
    };
    last ? positions(std::true_type{}) : positions(std::false_type{});
    if (last) {
      float* sums = partial + 2 * (task * 32 + lane());
      sums[0] += block_ssim, sums[1] += block_l1;
    }
    if (last && p.loss_map.data && row < row1) {
#pragma unroll
      for (int o = 0; o < K; ++o) {
        const float loss = Weighted && weights[o] == 0.f ? 0.f : total[o];
        if (first_col + o < col1) plane.write_loss(row, first_col + o, loss);
      }
    }
    put(total, run + s.each_map);
    if (!Gradients || (Weighted && !all.maps)) return;
    put(before, run);
#pragma unroll
    for (int q = 0; q <= M; ++q) put(map[q], to + q * s.each_map);
    if (Weighted && last) {
#pragma unroll
      for (int o = 0; o < K; ++o) run[2 * s.each_map + o] *= inverse[o];
    }
    if (last && row < row1) write(row, first_col, to, before, run + 2 * s.each_map, weights);
  }

  // The maps of K positions: `from` those of the last scale, l, the gains and the weights of each.
  INLINE void write(int row, int col, const float* from, Some<K> l, const float* gains,
                    const float* weights) const {
    const int count = all.scales * M + p.l1_windowed;
    const bool together = p.map_width % K == 0;  // then all lie on 16 bytes
    float* to = all.maps + (plane.index() * count + (all.scales - 1) * M) * p.map_size +
                all.rows.in_ring(row) * p.map_width + (col - p.crop);
    const auto write_map = [&](float* at, float gain, const Some<K>& by, const Some<K>& values) {
      Some<K> out;
#pragma unroll
      for (int o = 0; o < K; ++o) {
        out[o] = gain * by[o] * values[o];
        if (Weighted && weights[o] == 0.f) out[o] = 0.f;
      }
      if (together) return put(out, at);
#pragma unroll
      for (int o = 0; o < K; ++o) {
        if (col + o < col1) at[o] = out[o];
      }
    };
    Some<K> behind{1, 1, 1, 1};
    const float l1_gain = Weighted ? p.l1_gain * float(plane.weights().l1) : p.l1_gain;
    if (p.l1_windowed) write_map(to + M * p.map_size, l1_gain, behind, some<K>(gains));
#pragma unroll 1
    for (int j = all.scales - 1; j >= 0; --j, to -= M * p.map_size, from -= (M + 1) * s.each_map) {
#pragma unroll
      for (int q = 0; q < M; ++q) write_map(to + q * p.map_size, 1.f, behind, some<K>(from + q * s.each_map));
      const Some<K> cs = some<K>(from + M * s.each_map);
#pragma unroll
      for (int o = 0; o < K; ++o) behind[o] *= cs[o] * l[o], l[o] = 1;
    }
  }
};

template <int Gradients, bool Weighted>
__global__ void __launch_bounds__(scales_threads(Gradients, Weighted), 1)
    scales_kernel(const __grid_constant__ ScalesParams params) {
  Scales<Gradients, Weighted>(params).run();
}

}  // namespace ssimloss
