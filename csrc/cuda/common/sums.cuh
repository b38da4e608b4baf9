// Sums over a block's threads in a fixed order.
#pragma once

#include <cuda_runtime.h>

namespace ssimloss {

__device__ __forceinline__ double sum_warp(double v) {  // in lane 0
  for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step);
  return v;
}

// The sums of a and b over all threads of the block, in thread 0. room: 2 doubles for each warp.
__device__ __forceinline__ void sum_block(double& a, double& b, double* room) {
  a = sum_warp(a), b = sum_warp(b);
  const int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) room[2 * warp] = a, room[2 * warp + 1] = b;
  __syncthreads();
  if (threadIdx.x != 0) return;
  a = b = 0;
  for (int i = 0; i < warps; ++i) a += room[2 * i], b += room[2 * i + 1];
}

}  // namespace ssimloss
