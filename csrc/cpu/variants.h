// Every CPU variant, and the memory that they share.
#pragma once

#include <cstddef>

#include "../kernels.h"

namespace ssimloss {

// This thread's working memory, kept from call to call (fresh pages cost more than the arithmetic).
void* scratch(size_t bytes);

namespace baseline {
extern const CpuKernels kernels;
}
namespace v3 {
extern const CpuKernels kernels;
}
namespace v4 {
extern const CpuKernels kernels;
}

}  // namespace ssimloss
