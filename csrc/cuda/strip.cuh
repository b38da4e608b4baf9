// SSIM under an 11-tap window, value and gradient in one launch: horizontal, vertical, vertical, horizontal.
//
// A block owns a strip of columns and a band of rows of one plane. It streams down the band in chunks of
// 8 raw rows; three barriers a chunk:
//   fill        cp.async of the next 8 rows of x and y, as they are, into one buffer
//   along       a thread makes the moments of 8 neighbouring columns of one row: G*m, G*d, G*m^2, G*d^2
//   down, twice a thread owns a column: transposed filters (a row adds to the 10 outputs still pending, in
//               registers) complete the moments, the formula gives three maps, and transposed filters blur
//               those too; they take the place of the moments in shared memory
//   along       a thread makes the gradient of 8 neighbouring columns of one row, from the blurred maps and
//               from x and y, read again (they are in the L2 cache by then)
// Moments are needed 5 columns and rows beyond the gradient, pixels 10.
//
// Everything is relative to a value close by, or float32 loses the variance of flat bright areas: `along`
// subtracts the middle of three pixels in its 8x8 cell (from three rows, so that no single huge pixel or
// NaN spreads), `down` moves its pending sums from one cell's value to the next one's (exact identities:
// G*(v - b - h) = G*v' - h, G*(v - b - h)^2 = G*v'^2 - h (G*v' + G*(v' - h))), and `along` moves what comes
// from the cells beside it. Checked in float32 against float64 on photographs: gradients within 2e-6.
//
// For each element, one gradient, 192 threads (176 own columns: x 1.09), bands of 135 rows (x 1.19):
//   bytes: 8 read and 4 written in DRAM, 8 read again in L2
//   FMA: 44 + 13 along (moments), 44 + 33 down, 33 + 7 along; 36 for the formula, 8 to change cells
//   shared memory accesses: 1.25 of 16 bytes for each of m and d, 1 of 16 bytes written; down 4 of 4 bytes
//   read, 3 written; 3 of 16 bytes for the gradient
// Machine instructions by class: benchmarks/results/cuda-estimate-2026-11-25.md.
#pragma once

#include "launch.cuh"
#include "strip_pool.cuh"
#include "sums.cuh"

namespace ssimloss {

#include "../ssim_math.h"

// Blocks that a multiprocessor runs at once. Two leave 168 registers a thread, too few for both gradients of
// a map: they would spill up to 116 bytes.
constexpr int strip_blocks(int gradients, bool maps) { return maps && gradients == 2 ? 1 : 2; }

template <int Gradients, bool Maps, bool Pools = false>
class Strip : StripPool {
  static constexpr int margin = Gradients ? r : 0;
  static constexpr int maps = Gradients == 2 ? 4 : 3;
  static constexpr int across = Gradients == 2 ? 8 : 4;  // see gradient_along; 4 would spill

 public:
  using StripPool::StripPool;

  __device__ __forceinline__ void run() {
    float pending[4][2 * r], pending_maps[4][2 * r];
#pragma unroll
    for (int j = 0; j < 2 * r; ++j) {
#pragma unroll
      for (int q = 0; q < 4; ++q) pending[q][j] = pending_maps[q][j] = 0.f;
    }
    if (threadIdx.x < 2 * groups) bases[threadIdx.x] = 0.f;
    if (l1() && threadIdx.x < own) covers[threadIdx.x] = l1_cover(col0 + int(threadIdx.x), p.width);
    float base_m = 0.f, base_d = 0.f, sum_ssim = 0.f, sum_l1 = 0.f;
    int begin = row0 - margin - r, end = row1() + margin + r;
    if (Pools) start_pool(begin, end);
    for (int row = begin - R; row < end; row += R) {  // the first time only fills: once in the code
      if (row >= begin) {
        __pipeline_wait_prior(0);
        __syncthreads();
        if (Pools) pool(row);
        moments_along(row, sum_l1);
        __syncthreads();
      }
      if (row + R < end) fill(row + R);
      if (row < begin) continue;
      down(row, pending, pending_maps, base_m, base_d, sum_ssim);
      if (Gradients) {
        __syncthreads();
        gradient_along(row - 2 * r, sum_l1);
      }
    }
    reduce(sum_ssim, sum_l1);
  }

