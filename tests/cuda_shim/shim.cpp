// The scheduler behind cuda_runtime.h. Built without TSan's instrumentation (it is the machine, not the
// program), but where SHIM_TSAN is defined every CUDA thread is a fiber of its own to TSan, and barriers
// are the only order between them.
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_runtime.h"

constexpr size_t shared_capacity = size_t(256) << 10, stack_bytes = size_t(256) << 10;
alignas(1024) unsigned char ssimloss_shared[shared_capacity + 64];

// Saves the callee's registers, stores the stack pointer in *from and goes on at `to`.
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.pushsection .text
.hidden shim_switch
.globl shim_switch
shim_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.popsection
)");

namespace shim {
namespace {

enum class State { ready, at_warp, at_block, returned };

struct Fiber {
  Where where;
  int warp = 0, lane = 0;
  State state = State::ready;
  void* stack_pointer = nullptr;
  const void* stack = nullptr;
  size_t stack_size = stack_bytes;
  void *tsan = nullptr, *fake_stack = nullptr;
  std::vector<Copy> copies;
  int groups = 0;
};

struct Barrier {
  int alive = 0, waiting = 0;
  // Two for TSan: who leaves late must not see what the others did after this barrier.
  char tokens[2];
  int epoch = 0;
};

Fiber host;
Fiber* running = &host;
Fiber fibers[1024];  // reused by all launches
int threads = 0;     // of the block that runs
Barrier block_barrier, warp_barriers[32];
uint64_t warp_slots[2][32][32];  // in turn: some lanes write the next values while others read these
void (*kernel_call)(const void*);
const void* kernel_context;
size_t shared_size;
std::exception_ptr failure;
char block_token;  // orders the host's work around a block

#ifdef SHIM_TSAN
void acquire(void* token) { __tsan_acquire(token); }
void release(void* token) { __tsan_release(token); }
#else
void acquire(void*) {}
void release(void*) {}
#endif

void switch_to(Fiber* to) {
  Fiber* from = running;
  running = to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(from->state == State::returned ? nullptr : &from->fake_stack, to->stack,
                                 to->stack_size);
#endif
#ifdef SHIM_TSAN
  __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
  shim_switch(&from->stack_pointer, to->stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void open_if_complete(Barrier& barrier, State waiting) {
  if (barrier.waiting == 0 || barrier.waiting < barrier.alive) return;
  const bool block = &barrier == &block_barrier;
  const int first = block ? 0 : 32 * int(&barrier - warp_barriers);
  for (int i = first; i < (block ? threads : std::min(threads, first + 32)); ++i) {
    if (fibers[i].state == waiting) fibers[i].state = State::ready;
  }
  barrier.waiting = 0;
  ++barrier.epoch;
}

void wait(Barrier& at, State waiting) {
  running->state = waiting;
  ++at.waiting;
  open_if_complete(at, waiting);
  if (running->state == waiting) switch_to(&host);
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &host.stack, &host.stack_size);
#endif
  acquire(&block_token);
  try {
    kernel_call(kernel_context);
  } catch (...) {
    failure = std::current_exception();
  }
  release(&block_token);
  running->state = State::returned;
  Barrier& warp = warp_barriers[running->warp];
  --warp.alive, --block_barrier.alive;
  open_if_complete(warp, State::at_warp);
  open_if_complete(block_barrier, State::at_block);
  switch_to(&host);
}

void prepare(Fiber& fiber) {
  if (!fiber.stack) {
    fiber.stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber.stack == MAP_FAILED) throw std::bad_alloc();
#ifdef SHIM_TSAN
    fiber.tsan = __tsan_create_fiber(0);
#endif
  }
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(fiber.stack, stack_bytes);  // frames that never returned
#endif
  // All tops one multiple of 256 KiB apart would share a few lines of the cache.
  const int line = (32 * fiber.warp + fiber.lane) % 64 * 17;
  void** top =
      static_cast<void**>(const_cast<void*>(fiber.stack)) + (stack_bytes - 64 * line) / sizeof(void*);
  top[-2] = reinterpret_cast<void*>(&fiber_main);
  fiber.stack_pointer = top - 8;  // six registers, then where to return to
  fiber.state = State::ready;
  fiber.copies.clear();
  fiber.groups = 0;
}

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoi(text) : otherwise;
}

void run_block(std::vector<int>& order, std::mt19937* random) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(ssimloss_shared, sizeof ssimloss_shared);
#endif
  // NaN in every type, and in what lies beyond the end.
  std::memset(ssimloss_shared, 0xff, std::min(shared_size + 4096, sizeof ssimloss_shared));
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(ssimloss_shared + shared_size, sizeof ssimloss_shared - shared_size);
#endif
  block_barrier.alive = threads, block_barrier.waiting = 0;
  for (int w = 0; w * 32 < threads; ++w) {
    warp_barriers[w].alive = std::min(32, threads - 32 * w), warp_barriers[w].waiting = 0;
  }
  for (int i = 0; i < threads; ++i) prepare(fibers[i]);
  release(&block_token);
  for (int returned = 0; returned < threads;) {
    bool progress = false;
    if (random) std::shuffle(order.begin(), order.end(), *random);
    for (const int i : order) {
      Fiber& fiber = fibers[i];
      if (fiber.state != State::ready) continue;
      progress = true;
      switch_to(&fiber);
      if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
      returned += fiber.state == State::returned;
    }
    if (!progress) {
      throw std::logic_error("shim: deadlock, " + std::to_string(block_barrier.waiting) + " of " +
                             std::to_string(block_barrier.alive) + " threads wait for the block");
    }
  }
  acquire(&block_token);
}

