// Pixels in memory: float, double or 16 bits, at any strides; converted to and from the arithmetic type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../../problem.h"

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

// N elements side by side, aligned to their size, to 16 bytes at most.
template <int N, class E = float>
struct alignas(N * sizeof(E) > 16 ? 16 : N * sizeof(E)) Some {
  E v[N];
};
template <int N, class E>
__device__ __forceinline__ const Some<N, E>& some(const E* from) {
  return *reinterpret_cast<const Some<N, E>*>(from);
}
// N elements to an aligned place, four at a time.
template <int N, class E>
__device__ __forceinline__ void put(const E (&from)[N], E* to) {
#pragma unroll
  for (int part = 0; part < N; part += 4) {
    Some < N<4 ? N : 4, E> some;
#pragma unroll
    for (int u = 0; u < N && u < 4; ++u) some.v[u] = from[part + u];
    *reinterpret_cast<decltype(some)*>(to + part) = some;
  }
}

// v, but what is worked out from it is not kept in registers for later.
__device__ __forceinline__ int again(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Pixels on their way into shared memory. What is of type T already is copied while the block goes on;
// 16 bits become float32 on the way.
template <class E, class T>
__device__ __forceinline__ void copy_four(const E* from, T* to) {
  if constexpr (std::is_same_v<E, T>) {
#pragma unroll
    for (int u = 0; u < 4; u += 16 / int(sizeof(T))) __pipeline_memcpy_async(to + u, from + u, 16);
  } else {
    const Some<4, E> four = some<4>(from);
    T wider[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) wider[u] = wide(four.v[u]);
    put(wider, to);
  }
}
template <class E, class T>
__device__ __forceinline__ void copy_one(const E* from, T* to) {
  if constexpr (std::is_same_v<E, T>) {
    __pipeline_memcpy_async(to, from, sizeof(T));
  } else {
    *to = wide(*from);
  }
}

// f(a null pointer of the type of pixels): float64 where the arithmetic is, else one of the others.
template <class T, class F>
__device__ __forceinline__ auto with_type(DType dtype, F f) {
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

  template <class E>
  __device__ __forceinline__ E* plane(int64_t image, int64_t channel) const {
    return static_cast<E*>(data) + image * n + channel * c;
  }
  __device__ __forceinline__ int64_t at(int64_t image, int64_t channel, int64_t row, int64_t col) const {
    return image * n + channel * c + row * h + col * w;
  }
  // A pixel in the arithmetic type T, which is double where the pixels are, and only there.
  template <class T>
  __device__ __forceinline__ T read(int64_t image, int64_t channel, int64_t row, int64_t col) const {
    const int64_t place = at(image, channel, row, col);
    return with_type<T>(dtype, [&](auto* tag) -> T { return wide(static_cast<decltype(tag)>(data)[place]); });
  }
  template <class T>
  __device__ __forceinline__ void write(T v, int64_t image, int64_t channel, int64_t row, int64_t col) const {
    const int64_t place = at(image, channel, row, col);
    with_type<T>(dtype, [&](auto* tag) { narrow(v, static_cast<decltype(tag)>(data)[place]); });
  }
  // The same of any type, whatever the arithmetic.
  __device__ __forceinline__ double read_any(int64_t image, int64_t channel, int64_t row, int64_t col) const {
    return dtype == DType::float64 ? read<double>(image, channel, row, col)
                                   : read<float>(image, channel, row, col);
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

__device__ __forceinline__ float lesser(float a, float b) { return fminf(a, b); }  // a NaN does not count
__device__ __forceinline__ float greater(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double lesser(double a, double b) { return fmin(a, b); }
__device__ __forceinline__ double greater(double a, double b) { return fmax(a, b); }
template <class T>
__device__ __forceinline__ T middle(T a, T b, T c) {  // of three
  return greater(lesser(a, b), lesser(greater(a, b), c));
}
__device__ __forceinline__ int clamped(int v, int low, int high) {
  return v < low ? low : (v > high ? high : v);
}
template <class T>
__device__ __forceinline__ T magnitude(T v) {  // NaN stays NaN
  return v < 0 ? -v : v;
}
template <class T>
__device__ __forceinline__ T finite_or_zero(T v) {
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
