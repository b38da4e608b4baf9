// Every CPU variant.
#pragma once

#include "kernels.h"

namespace ssimloss {

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
