// Means and variances for ring.cuh and scales.cuh: down the columns from the ring of pixels, then along rows.
//
// Variances go by the law of total variance relative to a value inside every window of a thread, as in
// ../cpu/fir.h. Means are relative to the base of their cell of K x K pixels: the middle of three pixels, so
// that no single huge one or NaN spreads; who reads over cells moves them to one base. A region of huge
// values (1e5 times those beside it) may cost the digits of windows that end up to K - 1 pixels before it.
#pragma once

#include "ring_fir.cuh"

namespace ssimloss {

#include "../../ssim_math.h"

template <class T>
__device__ __forceinline__ T magnitude_of(T v) {  // NaN stays NaN
  return v < 0 ? -v : v;
}
template <class T>
__device__ __forceinline__ T variance(const RingWindow<T>& window, T mean, T square) {
  return window.radius == 0 ? T(0) : not_negative(square - mean * mean);
}

// Of K positions side by side: means relative to base_m and base_d, which are near + centre.
template <int K, class T>
struct RowMoments {
  T mean_m[K], mean_d[K], s_mm[K], s_dd[K];
  T near_m, near_d, centre_m, centre_d;  // the base of their cell, and what lies between
};

// Pairs: the ring has x + y and x - y side by side (of a pyramid m and d), else x and y apart.
template <class T, bool Pairs = false>
class RingMoments : public RingBlock<T> {
 public:
  using RingBlock<T>::RingBlock;

 protected:
  using Pair = Some<T, 2>;
  using RingBlock<T>::p;
  using RingBlock<T>::s;
  using RingBlock<T>::raw;
  using RingBlock<T>::filled;

  __device__ __forceinline__ static int divided(int a, int b) { return (a + b - 1) / b; }
  __device__ __forceinline__ static int next(int slot, int by, int size) {
    return slot + by < size ? slot + by : slot + by - size;
  }
  __device__ __forceinline__ static int previous(int slot, int by, int size) {
    return slot >= by ? slot - by : slot - by + size;
  }
  __device__ __forceinline__ Pair pixel(int at) const {
    if constexpr (Pairs) return some<2>(raw + 2 * at);
    return {raw[at], raw[at + s.each_raw]};
  }
  // m and d of such pixels, less their bases.
  struct PairReading {
    T scale, base_m, base_d;
    __device__ __forceinline__ T m(T sum, T) const { return sum * scale - base_m; }
    __device__ __forceinline__ T d(T, T difference) const { return difference * scale - base_d; }
  };
  __device__ __forceinline__ auto values(T base_m, T base_d) const {
    if constexpr (Pairs) {
      return PairReading{p.pyramid ? T(1) : p.inverse_range, base_m, base_d};
    } else {
      return this->reading(base_m, base_d);
    }
  }
  // The cell of a group of K windows: that in their middle.
  template <int K>
  __device__ __forceinline__ static int cell_of(const RingWindow<T>& window, int group) {
    return group + (window.radius + (K - 1) / 2) / K;
  }
  // In the phases along rows a thread has a row and a group of K columns; for K = 8, 8 lanes have two rows of
  // four groups.
  template <int K>
  __device__ __forceinline__ static int row_of_lane() {
    return K == 8 ? RingBlock<T>::lane() / 8 * 2 + RingBlock<T>::lane() / 4 % 2 : RingBlock<T>::lane() / 8;
  }
  template <int K>
  __device__ __forceinline__ static int group_of_lane(int task) {
    return K == 8 ? 4 * task + RingBlock<T>::lane() % 4 : 8 * task + RingBlock<T>::lane() % 8;
  }

