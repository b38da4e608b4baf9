#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <cstddef>
#include <type_traits>
#include <utility>

#include "../l1.h"
#include "scratch.h"
#include "variants.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v3")
#endif

#define VECTOR_BYTES 32

namespace ssimloss {
namespace v3 {
namespace {
#include "variant.h"
}  // namespace

const CpuKernels kernels = {"x86-64-v3", items, similarity, scale, unpool, volume_items, volume, sum_of_row};

}  // namespace v3
}  // namespace ssimloss

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
