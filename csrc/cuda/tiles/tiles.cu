// The launches of tiles.cuh's kernels.
#include "tiles.cuh"

#include <algorithm>

#include "../common/params.h"

namespace ssimloss {
namespace {

int64_t width_of_tile(DType dtype) {
  return dtype == DType::float64 ? tile_width<double> : tile_width<float>;
}

template <class T>
void set_params(const Similarity& s, TileParams<T>& params) {
  const Problem& p = s.problem;
  params.grad_map_dtype = p.grad_map.dtype;
  params.pyramid = p.sum_difference, params.gradient = wants_gradient(p), params.both = p.grad_y.data;
  params.luminance = p.luminance, params.l1 = p.l1_weight != 0, params.l1_windowed = p.l1_windowed;
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.crop = int(crop_of(p));
  params.padding = p.padding;
  params.scales = p.scales;
  for (int j = 0; j < p.scales; ++j) {
    params.radius[j] = p.windows[j].radius;
    for (int t = 0; t <= params.radius[j]; ++t) params.taps[j][t] = T(p.windows[j].weights[t]);
  }
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(s.ssim_gain), params.l1_gain = T(s.l1_gain);
  params.incoming_double = s.incoming.dtype == DType::float64, params.incoming_stride = s.incoming.stride;
}

// Dynamic shared memory: the largest window's quantities.
template <class T>
size_t shared_bytes(const TileParams<T>& p, int quantities) {
  const int rows = tile_height + 2 * p.radius[p.scales - 1];
  return size_t(quantities) * size_t(rows) * tile_width<T> * sizeof(T);
}

template <class E, class T>
void run(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  TileParams<T> params{};
  set_params(s, params);
  const int64_t map_size = (p.height - 2 * params.crop) * (p.width - 2 * params.crop);
  const bool windowed_l1 = params.l1 && params.l1_windowed;
  const int64_t across = divided(p.width, tile_width<T>), down = divided(p.height, tile_height);
  const int64_t in_image = across * down * p.channels;  // of the gradient: at least as many as of positions
  const int64_t images =
      std::min(p.batch, std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, in_image)));
  const int64_t tiles = tile_pieces(p);
  for (int64_t first = 0; first < p.batch; first += images) {
    const int64_t planes = std::min(images, p.batch - first) * p.channels;
    set_images(s, first, p.channels * tiles, params.offsets, params);
    params.maps = static_cast<T*>(s.maps) + first * p.channels * all_maps(params) * map_size;

    params.tiles_across = int(divided(p.width - 2 * params.crop, tile_width<T>));
    params.tiles_down = int(divided(p.height - 2 * params.crop, tile_height));
    const auto positions = p.scales == 1 ? &positions_kernel<E, T, 1> : &positions_kernel<E, T, max_scales>;
    launch("positions_kernel", positions, planes * tiles, tile_threads<T>,
           shared_bytes(params, windowed_l1 ? 5 : 4), stream, params);
    if (!params.gradient) continue;
    params.tiles_across = int(across), params.tiles_down = int(down);
    launch("gradient_kernel", &gradient_kernel<E, T>, planes * across * down, tile_threads<T>,
           shared_bytes(params, windowed_l1 ? 5 : 4), stream, params);
  }
}

}  // namespace

int64_t tile_pieces(const Problem& p) {
  const int64_t crop = crop_of(p);
  return divided(p.width - 2 * crop, width_of_tile(p.x.dtype)) * divided(p.height - 2 * crop, tile_height);
}

size_t tile_maps_bytes(const Problem& p) {
  if (!wants_gradient(p)) return 0;
  const int64_t crop = crop_of(p), size = p.x.dtype == DType::float64 ? 8 : 4;
  const int64_t maps = p.scales * (p.grad_y.data ? 4 : 3) + (p.l1_weight != 0 && p.l1_windowed ? 1 : 0);
  return size_t(p.batch * p.channels * maps * (p.height - 2 * crop) * (p.width - 2 * crop) * size);
}

void tile_similarity(const Similarity& s, void* stream) {
  switch (s.problem.x.dtype) {
    case DType::float32: return run<float, float>(s, stream);
    case DType::float64: return run<double, double>(s, stream);
    case DType::float16: return run<Half, float>(s, stream);
    case DType::bfloat16: return run<Brain, float>(s, stream);
  }
}

}  // namespace ssimloss
