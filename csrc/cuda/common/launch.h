// The one way to start a kernel: errors name it. Works under the tests' CPU shim as well, which has no
// <<<>>>.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

// Every kernel's shared memory.
extern __shared__ __align__(16) unsigned char ssimloss_shared[];

namespace ssimloss {

constexpr int64_t most_blocks = 0x7fffffff;

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("ssimloss: ") + what + ": " + cudaGetErrorString(error));
}

// Queue kernel<<<grid, block, shared, stream>>>(params). Dynamic shared memory beyond 48 KiB is asked for.
template <class Params>
void launch(const char* name, void (*kernel)(Params), int64_t grid, int block, size_t shared, void* stream,
            const Params& params) {
  if (grid == 0) return;
  if (shared > 48 * 1024) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), name);
  }
  Params copy = params;
  void* pointers[] = {&copy};
  check_cuda(cudaLaunchKernel(kernel, dim3(unsigned(grid)), dim3(unsigned(block)), pointers, shared,
                              static_cast<cudaStream_t>(stream)),
             name);
}

}  // namespace ssimloss
