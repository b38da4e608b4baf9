#include <cstddef>
#include <type_traits>
#include <utility>

#include "../l1.h"
#include "scratch.h"
#include "variants.h"

#define VECTOR_BYTES 16

namespace ssimloss {
namespace baseline {
namespace {
#include "variant.h"
}  // namespace

const CpuKernels kernels = {"baseline", items, similarity, scale, unpool, volume_items, volume, sum_of_row};

}  // namespace baseline
}  // namespace ssimloss
