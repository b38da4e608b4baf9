// What the planner knows of GPUs: what it asks of the one at hand, and every number that was measured or
// counted, with its date and source (benchmarks/results/). Host side.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../common/launch.h"

namespace ssimloss {

struct Device {
  int multiprocessors, shared_per_block;
};

inline Device current_device() {
  Device device{};
  int index = 0;
  const auto ask = [&](int& value, cudaDeviceAttr what) {
    check_cuda(cudaDeviceGetAttribute(&value, what, index), "cudaDeviceGetAttribute");
  };
  check_cuda(cudaGetDevice(&index), "cudaGetDevice");
  ask(device.multiprocessors, cudaDevAttrMultiProcessorCount);
  ask(device.shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return device;
}

// Blocks of a multiprocessor, which has 1 KiB more than a block may ask for, and takes as much for each.
inline int64_t resident_of(const Device& device, int64_t most, int64_t shared) {
  return std::max<int64_t>(1, std::min<int64_t>(most, (device.shared_per_block + 1024) / (shared + 1024)));
}

// A multiprocessor has four schedulers, each with a fourth of the warps, each issuing one instruction a cycle
// at most. Threads that are resident at once: at most 2048 (1024 to 1536 on some).
constexpr int schedulers = 4, resident_threads = 2048;

// For the times that SSIMLOSS_PLAN prints: an H200's highest clock in GHz (gpu-2026-11-26.md).
constexpr double clock_ghz = 1.98;

// strip_kernel, counted in its machine code for sm_90 on 2026-11-27 (cuda-estimate-2026-11-25.md, last
// section): instructions of a thread for a chunk of 8 rows; for both gradients not counted, a third more
// assumed.
constexpr double strip_instructions[] = {1326, 2192, 2920};
// While a block waits, at barriers and for memory, its multiprocessor could do the work of as many warps:
// with 12 warps an H100 issued 0.69 instructions a cycle (Nsight Compute, 2026-11-26; gpu-2026-11-26.md).
constexpr int strip_waiting_warps = 5;
// Narrower strips must be predicted to take less than this part of the time (2026-11-27, 6697849: the model
// ignores what more blocks cost; not measured).
constexpr double strip_narrower = 0.95;

// Starting a block costs as much as so many of its chunks (2026-11-25, assumed; strip_kernel and ring.cuh).
constexpr double start_chunks = 1.5;

// How fast blocks of ring.cuh, scales.cuh and adjoint.cuh go. Fitted to what these kernels took on an H200
// (2026-11-26, 8725477; gpu-2026-11-26.md).
struct Pace {
  double rate;  // instructions a cycle of a multiprocessor that has enough warps
  double wait;  // cycles an instruction of one warp, where all wait for it
};
constexpr Pace ring_pace = {4, 1.5}, scales_pace = {2.3, 4}, adjoint_pace = {2.5, 5};
// How many times as many instructions the kernels of weights have, as their machine code for sm_90
// (2026-11-30, csrc/README.md).
constexpr double ring_weights = 1.2, scales_weights = 1.35, adjoint_weights = 1.2;
// Cycles between two barriers in which tasks of a queue run out at different times (same source).
constexpr double queue_idle = 1000;

// A portion's launches: between the last block of one and the first of the next (three times 1 us; assumed,
// 2026-11-30).
constexpr double portion_cycles = 6000;

// combine_kernel: blocks that run at once on a multiprocessor (48 registers a thread; ptxas, 2026-11-25).
constexpr int combine_resident = 5;

}  // namespace ssimloss
