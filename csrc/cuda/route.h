// Between the two forms and the kernels at full resolution or of one level: host side, no CUDA headers.
#pragma once

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
  void* maps;           // scratch of maps_bytes
};

int64_t pieces(const Problem&);     // blocks a plane
size_t maps_bytes(const Problem&);  // 0 where one launch does it all
void similarity(const Similarity&, void* stream);

// The kinds of kernels behind them, the first that takes a problem.
bool strip_takes(const Problem&);  // one scale, 11 taps over 1e-6, not float64, no windowed l1 in a map
int64_t strip_pieces(const Problem&);
void strip_similarity(const Similarity&, void* stream);
// The levels of the dyadic form where the strips take the finest: that one, which also makes the images of
// up to four coarser ones (the answer: how many) and the offsets of all; then the coarser ones.
void strip_level_pieces(const Problem* levels, int count, int64_t* pieces);
int strip_finest(const Similarity* levels, int count, void* offsets, void* stream);
void strip_coarser(const Similarity* levels, int count, void* stream);
bool ring_takes(const Problem&);  // one scale, up to 33 taps, where the device has the shared memory
int64_t ring_pieces(const Problem&);
void ring_similarity(const Similarity&, void* stream);
bool scales_take(const Problem&);  // where the device has the shared memory
int64_t scales_pieces(const Problem&);
size_t scales_maps_bytes(const Problem&);
void scales_similarity(const Similarity&, void* stream);
int64_t tile_pieces(const Problem&);
size_t tile_maps_bytes(const Problem&);
void tile_similarity(const Similarity&, void* stream);

// out[i] = ssim_mean * (sum of sums[.][0]) + l1_mean * (sum of sums[.][1]) over `count` pairs each.
void finish(const double* sums, int64_t count, int64_t outputs, double ssim_mean, double l1_mean, void* out,
            DType dtype, void* stream);

inline bool wants_gradient(const Problem& p) { return p.grad_x.data != nullptr; }
inline int64_t crop_of(const Problem& p) {
  return p.padding == Padding::valid ? p.windows[p.scales - 1].radius : 0;
}
inline DType arithmetic(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

// Image [first, ...) of a batch.
inline Images from_image(Images images, int64_t first) {
  const int64_t size = images.dtype == DType::float64 ? 8 : (images.dtype == DType::float32 ? 4 : 2);
  if (images.data) images.data = static_cast<char*>(images.data) + first * images.stride_n * size;
  return images;
}
inline Scalars from_image(Scalars scalars, int64_t first) {
  const int64_t size = scalars.dtype == DType::float64 ? 8 : 4;
  if (scalars.data) scalars.data = static_cast<const char*>(scalars.data) + first * scalars.stride * size;
  return scalars;
}

// Gradient to y alone: the same with the images swapped.
inline void want_first(Problem& p) {
  if (p.grad_x.data || !p.grad_y.data) return;
  const Images x = p.x;
  p.x = p.y, p.y = x;
  p.grad_x = p.grad_y, p.grad_y = Images{};
}

}  // namespace ssimloss
