// What is to be known of each plane before the kernels run under a mask: what its means are over, and a pixel
// that it keeps. Three small launches in the stream, so that nothing waits for the device.
//
//   weights  a block owns some rows of one plane of the mask: their sum, of the positions and of all pixels,
//            and the last pixel that is kept
//   planes   a block owns one plane of the images: adds up the sums of its rows, and reads three pixels that
//            are kept
//   means    a block owns the planes that share a mean: adds up their sums. A launch of its own, as blocks of
//            planes that each did it would read what grows as the square of the planes
//
// Reads 4 bytes a weight (float32), writes 24 bytes a block and 48 a plane, twice.
#include "block.cuh"

namespace ssimloss {

constexpr int weights_threads = 256, weights_pixels = 8192;  // of a block, which has one row at least

struct SumOfWeights {
  double positions, pixels;
  int row, col;  // of the pixel, or -1
};

struct WeightsParams {
  View x, y, mask;
  bool pyramid;
  int channels, height, width, crop;
  double weight_unit, inverse_range;
  const double* inverse_ranges;
  SumOfWeights* of_mask;  // [planes of the mask][pieces]
  int mask_planes, all;   // planes of the images
  int rows, pieces;       // of a block, of a plane
  int mask_channels;      // 1, or all
  bool one_for_all;       // images
  WeightsCall call;
  PlaneWeights* out;

