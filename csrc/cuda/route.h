// What the two forms ask of the kernels at full resolution or of one level, and which family of kernels
// answers: route.cu. The table is in ../README.md. Host side, no CUDA headers.
#pragma once

#include <algorithm>

#include "api.h"

namespace ssimloss {

// Value and gradient of `problem` (as in GaussianCall), where a gradient to y alone never occurs: the loss
// is symmetric, so the callers swap the images.
struct Similarity {
  Problem problem;
  double ssim_gain, l1_gain;
  Scalars incoming;
  const void* offsets;  // [planes], in the arithmetic type: what was taken off the d of a pyramid; or null
  double* sums;         // out: [planes][pieces][2], of the ssim and the l1 terms; or null
  void* maps;           // scratch of Family::maps_bytes
};

// Of scratch memory: at most so many bytes, or three gradients.
extern int64_t scratch_bytes;  // 64 MiB; tests make it less
inline int64_t scratch_bound(const Problem& p) {
  return std::max(scratch_bytes, 3 * p.batch * p.channels * p.height * p.width * element_size(p.x.dtype));
}

// out[i] = ssim_mean * (sum of sums[.][0]) + l1_mean * (sum of sums[.][1]) over `count` pairs each.
void finish(const double* sums, int64_t count, int64_t outputs, double ssim_mean, double l1_mean, void* out,
            DType dtype, void* stream);
// The sums of either term alone, divided by these counts: out [2][outputs].
void finish_terms(const double* sums, int64_t count, int64_t outputs, double ssim_count, double l1_count,
                  void* out, DType dtype, void* stream);

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
  const Images x = p.x;
  p.x = p.y, p.y = x;
  p.grad_x = p.grad_y, p.grad_y = Images{};
}

inline int64_t divided(int64_t v, int64_t by) { return (v + by - 1) / by; }  // rounded up
inline int64_t rounded(int64_t v, int64_t to) { return divided(v, to) * to; }

// What lies in scratch memory at a time: see common/portions.h.
struct Portions {
  int64_t images, channels;  // all channels, or some of one image
  int64_t rows, map_rows;    // of the gradient; of positions
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

// Pieces of memory, one behind the other: where each begins.
class Layout {
 public:
  int64_t take(int64_t size, int64_t to = 1) {
    const int64_t at = used_;
    used_ += rounded(size, to);
    return at;
  }
  int64_t used() const { return used_; }

 private:
  int64_t used_ = 0;
};

// Kernels for value and gradient at full resolution or of one level.
struct Family {
  const char* name;
  int64_t (*pieces)(const Problem&);      // blocks of a plane, each with its own sums
  int64_t (*maps_bytes)(const Problem&);  // of scratch memory; 0 where one launch does it all
  void (*similarity)(const Similarity&, void* stream);
};
extern const Family l1_family, strip_family, ring_family, scales_family, tiles_family;

const Family& route(const Problem&);

bool ring_fits(const Problem&);  // into the device's shared memory
bool scales_fit(const Problem&);

// The levels of the dyadic form where the strips take the finest: that one, which also makes the images of
// up to four coarser ones (the answer: how many) and the offsets of all; then the coarser ones.
void strip_level_pieces(const Similarity* levels, int count, int64_t* pieces);
int strip_finest(const Similarity* levels, int count, void* offsets, void* stream);
void strip_coarser(const Similarity* levels, int count, void* stream);

}  // namespace ssimloss