  // ---- Moments of rows [row, row + K) of one column, which is `shift` columns into `raw`. Their windows
  // begin at slot `slot`. cells: [2][s.cells]; to: [quantity][s.each_moment], rows s.moment_pitch apart.
  template <int K>
  __device__ __forceinline__ void moments_down(const RingWindow<T>& window, int row, int slot, int shift,
                                               int column, bool with_l1, T* cells, T* to) {
    const int r = window.radius, first_col = this->col0 - s.reach;
    const int from = shift + column;
    const auto place = [&](int i) { return next(slot, i, s.capacity) * s.raw_pitch; };

    const auto value = values(0, 0);
    const auto at = [&](int i) { return pixel(from + place(i)); };
    const T base_m = centre<K>(r, [&](int i) { return value.m(at(i).v[0], at(i).v[1]); });
    const T base_d = centre<K>(r, [&](int i) { return value.d(at(i).v[0], at(i).v[1]); });
    T cell_m[3], cell_d[3];
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
    const T near_m = finite_or_zero(middle(cell_m[0], cell_m[1], cell_m[2]));
    const T near_d = finite_or_zero(middle(cell_d[0], cell_d[1], cell_d[2]));
    if (column % K == 0) cells[cell] = near_m, cells[s.cells + cell] = near_d;

    const auto relative = values(base_m, base_d);
    T out[4][K];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const Pair one = pixel(first + u * s.raw_pitch);
        const T m = relative.m(one.v[0], one.v[1]), d = relative.d(one.v[0], one.v[1]);
        v[0][u] = m, v[1][u] = d, v[2][u] = m * m, v[3][u] = d * d;
      }
    });
    to += column;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      T* of_row = to + o * s.moment_pitch;
      of_row[0] = out[0][o] + (base_m - near_m);
      of_row[s.each_moment] = out[1][o] + (base_d - near_d);
      of_row[2 * s.each_moment] = variance(window, out[0][o], out[2][o]);
      of_row[3 * s.each_moment] = variance(window, out[1][o], out[3][o]);
    }
    if (!with_l1) return;
    T mean[1][K];
    fir<K>(window, mean, [&](int i, auto N, auto& v) {
      const int first = from + place(i);
#pragma unroll
      for (int u = 0; u < N.value; ++u) {
        const Pair one = pixel(first + u * s.raw_pitch);
        v[0][u] = magnitude_of(value.d(one.v[0], one.v[1]));
      }
    });
    to += 4 * s.each_moment;
#pragma unroll
    for (int o = 0; o < K; ++o) to[o * s.moment_pitch] = mean[0][o];
  }

  // ---- The same along a row: windows that begin at `from`, which is a cell's first; cells: from that one
  // on.
  template <int K>
  __device__ __forceinline__ void moments_along(const RingWindow<T>& window, const T* from, const T* cells,
                                                RowMoments<K, T>& to) const {
    const T *cells_m = cells, *cells_d = cells + s.cells;
    const int each = s.each_moment;
    to.near_m = cells_m[cell_of<K>(window, 0)], to.near_d = cells_d[cell_of<K>(window, 0)];
    to.centre_m = centre<K>(window.radius, [&](int i) { return from[i] + (cells_m[i / K] - to.near_m); });
    to.centre_d =
        centre<K>(window.radius, [&](int i) { return from[each + i] + (cells_d[i / K] - to.near_d); });
    T out[4][K];
    fir<K>(window, out, [&](int i, auto N, auto& v) {
      constexpr int n = decltype(N)::value;
      const T by_m = (cells_m[i / K] - to.near_m) - to.centre_m;
      const T by_d = (cells_d[i / K] - to.near_d) - to.centre_d;
      const Some<T, n> mean_m = some<n>(from + i), mean_d = some<n>(from + each + i);
      const Some<T, n> var_m = some<n>(from + 2 * each + i), var_d = some<n>(from + 3 * each + i);
#pragma unroll
      for (int u = 0; u < n; ++u) {
        const T m = mean_m.v[u] + by_m, d = mean_d.v[u] + by_d;
        v[0][u] = m, v[1][u] = d, v[2][u] = m * m + var_m.v[u], v[3][u] = d * d + var_d.v[u];
      }
    });
#pragma unroll
    for (int o = 0; o < K; ++o) {
      to.mean_m[o] = out[0][o], to.mean_d[o] = out[1][o];
      to.s_mm[o] = variance(window, out[0][o], out[2][o]),
      to.s_dd[o] = variance(window, out[1][o], out[3][o]);
    }
  }
};

}  // namespace ssimloss
