// The current CUDA stream and device of torch, without linking to it: the library also serves torch builds
// that have no CUDA.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdint>

#include "../check.h"
#include "../cuda/api.h"

namespace ssimloss {

// torch's stream for a device, a cudaStream_t.
inline void* current_stream(int32_t device) {
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);  // in the process already
    return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  check(get && get(device, &stream) == 0, "torch's current CUDA stream is not to be had");
  return stream;
}

// Makes a device current, for torch and for the CUDA runtime inside this library (a copy of its own), until
// the end of the scope. torch's guard puts the driver's current device back, which both share.
class CurrentDevice {
 public:
  explicit CurrentDevice(int32_t device) : torch_(device) { set_cuda_device(device); }

 private:
  torch::stable::accelerator::DeviceGuard torch_;
};

}  // namespace ssimloss
