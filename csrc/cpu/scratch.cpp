#include "scratch.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace ssimloss {

void* scratch(size_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local size_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = (bytes + 4095) / 4096 * 4096;
    memory.reset(std::aligned_alloc(4096, size));
    if (!memory) {
      size = 0;
      throw std::bad_alloc();
    }
    std::memset(memory.get(), 0, size);
  }
  return memory.get();
}

}  // namespace ssimloss
