// csrc/torch/cuda.cpp, unchanged, over the shim: its operators on CPU tensors, as torch.ops.ssimloss_shim.
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <string>

namespace torch::stable::accelerator {
struct ShimGuard {  // there is one device
  explicit ShimGuard(int32_t) {}
};
}  // namespace torch::stable::accelerator

inline int32_t shim_stream(int32_t, void** stream) { return *stream = nullptr, 0; }

#define DeviceGuard ShimGuard
#define dlopen(name, how) (reinterpret_cast<void*>(1))
#define dlsym(library, name) (reinterpret_cast<void*>(&shim_stream))
#define is_cuda is_cpu
#undef STABLE_TORCH_LIBRARY
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY(space, library)                                                        \
  static void define_operators(torch::stable::detail::StableLibrary&);                              \
  static const torch::stable::detail::StableTorchLibraryInit defined(                               \
      torch::stable::detail::StableLibrary::Kind::DEF, &define_operators, "ssimloss_shim", nullptr, \
      __FILE__, __LINE__);                                                                          \
  void define_operators(torch::stable::detail::StableLibrary& library)
#define STABLE_TORCH_LIBRARY_IMPL(space, key, library) \
  _STABLE_TORCH_LIBRARY_IMPL(ssimloss_shim, CPU, library, C10_UID)

#include "../../csrc/torch/cuda.cpp"
#include "../../csrc/torch/schema.cpp"
