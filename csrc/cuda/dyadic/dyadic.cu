// The dyadic form: the pyramid, every level's value and gradient, then what multiplies them together.
//
// Launches where the strips take the levels, for up to five: the finest, the coarser ones, combine; and one
// more (finish) for the mean of more than `planes_to_fold` planes. A launch a level would wait for the
// slowest block of each: the four coarser ones have too few blocks to fill a GPU alone.
#include <algorithm>
#include <cmath>

#include "../route.h"
#include "pyramid.cuh"

namespace ssimloss {
namespace {

// Memory handed out piece by piece; with base null it only counts.
class Room {
 public:
  explicit Room(void* base) : base_(static_cast<char*>(base)) {}
  template <class T = void>
  T* take(size_t bytes) {
    T* taken = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (bytes + 255) / 256 * 256;
    return taken;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

struct Layout {
  Similarity levels[cuda_max_levels];
  int64_t pieces[cuda_max_levels];
  double count[cuda_max_levels];
  double* losses;
  void* offsets;
  size_t bytes;
};

Images dense(void* data, DType dtype, const Problem& p) {
  return {data, dtype, p.channels * p.height * p.width, p.height * p.width, p.width, 1};
}

Layout layout(const DyadicCall& call, void* workspace) {
  Layout all{};
  Room room(workspace);
  Problem p = call.finest;
  want_first(p);
  const bool gradient = wants_gradient(p), both = p.grad_y.data;
  const int64_t planes = p.batch * p.channels;
  const DType type = arithmetic(p.x.dtype);
  const size_t size = type == DType::float64 ? 8 : 4;
  all.losses = room.take<double>(size_t(planes) * 2 * sizeof(double));
  all.offsets = room.take(size_t(planes) * size);
  size_t maps = 0;
  Problem problems[cuda_max_levels];
  for (int j = 0; j < call.levels; ++j) {
    if (j > 0) {
      p.height = p.height / 2 + p.height % 2, p.width = p.width / 2 + p.width % 2;
      p.l1_weight = 0;
      p.sum_difference = true;
      const size_t bytes = size_t(planes * p.height * p.width) * size;
      p.x = dense(room.take(bytes), type, p), p.y = dense(room.take(bytes), type, p);
      // Without a workspace to point into the fields must still say what is wanted.
      char somewhere;
      const auto take = [&] {
        void* taken = room.take(bytes);
        return taken ? taken : static_cast<void*>(&somewhere);
      };
      p.grad_x = gradient ? dense(take(), type, p) : Images{};
      p.grad_y = both ? dense(take(), type, p) : Images{};
    }
    p.luminance = j + 1 == call.levels;
    const int64_t crop = crop_of(p);
    all.count[j] = double(p.height - 2 * crop) * double(p.width - 2 * crop);
    problems[j] = p;
    Similarity& level = all.levels[j];
    level = {p,
             call.grad_scale * call.finest.ssim_weight / all.count[j],
             0,
             {},
             j > 0 ? all.offsets : nullptr,
             nullptr,
             nullptr};
    maps = std::max(maps, maps_bytes(p));
  }
  if (strip_takes(problems[0])) {
    strip_level_pieces(problems, call.levels, all.pieces);
  } else {
    for (int j = 0; j < call.levels; ++j) all.pieces[j] = pieces(problems[j]);
  }
  void* shared_maps = room.take(maps);
  for (int j = 0; j < call.levels; ++j) {
    all.levels[j].sums = room.take<double>(size_t(planes * all.pieces[j]) * 2 * sizeof(double));
    all.levels[j].maps = shared_maps;
  }
  all.bytes = room.used();
  return all;
}

// Images a launch of one thread a pixel takes, `pixels` of them a block.
int64_t images_a_launch(const Problem& p, int64_t height, int64_t width, int64_t pixels) {
  const int64_t blocks = (height * width + pixels - 1) / pixels * p.channels;
  return std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, blocks));
}

template <class E, class T>
void pool(const Problem& fine, const Problem& coarse, void* offsets, void* stream) {
  PoolParams params{};
  params.pyramid = fine.sum_difference;
  params.channels = int(fine.channels), params.height = int(fine.height), params.width = int(fine.width);
  params.inverse_range = fine.inverse_range;
  const int64_t step = images_a_launch(fine, coarse.height, coarse.width, 256);
  for (int64_t first = 0; first < fine.batch; first += step) {
    params.x = view(from_image(fine.x, first)), params.y = view(from_image(fine.y, first));
    params.m = view(from_image(coarse.x, first)), params.d = view(from_image(coarse.y, first));
    params.offsets = static_cast<T*>(offsets) + first * fine.channels;
    params.planes = std::min(step, fine.batch - first) * fine.channels;
    const int64_t blocks = (coarse.height * coarse.width + 255) / 256;
    launch("pool_kernel", &pool_kernel<E, T>, params.planes * blocks, 256, 0, stream, params);
  }
}

constexpr int64_t planes_to_fold = 64, most_loss_blocks = 1 << 16;

template <class E, class T>
void combine(const Layout& all, const DyadicCall& call, void* stream) {
  const Problem& p = all.levels[0].problem;
  const int64_t planes = p.batch * p.channels;
  CombineParams params{};
  params.levels = call.levels;
  for (int j = 0; j < call.levels; ++j) {
    params.sums[j] = all.levels[j].sums, params.pieces[j] = all.pieces[j];
    params.count[j] = all.count[j], params.weights[j] = call.weights[j];
  }
  params.ssim_weight = p.ssim_weight, params.l1_weight = p.l1_weight;
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
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.l1_gain = p.l1_weight != 0 ? call.grad_scale * p.l1_weight / all.count[0] : 0;
  params.padding = p.padding;
  params.radius = p.windows[0].radius;
  for (int t = 0; t <= params.radius; ++t) params.taps[t] = p.windows[0].weights[t];
  params.incoming_double = call.incoming.dtype == DType::float64,
  params.incoming_stride = call.incoming.stride;
  // Five blocks a multiprocessor, as many as run at once (48 registers).
  const int64_t blocks = 5 * current_device().multiprocessors;
  params.rows = int(std::min(p.height, (planes * p.height + blocks - 1) / blocks));
  const int64_t in_image = (p.height + params.rows - 1) / params.rows * p.channels;
  const int64_t step =
      wants_gradient(p) ? std::max<int64_t>(1, (most_blocks - most_loss_blocks) / in_image) : p.batch;
  for (int64_t first = 0; first < p.batch; first += step) {
    params.fine[0] = view(from_image(p.grad_x, first)), params.fine[1] = view(from_image(p.grad_y, first));
    params.x = view(from_image(p.x, first)), params.y = view(from_image(p.y, first));
    params.incoming = from_image(call.incoming, first).data;
    params.first_plane = first * p.channels;
    for (int j = 1; j < call.levels; ++j) {
      const Problem& level = all.levels[j].problem;
      params.coarse[0][j] = from_image(level.grad_x, first).data;
      params.coarse[1][j] = from_image(level.grad_y, first).data;
    }
    const int64_t images = std::min(step, p.batch - first);
    launch("combine_kernel", &combine_kernel<E, T>,
           params.loss_blocks + (wants_gradient(p) ? images * in_image : 0), combine_threads, combine_shared,
           stream, params);
    params.loss_blocks = 0;
  }
  if (call.loss && !folded)
    finish(all.losses, averaged, planes / averaged, 1 / double(averaged), 0, call.loss, arithmetic(p.x.dtype),
           stream);
}

template <class E, class T>
void run(const Layout& all, const DyadicCall& call, void* stream) {
  const Similarity* levels = all.levels;
  const bool strips = strip_takes(levels[0].problem);
  int pooled = strips ? strip_finest(levels, call.levels, all.offsets, stream) : 0;
  for (int j = 0; j < call.levels; ++j) {
    const Problem& p = levels[j].problem;
    if (j == 1 && pooled < j) pool<E, T>(levels[0].problem, p, all.offsets, stream);
    if (j > 1 && pooled < j) pool<T, T>(levels[j - 1].problem, p, all.offsets, stream);
    if (!strips) similarity(levels[j], stream);
  }
  if (strips) strip_coarser(levels, call.levels, stream);
  combine<E, T>(all, call, stream);
}

template <class E, class T>
void scale(const ScaleCall& call, void* stream) {
  ScaleParams params{};
  params.images = view(call.images);
  params.channels = int(call.channels), params.height = int(call.height), params.width = int(call.width);
  params.by = call.by.data;
  params.by_double = call.by.dtype == DType::float64, params.by_stride = call.by.stride;
  params.factor = call.factor;
  params.pieces = (call.height * call.width + scale_pixels - 1) / scale_pixels;
  params.all = call.batch * call.channels * params.pieces;
  // What runs at once: mostly there is nothing to do, and starting blocks to find that out is what takes
  // time.
  const int64_t blocks = int64_t(2048 / scale_threads) * current_device().multiprocessors;
  launch("scale_kernel", &scale_kernel<E, T>, std::min(params.all, blocks), scale_threads, 0, stream, params);
}

}  // namespace

size_t dyadic_workspace(const DyadicCall& call) { return layout(call, nullptr).bytes; }

void dyadic_cuda(const DyadicCall& call, void* workspace, void* stream) {
  const Layout all = layout(call, workspace);
  const Problem& p = all.levels[0].problem;
  const int64_t planes = p.batch * p.channels;
  if (planes > 0) {
    switch (p.x.dtype) {
      case DType::float32: run<float, float>(all, call, stream); break;
      case DType::float64: run<double, double>(all, call, stream); break;
      case DType::float16: run<Half, float>(all, call, stream); break;
      case DType::bfloat16: run<Brain, float>(all, call, stream); break;
    }
  }
  if (!call.loss || planes > 0) return;
  finish(nullptr, 0, call.per_image ? p.batch : 1, NAN, 0, call.loss, arithmetic(p.x.dtype), stream);
}

void scale_cuda(const ScaleCall& call, void* stream) {
  if (call.batch * call.channels * call.height * call.width == 0) return;
  switch (call.images.dtype) {
    case DType::float32: return scale<float, float>(call, stream);
    case DType::float64: return scale<double, double>(call, stream);
    case DType::float16: return scale<Half, float>(call, stream);
    case DType::bfloat16: return scale<Brain, float>(call, stream);
  }
}

}  // namespace ssimloss
