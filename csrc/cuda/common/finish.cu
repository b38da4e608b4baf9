// The second stage of every loss: the blocks' partial sums, added in a fixed order. A launch of its own, of
// one block an output: a counter by which the last block of the first launch finds out that it is the last
// would have to be zeroed before, which is a launch as well, and be kept apart for each stream.
//
// Reads 16 bytes a block of the first launch.
#include "block.cuh"

namespace ssimloss {

struct FinishParams {
  const double* sums;  // [outputs][count][2]
  int64_t count;
  double ssim_mean, l1_mean;
  void* out;
  bool out_double;
};

__global__ void finish_kernel(FinishParams p) {
  const double* sums = p.sums + 2 * p.count * blockIdx.x;
  double ssim = 0, l1 = 0;
  for (int64_t i = threadIdx.x; i < p.count; i += blockDim.x) ssim += sums[2 * i], l1 += sums[2 * i + 1];
  sum_block(ssim, l1, reinterpret_cast<double*>(ssimloss_shared));
  if (threadIdx.x != 0) return;
  put_loss(p.out, p.out_double, blockIdx.x, p.ssim_mean * ssim + (p.l1_mean != 0 ? p.l1_mean * l1 : 0));
}

void finish(const double* sums, int64_t count, int64_t outputs, double ssim_mean, double l1_mean, void* out,
            DType dtype, void* stream) {
  constexpr int threads = 256;
  for_batches(outputs, 1, [&](int64_t first, int64_t count_here) {
    char* const to = static_cast<char*>(out) + first * element_size(dtype);
    launch("finish_kernel", &finish_kernel, count_here, threads, 2 * (threads / 32) * sizeof(double), stream,
           FinishParams{sums + 2 * count * first, count, ssim_mean, l1_mean, to, dtype == DType::float64});
  });
}

void finish(const LossCall& call, const double* sums, int64_t count, int64_t batch, DType dtype,
            void* stream) {
  if (!call.loss) return;
  const int64_t outputs = call.per_image ? batch : 1, each = outputs ? count / outputs : 0;
  finish(sums, each, outputs, call.ssim_mean, call.l1_mean, call.loss, dtype, stream);
  if (!call.terms) return;
  finish(sums, each, outputs, 1 / call.ssim_count, 0, call.terms, dtype, stream);
  char* const l1 = static_cast<char*>(call.terms) + outputs * element_size(dtype);
  finish(sums, each, outputs, 0, 1 / call.l1_count, l1, dtype, stream);
}

}  // namespace ssimloss
