// The maps' two filters for ring.cuh and adjoint.cuh: along a row into a ring of rows, then down its columns.
//
// M maps: b_m, b_d, a_m + a_d and, for both gradients, a_m - a_d; where l1 is windowed its gain comes after.
// Each a is relative to the base of its cell of K x K places; who reads over cells moves it to one base.
#pragma once

#include "ring_fir.cuh"

namespace ssimloss {

// Maps as inputs, with their a moved by a difference of bases.
template <int M, int N, class T, class V>
__device__ __forceinline__ void move_maps(const Some<T, N> (&part)[M], T by_m, T by_d, V& v) {
#pragma unroll
  for (int u = 0; u < N; ++u) {
    const T b_m = part[0].v[u], b_d = part[1].v[u];
    v[0][u] = b_m, v[1][u] = b_d;
    v[2][u] = by_m * b_m + (part[2].v[u] - by_d * b_d);
    if (M == 4) v[M - 1][u] = by_m * b_m + (by_d * b_d + part[M - 1].v[u]);
  }
}

template <int K, class T>
__device__ __forceinline__ void put(const T (&from)[K], T* to) {
#pragma unroll
  for (int half = 0; half < K; half += 4) {
    Some<T, 4> four;
#pragma unroll
    for (int u = 0; u < 4; ++u) four.v[u] = from[half + u];
    *reinterpret_cast<Some<T, 4>*>(to + half) = four;
  }
}

// K windows that begin at `from`, a cell's first: cells[0], cells[cells_d] and on are the bases of that cell,
// and cells[middle] becomes that of the result. Maps lie `each` apart in from and `each_to` apart in to.
template <int K, int M, class T>
__device__ __forceinline__ void maps_along(const RingWindow<T>& window, const T* from, int each,
                                           const T* cells, int cells_d, int middle, bool with_l1, T* to,
                                           int each_to) {
  const T base_m = cells[middle], base_d = cells[middle + cells_d];
  T out[M][K];
  fir<K>(window, out, [&](int i, auto N, auto& v) {
    Some<T, N.value> part[M];
#pragma unroll
    for (int q = 0; q < M; ++q) part[q] = some<N.value>(from + q * each + i);
    move_maps(part, cells[i / K] - base_m, cells[i / K + cells_d] - base_d, v);
  });
#pragma unroll
  for (int q = 0; q < M; ++q) put(out[q], to + q * each_to);
  if (!with_l1) return;
  T l1[1][K];
  blur_along(window, from + M * each, l1);
  put(l1[0], to + M * each_to);
}

// Down one column: input i lies place(i) from `from`, four of them `pitch` apart; its bases at
// cells[chunk(i)] and cells_d further. The result is relative to those of its middle, base_m and base_d.
template <int K, int M, class T, class Place, class Chunk>
__device__ __forceinline__ void maps_down(const RingWindow<T>& window, const T* from, int each, int pitch,
                                          Place place, const T* cells, int cells_d, Chunk chunk, bool with_l1,
                                          T (&out)[M][K], T (&l1)[1][K], T& base_m, T& base_d) {
  const int middle = chunk(window.radius + (K - 1) / 2);
  base_m = cells[middle], base_d = cells[middle + cells_d];
  fir<K>(window, out, [&](int i, auto N, auto& v) {
    const int first = place(i), at = chunk(i);
    Some<T, N.value> part[M];
#pragma unroll
    for (int q = 0; q < M; ++q) {
#pragma unroll
      for (int u = 0; u < N.value; ++u) part[q].v[u] = from[q * each + first + u * pitch];
    }
    move_maps(part, cells[at] - base_m, cells[at + cells_d] - base_d, v);
  });
  if (!with_l1) return;
  fir<K>(window, l1, [&](int i, auto N, auto& v) {
    const int first = place(i);
#pragma unroll
    for (int u = 0; u < N.value; ++u) v[0][u] = from[M * each + first + u * pitch];
  });
}

}  // namespace ssimloss
