// Means and variances of ring.cuh and scales.cuh: down the columns from the ring of pixels, then along rows.
//
// The variance of v under a window is sum w (v - b)^2 - (sum w (v - b))^2, where b is a pixel inside the
// window: any b is right, and one near by loses no digits. After the first axis each column carries a mean
// and a variance; along the second, the variance of the whole window is the mean of those variances plus the
// variance of those means (the law of total variance).
//
// Weighted: under a mask or padding "normalized". The weights of the pixels are a third plane of the ring of
// pixels, and blurred ones one more moment. Each direction divides by what it has blurred: down a column mean
// and variance are those of the pixels times their weights, and along the row each column counts by its
// blurred weights. So the law of total variance holds as without weights, and no digits are lost where there
// are few of them. Pixels of weight 0 are selected away before anything is multiplied by them, be they NaN;
// bases are pixels that are kept, or the plane's typical one (common/weights.cu).
#pragma once

#include "ring_block.cuh"

namespace ssimloss {

// 0 where nothing is kept, or so little that float32 does not hold its inverse: a column whose only weights
// lie under a window's last taps, never one with a position. NaN stays NaN.
INLINE float inverse_of(float weights) { return weights < 0x1p-125f ? 0.f : reciprocal(weights); }

// Of K positions side by side: means relative to near + centre, the base of their cell and what lies between.
template <int K>
struct RowMoments {
  Moments<float> at[K];
  Pair<float> near, centre;

  INLINE Pair<float> relative(int o) const {  // to near
    return Pair<float>{at[o].mu_m, at[o].mu_d} + centre;
  }
  INLINE Moments<float> moments(int o, float pad_d) const {
    return {at[o].mu_m + (near.m + centre.m), at[o].mu_d + ((near.d + centre.d) - pad_d), at[o].s_mm,
            at[o].s_dd};
  }
};

class RingMoments : public RingBlock {
 public:
  using RingBlock::RingBlock;

 protected:
  // Which of the moments blurred weights are; in ring.cuh the places' own come after.
  INLINE int of_weights() const { return 4 + p.l1_windowed; }
  INLINE float* raw_weights() const { return raw + 2 * s.each_raw; }  // [capacity][raw_pitch]

  // Of one row, with what padding adds; twice where the ring has it twice.
  INLINE void fill_weights(int row, int slot) const {
    float* const to = raw_weights() + slot * s.raw_pitch;
    const int again = slot < s.repeated ? s.capacity * s.raw_pitch : 0;
    const bool reflect = p.padding == Padding::reflect, none_outside = p.padding == Padding::normalized;
    const bool outside = row < 0 || row >= p.height;
    row = clamped(reflect ? mirrored(row, p.height) : row, 0, p.height - 1);
    const float* const from =
        static_cast<const float*>(p.mask.data) + p.mask.at(plane.image, plane.channel, row, 0);
#pragma unroll 1
    for (int k = lane(); k < filled; k += 32) {
      int col = col0 - s.reach + k;
      const bool none = none_outside && (outside || col < 0 || col >= p.width);
      col = clamped(reflect ? mirrored(col, p.width) : col, 0, p.width - 1);
      const float weight = none ? 0.f : (p.mask.data ? from[col * p.mask.w] * p.weight_unit : 1.f);
      to[k] = weight;
      if (again) to[k + again] = weight;
    }
  }
  INLINE void fill_weights(int row, int slot, int count) const {
#pragma unroll 1
    for (int line = warp(); line < count; line += ring_threads / 32)
      fill_weights(row + line, next(slot, line, s.capacity));
  }

  template <bool Sums>
  INLINE Pair<float> pixel(int at, const Values<Sums>& value) const {
    if (!Sums) return value(raw[at], raw[at + s.each_raw]);
    const Some<2> both = some<2>(raw + 2 * at);
    return value(both[0], both[1]);
  }

  template <bool Weighted, bool Sums>
  INLINE Pair<float> kept_pixel(int at, const Values<Sums>& value) const {
    if (Weighted && raw_weights()[at] == 0.f) return plane.typical();
    return pixel(at, value);
  }

  // The input nearest to i that is_kept, of so many; i itself if there is none, or no weights.
  template <bool Weighted, class IsKept>
  INLINE static int nearest(int i, int count, IsKept is_kept) {
    if constexpr (Weighted) {
#pragma unroll 1
      for (int by = 0; by < count; ++by) {
        if (i >= by && is_kept(i - by)) return i - by;
        if (i + by < count && is_kept(i + by)) return i + by;
      }
    }
    return i;
  }

