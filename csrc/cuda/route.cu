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
  if (p.scales == 1 && window.radius <= 16 && ring_fits(p)) return ring_family;
  return scales_fit(p) ? scales_family : tiles_family;
}

int64_t scratch_bytes = int64_t(64) << 20;

void set_cuda_device(int device) { check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

namespace {

// In a workspace: the sums of all blocks, then the maps.
int64_t maps_at(const Problem& p, const Family& family) {
  return rounded(p.batch * p.channels * family.pieces(p) * 2 * int64_t(sizeof(double)), 256);
}

}  // namespace

size_t gaussian_workspace(const GaussianCall& call) {
  Problem p = call.problem;
  want_first(p);
  const Family& family = route(p);
  return size_t(maps_at(p, family) + family.maps_bytes(p));
}

void gaussian_cuda(const GaussianCall& call, void* workspace, void* stream) {
  Problem p = call.problem;
  want_first(p);
  const Family& family = route(p);
  char* scratch = static_cast<char*>(workspace);
  double* sums = reinterpret_cast<double*>(scratch);
  const int64_t planes = p.batch * p.channels;
  if (planes > 0) {
    family.similarity({p, call.ssim_gain, call.l1_gain, call.incoming, nullptr, call.loss ? sums : nullptr,
                       scratch + maps_at(p, family)},
                      stream);
  }
  if (!call.loss) return;
  const int64_t outputs = call.per_image ? p.batch : 1;
  const int64_t count = outputs ? planes * family.pieces(p) / outputs : 0;
  const DType dtype = arithmetic(p.x.dtype);
  finish(sums, count, outputs, call.ssim_mean, call.l1_mean, call.loss, dtype, stream);
  if (call.terms)
    finish_terms(sums, count, outputs, call.ssim_count, call.l1_count, call.terms, dtype, stream);
}

}  // namespace ssimloss
