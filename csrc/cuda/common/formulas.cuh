// The formula at one position, for the kernels.
#pragma once

#include <cuda_runtime.h>

#define SSIMLOSS_FORMULAS

namespace ssimloss {

#include "../../ssim_math.h"

}  // namespace ssimloss
