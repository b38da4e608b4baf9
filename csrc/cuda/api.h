// What torch/cuda.cpp hands to the CUDA launchers: plain data, no torch, no Python, no CUDA headers.
//
// Every call only queues work on `stream` (a cudaStream_t): no allocation, no synchronisation, nothing
// read back, so that it can be captured in a CUDA graph. Scratch memory comes from the caller: a call without
// a workspace only answers how many bytes of it the same call needs, at least one; pass it 16-byte aligned.
// A kernel that cannot be launched throws std::runtime_error with its name.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../problem.h"
#include "../volume.h"

namespace ssimloss {

constexpr int cuda_max_radius = 32;  // 65 taps
constexpr int cuda_max_levels = 16;  // of the dyadic form

void set_cuda_device(int device);  // for the launches of this thread

// Scalars on the device: one (stride 0) or one an image. data null: all are 1. Each is multiplied by `times`
// of its image, if there are any.
struct Scalars {
  const void* data;
  DType dtype;     // float32 or float64
  int64_t stride;  // in elements
  const double* times;

  template <class T>
  SSIMLOSS_BOTH T of(int64_t image) const {
    T scalar = 1;
    if (data) {
      const int64_t at = image * stride;
      scalar = dtype == DType::float64 ? T(static_cast<const double*>(data)[at])
                                       : T(static_cast<const float*>(data)[at]);
    }
    if (times) scalar *= T(times[image]);
    return scalar;
  }
};

// The loss of a call, and the gradient's factors.
struct LossCall {
  void* loss;                 // out: [] or [batch], float64 for float64 images, else float32; or null
  bool per_image;             // loss and incoming are one an image
  double ssim_mean, l1_mean;  // loss = ssim_mean * (sum of ssim terms) + l1_mean * (sum of l1 terms), summed
                              // over the planes of the batch or of the image
  double ssim_gain, l1_gain;  // of the gradient: times incoming (times grad_map at the position)
  Scalars incoming;
  void* terms;  // out: [2] or [2, batch], the sums of the ssim and l1 terms divided by these counts; or null
  double ssim_count, l1_count;
};

// The Gaussian form. `problem` as on the CPU, all of its pointers on the device except `windows`, and
//   plane_sums, gains, next_m, next_d, luminance, sum_difference   unused (null ..., true, false).
// With loss_map or grad_map given ("map") `loss` is null.
struct GaussianCall : LossCall {
  Problem problem;
};
DType weighted_dtype(const Problem&, int levels);  // under weights the images must be of this one
// The workspace: at most 64 MiB, or three gradients, or 16 rows.
size_t gaussian_cuda(const GaussianCall&, void* workspace, void* stream);

// The dyadic form: `finest` is the problem at full resolution (one scale; no maps; plane_sums and gains
// null), weights[level] on the host. loss = ssim_weight * (1 - prod_j m_j^weights[j]) + l1_weight * l1, the
// mean over planes; clamp: a negative m_j is 0, see log_power in windows.h. grad_x, grad_y of `finest` get
// grad_scale * incoming * the gradient of that loss.
struct DyadicCall {
  Problem finest;
  const double* weights;  // [levels], on the host
  int levels;
  void* loss;  // out: [] or [batch]; or null
  bool per_image;
  double grad_scale;
  Scalars incoming;
  bool clamp;
};
size_t dyadic_cuda(const DyadicCall&, void* workspace, void* stream);

// Volumes: `problem` as on the CPU, all of its pointers on the device except the windows'; plane_sums and
// gains null.
struct VolumeCall : LossCall {
  VolumeProblem problem;
};
size_t volume_cuda(const VolumeCall&, void* workspace, void* stream);

// images *= factor * by[image]; nothing is written where that is 1.
struct ScaleCall {
  Images images;
  int64_t batch, channels, height, width;
  Scalars by;
  double factor;
};
void scale_cuda(const ScaleCall&, void* stream);

}  // namespace ssimloss
