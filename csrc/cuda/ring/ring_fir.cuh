// The filter of ring.cuh, scales.cuh and adjoint.cuh: K windows side by side, of any radius, over Q
// quantities at once.
#pragma once

#include <type_traits>

#include "ring_block.cuh"

namespace ssimloss {

// The weight of input k of an output, k from 0 to 2 radius.
struct RingWindow {
  int radius;
  const float*
      taps;  // in shared memory, that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  const float* rim;  // in the parameters, the first 10
};

// Half a window of the parameters, from its centre on, as RingWindow::taps lie.
__device__ __forceinline__ void load_taps(const float* half, int radius, float* to) {
  for (int k = int(threadIdx.x); k <= 2 * radius; k += int(blockDim.x))
    to[k + 3] = half[k < radius ? radius - k : k - radius];
}

// out[q][o] = sum_k taps[k] in_q(o + k), k from 0 to 2 radius. fetch(i, N, v) sets v[q][u] = in_q(i + u), u <
// N, for N = 4 inputs from a multiple of 4 or 2 from an even one. An input is used for the outputs whose
// window holds it and no others: 0 * NaN would be NaN. So the first and last K inputs make triangles, whose
// weights are known places of `rim`; between them each input feeds all K outputs, with weights from shared
// memory.
template <int K, int Q, class Fetch>
__device__ __forceinline__ void fir(const RingWindow& window, float (&out)[Q][K], Fetch fetch) {
  const int r = window.radius;
#pragma unroll
  for (int q = 0; q < Q; ++q) {
#pragma unroll
    for (int o = 0; o < K; ++o) out[q][o] = 0;
  }
  // Inputs [i, i + N) of which `has(u, o)` belong to output o, with weight(u, o).
  const auto add = [&](int i, auto N, auto has, auto weight) {
    float v[Q][N.value];
    fetch(i, N, v);
#pragma unroll
    for (int u = 0; u < N.value; ++u) {
#pragma unroll
      for (int o = 0; o < K; ++o) {
        if (!has(u, o)) continue;
        const float w = weight(u, o);
#pragma unroll
        for (int q = 0; q < Q; ++q) out[q][o] += w * v[q][u];
      }
    }
  };
  constexpr std::integral_constant<int, 4> four{};
  constexpr std::integral_constant<int, 2> two{};
  const float *rim = window.rim, *taps = window.taps;
  if (K == 4 && r < 2) {  // the triangles would overlap
    add(
        0, four, [&](int u, int o) { return u >= o && u - o <= 2 * r; },
        [&](int u, int o) { return rim[u - o]; });
    if (r == 1) {
      add(4, two, [&](int u, int o) { return u + 4 - o <= 2; }, [&](int u, int o) { return rim[u + 4 - o]; });
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < K; i += 4)
    add(i, four, [&](int u, int o) { return i + u >= o; }, [&](int u, int o) { return rim[i + u - o]; });
#pragma unroll 1
  for (int i = K; i + 3 <= 2 * r; i += 4) {
    float w[K + 4];
#pragma unroll
    for (int j = 0; j < K + 4; j += 4) {
      const Some<4> part = some<4>(taps + i - K + 4 + j);
#pragma unroll
      for (int u = 0; u < 4; ++u) w[j + u] = part.v[u];
    }
    add(i, four, [](int, int) { return true; }, [&](int u, int o) { return w[K - 1 + u - o]; });
  }
  if (r % 2) add(2 * r - 2, two, [](int, int) { return true; }, [&](int u, int o) { return rim[2 - u + o]; });
#pragma unroll
  for (int j = 0; j < K; j += 2)
    add(
        2 * r + j, two, [&](int u, int o) { return o >= j + u; },
        [&](int u, int o) { return rim[o - j - u]; });
}

// The cell of a group of K windows: that in their middle.
template <int K>
__device__ __forceinline__ int cell_of(const RingWindow& window, int group) {
  return group + (window.radius + (K - 1) / 2) / K;
}

// One quantity along a row, from windows that begin at `from`.
template <int K>
__device__ __forceinline__ void blur_along(const RingWindow& window, const float* from, float (&out)[1][K]) {
  fir<K>(window, out, [&](int i, auto N, auto& v) {
    const auto part = some<decltype(N)::value>(from + i);
#pragma unroll
    for (int u = 0; u < N.value; ++u) v[0][u] = part.v[u];
  });
}

// A value in the middle of K windows, to take differences to; where windows are so narrow that they share
// none, the middle one of three, so that no huge one spreads. of(i), i from 0 to K - 1 + 2 radius.
template <int K, class Of>
__device__ __forceinline__ auto centre(int radius, Of of) {
  auto v = of(radius + (K - 1) / 2);
  if (K == 4 && radius < 2) v = middle(of(radius), v, of(radius + K - 1));
  return finite_or_zero(v);
}

// ---- The maps' two filters for ring.cuh and adjoint.cuh: along a row into a ring of rows, then down its
// columns.
//
// M maps: b_m, b_d, a_m + a_d and, for both gradients, a_m - a_d; where l1 is windowed its gain comes after.
// Each a is relative to the base of its cell of K x K places. A filter that reads several cells moves it to
// one base.

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

// The gradient at K pixels of a column, a of x and b of y, from their blurred maps: in the place of the last
// one or two maps.
template <int K, int M, class Values>
__device__ __forceinline__ void maps_to_gradient(const Values& value, const float (&a)[K],
                                                 const float (&b)[K], bool with_l1, const float (&l1)[1][K],
                                                 float (&out)[M][K]) {
#pragma unroll
  for (int o = 0; o < K; ++o) {
    const float by_m = value.m(a[o], b[o]) * out[0][o], by_d = value.d(a[o], b[o]) * out[1][o];
    out[2][o] = (out[2][o] - by_m) + by_d;
    if (M == 4) out[M - 1][o] = (out[M - 1][o] - by_m) - by_d;
    if (!with_l1) continue;
    const float by = gradient_of_l1(a[o] - b[o], l1[0][o]);
    out[2][o] += by;
    if (M == 4) out[M - 1][o] -= by;
  }
}

}  // namespace ssimloss
