// SSIM under an 11-tap window, value and gradient in one launch: horizontal, vertical, vertical, horizontal.
//
// A block owns a strip of columns and a band of rows of one plane, and has warps for the widest strip's
// moments, 32 columns each. It streams down the band in chunks of 8 raw rows; three barriers a chunk:
//   fill        cp.async of the next 8 rows of x and y, as they are, into one buffer
//   along       a thread makes the moments of 8 neighbouring columns of one row: G*m, G*d, G*m^2, G*d^2
//   down, twice a thread owns a column: transposed filters (a row adds to the 10 outputs still pending, in
//               registers) complete the moments, the formula gives three maps, and transposed filters blur
//               those too; they take the place of the moments in shared memory
//   along       a thread makes the gradient of 8 neighbouring columns of one row, from the blurred maps and
//               from x and y, read again while the filters run (they are in the L2 cache by then)
// Moments are needed 5 columns and rows beyond the gradient, pixels 10; for the value alone, pixels 5.
//
// Everything is relative to a value close by, or float32 loses the variance of flat bright areas: `along`
// subtracts the middle of three pixels in its 8x8 cell (from three rows, so that no single huge pixel or
// NaN spreads), `down` moves its pending sums from one cell's value to the next one's (exact identities:
// G*(v - b - h) = G*v' - h, G*(v - b - h)^2 = G*v'^2 - h (G*v' + G*(v' - h))), and `along` moves what comes
// from the cells beside it. Checked in float32 against float64 on photographs: gradients within 2e-6.
//
// For each element, one gradient, 192 threads (176 own columns: x 1.09), bands of 135 rows (x 1.19):
//   bytes: 8 read and 4 written in DRAM, 8 read again in L2
//   FMA: 44 + 13 along (moments), 36 + 27 and 7 additions down, 33 + 6 along; 25 for the formula, 8 to
//     change cells
//   shared memory accesses: 1.25 of 16 bytes for each of m and d, 1 of 16 bytes written; down 4 of 4 bytes
//     read, 3 written; 3 of 16 bytes for the gradient
// Machine instructions by class: benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include <cstring>

#include "strip_pool.cuh"

namespace ssimloss {

// Blocks of all 192 threads that a multiprocessor runs at once, as far as registers go.
constexpr int strip_blocks(int gradients) { return gradients ? 2 : 3; }

template <int Gradients, bool Maps, bool Pools = false>
class Strip : StripPool {
  static constexpr int margin = Gradients ? r : 0;
  static constexpr int maps = Gradients == 2 ? 4 : 3;
  static constexpr bool early = Gradients == 1 && !Maps;  // registers for pixels to wait in

 public:
  using StripPool::StripPool;

  INLINE void run() {
    for (int i = int(threadIdx.x); i < 4 * groups; i += int(blockDim.x)) bases[i] = 0.f;
    if (l1() && int(threadIdx.x) < p.own) covers[threadIdx.x] = l1_cover(col0 + int(threadIdx.x), p.width);
    int begin = row0 - margin - r, end = row1() + margin + r;
    if (Pools) start_pool(begin, end);
    for (int row = begin - R; row < end;
         row += R) {  // the first turn only fills, so fill is in the code once
      if (row >= begin) {
        __pipeline_wait_prior(0);
        __syncthreads();
        if (Pools) pool(row);
        moments_along(row);
        __syncthreads();
      }
      if (row + R < end) fill(row + R);
      if (row < begin) continue;
      if (Gradients && l1() && threadIdx.x < R) {
        const float cover = l1_cover(row - 2 * r + int(threadIdx.x), p.height);
        here->l1_rows[threadIdx.x] = {cover, p.l1_gain * incoming() * cover};
      }
      down(row);
      if (Gradients) {
        __syncthreads();
        gradient_along(row);
      }
    }
    plane().write_sums(row0, col0, sum_ssim, sum_l1, raw);
  }

 private:
  float sum_ssim = 0.f, sum_l1 = 0.f;
  float pending[4][2 * r] = {}, pending_maps[4][2 * r] = {};