  // The sums of a plane of the images.
  INLINE const SumOfWeights* of(int plane) const {
    const int image = one_for_all ? 0 : plane / channels;
    return of_mask + int64_t(image * mask_channels + (mask_channels == 1 ? 0 : plane % channels)) * pieces;
  }
};

// Of float32 or float64.
INLINE double number_at(const View& view, int64_t place) {
  return view.dtype == DType::float64 ? static_cast<const double*>(view.data)[place]
                                      : double(static_cast<const float*>(view.data)[place]);
}

__global__ void __launch_bounds__(weights_threads) weights_kernel(const __grid_constant__ WeightsParams p) {
  double* const room = reinterpret_cast<double*>(ssimloss_shared);
#pragma unroll 1
  for (int index = int(blockIdx.x); index < p.mask_planes * p.pieces; index += int(gridDim.x)) {
    const int plane = index / p.pieces, first = index % p.pieces * p.rows;
    const int count = (p.height - first < p.rows ? p.height - first : p.rows) * p.width;
    const int64_t start = p.mask.at(plane / p.mask_channels, plane % p.mask_channels, first, 0);
    double positions = 0, pixels = 0;
    int kept = -1;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < count; i += weights_threads) {
      const int row = i / p.width, col = i % p.width;
      const double weight = number_at(p.mask, start + row * p.mask.h + col * p.mask.w) * p.weight_unit;
      pixels += weight;
      if (first + row >= p.crop && first + row < p.height - p.crop && col >= p.crop && col < p.width - p.crop)
        positions += weight;
      if (weight != 0) kept = i;
    }
    __syncthreads();  // the turn before has read the room
    sum_block(positions, pixels, room);
#pragma unroll 1
    for (int step = 16; step > 0; step /= 2) kept = max(kept, __shfl_down_sync(0xffffffffu, kept, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = kept;
    __syncthreads();
    if (threadIdx.x != 0) continue;
    for (int i = 1; i < weights_threads / 32; ++i) kept = max(kept, int(room[i]));
    p.of_mask[index] = {positions, pixels, kept < 0 ? -1 : first + kept / p.width, kept % p.width};
  }
}

// m and d of a pixel, as Plane::pixel.
INLINE Pair<float> pixel_of(const WeightsParams& p, int index, int row, int col) {
  const int image = index / p.channels, channel = index % p.channels;
  double x = 0, y = 0;
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    const View& from = i ? p.y : p.x;
    x = y, y = number_at(from, from.at(image, channel, row, col));
  }
  if (p.pyramid) return {float(x), float(y)};
  const double range = p.inverse_ranges ? p.inverse_ranges[image] : p.inverse_range;
  return {float((x + y) * range), float((x - y) * range)};
}

// Where there are no weights, all terms are 0.
__device__ __attribute__((noinline)) double share_of(double sum) { return sum == 0 ? 1 : 1 / sum; }

__global__ void __launch_bounds__(weights_threads) planes_kernel(const __grid_constant__ WeightsParams p) {
  double* const room = reinterpret_cast<double*>(ssimloss_shared);
  Pair<float>* const kept = reinterpret_cast<Pair<float>*>(room + 2 * weights_threads / 32);  // [3]
  const int index = int(blockIdx.x);
  const SumOfWeights* const pieces = p.of(index);
  double positions = 0, pixels = 0;
#pragma unroll 1
  for (int i = int(threadIdx.x); i < p.pieces; i += weights_threads)
    positions += pieces[i].positions, pixels += pieces[i].pixels;
  sum_block(positions, pixels, room);
  // The next piece from here on that keeps a pixel, one for each of three warps.
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  if (warp < 3) {
    const int start = p.pieces / 6 * (2 * warp + 1);
    int found = -1;  // the piece
#pragma unroll 1
    for (int i = 0; i < p.pieces && found < 0; i += 32) {
      const int piece = (start + i + lane) % p.pieces;
      int best = i + lane < p.pieces && pieces[piece].row >= 0 ? piece : -1;
#pragma unroll 1
      for (int step = 1; step < 32; step *= 2) {  // of the first lane that has one
        const int other = __shfl_down_sync(0xffffffffu, best, step);
        if (best < 0) best = other;
      }
      found = __shfl_sync(0xffffffffu, best, 0);
    }
    if (lane == 0)
      kept[warp] = found < 0 ? Pair<float>{} : pixel_of(p, index, pieces[found].row, pieces[found].col);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  PlaneWeights own{1, 1, 0, 0, 0, 1};
  const Pair<float> typical = base_of_three([&](int i) { return kept[i]; });
  // A large one would cost others' digits.
  const bool usual = magnitude(typical.m) <= 64.f && magnitude(typical.d) <= 64.f;
  own.m = usual ? typical.m : 0.f, own.d = usual ? typical.d : 0.f;
  const float differences[3] = {kept[0].d, kept[1].d, kept[2].d};
  own.offset = double(offset_of(differences));
  if (p.call.together > 0) own.ssim = positions, own.l1 = pixels;  // until means_kernel
  p.out[index] = own;
}

__global__ void __launch_bounds__(weights_threads) means_kernel(const __grid_constant__ WeightsParams p) {
  double* const room = reinterpret_cast<double*>(ssimloss_shared);
  const int together = p.call.together;
  PlaneWeights* const planes = p.out + int(blockIdx.x) * together;
  double positions = 0, pixels = 0, kept = 0, nothing = 0;  // kept: planes that keep a position
#pragma unroll 4
  for (int i = int(threadIdx.x); i < together; i += weights_threads)
    positions += planes[i].ssim, pixels += planes[i].l1, kept += planes[i].ssim != 0;
  sum_block(positions, pixels, room), sum_block(kept, nothing, room);
  if (threadIdx.x == 0) room[0] = positions, room[1] = pixels, room[2] = kept;
  __syncthreads();
  const double ssim = share_of(room[0]), l1 = p.call.l1_of_positions ? ssim : share_of(room[1]);
#pragma unroll 1
  for (int i = int(threadIdx.x); i < together; i += weights_threads) {
    PlaneWeights& plane = planes[i];
    const double own = plane.ssim;
    plane.ssim = ssim, plane.l1 = l1;
    if (!p.call.dyadic) continue;  // else a mean of each plane, of which there is a mean; by combine_kernel
    plane.ssim = share_of(own), plane.l1 = l1 * double(together);
    plane.planes = own == 0 ? 0 : double(together) * share_of(room[2]);
  }
}

namespace {

int64_t rows_of(const Problem& p) {
  return std::min(p.height, std::max<int64_t>(1, weights_pixels / std::max<int64_t>(1, p.width)));
}
int64_t pieces_of(const Problem& p) { return p.height > 0 ? divided(p.height, rows_of(p)) : 0; }
int64_t answers_bytes(const Problem& p) {
  return rounded(p.batch * p.channels * int64_t(sizeof(PlaneWeights)), 256);
}

}  // namespace

PlaneWeights* weights_in(Layout& layout, const Problem& p) {
  char* const all = layout.array<char>(answers_bytes(p) +
                                       p.batch * p.channels * pieces_of(p) * int64_t(sizeof(SumOfWeights)));
  return reinterpret_cast<PlaneWeights*>(all);
}

void find_weights(const Similarity& s, const WeightsCall& call, void* stream) {
  const Problem& p = s.problem;
  WeightsParams params{};
  params.x = view(p.x), params.y = view(p.y), params.mask = view(p.mask);
  params.pyramid = p.sum_difference;
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.crop = int(crop_of(p));
  params.weight_unit = weight_unit(p);
  params.inverse_range = p.inverse_range, params.inverse_ranges = p.inverse_ranges;
  params.of_mask = reinterpret_cast<SumOfWeights*>(reinterpret_cast<char*>(s.weights) + answers_bytes(p));
  params.all = int(p.batch * p.channels);
  params.mask_channels = p.mask.stride_c ? int(p.channels) : 1, params.one_for_all = p.mask.stride_n == 0;
  params.mask_planes = (params.one_for_all ? 1 : int(p.batch)) * params.mask_channels;
  params.rows = int(rows_of(p)), params.pieces = int(pieces_of(p));
  params.call = call, params.out = s.weights;
  constexpr size_t shared = 2 * weights_threads / 32 * sizeof(double);
  launch("weights_kernel", &weights_kernel,
         std::min(int64_t(params.mask_planes) * params.pieces, most_blocks), weights_threads, shared, stream,
         params);
  launch("planes_kernel", &planes_kernel, params.all, weights_threads, shared + 3 * sizeof(Pair<float>),
         stream, params);
  if (call.together == 0) return;
  launch("means_kernel", &means_kernel, params.all / call.together, weights_threads, shared, stream, params);
}

}  // namespace ssimloss
