// The Gaussian form, and the choice between the kernels.
#include "common/launch.h"
#include "route.h"

namespace ssimloss {

void set_cuda_device(int device) { check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

int64_t pieces(const Problem& p) {
  if (strip_takes(p)) return strip_pieces(p);
  if (ring_takes(p)) return ring_pieces(p);
  return scales_take(p) ? scales_pieces(p) : tile_pieces(p);
}

size_t maps_bytes(const Problem& p) {
  if (strip_takes(p) || ring_takes(p)) return 0;
  return scales_take(p) ? scales_maps_bytes(p) : tile_maps_bytes(p);
}

void similarity(const Similarity& s, void* stream) {
  if (strip_takes(s.problem)) return strip_similarity(s, stream);
  if (ring_takes(s.problem)) return ring_similarity(s, stream);
  scales_take(s.problem) ? scales_similarity(s, stream) : tile_similarity(s, stream);
}

namespace {

size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

size_t sums_bytes(const Problem& p) {
  return rounded(size_t(p.batch * p.channels * pieces(p)) * 2 * sizeof(double));
}

}  // namespace

size_t gaussian_workspace(const GaussianCall& call) {
  Problem p = call.problem;
  want_first(p);
  return sums_bytes(p) + maps_bytes(p);
}

void gaussian_cuda(const GaussianCall& call, void* workspace, void* stream) {
  Problem p = call.problem;
  want_first(p);
  char* scratch = static_cast<char*>(workspace);
  double* sums = reinterpret_cast<double*>(scratch);
  const int64_t planes = p.batch * p.channels;
  if (planes > 0) {
    similarity({p, call.ssim_gain, call.l1_gain, call.incoming, nullptr, call.loss ? sums : nullptr,
                scratch + sums_bytes(p)},
               stream);
  }
  if (!call.loss) return;
  const int64_t outputs = call.per_image ? p.batch : 1;
  finish(sums, outputs ? planes * pieces(p) / outputs : 0, outputs, call.ssim_mean, call.l1_mean, call.loss,
         arithmetic(p.x.dtype), stream);
}

}  // namespace ssimloss
