// The backward of every loss: a kept gradient times the incoming one.
#include <algorithm>

#include "../plan/machine.h"
#include "params.h"

namespace ssimloss {

constexpr int scale_threads = 256, scale_pixels = 4 * scale_threads;
struct ScaleParams {
  View images;
  int channels, height, width;
  int64_t pieces, all;  // of scale_pixels pixels: of a plane, of all of them
  Scalars by;
  double factor;
};

// T: the arithmetic type.
template <class T>
__global__ void __launch_bounds__(scale_threads) scale_kernel(const __grid_constant__ ScaleParams p) {
  const int64_t pixels = int64_t(p.height) * p.width;
#pragma unroll 1
  for (int64_t piece = blockIdx.x; piece < p.all; piece += gridDim.x) {
    const int64_t plane = piece / p.pieces, image = plane / p.channels, channel = plane % p.channels;
    const double factor = p.factor * p.by.of<double>(image);
    if (factor == 1) {
      if (p.by.stride == 0) return;  // all are 1
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t at = piece % p.pieces * scale_pixels + i * scale_threads + threadIdx.x;
      if (at >= pixels) break;
      const int64_t row = at / p.width, col = at % p.width;
      const int64_t place = p.images.at(image, channel, row, col);
      p.images.write(p.images.read<T>(place) * T(factor), place);
    }
  }
}

void scale_cuda(const ScaleCall& call, void* stream) {
  if (call.batch * call.channels * call.height * call.width == 0) return;
  ScaleParams params{};
  params.images = view(call.images);
  params.channels = int(call.channels), params.height = int(call.height), params.width = int(call.width);
  params.by = call.by, params.factor = call.factor;
  params.pieces = divided(call.height * call.width, scale_pixels);
  params.all = call.batch * call.channels * params.pieces;
  // What runs at once: mostly there is nothing to do, and starting blocks to find that out is what takes
  // time.
  const int64_t blocks = int64_t(resident_threads / scale_threads) * current_device().multiprocessors;
  const auto kernel = call.images.dtype == DType::float64 ? &scale_kernel<double> : &scale_kernel<float>;
  launch("scale_kernel", kernel, std::min(params.all, blocks), scale_threads, 0, stream, params);
}

}  // namespace ssimloss
