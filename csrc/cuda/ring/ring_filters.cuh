// The filter of ring.cuh, scales.cuh and adjoint.cuh: K windows side by side, of any radius, over Q
// quantities at once.
#pragma once

#include <type_traits>

#include "../common/block.cuh"

namespace ssimloss {

// The weight of input k of an output, k from 0 to 2 radius.
struct RingWindow {
  int radius;
  const float* taps;  // in shared memory: RingBlock::taps
  const float* rim;   // in the parameters, the first 10
};

// Half a window of the parameters, from its centre on, as RingWindow::taps lie.
INLINE void load_taps(const float* half, int radius, float* to) {
  for (int k = int(threadIdx.x); k <= 2 * radius; k += int(blockDim.x))
    to[k + 3] = half[k < radius ? radius - k : k - radius];
}

// out[q][o] = sum_k taps[k] in_q(o + k), k from 0 to 2 radius. fetch(i, N, v) sets v[q][u] = in_q(i + u), u <
// N, for N = 4 inputs from a multiple of 4 or 2 from an even one. An input is used for the outputs whose
// window holds it and no others: 0 * NaN would be NaN. So the first and last K inputs make triangles, whose
// weights are known places of `rim`; between them each input feeds all K outputs, with weights from shared
// memory.
template <int K, int Q, class Fetch>
INLINE void fir(const RingWindow& window, Some<K> (&out)[Q], Fetch fetch) {
  const int r = window.radius;
#pragma unroll
  for (int q = 0; q < Q; ++q) out[q] = {};
  // Inputs [i, i + N) of which `has(u, o)` belong to output o, with weight(u, o).
  const auto add = [&](int i, auto N, auto has, auto weight) {
    Some<N.value> v[Q];
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
    const Some<K + 4> w = some<K + 4>(taps + i - K + 4);
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
INLINE int cell_of(const RingWindow& window, int group) {
  return group + (window.radius + (K - 1) / 2) / K;
}

// M maps: b_m, b_d, a_m + a_d and, for both gradients, a_m - a_d; where l1 is windowed its gain comes after.
// Each a is relative to the base of its cell of K x K places. A filter that reads several cells moves it to
// one base. part(q, i, N): inputs [i, i + N) of map q; base_of(i): that of the cell they lie in. The result
// is relative to `base`.
template <int K, int M, class Part, class BaseOf>
INLINE void blur_maps(const RingWindow& window, Part part, BaseOf base_of, Pair<float> base, bool with_l1,
                      Some<K> (&out)[M], Some<K> (&l1)[1]) {
  fir<K>(window, out, [&](int i, auto N, auto& v) {
#pragma unroll
    for (int q = 0; q < M; ++q) v[q] = part(q, i, N);
    const Pair<float> by = base_of(i) - base;
#pragma unroll
    for (int u = 0; u < N.value; ++u) {
      const float b_m = v[0][u], b_d = v[1][u];
      v[2][u] = by.m * b_m + (v[2][u] - by.d * b_d);
      if (M == 4) v[M - 1][u] = by.m * b_m + (by.d * b_d + v[M - 1][u]);
    }
  });
  if (with_l1) fir<K>(window, l1, [&](int i, auto N, auto& v) { v[0] = part(M, i, N); });
}

}  // namespace ssimloss
