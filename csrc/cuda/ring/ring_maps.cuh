// The maps' two filters for ring.cuh and adjoint.cuh: along a row into a ring of rows, then down its columns.
//
// M maps: b_m, b_d, a_m + a_d and, for both gradients, a_m - a_d; where l1 is windowed its gain comes after.
// Each a is relative to the base of its cell of K x K places; who reads over cells moves it to one base.
#pragma once

#include "ring_fir.cuh"

namespace ssimloss {

// Maps as inputs, with their a moved by a difference of bases.
template <int M, int N, class V>
__device__ __forceinline__ void move_maps(const Some<N> (&part)[M], float by_m, float by_d, V& v) {
#pragma unroll
  for (int u = 0; u < N; ++u) {
    const float b_m = part[0].v[u], b_d = part[1].v[u];
    v[0][u] = b_m, v[1][u] = b_d;
    v[2][u] = by_m * b_m + (part[2].v[u] - by_d * b_d);
    if (M == 4) v[M - 1][u] = by_m * b_m + (by_d * b_d + part[M - 1].v[u]);
  }
}

template <int K>
__device__ __forceinline__ void put(const float (&from)[K], float* to) {
#pragma unroll
  for (int half = 0; half < K; half += 4) {
    Some<4> four;
#pragma unroll
    for (int u = 0; u < 4; ++u) four.v[u] = from[half + u];
    *reinterpret_cast<Some<4>*>(to + half) = four;
  }
}

// K windows that begin at `from`, a cell's first: cells[0], cells[cells_d] and on are the bases of that cell,
// and cells[middle] becomes that of the result. Maps lie `each` apart in from and `each_to` apart in to.
template <int K, int M>
__device__ __forceinline__ void maps_along(const RingWindow& window, const float* from, int each,
                                           const float* cells, int cells_d, int middle, bool with_l1,
                                           float* to, int each_to) {
  const float base_m = cells[middle], base_d = cells[middle + cells_d];
  float out[M][K];
  fir<K>(window, out, [&](int i, auto N, auto& v) {
    Some<N.value> part[M];
#pragma unroll
    for (int q = 0; q < M; ++q) part[q] = some<N.value>(from + q * each + i);
    move_maps(part, cells[i / K] - base_m, cells[i / K + cells_d] - base_d, v);
  });
#pragma unroll
  for (int q = 0; q < M; ++q) put(out[q], to + q * each_to);
  if (!with_l1) return;
  float l1[1][K];
  blur_along(window, from + M * each, l1);
  put(l1[0], to + M * each_to);
}

// Down one column: input i lies place(i) from `from`, four of them `pitch` apart; its bases at
// cells[chunk(i)] and cells_d further. The result is relative to those of its middle, base_m and base_d.
template <int K, int M, class Place, class Chunk>
__device__ __forceinline__ void maps_down(const RingWindow& window, const float* from, int each, int pitch,
                                          Place place, const float* cells, int cells_d, Chunk chunk,
                                          bool with_l1, float (&out)[M][K], float (&l1)[1][K], float& base_m,
                                          float& base_d) {
  const int middle = chunk(window.radius + (K - 1) / 2);
  base_m = cells[middle], base_d = cells[middle + cells_d];
  fir<K>(window, out, [&](int i, auto N, auto& v) {
    const int first = place(i), at = chunk(i);
    Some<N.value> part[M];
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
