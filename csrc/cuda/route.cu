// The choice between the kernels; and the Gaussian form: one similarity at full resolution, and the sum of
// its blocks' sums.
#include "route.h"

#include <stdexcept>

#include "common/launch.h"

namespace ssimloss {

const Family& route(const Problem& p) {
  if (is_weighted(p) && (element_size(p.x.dtype) == 2 || (p.scales == 0 && p.x.dtype == DType::float64)))
    throw std::runtime_error("ssimloss: weights: no kernels for images of this dtype");
  if (p.scales == 0) return l1_family;
  const Window& window = p.windows[p.scales - 1];
  const bool map = p.loss_map.data || p.grad_map.data;
  // float64 is for tests and for the careful: it has the plain kernels alone.
  if (p.x.dtype == DType::float64) return tiles_family;
  // 11 taps, whose sums wait in registers. They are in units of the last tap, which may not be tiny.
  if (p.scales == 1 && !is_weighted(p) && window.radius == 5 && window.weights[5] > 1e-6 &&
      !(map && has_windowed_l1(p)))
    return strip_family;
  const auto fits = [&](const Family& family) { return family.plan(p).own > 0; };
  // Under weights there is one kernel of rings.
  const bool ring =
      !is_weighted(p) || (window.radius >= 4 && p.gradients == 1 && !map && !has_windowed_l1(p));
  if (p.scales == 1 && window.radius <= 16 && ring && fits(ring_family)) return ring_family;
  return fits(scales_family) ? scales_family : tiles_family;
}

// float32 where the shared memory of the device holds all levels, else float64, by tiles. There are no
// kernels of weights for 16 bits: their instantiations would cost more than a conversion.
DType weighted_dtype(const Problem& given, int levels) {
  if (given.x.dtype == DType::float64) return DType::float64;
  Problem p = given;
  p.x.dtype = DType::float32, p.grad_y = p.grad_x.data ? Images{} : p.grad_y;
  want_first(p);
  for (int j = 0; j < levels; ++j) {
    p.luminance = j + 1 == levels;
    if (&route(p) == &tiles_family) return DType::float64;
    p.height = Halving{p.height, p.odd_side}.size(), p.width = Halving{p.width, p.odd_side}.size();
    p.l1_weight = 0, p.sum_difference = true;
  }
  return DType::float32;
}

int64_t scratch_bytes = int64_t(64) << 20;

void set_cuda_device(int device) { check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

size_t gaussian_cuda(const GaussianCall& call, void* workspace, void* stream) {
  if (one_by_one(call.problem)) {
    GaussianCall of_x = call, of_y = call;
    of_x.problem.grad_y = of_y.problem.grad_x = Images{};
    of_y.loss = of_y.terms = nullptr;
    const size_t bytes = gaussian_cuda(of_x, workspace, stream);
    return workspace ? gaussian_cuda(of_y, workspace, stream) : bytes;
  }
  Layout layout{workspace};
  Similarity s{call.problem, {}, call.ssim_gain, call.l1_gain, call.incoming, nullptr, nullptr, nullptr};
  Problem& p = s.problem;
  want_first(p);
  const Family& family = route(p);
  s.cut = family.plan(p);
  const int64_t planes = p.batch * p.channels;
  double* const sums = layout.array<double>(planes * s.cut.pieces() * 2);
  s.sums = call.loss ? sums : nullptr;
  if (p.mask.data) s.weights = weights_in(layout, p);
  s.maps = layout.array<char>(s.cut.portions.bytes, 1);
  if (!workspace) return layout.bytes();
  const bool map = p.loss_map.data || p.grad_map.data;
  const int together = map ? 0 : int(call.per_image ? p.channels : planes);
  if (planes > 0 && p.mask.data) find_weights(s, {together, p.scales > 0 && p.l1_windowed, false}, stream);
  if (planes > 0) family.similarity(s, stream);
  finish(call, sums, planes * s.cut.pieces(), p.batch, arithmetic(p.x.dtype), stream);
  return layout.bytes();
}

}  // namespace ssimloss
