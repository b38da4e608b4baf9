// Where gradients on the CPU lie.
#pragma once
#include <cstddef>

namespace ssimloss {

// At least `bytes` bytes, aligned to a line of the cache; a null pointer where there is no memory.
void* take_memory(size_t bytes);
void give_memory_back(void* memory, size_t bytes);

// The same for a gradient, which every step asks for again: touching a large fresh buffer costs as much as
// computing the loss, and whether malloc gives the one before back depends on all that the process has freed
// beside it. So a large gradient is kept, at most two, whose size is that of one of the two freed before it;
// what is asked for once is not, nor what is no longer.
void* take_gradient(size_t bytes);
void give_gradient_back(void* memory, size_t bytes);

}  // namespace ssimloss
