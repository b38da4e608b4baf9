// cp.async for the shim: a copy is done when its thread waits for it, not before.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0) {
  shim::copy_async({to, from, bytes, zeros, 0});
}
inline void __pipeline_commit() { shim::commit_copies(); }
inline void __pipeline_wait_prior(size_t latest) { shim::wait_copies(int(latest)); }
