#include "gradient_memory.h"

#include <cstdint>
#include <cstdlib>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ssimloss {

// malloc gives the same again up to glibc's limit of 32 MiB: what torch's posix_memalign got and freed, glibc
// gives to nobody who asks for as much (its bug 14581), and steps hold ever more.
void* take_memory(size_t bytes) {
  constexpr uintptr_t line = 64;
  // Before the aligned memory lies where the block begins.
  void* const block = std::malloc(bytes + line + sizeof(void*));
  if (!block) return nullptr;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + sizeof(void*) + line - 1) / line * line;
  reinterpret_cast<void**>(begin)[-1] = block;
  prefer_huge_pages(reinterpret_cast<void*>(begin), bytes);
  return reinterpret_cast<void*>(begin);
}

void give_memory_back(void* memory) {
  if (memory) std::free(static_cast<void**>(memory)[-1]);
}

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace ssimloss
