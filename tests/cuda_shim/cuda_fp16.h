// float16 for the shim, through the compiler's own conversions.
#pragma once

#include "cuda_runtime.h"

struct alignas(2) __half {
  _Float16 value;
};
struct alignas(4) __half2 {
  __half x, y;
};
inline float __half2float(__half v) { return float(v.value); }
inline __half __float2half_rn(float v) { return {_Float16(v)}; }
inline __half __float2half(float v) { return {_Float16(v)}; }
inline __half __double2half(double v) { return {_Float16(v)}; }
inline __half __ushort_as_half(unsigned short v) { return shim_bits<__half>(v); }
inline unsigned short __half_as_ushort(__half v) { return shim_bits<unsigned short>(v); }