 private:
  // ---- Moments of 8 columns of one row.
  __device__ __forceinline__ void moments_along(int row, float& sum_l1) {
    const int lane = row_of_lane(), group = group_of_lane();
    if (8 * group >= col1() - col0 + r + margin) return;
    // The cell's value: of its first three rows inside the image; where it has not as many, the value of the
    // cell above stays. All threads of a group find the same.
    const int first = row > 0 ? row : 0;
    float base_m, base_d;
    if (first + 3 <= row + R && (first + 3 <= p.height || (p.height < 3 && row <= 0))) {
      float m[3], d[3];
      const float* column = raw + 12 - col0 + clamped(col0 + 8 * group - 1, 0, p.width - 1);
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        const float* from =
            column + (first + i < p.height ? first + i - row : p.height - 1 - row) * raw_pitch;
        const float a = from[0], b = from[R * raw_pitch];
        m[i] = reading(0, 0.f)(a, b), d[i] = reading(1, 0.f)(coarser ? b : a, b);
      }
      base_m = finite_or_zero(middle(m[0], m[1], m[2]));
      base_d = finite_or_zero(middle(d[0], d[1], d[2]));
      if (lane == 0) bases[group] = base_m, bases[groups + group] = base_d;
    } else {
      base_m = bases[group], base_d = bases[groups + group];
    }
    const float *x = raw + lane * raw_pitch + 8 * group, *y = x + R * raw_pitch;
    float* to = slots + lane * pitch + 8 * group;
    // First of m, then of d: fewer registers, and half the instructions to fetch.
#pragma unroll 1
    for (int q = 0; q < 2; ++q) {
      const Reading value = reading(q, q ? base_d : base_m);
      const float* a = coarser && q ? y : x;
      float mean[8], square[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) mean[i] = square[i] = 0.f;
#pragma unroll
      for (int part = 0; part < 5; ++part) {
        const Four<float> four_x = *reinterpret_cast<const Four<float>*>(a + 4 * part);
        const Four<float> four_y = *reinterpret_cast<const Four<float>*>(y + 4 * part);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int at = 4 * part + u - 2;  // pixel of the first column's window
          if (at < 0 || at >= 8 + 2 * r) continue;
          const float v = value(four_x.v[u], four_y.v[u]);
          const float vv = v * v;
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const int t = at - i - r;
            if (t < -r || t > r) continue;
            const float w = common.taps[t < 0 ? -t : t];
            mean[i] = fmaf(w, v, mean[i]);
            square[i] = fmaf(w, vv, square[i]);
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Four<float> means, squares;
#pragma unroll
        for (int u = 0; u < 4; ++u) means.v[u] = mean[4 * half + u], squares.v[u] = square[4 * half + u];
        *reinterpret_cast<Four<float>*>(to + q * R * pitch + 4 * half) = means;
        *reinterpret_cast<Four<float>*>(to + (q + 2) * R * pitch + 4 * half) = squares;
      }
    }
    if (!Gradients && l1() && row + lane >= row0 && row + lane < row1()) add_l1(row + lane, x, sum_l1);
  }

