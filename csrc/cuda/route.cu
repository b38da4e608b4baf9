// The choice between the kernels; and the Gaussian form: one similarity at full resolution, and the sum of
// its blocks' sums.
#include "route.h"

#include "common/launch.h"

namespace ssimloss {

const Family& route(const Problem& p) {
  if (p.scales == 0) return l1_family;
  const Window& window = p.windows[p.scales - 1];
  const bool map = p.loss_map.data || p.grad_map.data;
  // float64 is for tests and for the careful: it has the plain kernels alone.
  if (p.x.dtype == DType::float64) return tiles_family;
  // 11 taps, whose sums wait in registers. They are in units of the last tap, which may not be tiny.
  if (p.scales == 1 && window.radius == 5 && window.weights[5] > 1e-6 && !(map && has_windowed_l1(p)))
    return strip_family;
  const auto fits = [&](const Family& family) { return family.plan(p).own > 0; };
  if (p.scales == 1 && window.radius <= 16 && fits(ring_family)) return ring_family;
  return fits(scales_family) ? scales_family : tiles_family;
}

int64_t scratch_bytes = int64_t(64) << 20;

void set_cuda_device(int device) { check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

size_t gaussian_cuda(const GaussianCall& call, void* workspace, void* stream) {
  Layout layout{workspace};
  Similarity s{call.problem, {}, call.ssim_gain, call.l1_gain, call.incoming, nullptr, nullptr, nullptr};
  Problem& p = s.problem;
  want_first(p);
  const Family& family = route(p);
  s.cut = family.plan(p);
  const int64_t planes = p.batch * p.channels;
  double* const sums = layout.array<double>(planes * s.cut.pieces() * 2);
  s.sums = call.loss ? sums : nullptr, s.maps = layout.array<char>(s.cut.portions.bytes, 1);
  if (!workspace) return layout.bytes();
  if (planes > 0) family.similarity(s, stream);
  finish(call, sums, planes * s.cut.pieces(), p.batch, arithmetic(p.x.dtype), stream);
  return layout.bytes();
}

}  // namespace ssimloss
