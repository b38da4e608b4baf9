// What the operator of volumes hands to the kernels of every back end: as problem.h, with a depth.
#pragma once

#include "problem.h"

namespace ssimloss {

// A batch of volumes [batch, channels, depth, height, width]: slices of one depth, so far apart.
struct Volumes {
  Images first;  // the slice of depth 0
  int64_t stride_d;

  // The slice of depth d. Inlined: the CPU's kernels are compiled for several instruction sets.
  __attribute__((always_inline)) inline Images at(int64_t d) const {
    Images slice = first;
    slice.data = static_cast<char*>(first.data) + d * stride_d * bytes();
    return slice;
  }

 private:
  __attribute__((always_inline)) inline int64_t bytes() const {
    const DType dtype = first.dtype;
    return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : dtype == DType::uint8 ? 1 : 2;
  }
};

// loss(p) = ssim_weight * (1 - l(p) cs(p)) + l1_weight * |x - y|(p), summed over the positions p of each
// plane; a plane is one channel of one volume. The sum of the l1 terms is that of all voxels. Fields as in
// Problem, sizes and windows in the order depth, height, width.
struct VolumeProblem {
  int64_t batch, channels;
  int64_t size[3];
  Padding padding;
  Window windows[3];
  double ssim_weight, l1_weight;
  double c1, c2;
  double inverse_range;
  const double* inverse_ranges;  // [batch], in its place; or null

  Volumes x, y;  // dtypes as in Problem
  Volumes mask;  // as in Problem
  Volumes loss_map;
  double* plane_sums;  // out: [planes][pieces][2]; or null

  Volumes grad_x, grad_y;
  Volumes grad_map;
  const double* gains;  // in: [planes][2]; null without gradients (on CUDA always)
};

}  // namespace ssimloss