std::map<const void*, int> allowed_shared;

}  // namespace

const Where& here() { return running->where; }
int lane() { return running->lane; }
const uint64_t* gathered(uint64_t own) {
  Barrier& warp = warp_barriers[running->warp];
  uint64_t* slots = warp_slots[warp.epoch % 2][running->warp];
  slots[running->lane] = own;
  wait(warp, State::at_warp);
  return slots;
}
void fence() {
  static char token;
  release(&token), acquire(&token);
}

void barrier(Scope scope) {
  Barrier& at = scope == Scope::block ? block_barrier : warp_barriers[running->warp];
  char* token = &at.tokens[at.epoch % 2];
  release(token);
  wait(at, scope == Scope::block ? State::at_block : State::at_warp);
  acquire(token);
}

void copy_async(const Copy& copy) {
  const auto to = reinterpret_cast<uintptr_t>(copy.to), from = reinterpret_cast<uintptr_t>(copy.from);
  const bool size = copy.bytes == 4 || copy.bytes == 8 || copy.bytes == 16;
  if (!size || to % copy.bytes || from % copy.bytes || copy.zeros > copy.bytes) {
    throw std::logic_error("shim: cp.async of a wrong size or alignment");
  }
  if (copy.to < ssimloss_shared || to + copy.bytes > uintptr_t(ssimloss_shared) + shared_size) {
    throw std::logic_error("shim: cp.async to outside of the shared memory");
  }
  std::memset(copy.to, 0xff, copy.bytes);  // until it is waited for, neither old nor new
  running->copies.push_back(copy);
  running->copies.back().group = running->groups;
}

void commit_copies() { ++running->groups; }

void wait_copies(int latest) {
  auto& copies = running->copies;
  size_t done = 0;
  for (; done < copies.size() && copies[done].group < running->groups - latest; ++done) {
    const Copy& copy = copies[done];
    std::memset(copy.to, 0, copy.bytes);
    std::memcpy(copy.to, copy.from, copy.bytes - copy.zeros);
  }
  copies.erase(copies.begin(), copies.begin() + std::ptrdiff_t(done));
}

int attribute(int which) {
  const int shared = setting("SHIM_SHARED", 232448);
  switch (which) {
    case cudaDevAttrMultiProcessorCount: return setting("SHIM_SMS", 4);
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrComputeCapabilityMinor: return 0;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return shared + 1024;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return shared;
    default: throw std::logic_error("shim: unknown device attribute");
  }
}

int allow_shared(const void* kernel, int bytes) {
  if (bytes > attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)) return cudaErrorInvalidValue;
  allowed_shared[kernel] = bytes;
  return cudaSuccess;
}

int launch(const void* kernel, void (*call)(const void*), const void* context, dim3 grid, dim3 block,
           size_t shared) {
  const auto limit = allowed_shared.find(kernel);
  if (shared > size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))) return cudaErrorInvalidValue;
  if (shared > 48 << 10 && (limit == allowed_shared.end() || shared > size_t(limit->second))) {
    return cudaErrorInvalidValue;
  }
  const uint64_t size = uint64_t(block.x) * block.y * block.z;
  if (size == 0 || size > 1024 || block.z > 64 || grid.x == 0 || grid.x > 0x7fffffff || grid.y == 0 ||
      grid.y > 65535 || grid.z == 0 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  const uint64_t count = uint64_t(grid.x) * grid.y * grid.z;
  if (const char* trace = std::getenv("SHIM_TRACE")) {  // one line a launch
    Dl_info symbol{};
    dladdr(kernel, &symbol);
    std::FILE* file = std::fopen(trace, "a");
    std::fprintf(file, "%s %d %zu %llu\n", symbol.dli_sname ? symbol.dli_sname : "?", int(size), shared,
                 static_cast<unsigned long long>(count));
    std::fclose(file);
  }
  if (setting("SHIM_DRY", 0)) return cudaSuccess;
  kernel_call = call, kernel_context = context, shared_size = shared, threads = int(size);
#ifdef SHIM_TSAN
  host.tsan = __tsan_get_current_fiber();
#endif
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.warp = i / 32, fiber.lane = i % 32;
    fiber.where.thread = {unsigned(i) % block.x, unsigned(i) / block.x % block.y,
                          unsigned(i) / (block.x * block.y)};
    fiber.where.threads = block, fiber.where.blocks = grid;
  }
  const char* text = std::getenv("SHIM_SCHEDULE");
  const std::string schedule = text ? text : "forward";
  std::mt19937 random(unsigned(std::atoi(schedule.c_str())));
  const bool ordered = schedule == "forward" || schedule == "reverse";
  std::vector<int> order(size_t(threads), 0);
  std::vector<uint64_t> blocks(count);
  std::iota(order.begin(), order.end(), 0);
  std::iota(blocks.begin(), blocks.end(), 0);
  if (schedule == "reverse")
    std::reverse(order.begin(), order.end()), std::reverse(blocks.begin(), blocks.end());
  if (!ordered) std::shuffle(blocks.begin(), blocks.end(), random);
  for (const uint64_t b : blocks) {
    for (int i = 0; i < threads; ++i) {
      fibers[i].where.block = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                               unsigned(b / grid.x / grid.y)};
    }
    run_block(order, ordered ? nullptr : &random);
  }
  return cudaSuccess;
}

}  // namespace shim