  // The l1 term of the own pixels among the 8 columns.
  __device__ __forceinline__ void add_l1(int row, const float* x, float& sum) const {
    const float of_row = p.inverse_range * l1_cover(row, p.height);
    const int first = 8 * group_of_lane() - r;
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
      if (first + i < 0 || first + i >= col1() - col0) continue;
      const float difference = x[2 + r + i] - x[2 + r + i + R * raw_pitch];
      sum += fabsf(difference * of_row) * covers[first + i];
    }
  }

  // ---- One column: rows [row, row + R) of moments complete rows of positions, those rows of maps.
  __device__ __forceinline__ void down(int row, float (&pending)[4][2 * r], float (&pending_maps)[4][2 * r],
                                       float& base_m, float& base_d, float& sum_ssim) {
    const int column = int(threadIdx.x), col = col0 - r + column;
    if (column / 32 * 32 >= col1() - col0 + r + margin) return;  // the whole warp: beyond the image
    const bool valid = common.padding == Padding::valid;
    const int crop = valid ? r : 0;
    // Where positions are that matter here. Under reflect those outside mirror those inside.
    const bool reflect = common.padding == Padding::reflect;
    const int top = reflect || row0 - margin > crop ? row0 - margin : crop;
    const int bottom = reflect || row1() + margin < p.height - crop ? row1() + margin : p.height - crop;
    const bool col_exists = reflect || (col >= crop && col < p.width - crop);
    const bool col_own = col >= col0 && col < col1() && col >= crop && col < p.width - crop;

    change_base(bases[column / 8], bases[groups + column / 8], pending, pending_maps, base_m, base_d);

    Column at{
        col,
        col_exists,
        col_own,
        base_m,
        base_d - pad_d(),
        (Gradients ? p.ssim_gain * incoming() : 0.f) * (is_edge(col, p.width, common.padding) ? 2.f : 1.f)};
    float* slot = slots + column;
    // Nearly always all rows are positions and own ones: then nothing is asked for each.
    const bool plain = row - r >= (top > row0 ? top : row0) + reflect &&  // reflect: not the edges
                       row - r + R <= (bottom < row1() ? bottom : row1()) - reflect;
    // Once in the code, as an H200 seems to wait for instructions (benchmarks/results/gpu-2026-11-26.md).
    // Both gradients would spill 8 to 20 bytes on sm_75 and sm_80.
    if (plain) {
#pragma unroll(Gradients == 2 ? R : 1)
      for (int i = 0; i < R; ++i)
        one_row<true>(row + i - r, true, at, slot + i * pitch, pending, pending_maps, sum_ssim);
    } else {
#pragma unroll 1
      for (int i = 0; i < R; ++i) {
        const int line = row + i - r;
        one_row<false>(line, line >= top && line < bottom, at, slot + i * pitch, pending, pending_maps,
                       sum_ssim);
      }
    }
  }

  struct Column {
    int col;
    bool exists, own;
    float mean_m, mean_d;  // what the bases add to the means
    float gain;
  };

  // Row `line` of positions is complete.
  template <bool Plain>
  __device__ __forceinline__ void one_row(int line, bool exists, const Column& at, float* slot,
                                          float (&pending)[4][2 * r], float (&pending_maps)[4][2 * r],
                                          float& sum_ssim) const {
    float done[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) done[q] = push(slot[q * R * pitch], pending[q]);
    float map[4] = {0.f, 0.f, 0.f, 0.f};
    if (Plain || exists) {
      const Moments<float> mu{done[0] + at.mean_m, done[1] + at.mean_d,
                              not_negative(fmaf(-done[0], done[0], done[2])),
                              not_negative(fmaf(-done[1], done[1], done[3]))};
      Dissimilarity<float> e = dissimilarity<true>(mu, common.c1, common.c2);
      e.e_l *= p.luminance, e.inverse_a *= p.luminance, e.l = 1.f - e.e_l;
      const float loss = not_negative(fmaf(e.e_cs, e.l, e.e_l));
      const bool counted = at.own && (Plain || (line >= row0 && line < row1()));
      if (counted) sum_ssim += loss;
      if (Maps && !Gradients && counted) write_loss(line, at.col, loss);
      if (Gradients) {
        float g = at.gain;
        if (Maps) g *= incoming_at(line, at.col);
        if (!Plain && is_edge(line, p.height, common.padding)) g *= 2.f;
        const Coefficients<float> c = coefficients<true, float>(mu, e, -done[0], -done[1], g * e.cs, g * e.l);
        map[0] = at.exists ? c.b_m : 0.f;
        map[1] = at.exists ? c.b_d : 0.f;
        map[2] = at.exists ? c.a_m + c.a_d : 0.f;
        if (Gradients == 2) map[3] = at.exists ? c.a_m - c.a_d : 0.f;
      }
    }
    if (Gradients) {
#pragma unroll
      for (int q = 0; q < maps; ++q) slot[q * R * pitch] = push(map[q], pending_maps[q]);
    }
  }

  // A transposed filter: v is the last of 11 rows for the output that is returned, the first for the
  // newest pending one.
  __device__ __forceinline__ float push(float v, float (&pending)[2 * r]) const {
    const float done = fmaf(common.taps[r], v, pending[0]);
#pragma unroll
    for (int j = 0; j < 2 * r - 1; ++j) {
      const int t = r - 1 - j;
      pending[j] = fmaf(common.taps[t < 0 ? -t : t], v, pending[j + 1]);
    }
    pending[2 * r - 1] = common.taps[r] * v;
    return done;
  }

  // Make pending sums relative to the new bases.
  __device__ __forceinline__ void change_base(float new_m, float new_d, float (&pending)[4][2 * r],
                                              float (&pending_maps)[4][2 * r], float& base_m, float& base_d) {
    const float by[2] = {new_m - base_m, new_d - base_d};
    base_m = new_m, base_d = new_d;
#pragma unroll
    for (int j = 0; j < 2 * r; ++j) {
      const float reached = common.reached[j];
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const float old = pending[q][j];
        pending[q][j] = fmaf(-by[q], reached, old);
        pending[q + 2][j] = fmaf(-by[q], old + pending[q][j], pending[q + 2][j]);
      }
      if (!Gradients) continue;
      const float by_m = by[0] * pending_maps[0][j], by_d = by[1] * pending_maps[1][j];
      pending_maps[2][j] += by_d - by_m;
      if (Gradients == 2) pending_maps[3][j] -= by_d + by_m;
    }
  }

  __device__ __forceinline__ void write_loss(int row, int col, float loss) const {
    const int crop = common.padding == Padding::valid ? r : 0;
    float total = p.ssim_weight * loss;
    if (l1()) {
      with_type([&](auto* tag) {
        using E = std::remove_pointer_t<decltype(tag)>;
        const float x = wide(p.x.plane<E>(image, channel)[row * p.x.h + col * p.x.w]);
        const float y = wide(p.y.plane<E>(image, channel)[row * p.y.h + col * p.y.w]);
        total = fmaf(p.l1_weight, fabsf((x - y) * p.inverse_range), total);
      });
    }
    p.loss_map.plane<float>(image, channel)[(row - crop) * p.loss_map.h + (col - crop) * p.loss_map.w] =
        total;
  }

  // ---- The gradient of 8 columns of one row, whose maps are complete in row i of the chunk; `across` of
  // them at a time, for less code.
  __device__ __forceinline__ void gradient_along(int first_row, float& sum_l1) {
    const int lane = row_of_lane(), group = group_of_lane(), row = first_row + lane;
    if (group >= own / 8 || row < row0 || row >= row1()) return;
    // Windows reach over three cells; all becomes relative to the middle one's base.
    const float *cell_m = bases + group, *cell_d = cell_m + groups;
    const float base_m = cell_m[1], base_d = cell_d[1];
#pragma unroll 1
    for (int begin = 0; begin < 8; begin += across) {
      const int col = col0 + 8 * group + begin;
      if (col >= col1()) return;
      float out[maps][across];
#pragma unroll
      for (int q = 0; q < maps; ++q) {
#pragma unroll
        for (int i = 0; i < across; ++i) out[q][i] = 0.f;
      }
      const float* from = slots + lane * pitch + 8 * group + begin;
#pragma unroll
      for (int part = 0; 4 * part < across + 2 * r; ++part) {
        Four<float> four[maps];
#pragma unroll
        for (int q = 0; q < maps; ++q)
          four[q] = *reinterpret_cast<const Four<float>*>(from + q * R * pitch + 4 * part);
        const int cell = (begin / 4 + part) / 2;
        const float by_m = cell_m[cell] - base_m, by_d = cell_d[cell] - base_d;
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int at = 4 * part + u;
          if (at >= across + 2 * r) continue;
          float map[maps];
#pragma unroll
          for (int q = 0; q < maps; ++q) map[q] = four[q].v[u];
          if (across < 8 || part / 2 != 1) {
            map[2] = fmaf(by_m, map[0], fmaf(-by_d, map[1], map[2]));
            if (Gradients == 2) map[maps - 1] = fmaf(by_m, map[0], fmaf(by_d, map[1], map[maps - 1]));
          }
#pragma unroll
          for (int i = 0; i < across; ++i) {
            const int t = at - i - r;
            if (t < -r || t > r) continue;
#pragma unroll
            for (int q = 0; q < maps; ++q) out[q][i] = fmaf(common.taps[t < 0 ? -t : t], map[q], out[q][i]);
          }
        }
      }
      const Pixel pixel{
          row,
          reading(0, base_m),
          reading(1, base_d),
          common.padding == Padding::reflect && is_edge(row, p.height, common.padding) ? 0.5f : 1.f,
          l1() ? l1_cover(row, p.height) : 0.f,
          l1() ? p.l1_gain * incoming() : 0.f};
      with_type([&](auto* tag) { write_gradient(tag, pixel, col, out, sum_l1); });
    }
  }

  struct Pixel {
    int row;
    Reading m, d;
    float edge, cover, l1_gain;
  };

  // The gradient at pixels [col, col + across) of a row, from the blurred maps.
  template <class E>
  __device__ __forceinline__ void write_gradient(E*, const Pixel& pixel, int col,
                                                 const float (&out)[maps][across], float& sum_l1) const {
    const E* x = p.x.plane<E>(image, channel) + pixel.row * p.x.h;
    const E* y = p.y.plane<E>(image, channel) + pixel.row * p.y.h;
    const auto row_of = [&](const View& gradient) {  // worked out where it is needed: registers
      return gradient.plane<E>(image, channel) + pixel.row * gradient.h;
    };
    if (p.in_fours && col + across <= col1()) {
#pragma unroll
      for (int i = 0; i < across; i += 4) {
        const int first = col + i;
        const Four<E> a = *reinterpret_cast<const Four<E>*>(x + first);
        const Four<E> b = *reinterpret_cast<const Four<E>*>(y + first);
        Four<E> to_x, to_y;
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          float of_x, of_y;
          gradient_at(pixel, first + u, wide(a.v[u]), wide(b.v[u]), out, i + u, of_x, of_y, sum_l1);
          narrow(of_x, to_x.v[u]);
          if (Gradients == 2) narrow(of_y, to_y.v[u]);
        }
        *reinterpret_cast<Four<E>*>(row_of(p.grad_x) + first) = to_x;
        if (Gradients == 2) *reinterpret_cast<Four<E>*>(row_of(p.grad_y) + first) = to_y;
      }
    } else {
#pragma unroll
      for (int i = 0; i < across; ++i) {
        if (col + i >= col1()) break;
        float of_x, of_y;
        gradient_at(pixel, col + i, wide(x[(col + i) * p.x.w]), wide(y[(col + i) * p.y.w]), out, i, of_x,
                    of_y, sum_l1);
        narrow(of_x, row_of(p.grad_x)[(col + i) * p.grad_x.w]);
        if (Gradients == 2) narrow(of_y, row_of(p.grad_y)[(col + i) * p.grad_y.w]);
      }
    }
  }

  __device__ __forceinline__ void gradient_at(const Pixel& pixel, int col, float x, float y,
                                              const float (&out)[maps][across], int i, float& of_x,
                                              float& of_y, float& sum_l1) const {
    const float by_m = pixel.m(x, y) * out[0][i], by_d = pixel.d(coarser ? y : x, y) * out[1][i];
    of_x = (out[2][i] - by_m) + by_d;
    if (Gradients == 2) of_y = (out[maps - 1][i] - by_m) - by_d;
    if (common.padding == Padding::reflect) {
      const float edge = is_edge(col, p.width, common.padding) ? 0.5f * pixel.edge : pixel.edge;
      of_x *= edge;
      if (Gradients == 2) of_y *= edge;
    }
    if (!l1()) return;
    const float difference = x - y;  // not d and its base: its sign counts
    const float covered = pixel.cover * covers[col - col0];
    sum_l1 += fabsf(difference * p.inverse_range) * covered;
    const float gain = pixel.l1_gain * covered * (Maps ? incoming_at(pixel.row, col) : 1.f);
    // sign(0) = 0, sign(NaN) = NaN
    const float by = difference > 0 ? gain : (difference < 0 ? -gain : difference * gain);
    of_x += by;
    if (Gradients == 2) of_y -= by;
  }

  // ---- The block's sums, added in a fixed order.
  __device__ __forceinline__ void reduce(float sum_ssim, float sum_l1) {
    if (!p.sums) return;
    double total[2] = {sum_ssim, sum_l1};
    sum_block(total[0], total[1], reinterpret_cast<double*>(raw));
    if (threadIdx.x != 0) return;
    const int piece = row0 / p.band_rows * p.strips + col0 / own;
    double* sums = p.sums + 2 * ((int64_t(image) * p.channels + channel) * p.strips * p.bands + piece);
    sums[0] = total[0], sums[1] = total[1];
  }
};

// One level, or with Pools the finest of the dyadic form, which makes the coarser ones.
template <int Gradients, bool Maps, bool Pools>
__global__ void __launch_bounds__(strip_threads, strip_blocks(Gradients, Maps))
    strip_kernel(const __grid_constant__ StripParams params) {
  Strip<Gradients, Maps, Pools>(params, params, false, int(blockIdx.x), ssimloss_shared).run();
}

// Coarser levels of the dyadic form, side by side.
template <int Gradients>
__global__ void __launch_bounds__(strip_threads, strip_blocks(Gradients, false))
    levels_kernel(const __grid_constant__ LevelsParams params) {
  int level = 0;
#pragma unroll
  for (int j = 1; j < levels_at_once; ++j) level += int(blockIdx.x) >= params.first_block[j];
  const int piece = int(blockIdx.x) - params.first_block[level];
  Strip<Gradients, false>(params.level[level], params.level[0], true, piece, ssimloss_shared).run();
}

}  // namespace ssimloss
