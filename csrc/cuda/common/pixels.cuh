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

constexpr int max_scales = 16;

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

// Four pixels side by side, aligned to their size.
template <class E>
struct alignas(4 * sizeof(E) > 16 ? 16 : 4 * sizeof(E)) Four {
  E v[4];
};

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
    const Four<E> four = *reinterpret_cast<const Four<E>*>(from);
    Four<T> wider;
#pragma unroll
    for (int u = 0; u < 4; ++u) wider.v[u] = wide(four.v[u]);
    *reinterpret_cast<Four<T>*>(to) = wider;
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

// Images [batch, channels, height, width] on the device; strides in elements. data null: absent.
struct View {
  void* data;
  int64_t n, c, h, w;

  template <class E>
  __device__ E* plane(int64_t image, int64_t channel) const {
    return static_cast<E*>(data) + image * n + channel * c;
  }
};

inline View view(const Images& images) {
  return {images.data, images.stride_n, images.stride_c, images.stride_h, images.stride_w};
}

inline int element_size(DType dtype) {
  return dtype == DType::float64 ? 8 : (dtype == DType::float32 ? 4 : 2);
}

// Whether every fourth pixel of a row can be read or written together with the three after it.
inline bool in_fours(const Images& images) {
  if (!images.data) return true;
  const uintptr_t size = 4 * uintptr_t(element_size(images.dtype));
  return images.stride_w == 1 && images.stride_h % 4 == 0 && images.stride_c % 4 == 0 &&
         images.stride_n % 4 == 0 && reinterpret_cast<uintptr_t>(images.data) % (size > 16 ? 16 : size) == 0;
}

__device__ inline double read_as(const void* data, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::float32: return static_cast<const float*>(data)[at];
    case DType::float64: return static_cast<const double*>(data)[at];
    case DType::float16: return wide(static_cast<const Half*>(data)[at]);
    default: return wide(static_cast<const Brain*>(data)[at]);
  }
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

// The sum of the window's taps at the positions whose window holds pixel i: 1 but near a border.
template <class T>
__device__ inline T cover(int i, int size, Padding padding, const T* taps, int radius) {
  const int crop = padding == Padding::valid ? radius : 0;
  if (i > radius + crop && i < size - 1 - radius - crop) return T(1);
  T sum = 0;
  for (int t = -radius; t <= radius; ++t) {
    int at = i + t;
    if (padding == Padding::reflect) at = mirrored(at, size);
    if (at < crop || at >= size - crop) continue;
    sum += taps[t < 0 ? -t : t] * (is_edge(at, size, padding) ? T(2) : T(1));
  }
  return is_edge(i, size, padding) ? T(0.5) * sum : sum;
}

// What the dyadic form takes off d before it halves it, where the plane is nearly uniform: rounding a halved
// uniform difference to float32 would cost the digits of its variation. The middle of three values of d, if
// all three are nearly that; d in units of 1.
template <class T, class E>
__device__ T offset_of(const E* x, const E* y, const View& of_x, const View& of_y, int height, int width,
                       double inverse_range) {
  T v[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t row = int64_t(height) * (2 * i + 1) / 6, col = int64_t(width) * (2 * i + 1) / 6;
    v[i] = (T(wide(x[row * of_x.h + col * of_x.w])) - T(wide(y[row * of_y.h + col * of_y.w]))) *
           T(inverse_range);
  }
  T low = v[0], high = v[0], sum = 0;
  for (int i = 0; i < 3; ++i) {
    low = v[i] < low ? v[i] : low, high = v[i] > high ? v[i] : high;
    sum += v[i];
  }
  const T middle = sum - low - high;
  const T size = middle < 0 ? -middle : middle;
  return (high - low) * T(16) < size && size <= T(2) ? middle : T(0);
}

}  // namespace ssimloss
