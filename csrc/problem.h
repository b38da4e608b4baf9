// What the operators hand to the kernels of every back end: plain data, no torch, no Python. Strides are in
// elements.
#pragma once

#include <cstdint>

namespace ssimloss {

constexpr int max_scales = 16;  // of a problem

enum class DType { float32, float64, float16, bfloat16, uint8 };  // uint8: of a y or a mask alone
// Bytes of an element.
inline int64_t element_size(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : dtype == DType::uint8 ? 1 : 2;
}

enum class Padding { valid, zeros, reflect, normalized };
enum class OddSide { edge, zeros, drop };  // what the dyadic form does to halve one: see Halving

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
  double inverse_range;          // the images are multiplied by it first: all else is in units of 1
  const double* inverse_ranges;  // [batch], in its place; or null
  bool sum_difference;           // the inputs are not x and y but m = x + y and d = x - y, in units of 1

  // y may be of fewer bits than x (on the CPU alone), and where it is uint8 a value counts as value * data
  // range / 255. Else they are of one dtype; but d is float64 where they are m and d (on CUDA: less an
  // offset).
  Images x, y;
  Images mask;  // weights of the pixels, in the arithmetic type or (on the CPU) 0 and 1 of uint8, strides
                // may be 0; or absent: 1
  OddSide odd_side;  // of the dyadic form
  // Out, on the CPU alone (CUDA's pyramid is its own): 2x2 means of m and d in units of 1, dense, [batch,
  // channels, Halving's size of the height, of the width]; or absent. d is float64: a uniform difference, up
  // to 2, would otherwise cost the digits of its variation. Under a mask they are means under its weights,
  // and the next level's mask is the means of these, of each plane.
  Images next_m, next_d, next_mask;
  Images loss_map;     // out: loss(p), [batch, channels, height', width']; or absent
  double* plane_sums;  // out: the sums of ssim and l1 terms, [planes][Items::pieces][2], on the CPU alone
  // Out: not 0 where float32 would lose the gradient's digits, which are to be done in double;
  // [planes][strips], on the CPU alone.
  unsigned char* beyond_float32;

  // Gradient of sum_p gain(p) * loss(p), gain(p) = the incoming map * the plane's gain.
  Images grad_x, grad_y;  // out; or absent. No kernels give grad_y alone: swap x and y.
  int gradients;          // how many of them are wanted, set on CUDA alone
  Images grad_map;        // in: the incoming gradient of loss_map; or absent: 1
  const double* gains;    // in: [planes][2], for the ssim and the l1 term; null without gradients
};

inline double inverse_range_of(const Problem& p, int64_t image) {
  return p.inverse_ranges ? p.inverse_ranges[image] : p.inverse_range;
}

// Whether windows are normalised by the weights that they see: see cpu/source.h.
inline bool is_weighted(const Problem& p) { return p.mask.data || p.padding == Padding::normalized; }

inline int largest_radius(const Problem& p) { return p.scales > 0 ? p.windows[p.scales - 1].radius : 0; }

#ifdef __CUDACC__
#define SSIMLOSS_BOTH __host__ __device__  // for the kernels, too
#else
#define SSIMLOSS_BOTH
#endif

// How the dyadic form halves a side of n pixels: means of two pixels. The last pixel of an odd side counts
// twice (edge: MATLAB, TensorFlow, piqa), or a zero comes before the first (zeros: pytorch-msssim), or the
// last is left out (drop: torchmetrics). All kernels ask here, for the value and for its adjoint.
template <class Int>
struct Halving {
  Int n;
  OddSide odd_side;
  SSIMLOSS_BOTH Int size() const { return odd_side == OddSide::drop ? n / 2 : n / 2 + n % 2; }
  SSIMLOSS_BOTH Int zeros() const {
    return odd_side == OddSide::zeros ? n % 2 : 0;
  }  // before the first pixel
  // The first and second of the two pixels that make pixel i of the half: -1 is the zero.
  SSIMLOSS_BOTH Int first(Int i) const { return 2 * i - zeros(); }
  SSIMLOSS_BOTH Int second(Int i) const { return first(i) + 1 < n ? first(i) + 1 : n - 1; }
  // The pixel of the half that pixel i goes into, and how many times: 1 or 2; or 0, and there may be none.
  SSIMLOSS_BOTH Int of(Int i) const { return (i + zeros()) / 2; }
  SSIMLOSS_BOTH Int times(Int i) const {
    if (n % 2 == 0 || odd_side == OddSide::zeros || i < n - 1) return 1;
    return odd_side == OddSide::edge ? 2 : 0;
  }
};
template <class Int>
Halving(Int, OddSide) -> Halving<Int>;

}  // namespace ssimloss
