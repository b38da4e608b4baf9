// The launches of tiles.cuh's kernels.

#include "../common/portions.h"
#include "../plan/plan.h"
#include "tiles.cuh"

namespace ssimloss {
namespace {

Kept kept_of(const Problem& p) {
  return {p.gradients ? p.scales * (2 + p.gradients) + has_windowed_l1(p) : 0, 0, tile_height};
}
Problem upright(const Problem& p) { return upright(p, kept_of(p)); }

// The fewest portions: no block costs more for being in one.
Portions portions_of(const Problem& p) {
  Portions best{};
  each_of_planes(p, kept_of(p), [&](const Portions& at) {
    if (best.rows == 0 || count_of(p, at) < count_of(p, best)) best = at;
  });
  return best;
}

// Nothing to choose: every block has a tile. Predicted from instructions for 4 results of a thread, counted
// for float32 where all pixels lie inside (2026-11-25, cuda-estimate-2026-11-25.md), at one a cycle and
// scheduler.
Cut plan_of(const Problem& p) {
  return plan_for(tiles_family, "positions_kernel", p, 1, [&] {
    const int64_t height = p.height - 2 * crop_of(p), width = p.width - 2 * crop_of(p);
    const int own = p.x.dtype == DType::float64 ? tile_width<double> : tile_width<float>;
    Cut cut = cut_into(height, width, own, tile_height);
    cut.portions = portions_of(p);
    cut.threads = p.x.dtype == DType::float64 ? tile_threads<double> : tile_threads<float>;
    double instructions = 0;
    for (int j = 0; j < p.scales; ++j) {
      const int r = p.windows[j].radius, taps = std::max(0, 2 * r - 2);
      const double halo = double(tile_height + 2 * r) / tile_height;
      instructions += halo * (228 + 76 * 3 + 55 * taps + 83 * 3);
      instructions += 119 + 104 * 3 + 72.5 * taps + 101 * 3 + 222 * 4;
      if (p.gradients == 0) continue;
      instructions += halo * (273 + 84 * 3 + 62 * taps + 92 * 3) + 199 + 95 * 3 + 67.5 * taps + 99 * 3;
    }
    const double results = double(p.batch * p.channels) * double(height) * double(width);
    cut.cycles = results / 4 * instructions / 32 / schedulers / current_device().multiprocessors;
    return cut;
  });
}

// Dynamic shared memory: the largest window's quantities.
template <class T>
size_t shared_bytes(const TileParams<T>& p, bool weighted) {
  if (weighted) return 2 * tile_threads<T> / 32 * sizeof(double);  // of the sums
  const int rows = tile_height + 2 * p.windows[p.scales - 1].radius;
  return size_t(p.l1 && p.l1_windowed ? 5 : 4) * size_t(rows) * tile_width<T> * sizeof(T);
}

// One portion of planes.
template <class T>
void run(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  const Portions& at = s.cut.portions;
  const bool weighted = is_weighted(p);
  if (weighted && sizeof(T) == 4) throw std::runtime_error("ssimloss: weights: expected float64 images");
  TileParams<T> params{};
  set_problem(s, s.cut, params);
  params.gradient = p.gradients > 0, params.both = p.gradients == 2, params.scales = p.scales;
  params.maps_a_scale = params.both ? 4 : 3;
  params.all_maps = p.scales * params.maps_a_scale + (params.l1 && params.l1_windowed);
  for (int j = 0; j < p.scales; ++j) params.windows[j] = half_window<T>(p.windows[j]);
  const int64_t across = divided(p.width, tile_width<T>), down = divided(p.height, tile_height);
  params.map_size = params.map_width * at.map_rows;
  // Tiles of the gradient, at least as many as of positions.
  for_batches(p.batch, across * down * p.channels, [&](int64_t first, int64_t images) {
    const int64_t planes = images * p.channels;
    set_images(s, first, params);
    params.maps = static_cast<T*>(s.maps) + first * p.channels * params.all_maps * params.map_size;
    const auto start = [&](const char* name, auto kernel, const LaunchRows& rows, int64_t strips) {
      params.rows = rows, params.strips = int(strips);
      launch(name, kernel, planes * strips * rows.bands, tile_threads<T>, shared_bytes(params, weighted),
             stream, params);
    };
    each_of_rows(p, kept_of(p), at, tile_height, [&](const LaunchRows& rows, const LaunchRows& pixels) {
      const LaunchRows own = in_bands(pixels, tile_height);
      if constexpr (sizeof(T) == 8) {
        if (weighted) {
          start("positions_kernel", weighted_tiles().positions, rows, s.cut.strips);
          if (params.gradient) start("weighted_gradient_kernel", weighted_tiles().gradient, own, across);
          return;
        }
      }
      start("positions_kernel", &positions_kernel<T, false>, rows, s.cut.strips);
      if (params.gradient) start("gradient_kernel", &gradient_kernel<T>, own, across);
    });
  });
}

void similarity(const Similarity& whole, void* stream) {
  Similarity s = whole;
  s.problem = upright(s.problem);
  each_portion(s, [&](const Similarity& part) {
    part.problem.x.dtype == DType::float64 ? run<double>(part, stream) : run<float>(part, stream);
  });
}

}  // namespace

const Family tiles_family = {"tiles", [](const Problem& p) { return plan_of(upright(p)); }, &similarity};

}  // namespace ssimloss
