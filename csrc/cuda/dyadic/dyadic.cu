// The dyadic form: the pyramid, every level's value and gradient, then what multiplies them together.
//
// Launches where the strips take the levels, for up to five: the finest, the coarser ones, combine; and one
// more (finish) for the mean of more than `planes_to_fold` planes. A launch a level would wait for the
// slowest block of each: the four coarser ones have too few blocks to fill a GPU alone.
#include <algorithm>
#include <cmath>

#include "../plan/machine.h"
#include "../route.h"
#include "pyramid.cuh"

namespace ssimloss {
namespace {

struct Pyramid {
  Similarity levels[cuda_max_levels];
  double count[cuda_max_levels];  // of positions; 1 under a mask
  double* losses;
  void* offsets;
  Images l1_gradient;  // under weights it cannot be had afterwards, from a product of covers
  bool strips() const { return &route(levels[0].problem) == &strip_family; }  // take all levels
};

Pyramid pyramid_in(Layout& workspace, const DyadicCall& call) {
  Pyramid all{};
  Problem p = call.finest;
  want_first(p);
  const int64_t planes = p.batch * p.channels;
  const DType type = arithmetic(p.x.dtype);
  all.losses = workspace.array<double>(planes * 2);
  all.offsets = workspace.array<char>(planes * element_size(type));
  int64_t maps = 0;
  const auto dense = [&] {
    char* const data = workspace.array<char>(planes * p.height * p.width * element_size(type));
    return Images{data, type, p.channels * p.height * p.width, p.height * p.width, p.width, 1};
  };
  for (int j = 0; j < call.levels; ++j) {
    if (j > 0) {
      p.height = Halving{p.height, p.odd_side}.size(), p.width = Halving{p.width, p.odd_side}.size();
      p.l1_weight = 0;
      p.sum_difference = true;
      p.x = dense(), p.y = dense();
      p.grad_x = p.gradients > 0 ? dense() : Images{};
      p.grad_y = p.gradients > 1 ? dense() : Images{};
      if (p.mask.data) {
        void* const given = p.mask.data;
        p.mask = dense();
        if (!workspace.memory) p.mask.data = given;  // there is one
      }
    } else if (is_weighted(p) && p.gradients > 0 && p.l1_weight != 0) {
      all.l1_gradient = dense();
    }
    p.luminance = j + 1 == call.levels;
    const int64_t crop = crop_of(p);
    all.count[j] = p.mask.data ? 1 : double(p.height - 2 * crop) * double(p.width - 2 * crop);
    Similarity& level = all.levels[j];
    level.problem = p;
    // Under weights the rest is in combine_kernel.
    level.ssim_gain = call.finest.ssim_weight * (is_weighted(p) ? 1 : call.grad_scale / all.count[j]);
    level.offsets = j > 0 ? all.offsets : nullptr;
    if (!all.strips()) level.cut = route(p).plan(p);
    if (p.mask.data) level.weights = weights_in(workspace, p);
    maps = std::max(maps, level.cut.portions.bytes);
  }
  if (all.strips()) strip_plan(all.levels, call.levels);
  char* const shared_maps = workspace.array<char>(maps);
  for (int j = 0; j < call.levels; ++j) {
    all.levels[j].sums = workspace.array<double>(planes * all.levels[j].cut.pieces() * 2);
    all.levels[j].maps = shared_maps;
  }
  return all;
}

template <class T>
void pool(const Similarity& fine, const Problem& coarse, void* offsets, void* stream) {
  PoolParams<T> params{};
  set_problem(fine, Cut{}, params);
  params.odd_side = coarse.odd_side;
  auto kernel = &pool_kernel<T, false>;
  if constexpr (sizeof(T) == 4) {
    if (coarse.mask.data) kernel = &pool_kernel<T, true>;
  }
  const int64_t blocks = divided(coarse.height * coarse.width, 256) * coarse.channels;
  for_batches(coarse.batch, blocks, [&](int64_t first, int64_t images) {
    set_images(fine, first, params);
    params.m = view(from_image(coarse.x, first)), params.d = view(from_image(coarse.y, first));
    params.next_mask = view(from_image(coarse.mask, first));
    params.plane_offsets = static_cast<T*>(offsets) + first * coarse.channels;
    launch("pool_kernel", kernel, images * blocks, 256, 0, stream, params);
  });
}

constexpr int64_t planes_to_fold = 64, most_loss_blocks = 1 << 16;

template <class T>
void combine(const Pyramid& all, const DyadicCall& call, void* stream) {
  const Problem& p = all.levels[0].problem;
  const int64_t planes = p.batch * p.channels;
  CombineParams<T> params{};
  Similarity finest = all.levels[0];
  finest.incoming = call.incoming;
  finest.l1_gain = call.grad_scale * p.l1_weight / all.count[0];
  set_problem(finest, Cut{}, params);
  params.levels = call.levels;
  params.grad_scale = call.grad_scale;
  auto kernel = &combine_kernel<T, false>;
  if constexpr (sizeof(T) == 4) {
    if (is_weighted(p)) kernel = &combine_kernel<T, true>;
  }
  params.odd_side = p.odd_side, params.clamp = call.clamp;
  params.of_ssim = p.ssim_weight, params.of_l1 = p.l1_weight;
  const int64_t averaged = call.per_image ? p.channels : planes;
  const bool folded = averaged <= planes_to_fold;
  if (call.loss) {
    params.outputs = folded ? planes / averaged : planes;
    params.planes_an_output = folded ? averaged : 1;
    params.losses = folded ? call.loss : all.losses;
    params.losses_double = !folded || p.x.dtype == DType::float64;
    params.loss_stride = folded ? 1 : 2;
    params.loss_blocks = int(std::min(params.outputs, most_loss_blocks));
  }
  for (int t = 0; t <= params.radius; ++t) params.taps[t] = p.windows[0].weights[t];
  const int64_t blocks = combine_resident * current_device().multiprocessors;
  params.rows = int(std::min(p.height, divided(planes * p.height, blocks)));
  const int64_t in_image = p.gradients ? divided(p.height, params.rows) * p.channels : 0;
  for_batches(p.batch, in_image ? in_image + params.loss_blocks : 0, [&](int64_t first, int64_t images) {
    set_images(finest, first, params);
    for (int j = 0; j < call.levels; ++j) {
      const Similarity level = from_image(all.levels[j], first);
      params.level[j] = {level.sums, level.cut.pieces(), all.count[j], call.weights[j], {}, {}};
      params.level[j].gradient[0] = static_cast<const T*>(level.problem.grad_x.data);
      params.level[j].gradient[1] = static_cast<const T*>(level.problem.grad_y.data);
      params.level[j].mask = static_cast<const T*>(level.problem.mask.data);
    }
    params.l1_gradient = view(from_image(all.l1_gradient, first));
    launch("combine_kernel", kernel, params.loss_blocks + images * in_image, combine_threads, combine_shared,
           stream, params);
    params.loss_blocks = 0;  // the first launch has done them all
  });
  if (call.loss && !folded)
    finish(all.losses, averaged, planes / averaged, 1 / double(averaged), 0, call.loss, arithmetic(p.x.dtype),
           stream);
}

template <class T>
void run(const Pyramid& all, const DyadicCall& call, void* stream) {
  const Similarity* levels = all.levels;
  const bool strips = all.strips();
  const int pooled = strips ? strip_finest(levels, call.levels, all.offsets, stream) : 0;
  for (int j = 0; j < call.levels; ++j) {
    const Problem& p = levels[j].problem;
    if (j > pooled) pool<T>(levels[j - 1], p, all.offsets, stream);
    if (p.mask.data) {
      const int together = int(call.per_image ? p.channels : p.batch * p.channels);
      find_weights(levels[j], {together, true, true}, stream);
    }
    if (!strips) route(p).similarity(levels[j], stream);
    if (j > 0 || !all.l1_gradient.data) continue;
    Similarity of_l1 = levels[0];
    of_l1.ssim_gain = 0, of_l1.l1_gain = p.l1_weight, of_l1.sums = nullptr;
    of_l1.problem.grad_x = all.l1_gradient;
    route(p).similarity(of_l1, stream);
  }
  if (strips) strip_coarser(levels, call.levels, stream);
  combine<T>(all, call, stream);
}

}  // namespace

size_t dyadic_cuda(const DyadicCall& call, void* workspace, void* stream) {
  if (is_weighted(call.finest) && call.finest.x.dtype != DType::float32)
    throw std::runtime_error("ssimloss: weights: the dyadic form has kernels for float32 alone");
  if (one_by_one(call.finest)) {
    DyadicCall of_x = call, of_y = call;
    of_x.finest.grad_y = of_y.finest.grad_x = Images{};
    of_y.loss = nullptr;
    const size_t bytes = dyadic_cuda(of_x, workspace, stream);
    return workspace ? dyadic_cuda(of_y, workspace, stream) : bytes;
  }
  Layout layout{workspace};
  const Pyramid all = pyramid_in(layout, call);
  if (!workspace) return layout.bytes();
  const Problem& p = all.levels[0].problem;
  if (p.batch * p.channels > 0) {
    p.x.dtype == DType::float64 ? run<double>(all, call, stream) : run<float>(all, call, stream);
  } else if (call.loss) {
    finish(nullptr, 0, call.per_image ? p.batch : 1, NAN, 0, call.loss, arithmetic(p.x.dtype), stream);
  }
  return layout.bytes();
}

}  // namespace ssimloss