  // f(i, weight) for those of 8 windows side by side that hold input `at` of theirs.
  template <class F>
  INLINE void each_window(int at, F f) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int t = at - i - r;
      if (t >= -r && t <= r) f(i, common.taps_along[t < 0 ? -t : t]);
    }
  }

  // ---- Moments of 8 columns of one row.
  INLINE void moments_along(int row) {
    const int thread = again(int(threadIdx.x)), lane = row_of_lane<8>(thread),
              group = group_of_lane<8>(thread, thread / 32);
    if (8 * group >= columns()) return;
    // The cell's value: of its first three rows inside the image; where it has not as many, the value of the
    // cell above stays. All threads of a group find the same.
    const int first = row > 0 ? row : 0;
    Pair<float> base;
    if (first + 3 <= row + R && (first + 3 <= p.height || (p.height < 3 && row <= 0))) {
      const float* column = raw + 12 - col0 + clamped(col0 - margin + 8 * group + 4, 0, p.width - 1);
      base = base_of_three([&](int i) {
        const int line = first + i < p.height ? first + i - row : p.height - 1 - row;
        return values({0, 0})(column[line * raw_pitch], column[(R + line) * raw_pitch]);
      });
    } else {
      base = bases_of(row - R)[group];
    }
    if (lane == 0) bases_of(row).set(group, base);
    constexpr int before = 12 - r - margin, skipped = before % 4;  // pixels before the first window
    constexpr int parts = (skipped + 8 + 2 * r + 3) / 4;
    const float *x = raw + lane * raw_pitch + 8 * group + (before - skipped), *y = x + R * raw_pitch;
    float* to = slots + lane * pitch + 8 * group;
    // First of m, then of d: fewer registers, and half the instructions to fetch.
#pragma unroll 1
    for (int q = 0; q < 2; ++q) {
      const Reading value = values(base).of(q);
      const float* a = coarser && q ? y : x;
      Some<8> mean{}, square{};
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        const Some<4> four_x = some<4>(a + 4 * part), four_y = some<4>(y + 4 * part);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int at = 4 * part + u - skipped;  // pixel of the first column's window
          if (at < 0 || at >= 8 + 2 * r) continue;
          const float v = value(four_x[u], four_y[u]);
          const float vv = v * v;
          each_window(at, [&](int i, float w) {
            mean[i] = fmaf(w, v, mean[i]);
            square[i] = fmaf(w, vv, square[i]);
          });
        }
      }
      put(mean, to + q * R * pitch), put(square, to + (q + 2) * R * pitch);
    }
    if (!Gradients && l1() && row + lane >= row0 && row + lane < row1()) add_l1(row + lane);
  }

  // The l1 term of the own pixels among the 8 columns.
  INLINE void add_l1(int row) {
    const float of_row = plane().inverse_range() * l1_cover(row, p.height);
    const int first = 8 * group_of_lane<8>(int(threadIdx.x), int(threadIdx.x) / 32);
    const float* x = raw + row_of_lane<8>(int(threadIdx.x)) * raw_pitch + 12 + first;
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
      if (first + i >= col1() - col0) break;
      const float difference = x[i] - x[i + R * raw_pitch];
      sum_l1 += fabsf(difference * of_row) * covers[first + i];
    }
  }

  // ---- One column: rows [row, row + R) of moments complete rows of positions, those rows of maps.
  INLINE void down(int row) {
    const int column = again(int(threadIdx.x)), col = col0 - margin + column;
    if (column / 32 * 32 >= columns()) return;  // the whole warp: beyond the image
    const int crop = common.crop;
    // Where positions are that matter here. Under reflect those outside mirror those inside.
    const bool reflect = common.padding == Padding::reflect;
    const int top = reflect || row0 - margin > crop ? row0 - margin : crop;
    const int bottom = reflect || row1() + margin < p.height - crop ? row1() + margin : p.height - crop;
    const bool col_exists = reflect || (col >= crop && col < p.width - crop);
    const bool col_own = col >= col0 && col < col1() && col >= crop && col < p.width - crop;

    const Pair<float> base = bases_of(row)[column / 8];
    change_base(base - bases_of(row - R)[column / 8]);

    const float gain = Gradients ? p.ssim_gain * incoming() : 0.f;
    const Column at{col,
                    col_exists,
                    col_own,
                    {base.m, base.d - pad_d()},
                    is_edge(col, p.width, common.padding) ? 2.f * gain : gain,
                    Gradients && Maps ? incoming_of(reflect ? mirrored(col, p.width) : col) : nullptr};
    float* slot = slots + column;
    // Nearly always all rows are positions, and the block's own: then no row is asked whether it is.
    const bool plain = row - r >= (top > row0 ? top : row0) + reflect &&  // reflect: not the edges
                       row - r + R <= (bottom < row1() ? bottom : row1()) - reflect;
    if (plain) {  // unrolled, both gradients would spill
#pragma unroll(Gradients == 2 ? 1 : R)
      for (int i = 0; i < R; ++i) one_row<true>(row + i - r, true, at, slot + i * pitch);
    } else {
#pragma unroll 1
      for (int i = 0; i < R; ++i) {
        const int line = row + i - r;
        one_row<false>(line, line >= top && line < bottom, at, slot + i * pitch);
      }
    }
  }

  struct Column {
    int col;
    bool exists, own;
    Pair<float> base;  // what it adds to the means
    float gain;
    const float* incoming;  // of a map
  };

  // Row `line` of positions is complete.
  template <bool Plain>
  INLINE void one_row(int line, bool exists, const Column& at, float* slot) {
    float done[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) done[q] = push(slot[q * R * pitch], pending[q]);
    float map[4] = {0.f, 0.f, 0.f, 0.f};
    if (Plain || exists) {
      const Moments<float> mu{done[0] + at.base.m, done[1] + at.base.d,
                              not_negative(fmaf(-done[0], done[0], done[2])),
                              not_negative(fmaf(-done[1], done[1], done[3]))};
      float g = at.gain;
      if (Gradients && Maps && at.exists)
        g *= at.incoming[(Plain ? line : mirrored(line, p.height)) * p.grad_map.h];
      if (Gradients && !Plain && is_edge(line, p.height, common.padding)) g *= 2.f;
      const float loss =
          loss_and_maps<Gradients>(mu, common.c1, common.c2, p.luminance, done[0], done[1], g, g, map);
#pragma unroll
      for (int q = 0; q < maps; ++q) map[q] = at.exists ? map[q] : 0.f;
      const bool counted = at.own && (Plain || (line >= row0 && line < row1()));
      if (counted) sum_ssim += loss;
      if (Maps && !Gradients && counted) {
        const float total = p.ssim_weight * loss;
        plane().write_loss(line, at.col,
                           l1() ? fmaf(p.l1_weight, plane().pixel_l1(line, at.col), total) : total);
      }
    }
    if (Gradients) {
#pragma unroll
      for (int q = 0; q < maps; ++q) slot[q * R * pitch] = push(map[q], pending_maps[q]);
    }
  }

  // Where row 0 of the incoming gradient of a map would be in this column, if all pixels were positions.
  INLINE const float* incoming_of(int col) const {
    return static_cast<const float*>(p.grad_map.data) +
           p.grad_map.at(here->image, here->channel, -common.crop, col - common.crop);
  }

  // Of positions that the block needs.
  INLINE int columns() const { return col1() - col0 + 2 * margin; }

  // Of a chunk; those of the one before are kept.
  INLINE Cells bases_of(int row) const { return {bases + (row >> 3 & 1) * 2 * groups, groups}; }

  // A transposed filter: v is the last of 11 rows for the output that is returned, the first for the
  // newest pending one.
  INLINE float push(float v, float (&outputs)[2 * r]) const {
    const float done = v + outputs[0];
#pragma unroll
    for (int j = 0; j < 2 * r - 1; ++j) {
      const int t = r - 1 - j;
      outputs[j] = fmaf(common.taps_down[t < 0 ? -t : t], v, outputs[j + 1]);
    }
    outputs[2 * r - 1] = v;
    return done;
  }

  // Make pending sums relative to bases that differ by so much.
  INLINE void change_base(Pair<float> by) {
#pragma unroll
    for (int j = 0; j < 2 * r; ++j) {
      const float reached = common.reached[j];
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const float old = pending[q][j];
        pending[q][j] = fmaf(q ? -by.d : -by.m, reached, old);
        pending[q + 2][j] = fmaf(q ? -by.d : -by.m, old + pending[q][j], pending[q + 2][j]);
      }
      if (!Gradients) continue;
      const float of_m = by.m * pending_maps[0][j], of_d = by.d * pending_maps[1][j];
      pending_maps[2][j] += of_d - of_m;
      if (Gradients == 2) pending_maps[3][j] -= of_d + of_m;
    }
  }

  // ---- The gradient of 8 columns of one row, whose maps are complete in the chunk from row `chunk` on.
  INLINE void gradient_along(int chunk) {
    const int thread = again(int(threadIdx.x)), lane = row_of_lane<8>(thread),
              group = group_of_lane<8>(thread, thread / 32), row = chunk - 2 * r + lane;
    const int col = col0 + 8 * group;
    if (col >= col1() || row < row0 || row >= row1()) return;
    const bool together = p.in_fours && col + 8 <= col1();
    Eight x, y;  // on their way while the filters run
    if (early && together) load(row, col, x, y);
    // Windows reach over three cells; all becomes relative to the middle one's base.
    const Cells cells = bases_of(chunk).from(group);
    const Pair<float> base = cells[1];
    float out[maps][8] = {};
    const float* from = slots + lane * pitch + 8 * group;
#pragma unroll
    for (int part = 0; part < 5; ++part) {
      Some<4> four[maps];
#pragma unroll
      for (int q = 0; q < maps; ++q) four[q] = some<4>(from + q * R * pitch + 4 * part);
      const Pair<float> by = cells[part / 2] - base;
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const int at = 4 * part + u;
        if (at >= 8 + 2 * r) continue;
        float map[maps];
#pragma unroll
        for (int q = 0; q < maps; ++q) map[q] = four[q][u];
        if (part / 2 != 1) {
          map[2] = fmaf(by.m, map[0], fmaf(-by.d, map[1], map[2]));
          if (Gradients == 2) map[maps - 1] = fmaf(by.m, map[0], fmaf(by.d, map[1], map[maps - 1]));
        }
        each_window(at, [&](int i, float w) {
#pragma unroll
          for (int q = 0; q < maps; ++q) out[q][i] = fmaf(w, map[q], out[q][i]);
        });
      }
    }
    if (common.padding == Padding::reflect) {  // gradients are half at the edges; they are linear in the maps
      const float of_row = is_edge(row, p.height, common.padding) ? 0.5f : 1.f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float edge = is_edge(col + i, p.width, common.padding) ? 0.5f * of_row : of_row;
#pragma unroll
        for (int q = 0; q < maps; ++q) out[q][i] *= edge;
      }
    }
    const float* incoming = nullptr;  // of a map's l1, from this pixel on, if the row has positions
    if (Maps && row >= common.crop && row < p.height - common.crop)
      incoming = incoming_of(col) + row * p.grad_map.h;
    with_type([&](auto* tag) { write_gradient(tag, row, col, base, out, incoming, together, x, y); });
  }

  // 8 pixels as they lie in memory.
  struct Eight {
    float words[8];
    template <class E>
    INLINE void load(const E* from) {
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        const Some<4, E> four = some<4>(from + i);
        memcpy(words + i * sizeof(E) / 4, &four, sizeof four);
      }
    }
    template <class E>
    INLINE Some<4, E> four(int i) const {
      Some<4, E> four;
      memcpy(&four, words + i * sizeof(E) / 4, sizeof four);
      return four;
    }
  };
  INLINE void load(int row, int col, Eight& x, Eight& y) const {
    with_type([&](auto* tag) {
      using E = std::remove_pointer_t<decltype(tag)>;
      x.load(pixels<E>(0) + row * p.x.h + col);
      y.load(pixels<E>(1) + row * p.y.h + col);
    });
  }

  // The gradient at pixels [col, col + 8) of a row, from the blurred maps.
  template <class E>
  INLINE void write_gradient(E*, int row, int col, Pair<float> base, float (&out)[maps][8],
                             const float* incoming, bool together, const Eight& x, const Eight& y) {
    const auto pixel = [&](int q, const View& view, int at) {
      return pixels<E>(q) + (row * view.h + (col + at) * view.w);
    };
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      if (!early) asm volatile("" ::: "memory");  // or all loads come first, and registers spill
      Some<4, E> a, b;                            // of x and y; then their gradients
      if (together) {
        a = early ? x.template four<E>(i) : some<4>(pixel(0, p.x, i));
        b = early ? y.template four<E>(i) : some<4>(pixel(1, p.y, i));
      } else {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int at = col + i + u < col1() ? i + u : 0;
          a[u] = *pixel(0, p.x, at), b[u] = *pixel(1, p.y, at);
        }
      }
      gradient_at(col, base, a, b, out, incoming, i);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        narrow(out[2][i + u], a[u]);
        if (Gradients == 2) narrow(out[maps - 1][i + u], b[u]);
      }
      if (together) {
        put(a, pixel(2, p.grad_x, i));
        if (Gradients == 2) put(b, pixel(3, p.grad_y, i));
        continue;
      }
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        if (col + i + u >= col1()) break;
        *pixel(2, p.grad_x, i + u) = a[u];
        if (Gradients == 2) *pixel(3, p.grad_y, i + u) = b[u];
      }
    }
  }

  // At 4 pixels from column col + i on, a of x and b of y, in the place of the last maps of i on.
  template <class E>
  INLINE void gradient_at(int col, Pair<float> base, const Some<4, E>& a, const Some<4, E>& b,
                          float (&out)[maps][8], const float* incoming, int i) {
    const Some<4> x = wide(a), y = wide(b);
    const Values<> value = values(base);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const Pair<float> pixel = value(x[u], y[u]);
      const float by_m = pixel.m * out[0][i + u], by_d = pixel.d * out[1][i + u];
      out[2][i + u] = (out[2][i + u] - by_m) + by_d;
      if (Gradients == 2) out[maps - 1][i + u] = (out[maps - 1][i + u] - by_m) - by_d;
    }
    if (!l1()) return;
    const L1Row of_row = here->l1_rows[row_of_lane<8>(again(int(threadIdx.x)))];
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      if (col + i + u >= col1()) break;
      const float difference = x[u] - y[u];  // not d and its base: its sign counts
      const float covered = covers[col + i + u - col0];
      sum_l1 += fabsf(difference * value.of_d.scale) * (of_row.cover * covered);
      float gain = of_row.gain * covered;
      if (Maps) {
        const bool exists = incoming && col + i + u >= common.crop && col + i + u < p.width - common.crop;
        gain *= exists ? incoming[(i + u) * p.grad_map.w] : 0.f;
      }
      const float by = gradient_of_l1(difference, gain);
      out[2][i + u] += by;
      if (Gradients == 2) out[maps - 1][i + u] -= by;
    }
  }
};

// One level, or with Pools the finest of the dyadic form, which makes the coarser ones.
template <int Gradients, bool Maps, bool Pools>
__global__ void __launch_bounds__(strip_threads, strip_blocks(Gradients))
    strip_kernel(const __grid_constant__ StripParams params) {
  Strip<Gradients, Maps, Pools>(params, params, false, int(blockIdx.x)).run();
}

// Coarser levels of the dyadic form, side by side.
template <int Gradients>
__global__ void __launch_bounds__(strip_threads, strip_blocks(Gradients))
    levels_kernel(const __grid_constant__ LevelsParams params) {
  int level = 0;
#pragma unroll
  for (int j = 1; j < levels_at_once; ++j) level += int(blockIdx.x) >= params.first_block[j];
  const int piece = int(blockIdx.x) - params.first_block[level];
  Strip<Gradients, false>(params.level[level], params.level[0], true, piece).run();
}

}  // namespace ssimloss
