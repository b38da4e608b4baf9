// Working memory of the CPU kernels.
#pragma once

#include <cstddef>

namespace ssimloss {

// This thread's, kept from call to call: fresh pages cost more than the arithmetic.
void* scratch(size_t bytes);

}  // namespace ssimloss
