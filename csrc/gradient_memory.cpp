#include "gradient_memory.h"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ssimloss {
namespace {

struct Kept {
  void* memory;
  size_t bytes;
};

// Below it malloc keeps what is freed.
constexpr size_t large = size_t(1) << 20;

// Of all below, which has no destructors, as tensors may outlive static objects. Who finds it taken goes
// without: a process forked while it was could wait forever.
std::mutex& mutex = *new std::mutex;
Kept kept[2];
size_t freed[2];  // the sizes of the last two freed

}  // namespace

// From malloc, which gives the same again up to glibc's limit of 32 MiB: what torch's posix_memalign got and
// freed, glibc gives to nobody who asks for as much (its bug 14581), and steps hold ever more. In huge pages,
// where the kernel has them.
void* take_memory(size_t bytes) {
  constexpr uintptr_t line = 64, page = uintptr_t(2) << 20;
  // Before the aligned memory lies where the block begins.
  void* const block = std::malloc(bytes + line + sizeof(void*));
  if (!block) return nullptr;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + sizeof(void*) + line - 1) / line * line;
#ifdef __linux__
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a hint
#endif
  reinterpret_cast<void**>(begin)[-1] = block;
  return reinterpret_cast<void*>(begin);
}

void give_memory_back(void* memory, size_t) {
  if (memory) std::free(static_cast<void**>(memory)[-1]);
}

void* take_gradient(size_t bytes) {
  if (bytes >= large) {
    const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    for (Kept& one : kept) {
      if (lock && one.memory && one.bytes == bytes) return std::exchange(one, Kept{}).memory;
    }
  }
  return take_memory(bytes);
}

void give_gradient_back(void* memory, size_t bytes) {
  void* out[3] = {memory};
  if (memory && bytes >= large) {
    const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    const bool again = lock && (bytes == freed[0] || bytes == freed[1]);
    if (lock) freed[1] = std::exchange(freed[0], bytes);
    for (int i = 0; lock && i < 2; ++i) {  // of sizes no longer asked for, nothing is kept
      if (kept[i].bytes != freed[0] && kept[i].bytes != freed[1])
        out[i + 1] = std::exchange(kept[i], Kept{}).memory;
      if (again && out[0] && !kept[i].memory) kept[i] = Kept{std::exchange(out[0], nullptr), bytes};
    }
  }
  for (void* one : out) give_memory_back(one, 0);
}

}  // namespace ssimloss
