// The operators. Each computes a LOSS (1 - similarity; 0 for identical images) and, where it is
// wanted, its gradient in the same pass; ssimloss/ops.py adds fake tensors, autograd and vmap.
//
// x, y [N, C, H, W]: any strides. loss: [] for reduction "mean", [N] for "none", [N, C, H', W'] for
// "map"; float32 for 16-bit inputs. ssim_weight and l1_weight weigh the two terms, l1 in units of the
// data range. unit_x, unit_y: unit_scale times the gradient of the loss (of each image's, for
// "none"), or empty where not wanted (and always for "map", whose gradient needs the incoming one).
// inverse_ranges: float64 [N], in the place of 1 / data_range, each for its image.
// mask: weights in [0, 1], or NaN, [N or 1, C or 1, H, W] in the dtype of the loss; or, on the CPU, 0 and 1
// of uint8. The operators of details take none, nor padding "normalized"; nor do those of volumes on CUDA.
// _detailed, for "mean" and "none": besides the terms, 1 - SSIM and l1 in units of the data range,
// unweighted, [2] or [2, N]; an l1 without a weight is 0. And what reduction "map" gives, or empty where not
// wanted. A sigma may be infinite: then the weights of its window are equal. Without sigmas it is the l1 term
// alone.
#include <torch/csrc/stable/library.h>

#include "namespace.h"

#define GAUSSIAN                                                                    \
  "float[] sigmas, int[] window_sizes, str padding, float data_range, float k1, "   \
  "float k2, float ssim_weight, float l1_weight, bool l1_windowed, str reduction, " \
  "Tensor? inverse_ranges=None, Tensor? mask=None"
#define DYADIC                                                                                         \
  "float[] weights, float sigma, int window_size, str padding, float data_range, "                     \
  "float k1, float k2, float ssim_weight, float l1_weight, str halving, str negative, str reduction, " \
  "Tensor? inverse_ranges=None, Tensor? mask=None"
#define VOLUME                                                                                         \
  "float[] sigmas, int[] window_sizes, str padding, float data_range, float k1, "                      \
  "float k2, float ssim_weight, float l1_weight, str reduction, Tensor? inverse_ranges=None, Tensor? " \
  "mask=None"
#define FORWARD "(Tensor x, Tensor y, float unit_scale, bool want_x, bool want_y, "
#define DETAILED "_detailed(Tensor x, Tensor y, float unit_scale, bool want_x, bool want_y, bool want_map, "
#define DETAILS ") -> (Tensor loss, Tensor unit_x, Tensor unit_y, Tensor terms, Tensor map)"
#define BACKWARD "_backward(Tensor grad_loss, Tensor x, Tensor y, bool want_x, bool want_y, "

STABLE_TORCH_LIBRARY(SSIMLOSS_NAMESPACE, library) {
  library.def("gaussian" FORWARD GAUSSIAN ") -> (Tensor loss, Tensor unit_x, Tensor unit_y)");
  library.def("gaussian" DETAILED GAUSSIAN DETAILS);
  library.def("gaussian" BACKWARD GAUSSIAN ") -> (Tensor grad_x, Tensor grad_y)");
  library.def("dyadic" FORWARD DYADIC ") -> (Tensor loss, Tensor unit_x, Tensor unit_y)");
  library.def("dyadic" BACKWARD DYADIC ") -> (Tensor grad_x, Tensor grad_y)");
  // x, y [N, C, D, H, W], and a map [N, C, D', H', W']; sigmas and window_sizes along D, H and W.
  library.def("volume" FORWARD VOLUME ") -> (Tensor loss, Tensor unit_x, Tensor unit_y)");
  library.def("volume" DETAILED VOLUME DETAILS);
  library.def("volume" BACKWARD VOLUME ") -> (Tensor grad_x, Tensor grad_y)");
  // unit *= factor * grad_loss ([] or one an image); touches nothing where that is 1.
  library.def("scale_(Tensor(a!) unit, Tensor grad_loss, float factor) -> ()");
}
