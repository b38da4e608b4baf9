// What the operators hand to the kernels of every back end: plain data, no torch, no Python. Strides are in
// elements.
#pragma once

#include <cstdint>

namespace ssimloss {

constexpr int max_scales = 16;  // of a problem

enum class DType { float32, float64, float16, bfloat16 };
// Bytes of an element.
inline int64_t element_size(DType dtype) {
  return dtype == DType::float64 ? 8 : (dtype == DType::float32 ? 4 : 2);
}

enum class Padding { valid, zeros, reflect };

// A batch of images [batch, channels, height, width] somewhere in memory; data may be null: absent.
struct Images {
  void* data;
  DType dtype;
  int64_t stride_n, stride_c, stride_h, stride_w;
};

// One Gaussian window: weights[0] is the centre, weights[radius] the rim; the full row sums to 1.
struct Window {
  const double* weights;  // [radius + 1]
  int radius;
};

// loss(p) = ssim_weight * (1 - l(p)^luminance * prod_j cs_j(p)) + l1_weight * (G_M *) |x - y|(p),
// summed (not averaged) over the positions p of each plane. A plane is one channel of one image.
struct Problem {
  int64_t batch, channels, height, width;
  Padding padding;
  const Window* windows;  // [scales], sorted by radius: the last one crops and carries l
  int scales;             // 0: l1 alone, at the pixels themselves (l1.h)
  bool luminance;         // false: cs alone (the finer levels of the dyadic form)
  bool l1_windowed;       // true: G_M * |x - y|, false: |x - y| at the pixel itself
  double ssim_weight, l1_weight;
  double c1, c2;
  double inverse_range;  // the images are multiplied by it first: all else is in units of 1
  bool sum_difference;   // the inputs are not x and y but m = x + y and d = x - y, in units of 1

  Images x, y;  // same dtype; d is float64 where they are m and d (on CUDA: less an offset)
  // Out, on the CPU alone (CUDA's pyramid is its own): 2x2 means of m and d in units of 1, dense, [batch,
  // channels, (height + 1) / 2, (width + 1) / 2]; or absent. An odd side gets a row or column of zeros before
  // its first, as in pytorch-msssim. d is float64: a uniform difference, up to 2, would otherwise cost the
  // digits of its variation.
  Images next_m, next_d;
  Images loss_map;     // out: loss(p), [batch, channels, height', width']; or absent
  double* plane_sums;  // out: the sums of ssim and l1 terms, [planes][bands * strips][2]; or null

  // Gradient of sum_p gain(p) * loss(p), gain(p) = the incoming map * the plane's gain.
  Images grad_x, grad_y;  // out; or absent. No kernels give grad_y alone: swap x and y.
  int gradients;          // how many of them are wanted, set on CUDA alone
  Images grad_map;        // in: the incoming gradient of loss_map; or absent: 1
  const double* gains;    // in: [planes][2], for the ssim and the l1 term; null without gradients
};

inline int largest_radius(const Problem& p) { return p.scales > 0 ? p.windows[p.scales - 1].radius : 0; }

#ifdef __CUDACC__
#define SSIMLOSS_BOTH __host__ __device__  // for the kernels, too
#else
#define SSIMLOSS_BOTH
#endif

// How the dyadic form halves a side of n pixels: means of two pixels, where an odd side gets a pixel of zeros
// before its first. CUDA's kernels ask here; those of the CPU that do the same are named in README.md.
struct Halving {
  int n;
  SSIMLOSS_BOTH int size() const { return n / 2 + n % 2; }
  // The first of the two pixels that make pixel i of the half: -1 is the zero.
  SSIMLOSS_BOTH int first(int i) const { return 2 * i - n % 2; }
  // The pixel of the half that pixel i goes into.
  SSIMLOSS_BOTH int of(int i) const { return (i + n % 2) / 2; }
};

}  // namespace ssimloss
