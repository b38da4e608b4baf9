// Means and variances for ring.cuh and scales.cuh: down the columns from the ring of pixels, then along rows.
//
// The variance of v under a window is sum w (v - b)^2 - (sum w (v - b))^2, where b is a pixel inside the
// window: any b is right, and one near by loses no digits. After the first axis each column carries a mean
// and a variance; along the second, the variance of the whole window is the mean of those variances plus the
// variance of those means (the law of total variance).
//
// A mean is stored relative to the base of its cell of K x K pixels. The base is the middle one of three
// pixels, so that no single huge one or NaN spreads. A filter that reads several cells first moves their
// means to one base. A region of huge values (1e5 times those beside it) may cost the digits of windows that
// end up to K - 1 pixels before it.
#pragma once

#include "ring_fir.cuh"

namespace ssimloss {

// Of K positions side by side: means relative to base_m and base_d, which are near + centre.
template <int K>
struct RowMoments {
  float mean_m[K], mean_d[K], s_mm[K], s_dd[K];
  float near_m, near_d, centre_m, centre_d;  // the base of their cell, and what lies between
};

// Pairs: the ring has x + y and x - y side by side (of a pyramid m and d), else x and y apart.
template <bool Pairs>
class RingMoments : public RingBlock {
 public:
  using RingBlock::RingBlock;

 protected:
  using Pair = Some<2>;
  __device__ __forceinline__ Pair pixel(int at) const {
    if constexpr (Pairs) return some<2>(raw + 2 * at);
    return {raw[at], raw[at + s.each_raw]};
  }
  // ---- Moments of rows [row, row + K) of one column, which is `shift` columns into `raw`. Their windows
  // begin at slot `slot`. cells: [2][s.cells]; to: [quantity][s.each_moment], rows s.moment_pitch apart.
  template <int K>
  __device__ __forceinline__ void moments_down(const RingWindow& window, int row, int slot, int shift,
                                               int column, bool with_l1, float* cells, float* to) {
    const int r = window.radius, first_col = col0 - s.reach;
    const int from = shift + column;
    const auto place = [&](int i) { return next(slot, i, s.capacity) * s.raw_pitch; };

    const auto value = values<Pairs>(0, 0);
    const auto at = [&](int i) { return pixel(from + place(i)); };
    const float base_m = centre<K>(r, [&](int i) { return value.m(at(i).v[0], at(i).v[1]); });
    const float base_d = centre<K>(r, [&](int i) { return value.d(at(i).v[0], at(i).v[1]); });
    float cell_m[3], cell_d[3];
    const int cell = column / K;
    const int last = (filled < p.width - first_col ? filled : p.width - first_col) - 1;
#pragma unroll
    for (int u = 0; u < 3; ++u) {
      constexpr int step = K / 4;  // to pixels 1, 4, 6 of 8 or 0, 2, 3 of 4
      const int off = u == 0 ? step - 1 : (u == 1 ? 2 * step : 3 * step);
      const int i = clamped(clamped(row + off, 0, p.height - 1) - row + r, 0, 2 * r + K - 1);
      const Pair one = pixel(place(i) + clamped(shift + K * cell + off, -first_col, last));
      cell_m[u] = value.m(one.v[0], one.v[1]);
      cell_d[u] = value.d(one.v[0], one.v[1]);
    }
    const float near_m = finite_or_zero(middle(cell_m[0], cell_m[1], cell_m[2]));
    const float near_d = finite_or_zero(middle(cell_d[0], cell_d[1], cell_d[2]));
    if (column % K == 0) cells[cell] = near_m, cells[s.cells + cell] = near_d;

    const auto relative = values<Pairs>(base_m, base_d);
    float out[4][K];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const Pair one = pixel(first + u * s.raw_pitch);
        const float m = relative.m(one.v[0], one.v[1]), d = relative.d(one.v[0], one.v[1]);
        v[0][u] = m, v[1][u] = d, v[2][u] = m * m, v[3][u] = d * d;
      }
    });
    to += column;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      float* of_row = to + o * s.moment_pitch;
      of_row[0] = out[0][o] + (base_m - near_m);
      of_row[s.each_moment] = out[1][o] + (base_d - near_d);
      of_row[2 * s.each_moment] = variance(r, out[0][o], out[2][o]);
      of_row[3 * s.each_moment] = variance(r, out[1][o], out[3][o]);
    }
    if (!with_l1) return;
    float mean[1][K];
    fir<K>(window, mean, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const Pair one = pixel(first + u * s.raw_pitch);
        v[0][u] = magnitude(value.d(one.v[0], one.v[1]));
      }
    });
    to += 4 * s.each_moment;
#pragma unroll
    for (int o = 0; o < K; ++o) to[o * s.moment_pitch] = mean[0][o];
  }

  // ---- The same along a row: windows that begin at `from`, which is a cell's first; cells: from that one
  // on.
  template <int K>
  __device__ __forceinline__ void moments_along(const RingWindow& window, const float* from,
                                                const float* cells, RowMoments<K>& to) const {
    const float *cells_m = cells, *cells_d = cells + s.cells;
    const int each = s.each_moment;
    to.near_m = cells_m[cell_of<K>(window, 0)], to.near_d = cells_d[cell_of<K>(window, 0)];
    to.centre_m = centre<K>(window.radius, [&](int i) { return from[i] + (cells_m[i / K] - to.near_m); });
    to.centre_d =
        centre<K>(window.radius, [&](int i) { return from[each + i] + (cells_d[i / K] - to.near_d); });
    float out[4][K];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      constexpr int n = decltype(N)::value;
      const float by_m = (cells_m[i / K] - to.near_m) - to.centre_m;
      const float by_d = (cells_d[i / K] - to.near_d) - to.centre_d;
      const Some<n> mean_m = some<n>(from + i), mean_d = some<n>(from + each + i);
      const Some<n> var_m = some<n>(from + 2 * each + i), var_d = some<n>(from + 3 * each + i);
#pragma unroll
      for (int u = 0; u < n; ++u) {
        const float m = mean_m.v[u] + by_m, d = mean_d.v[u] + by_d;
        v[0][u] = m, v[1][u] = d, v[2][u] = m * m + var_m.v[u], v[3][u] = d * d + var_d.v[u];
      }
    });
#pragma unroll
    for (int o = 0; o < K; ++o) {
      to.mean_m[o] = out[0][o], to.mean_d[o] = out[1][o];
      to.s_mm[o] = variance(window.radius, out[0][o], out[2][o]),
      to.s_dd[o] = variance(window.radius, out[1][o], out[3][o]);
    }
  }
};

}  // namespace ssimloss
