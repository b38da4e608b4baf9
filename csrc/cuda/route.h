// What the two forms ask of the kernels at full resolution or of one level, and which family of kernels
// answers: route.cu. The table is in ../README.md. Host side, no CUDA headers.
#pragma once

#include <algorithm>
#include <utility>

#include "api.h"

namespace ssimloss {

// What the kernels are told of a plane under a mask: common/weights.cu works it out.
struct PlaneWeights {
  // What sums and gains of the two terms are multiplied by, for the mean; in the dyadic form for the plane's
  // own, of which there is a mean.
  double ssim, l1;
  double m, d;  // of a typical pixel that is kept: in the place of those that are left out
  // Of the dyadic form: see Plane::offset; how many planes this one counts as.
  double offset, planes;
};

// Of scratch memory: at most so many bytes, or three gradients.
extern int64_t scratch_bytes;  // 64 MiB; tests make it less
inline int64_t scratch_bound(const Problem& p) {
  return std::max(scratch_bytes, 3 * p.batch * p.channels * p.height * p.width * element_size(p.x.dtype));
}

// out[i] = ssim_mean * (sum of sums[.][0]) + l1_mean * (sum of sums[.][1]) over `count` pairs each.
void finish(const double* sums, int64_t count, int64_t outputs, double ssim_mean, double l1_mean, void* out,
            DType dtype, void* stream);
// What a call wants of the loss, from `count` pairs of a batch.
void finish(const LossCall&, const double* sums, int64_t count, int64_t batch, DType dtype, void* stream);

// What weights are multiplied by: float32 then holds their products with small squares.
inline double weight_unit(const Problem& p) {
  return p.mask.data && p.x.dtype != DType::float64 ? double(int64_t(1) << 40) : 1;
}

inline int64_t crop_of(const Problem& p) { return p.padding == Padding::valid ? largest_radius(p) : 0; }
inline bool has_windowed_l1(const Problem& p) { return p.l1_weight != 0 && p.l1_windowed; }
inline DType arithmetic(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

// Image [first, ...) of a batch, from that channel on.
inline Images from_image(Images images, int64_t first, int64_t channel = 0) {
  const int64_t at = first * images.stride_n + channel * images.stride_c;
  if (images.data) images.data = static_cast<char*>(images.data) + at * element_size(images.dtype);
  return images;
}
inline Scalars from_image(Scalars scalars, int64_t first) {
  if (scalars.data)
    scalars.data =
        static_cast<const char*>(scalars.data) + first * scalars.stride * element_size(scalars.dtype);
  if (scalars.times) scalars.times += first;
  return scalars;
}

// Sets how many gradients are wanted. Gradient to y alone: the same with the images swapped.
inline void want_first(Problem& p) {
  p.gradients = (p.grad_x.data ? 1 : 0) + (p.grad_y.data ? 1 : 0);
  if (p.grad_x.data || !p.grad_y.data) return;
  std::swap(p.x, p.y), std::swap(p.grad_x, p.grad_y);
}

// Under weights the kernels of windows give one gradient at a time.
inline bool one_by_one(const Problem& p) {
  return is_weighted(p) && p.scales > 0 && p.grad_x.data && p.grad_y.data;
}

inline int64_t divided(int64_t v, int64_t by) { return (v + by - 1) / by; }  // rounded up
inline int64_t rounded(int64_t v, int64_t to) { return divided(v, to) * to; }

// What lies in scratch memory at a time: see common/portions.h.
struct Portions {
  int64_t images, channels;  // all channels, or some of one image
  int64_t rows, map_rows;    // of the gradient; of positions
  int64_t bytes;             // of one; 0 where one launch does it all
};

// Which blocks do a plane: each owns a strip of columns and a band of rows.
struct Cut {
  int own = 0;  // columns of a strip, a multiple of 8; 0: no block fits into the device's shared memory
  int strips = 0, bands = 0, band_rows = 0;
  int threads = 0;                  // of a block
  double cycles = 0;                // predicted
  int scale_rows[max_scales] = {};  // adjoint_kernel's, of each scale, in the place of band_rows
  Portions portions{};
  int64_t pieces() const { return int64_t(strips) * bands; }
};
inline Cut cut_into(int64_t height, int64_t width, int64_t own, int64_t band_rows) {
  Cut cut;
  cut.own = int(own), cut.strips = int(divided(width, own));
  cut.band_rows = int(band_rows), cut.bands = int(divided(height, band_rows));
  return cut;
}

// Value and gradient of `problem` (as in GaussianCall), where a gradient to y alone never occurs: the loss
// is symmetric, so the callers swap the images.
struct Similarity {
  Problem problem;
  Cut cut;  // that of its family
  double ssim_gain, l1_gain;
  Scalars incoming;
  const void* offsets;  // [planes], in the arithmetic type: what was taken off the d of a pyramid; or null
  double* sums;         // out: [planes][cut.pieces()][2], of the ssim and the l1 terms; or null
  void* maps;           // scratch of cut.portions.bytes
  PlaneWeights* weights = nullptr;  // [planes], under a mask
};
// Its images from this one on, and from that channel on.
inline Similarity from_image(Similarity s, int64_t first, int64_t channel = 0) {
  Problem& p = s.problem;
  const int64_t plane = first * p.channels + channel, size = element_size(arithmetic(p.x.dtype));
  for (Images* images : {&p.x, &p.y, &p.grad_x, &p.grad_y, &p.loss_map, &p.grad_map, &p.mask})
    *images = from_image(*images, first, channel);
  if (p.inverse_ranges) p.inverse_ranges += first;
  s.incoming = from_image(s.incoming, first);
  if (s.offsets) s.offsets = static_cast<const char*>(s.offsets) + plane * size;
  if (s.sums) s.sums += 2 * plane * s.cut.pieces();
  if (s.weights) s.weights += plane;
  return s;
}

// Pieces of memory, one behind the other; where there is none it only counts.
struct Layout {
  void* memory = nullptr;
  int64_t used = 0;

  int64_t take(int64_t size, int64_t to = 1) {  // where it begins
    const int64_t at = used;
    used += rounded(size, to);
    return at;
  }
  template <class T>
  T* array(int64_t count, int64_t to = 256) {
    const int64_t at = take(count * int64_t(sizeof(T)), to);
    return memory ? reinterpret_cast<T*>(static_cast<char*>(memory) + at) : nullptr;
  }
  size_t bytes() const { return size_t(std::max<int64_t>(1, used)); }  // of a workspace, which is not null
};

// PlaneWeights of all planes, under a mask. The means are over `together` planes side by side each, but that
// of the dyadic form's SSIM, which is a plane's; 0: there is none. l1's is of the positions, or of all
// pixels.
struct WeightsCall {
  int together;
  bool l1_of_positions, dyadic;
};
PlaneWeights* weights_in(Layout&, const Problem&);  // room for them, and for what find_weights needs besides
void find_weights(const Similarity&, const WeightsCall&, void* stream);

// Kernels for value and gradient at full resolution or of one level.
struct Family {
  const char* name;
  Cut (*plan)(const Problem&);
  void (*similarity)(const Similarity&, void* stream);
};
extern const Family l1_family, strip_family, ring_family, scales_family, tiles_family;

const Family& route(const Problem&);

// The levels of the dyadic form where the strips take the finest: their cuts; that one, which also makes the
// images of up to four coarser ones (the answer: how many) and the offsets of all; then the coarser ones.
void strip_plan(Similarity* levels, int count);
int strip_finest(const Similarity* levels, int count, void* offsets, void* stream);
void strip_coarser(const Similarity* levels, int count, void* stream);

}  // namespace ssimloss