  // ---- Moments of rows [row, row + K) of one column, which is `shift` columns into `raw`. Their windows
  // begin at slot `slot`. to: [quantity][s.each_moment], rows s.moment_pitch apart. Sums: the ring has x + y
  // and x - y side by side (of a pyramid m and d), else x and y apart.
  template <int K, bool Sums, bool Weighted>
  INLINE void moments_down(const RingWindow& window, int row, int slot, int shift, int column, bool with_l1,
                           Cells cells, float* to) {
    const int r = window.radius, first_col = col0 - s.reach, inputs = 2 * r + K;
    const int from = shift + column;
    const auto place = [&](int i) { return next(slot, i, s.capacity) * s.raw_pitch; };

    const auto value = values<Sums>({0, 0});
    const Pair<float> base = base_of_windows<K>(r, [&](int i) {
      const auto is_kept = [&](int u) { return raw_weights()[from + place(u)] != 0.f; };
      return kept_pixel<Weighted>(from + place(nearest<Weighted>(i, inputs, is_kept)), value);
    });
    const int cell = column / K;
    const int last = (filled < p.width - first_col ? filled : p.width - first_col) - 1;
    const Pair<float> near = base_of_three([&](int u) {
      const int off = cell_pixel<K>(u);
      const int i = clamped(clamped(row + off, 0, p.height - 1) - row + r, 0, 2 * r + K - 1);
      return kept_pixel<Weighted>(place(i) + clamped(shift + K * cell + off, -first_col, last), value);
    });
    if (column % K == 0) cells.set(cell, near);

    const auto relative = values<Sums>(base);
    Some<K> out[Weighted ? 5 : 4], l1[1];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        Pair<float> one = pixel(first + u * s.raw_pitch, relative), by = one;
        if constexpr (Weighted) {
          const float weight = v[4][u] = raw_weights()[first + u * s.raw_pitch];
          if (weight == 0.f) one = {};
          by = {weight * one.m, weight * one.d};
        }
        v[0][u] = by.m, v[1][u] = by.d, v[2][u] = by.m * one.m, v[3][u] = by.d * one.d;
      }
    });
    to += column;
    Some<K> inverse{};
#pragma unroll
    for (int o = 0; o < K; ++o) {
      float* of_row = to + o * s.moment_pitch;
      if constexpr (Weighted) {
        inverse[o] = inverse_of(out[4][o]);
        of_row[of_weights() * s.each_moment] = out[4][o];
#pragma unroll
        for (int q = 0; q < 4; ++q) out[q][o] *= inverse[o];
      }
      of_row[0] = out[0][o] + (base.m - near.m);
      of_row[s.each_moment] = out[1][o] + (base.d - near.d);
      of_row[2 * s.each_moment] = variance(r, out[0][o], out[2][o]);
      of_row[3 * s.each_moment] = variance(r, out[1][o], out[3][o]);
    }
    if (!with_l1) return;
    fir<K>(window, l1, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        v[0][u] = magnitude(pixel(first + u * s.raw_pitch, value).d);
        if constexpr (Weighted) {
          const float weight = raw_weights()[first + u * s.raw_pitch];
          v[0][u] = weight == 0.f ? 0.f : weight * v[0][u];
        }
      }
    });
    to += 4 * s.each_moment;
#pragma unroll
    for (int o = 0; o < K; ++o) to[o * s.moment_pitch] = Weighted ? l1[0][o] * inverse[o] : l1[0][o];
  }

  // ---- The same along a row: windows that begin at `from`, which is a cell's first; cells: from that one
  // on. Weighted: the inverses of the blurred weights.
  template <bool Weighted, int K>
  INLINE Some<K> moments_along(const RingWindow& window, const float* from, Cells cells,
                               RowMoments<K>& to) const {
    const int each = s.each_moment, inputs = 2 * window.radius + K;
    const float* const weights = from + of_weights() * each;
    const Pair<float> near = to.near = cells[cell_of<K>(window, 0)];
    to.centre = base_of_windows<K>(window.radius, [&](int i) {
      i = nearest<Weighted>(i, inputs, [&](int u) { return weights[u] != 0.f; });
      return Pair<float>{from[i], from[each + i]} + (cells[i / K] - near);
    });
    Some<K> out[Weighted ? 5 : 4];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const Pair<float> by = (cells[i / K] - near) - to.centre;
#pragma unroll
      for (int q = 0; q < 4; ++q) v[q] = some<N.value>(from + q * each + i);
      if constexpr (Weighted) v[4] = some<N.value>(weights + i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        v[0][u] += by.m, v[1][u] += by.d;
        v[2][u] += v[0][u] * v[0][u], v[3][u] += v[1][u] * v[1][u];
#pragma unroll
        for (int q = 0; Weighted && q < 4; ++q) v[q][u] = v[Weighted ? 4 : 0][u] * v[q][u];
      }
    });
    Some<K> inverse{};
#pragma unroll
    for (int o = 0; o < K; ++o) {
      if constexpr (Weighted) {
        inverse[o] = inverse_of(out[4][o]);
#pragma unroll
        for (int q = 0; q < 4; ++q) out[q][o] *= inverse[o];
      }
      to.at[o] = {out[0][o], out[1][o], variance(window.radius, out[0][o], out[2][o]),
                  variance(window.radius, out[1][o], out[3][o])};
    }
    return inverse;
  }

  // One quantity along a row, from windows that begin at `from`; by weights and what moments_along answered.
  template <bool Weighted, int K>
  INLINE Some<K> blur_along(const RingWindow& window, const float* from, const float* weights,
                            const Some<K>& inverse) const {
    Some<K> out[1];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      v[0] = some<N.value>(from + i);
      if constexpr (Weighted) {
        const Some<N.value> by = some<N.value>(weights + i);
#pragma unroll
        for (int u = 0; u < N.value; ++u) v[0][u] *= by[u];
      }
    });
#pragma unroll
    for (int o = 0; Weighted && o < K; ++o) out[0][o] *= inverse[o];
    return out[0];
  }
};

}  // namespace ssimloss
