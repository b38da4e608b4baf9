// What the CUDA sources of this package use of CUDA, for g++ and the CPU: tests run the unchanged kernels
// and their launchers without a GPU. Each CUDA thread is a fiber (shim.cpp) on one OS thread, blocks run one
// after the other, and a fiber goes on until it waits at a barrier, so a missing barrier leaves others'
// work undone; a launch returns after its last block. It models what a program may count on, not speed.
//
// SHIM_SCHEDULE  forward (default), reverse, or a number that seeds a random order of blocks and, anew at
//                every barrier, of threads.
// SHIM_SHARED    bytes of shared memory that the device has for a block (default 232448, an H100's).
// SHIM_TRACE     a file to which each launch appends its kernel, threads, bytes of shared memory and blocks.
// SHIM_DRY       1: nothing runs, memory may be unreal: for the trace alone.
// SHIM_SMS       multiprocessors of the device (default 4: small images fill it).
//
// Sources declare dynamic shared memory once, at global scope: extern __shared__ unsigned char
// ssimloss_shared[]. It is filled with NaN before each block, and beyond its size poisoned for ASan.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <utility>

#define __device__
#define __host__
#define __global__
#define __shared__
#define __constant__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
#define SHIM_VECTOR(type, name, align)                                              \
  struct alignas(2 * (align)) name##2 { type x, y; };                               \
  struct name##3 { type x, y, z; };                                                 \
  struct alignas(4 * (align) < 16 ? 4 * (align) : 16) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                  \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SHIM_VECTOR(float, float, 4)
SHIM_VECTOR(double, double, 8)
SHIM_VECTOR(int, int, 4)
SHIM_VECTOR(unsigned, uint, 4)
SHIM_VECTOR(unsigned short, ushort, 2)

namespace shim {

enum class Scope { warp, block };
struct Copy {  // of cp.async, done when it is waited for
  void* to;
  const void* from;
  size_t bytes, zeros;
  int group;
};
struct Where {
  dim3 thread, block, threads, blocks;
};
const Where& here() __attribute__((const));  // of the running CUDA thread, for which it never changes
void barrier(Scope scope);               // waits for all threads of the block or warp that have not returned
const uint64_t* gathered(uint64_t own);  // what each lane of the warp gave; waits, but orders no memory
int lane() __attribute__((const));
void copy_async(const Copy& copy);
void commit_copies();
void wait_copies(int latest);  // all but the latest groups
int launch(const void* kernel, void (*call)(const void*), const void* context, dim3 grid, dim3 block,
           size_t shared);
int allow_shared(const void* kernel, int bytes);
int attribute(int which);
void fence();

template <class T>
T exchange(unsigned mask, T value, int source, bool valid) {
  static_assert(sizeof(T) <= 8);
  if (mask != 0xffffffffu) throw std::logic_error("shim: shuffles of part of a warp are not modelled");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const uint64_t* all = gathered(bits);
  if (valid) std::memcpy(&value, &all[source], sizeof value);
  return value;
}

}  // namespace shim

#define threadIdx (shim::here().thread)
#define blockIdx (shim::here().block)
#define blockDim (shim::here().threads)
#define gridDim (shim::here().blocks)
constexpr int warpSize = 32;

inline void __syncthreads() { shim::barrier(shim::Scope::block); }
inline void __syncwarp(unsigned = 0xffffffffu) { shim::barrier(shim::Scope::warp); }
template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  return shim::exchange(mask, v, shim::lane() / width * width + (from & (width - 1)), true);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  const int from = shim::lane() + int(by);
  return shim::exchange(mask, v, from, from / width == shim::lane() / width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32) {
  const int from = shim::lane() ^ by;
  return shim::exchange(mask, v, from, from / width == shim::lane() / width);
}

inline void __threadfence() { shim::fence(); }
template <class T>
T atomicAdd(T* to, T value) {
  static_assert(std::is_integral<T>::value, "atomics on floats would not be deterministic");
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
inline unsigned atomicInc(unsigned* to, unsigned last) {  // one OS thread: no loop needed
  const unsigned before = __atomic_load_n(to, __ATOMIC_RELAXED);
  __atomic_store_n(to, before >= last ? 0u : before + 1, __ATOMIC_RELAXED);
  return before;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
using std::max;
using std::min;
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
template <class To, class From>
To shim_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float v) { return shim_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return shim_bits<unsigned>(v); }
inline float __int_as_float(int v) { return shim_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return shim_bits<float>(v); }

// ---- The host's side

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };

namespace shim {
template <class... P>
struct Launch {
  void (*kernel)(P...);
  void** args;
  template <size_t... I>
  void call(std::index_sequence<I...>) const {
    kernel(*static_cast<std::remove_reference_t<P>*>(args[I])...);
  }
  static void run(const void* self) {
    static_cast<const Launch*>(self)->call(std::index_sequence_for<P...>{});
  }
};
}  // namespace shim

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** args, size_t shared = 0,
                             cudaStream_t = nullptr) {
  const shim::Launch<P...> one{kernel, args};
  return cudaError_t(shim::launch(reinterpret_cast<const void*>(kernel), &shim::Launch<P...>::run, &one, grid,
                                  block, shared));
}
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
  return cudaError_t(shim::allow_shared(reinterpret_cast<const void*>(kernel), value));
}
template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(P...), int threads,
                                                          size_t shared) {
  *blocks = std::min(2048 / threads,
                     int(shim::attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / (shared + 1024)));
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = shim::attribute(which);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess             ? "no error"
         : error == cudaErrorInvalidValue ? "invalid argument"
                                          : "invalid configuration argument";
}
inline cudaError_t cudaMalloc(void** data, size_t bytes) {
  return posix_memalign(data, 256, bytes) == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaFree(void* data) { return std::free(data), cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return std::memset(to, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return std::memset(to, value, bytes), cudaSuccess;
}
