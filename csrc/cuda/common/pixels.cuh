// Pixels in memory: float, double or 16 bits, at any strides; converted to and from the arithmetic type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../../problem.h"

#define INLINE __device__ __forceinline__  // as most functions of the kernels are

namespace ssimloss {

using Half = __half;
using Brain = __nv_bfloat16;

__device__ inline float wide(float v) { return v; }
__device__ inline double wide(double v) { return v; }
__device__ inline float wide(Half v) { return __half2float(v); }
__device__ inline float wide(Brain v) { return __bfloat162float(v); }

__device__ inline void narrow(float v, float& out) { out = v; }
__device__ inline void narrow(float v, Half& out) { out = __float2half_rn(v); }
__device__ inline void narrow(float v, Brain& out) { out = __float2bfloat16_rn(v); }
__device__ inline void narrow(double v, double& out) { out = v; }

// N elements side by side, aligned to their size, to 16 bytes at most; an odd number of them as one is.
template <int N, class E = float>
struct alignas(N % 2 && N > 1 ? sizeof(E) : (N * sizeof(E) > 16 ? 16 : N * sizeof(E))) Some {
  E v[N];
  INLINE E& operator[](int i) { return v[i]; }
  INLINE const E& operator[](int i) const { return v[i]; }
};
template <int N, class E>
INLINE Some<N, E> some(const E* from) {
  return *reinterpret_cast<const Some<N, E>*>(from);
}
// To an aligned place, four at a time.
template <int N, class E>
INLINE void put(const Some<N, E>& from, E* to) {
#pragma unroll
  for (int part = 0; part < N; part += 4) {
    Some < N<4 ? N : 4, E> some;
#pragma unroll
    for (int u = 0; u < N && u < 4; ++u) some[u] = from[part + u];
    *reinterpret_cast<decltype(some)*>(to + part) = some;
  }
}
template <int N, class E>
INLINE auto wide(Some<N, E> from) {
  Some<N, decltype(wide(from[0]))> to;
#pragma unroll
  for (int u = 0; u < N; ++u) to[u] = wide(from[u]);
  return to;
}

// v, but what is worked out from it is not kept in registers for later.
INLINE int again(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Pixels on their way into shared memory. Those of float32 are copied while the block goes on; 16 bits become
// float32 on the way.
template <int N, class E>
INLINE void copy(const E* from, float* to) {
  if constexpr (std::is_same_v<E, float>) {
    __pipeline_memcpy_async(to, from, N * sizeof(float));
  } else {
    put(wide(some<N>(from)), to);
  }
}

// f(a null pointer of the type of pixels): float64 where the arithmetic is, else one of the others.
template <class T, class F>
INLINE auto with_type(DType dtype, F f) {
  if constexpr (std::is_same_v<T, double>) {
    return f(static_cast<double*>(nullptr));
  } else {
    switch (dtype) {
      case DType::float16: return f(static_cast<Half*>(nullptr));
      case DType::bfloat16: return f(static_cast<Brain*>(nullptr));
      default: return f(static_cast<float*>(nullptr));
    }
  }
}

// Images [batch, channels, height, width] on the device; strides in elements. data null: absent.
struct View {
  void* data;
  DType dtype;
  int64_t n, c, h, w;

  INLINE int64_t at(int64_t image, int64_t channel, int64_t row, int64_t col) const {
    return image * n + channel * c + row * h + col * w;
  }
  // The pixel at a place in the arithmetic type T, which is double where the pixels are, and only there.
  template <class T>
  INLINE T read(int64_t place) const {
    return with_type<T>(dtype, [&](auto* tag) -> T { return wide(static_cast<decltype(tag)>(data)[place]); });
  }
  template <class T>
  INLINE void write(T v, int64_t place) const {
    with_type<T>(dtype, [&](auto* tag) { narrow(v, static_cast<decltype(tag)>(data)[place]); });
  }
  // Of a map: its elements are of the arithmetic type.
  template <class T>
  INLINE T& element(int64_t place) const {
    return static_cast<T*>(data)[place];
  }
};

inline View view(const Images& images) {
  return {images.data, images.dtype, images.stride_n, images.stride_c, images.stride_h, images.stride_w};
}

// Whether every fourth pixel of a row can be read or written together with the three after it.
inline bool in_fours(const Images& images) {
  if (!images.data) return true;
  const uintptr_t size = 4 * uintptr_t(element_size(images.dtype));
  return images.stride_w == 1 && images.stride_h % 4 == 0 && images.stride_c % 4 == 0 &&
         images.stride_n % 4 == 0 && reinterpret_cast<uintptr_t>(images.data) % (size > 16 ? 16 : size) == 0;
}

template <class T>
INLINE T middle(T a, T b, T c) {  // of three, of which a NaN does not count
  return fmax(fmin(a, b), fmin(fmax(a, b), c));
}
INLINE int clamped(int v, int low, int high) { return v < low ? low : (v > high ? high : v); }
template <class T>
INLINE T magnitude(T v) {  // NaN stays NaN
  return v < 0 ? -v : v;
}
template <class T>
INLINE T finite_or_zero(T v) {
  return v - v == T(0) ? v : T(0);
}

// torch's "reflect", the edge not repeated; for indices up to 2 (size - 1) outside, beyond them >= size.
__device__ inline int mirrored(int i, int size) {
  i = i < 0 ? -i : i;
  if (i < size) return i;
  i = 2 * (size - 1) - i;
  return i < 0 ? -i : i;
}

// Whether i, or the pixel that it mirrors, is an edge of a reflected image: the adjoint of blurring such an
// image doubles the edges of the map and halves those of the result.
__device__ inline bool is_edge(int i, int size, Padding padding) {
  if (padding != Padding::reflect) return false;
  i = mirrored(i, size);
  return i == 0 || i == size - 1;
}

}  // namespace ssimloss
