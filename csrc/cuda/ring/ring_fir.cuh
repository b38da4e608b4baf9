// The filter of ring.cuh: K windows side by side, of any radius, over Q quantities at once.
#pragma once

#include <type_traits>

#include "ring_block.cuh"

namespace ssimloss {

// N elements side by side, aligned to their size.
template <int N>
struct alignas(N * sizeof(float) > 16 ? 16 : N * sizeof(float)) Some {
  float v[N];
};
template <int N>
__device__ __forceinline__ const Some<N>& some(const float* from) {
  return *reinterpret_cast<const Some<N>*>(from);
}

// The weight of input k of an output, k from 0 to 2 radius.
struct RingWindow {
  int radius;
  const float*
      taps;  // in shared memory, that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  const float* rim;  // in the parameters, the first 10
};

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

}  // namespace ssimloss
