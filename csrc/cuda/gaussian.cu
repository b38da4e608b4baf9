// The Gaussian form: one similarity at full resolution, and the sum of its blocks' sums.
#include "common/launch.h"
#include "route.h"

namespace ssimloss {

void set_cuda_device(int device) { check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

namespace {

// In a workspace: the sums of all blocks, then the maps.
int64_t maps_at(const Problem& p, const Family& family) {
  Layout layout;
  layout.take(p.batch * p.channels * family.pieces(p) * 2 * int64_t(sizeof(double)), 256);
  return layout.used();
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
  finish(sums, outputs ? planes * family.pieces(p) / outputs : 0, outputs, call.ssim_mean, call.l1_mean,
         call.loss, arithmetic(p.x.dtype), stream);
}

}  // namespace ssimloss
