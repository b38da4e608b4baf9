// What blocks of ring.cuh and scales.cuh do besides under weights: a mask, or padding "normalized".
//
// The weights of the pixels are a third plane of the ring of pixels, and blurred ones one more moment. Each
// direction divides by what it has blurred: down a column mean and variance are those of the pixels times
// their weights, and along the row each column counts by its blurred weights. So the law of total variance
// holds as without weights, and no digits are lost where there are few of them.
//
// Pixels of weight 0 are selected away before anything is multiplied by them, be they NaN; bases are pixels
// that are kept, or the plane's typical one (common/weights.cu).
#pragma once

#include "ring_block.cuh"

namespace ssimloss {

// 0 where nothing is kept; NaN stays NaN.
INLINE float inverse_of(float weights) { return weights == 0.f ? 0.f : reciprocal(weights); }

class WeightedRing : public RingBlock {
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
  INLINE Pair<float> kept_pixel(int at, const Values<Sums>& value) const {
    if (raw_weights()[at] == 0.f) return plane.typical();
    return pixel(at, value);
  }

  // The input nearest to i that is_kept, of so many; i itself if there is none.
  template <class IsKept>
  INLINE static int nearest(int i, int count, IsKept is_kept) {
    if (is_kept(i)) return i;
#pragma unroll 1
    for (int by = 1; by < count; ++by) {
      if (i >= by && is_kept(i - by)) return i - by;
      if (i + by < count && is_kept(i + by)) return i + by;
    }
    return i;
  }

  // As RingBlock::moments_down; the blurred weights are moment of_weights().
  template <int K, bool Sums>
  INLINE void weighted_down(const RingWindow& window, int row, int slot, int shift, int column, bool with_l1,
                            Cells cells, float* to) {
    const int r = window.radius, first_col = col0 - s.reach, inputs = 2 * r + K;
    const int from = shift + column;
    const auto place = [&](int i) { return next(slot, i, s.capacity) * s.raw_pitch; };
    const auto weight_at = [&](int i) { return raw_weights()[from + place(i)]; };

    const auto value = values<Sums>({0, 0});
    const Pair<float> base = base_of_windows<K>(r, [&](int i) {
      const int kept = nearest(i, inputs, [&](int u) { return weight_at(u) != 0.f; });
      return kept_pixel(from + place(kept), value);
    });
    const int cell = column / K;
    const int last = (filled < p.width - first_col ? filled : p.width - first_col) - 1;
    const Pair<float> near = base_of_three([&](int u) {
      const int off = cell_pixel<K>(u);
      const int i = clamped(clamped(row + off, 0, p.height - 1) - row + r, 0, 2 * r + K - 1);
      return kept_pixel(place(i) + clamped(shift + K * cell + off, -first_col, last), value);
    });
    if (column % K == 0) cells.set(cell, near);

    const auto relative = values<Sums>(base);
    Some<K> out[5], l1[1];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const int at = first + u * s.raw_pitch;
        const float weight = raw_weights()[at];
        Pair<float> one = pixel(at, relative);
        if (weight == 0.f) one = {};
        v[4][u] = weight, v[0][u] = weight * one.m, v[1][u] = weight * one.d;
        v[2][u] = v[0][u] * one.m, v[3][u] = v[1][u] * one.d;
      }
    });
    to += column;
    Some<K> inverse;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      inverse[o] = inverse_of(out[4][o]);
      const float m = out[0][o] * inverse[o], d = out[1][o] * inverse[o];
      float* of_row = to + o * s.moment_pitch;
      of_row[0] = m + (base.m - near.m);
      of_row[s.each_moment] = d + (base.d - near.d);
      of_row[2 * s.each_moment] = variance(r, m, out[2][o] * inverse[o]);
      of_row[3 * s.each_moment] = variance(r, d, out[3][o] * inverse[o]);
      of_row[of_weights() * s.each_moment] = out[4][o];
    }
    if (!with_l1) return;
    fir<K>(window, l1, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const int at = first + u * s.raw_pitch;
        const float weight = raw_weights()[at];
        v[0][u] = weight == 0.f ? 0.f : weight * magnitude(pixel(at, value).d);
      }
    });
    to += 4 * s.each_moment;
#pragma unroll
    for (int o = 0; o < K; ++o) to[o * s.moment_pitch] = l1[0][o] * inverse[o];
  }

  // As RingBlock::moments_along; and the inverses of the blurred weights.
  template <int K>
  INLINE Some<K> weighted_along(const RingWindow& window, const float* from, Cells cells,
                                RowMoments<K>& to) const {
    const int each = s.each_moment, inputs = 2 * window.radius + K;
    const float* const weights = from + of_weights() * each;
    const Pair<float> near = to.near = cells[cell_of<K>(window, 0)];
    to.centre = base_of_windows<K>(window.radius, [&](int i) {
      i = nearest(i, inputs, [&](int u) { return weights[u] != 0.f; });
      return Pair<float>{from[i], from[each + i]} + (cells[i / K] - near);
    });
    Some<K> out[5];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const Pair<float> by = (cells[i / K] - near) - to.centre;
#pragma unroll
      for (int q = 0; q < 4; ++q) v[q] = some<N.value>(from + q * each + i);
      v[4] = some<N.value>(weights + i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const float weight = v[4][u], m = v[0][u] + by.m, d = v[1][u] + by.d;
        v[0][u] = weight * m, v[1][u] = weight * d;
        v[2][u] = weight * (v[2][u] + m * m), v[3][u] = weight * (v[3][u] + d * d);
      }
    });
    Some<K> inverse;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      inverse[o] = inverse_of(out[4][o]);
      const float m = out[0][o] * inverse[o], d = out[1][o] * inverse[o];
      to.at[o] = {m, d, variance(window.radius, m, out[2][o] * inverse[o]),
                  variance(window.radius, d, out[3][o] * inverse[o])};
    }
    return inverse;
  }

  // One quantity along a row, each column by its weights.
  template <int K>
  INLINE Some<K> weighted_along(const RingWindow& window, const float* from, const float* weights,
                                const Some<K>& inverse) const {
    Some<K> out[1];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      v[0] = some<N.value>(from + i);
      const Some<N.value> by = some<N.value>(weights + i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) v[0][u] *= by[u];
    });
#pragma unroll
    for (int o = 0; o < K; ++o) out[0][o] *= inverse[o];
    return out[0];
  }
};

}  // namespace ssimloss
