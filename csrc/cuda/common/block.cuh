// What the blocks of all kernels do alike: which piece of which plane is theirs, the incoming gradient, what
// padding adds, and their sums.
#pragma once

#include "params.h"
#include "sums.cuh"

namespace ssimloss {

// The first own row and column of a piece.
struct Piece {
  int image, channel, row, col;
};

template <class T>
__device__ __forceinline__ Piece piece_of(const KernelParams<T>& p, int index, int bands, int band_rows) {
  const int pieces = p.strips * bands;
  int image, channel;
  if (p.channel_first) {
    channel = index % p.channels, index /= p.channels;
    image = index / pieces, index %= pieces;
  } else {
    image = index / pieces, index %= pieces;
    channel = image % p.channels, image /= p.channels;
  }
  return {image, channel, index / p.strips * band_rows, index % p.strips * p.own};
}

template <class T>
__device__ __forceinline__ int64_t plane_of(const KernelParams<T>& p, int image, int channel) {
  return int64_t(image) * p.channels + channel;
}

// grad_map at a position, 0 where there is none; mirrored under reflect.
template <class T>
__device__ __forceinline__ T incoming_at(const KernelParams<T>& p, int image, int channel, int row, int col) {
  if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
  if (row < p.crop || row >= p.height - p.crop || col < p.crop || col >= p.width - p.crop) return T(0);
  const View& map = p.grad_map;
  return T(read_as(map.data, p.grad_map_dtype,
                   image * map.n + channel * map.c + (row - p.crop) * map.h + (col - p.crop) * map.w));
}

// The gradient of gain * |difference|: sign(0) = 0, sign(NaN) = NaN.
template <class T>
__device__ __forceinline__ T gradient_of_l1(T difference, T gain) {
  return difference > 0 ? gain : (difference < 0 ? -gain : difference * gain);
}

// f(a pointer of the images' type), where the arithmetic is float.
template <class F>
__device__ __forceinline__ void with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::float16: return f(static_cast<Half*>(nullptr));
    case DType::bfloat16: return f(static_cast<Brain*>(nullptr));
    default: return f(static_cast<float*>(nullptr));
  }
}

// Pixel `col` of a row of x and y, or what zero padding is: 0, and pad_d in the place of y.
template <class E>
__device__ __forceinline__ void fill_pixel(const KernelParams<float>& p, const E* x, const E* y, int col,
                                           bool exists, float pad_d, float* to_x, float* to_y) {
  if (p.padding == Padding::reflect) col = mirrored(col, p.width);
  if (exists && col >= 0 && col < p.width) {
    copy_one(x + col * p.x.w, to_x);
    copy_one(y + col * p.y.w, to_y);
  } else {
    *to_x = 0.f, *to_y = pad_d;
  }
}

// The block's sums, added in a fixed order, as those of piece `piece` of a plane. room: shared memory of two
// doubles for each warp.
template <class T>
__device__ __forceinline__ void write_sums(const KernelParams<T>& p, int64_t plane, int piece, double ssim,
                                           double l1, void* room) {
  sum_block(ssim, l1, static_cast<double*>(room));
  if (threadIdx.x != 0) return;
  double* sums = p.sums + 2 * (plane * p.strips * p.bands + piece);
  sums[0] = ssim, sums[1] = l1;
}

}  // namespace ssimloss
