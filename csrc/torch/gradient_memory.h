// Where gradients on the CPU lie, and the coarser levels of a pyramid.
#pragma once
#include <cstddef>

namespace ssimloss {

// From this size on ssimloss/memory.py says where a gradient lies, which takes 2 us more than malloc.
constexpr size_t least_held_gradient = 20 << 10;

// At least `bytes` bytes of malloc's, aligned to a line of the cache; a null pointer where there is no
// memory.
void* take_memory(size_t bytes);
void give_memory_back(void* memory);

// Ask for huge pages, where the kernel has them: a hint.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace ssimloss
