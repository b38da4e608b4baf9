// Which strips and bands, and the launch of ring.cuh's kernels.
#include "ring.cuh"

#include <algorithm>

#include "similarity.h"

namespace ssimloss {
namespace {

int cell_side(const Problem& p) { return p.windows[0].radius < 4 ? 4 : 8; }
int gradients(const Problem& p) { return wants_gradient(p) ? (p.grad_y.data ? 2 : 1) : 0; }
int element(const Problem& p) { return p.x.dtype == DType::float64 ? 8 : 4; }

RingSizes sizes(const Problem& p, int own) {
  return {cell_side(p), p.windows[0].radius, own, gradients(p), p.l1_weight != 0 && p.l1_windowed};
}

struct Plan {
  int own, strips, bands, band_rows;
};

// The least time: rounds of blocks that the device runs at once, times a block's work. No strip at all where
// the device has not enough shared memory.
Plan plan_of(const Problem& p) {
  const Device device = current_device();
  const int K = cell_side(p), maps = gradients(p) ? 2 + gradients(p) : 0;
  Plan best{};
  double least = 0;
  for (int own = ring_max_own; own >= 8; own -= 8) {
    const int64_t strips = (p.width + own - 1) / own;
    if ((strips - 1) * own + own > p.width && (p.width + strips - 1) / strips <= own - 8) continue;
    const RingSizes s = sizes(p, own);
    const int64_t shared = int64_t(s.end) * element(p);
    if (shared > device.shared_per_block) continue;
    // Of a multiprocessor, which has 1 KiB more than a block may ask for, and takes as much for each.
    const int64_t in_registers = element(p) == 8 ? 1 : 2;
    const int64_t resident =
        std::min<int64_t>(in_registers, (device.shared_per_block + 1024) / (shared + 1024));
    const int64_t at_once = std::max<int64_t>(1, resident) * device.multiprocessors;
    // One block alone cannot hide its latencies.
    const double work = (4.0 * s.columns + 4.0 * K * s.groups + 2.0 * maps * own + 2.0 * own) *
                        double(std::max<int64_t>(1, resident)) * (resident > 1 ? 1 : 1.3);
    for (int64_t round = 0; round <= 6; ++round) {
      const int64_t planes = p.batch * p.channels;
      int64_t bands = round * at_once / std::max<int64_t>(1, planes * strips);
      bands = std::min(std::max<int64_t>(1, bands), (p.height + 7) / 8);
      const int64_t rows = (p.height + bands - 1) / bands;
      bands = (p.height + rows - 1) / rows;
      const double rounds = double((planes * strips * bands + at_once - 1) / at_once);
      // A block's chunks, and what starting one costs in chunks.
      const double chunks =
          double((rows + (maps ? s.lag : 0) + K - 1) / K) + 1.5 + 2.0 * p.windows[0].radius / K / 4;
      const double time = rounds * chunks * work;
      if (best.own && time >= least) continue;
      least = time;
      best = {own, int(strips), int(bands), int(rows)};
    }
  }
  return best;
}

template <class T>
void set_params(const Similarity& s, const Plan& plan, RingParams<T>& params) {
  const Problem& p = s.problem;
  const Window& window = p.windows[0];
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.radius = window.radius;
  params.dtype = p.x.dtype, params.grad_map_dtype = p.grad_map.dtype;
  params.pyramid = p.sum_difference, params.padding = p.padding;
  params.own = plan.own, params.strips = plan.strips;
  params.bands = plan.bands, params.band_rows = plan.band_rows;
  params.sizes = sizes(p, plan.own);
  params.channel_first = p.x.stride_c == 1 && p.channels > 1;
  params.in_fours = in_fours(p.x) && in_fours(p.y);
  const auto tap = [&](int k) {
    return T(window.weights[k < window.radius ? window.radius - k : k - window.radius]);
  };
  for (int k = 0; k <= 2 * window.radius; ++k) params.taps[k] = tap(k);
  for (int k = 0; k < 10 && k <= 2 * window.radius; ++k) params.rim[k] = tap(k);
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.luminance = p.luminance ? T(1) : T(0);
  params.l1 = p.l1_weight != 0, params.l1_windowed = p.l1_windowed;
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(s.ssim_gain), params.l1_gain = T(s.l1_gain);
  params.incoming_double = s.incoming.dtype == DType::float64, params.incoming_stride = s.incoming.stride;
}

template <int K, int Gradients, class T>
void start(const RingParams<T>& params, int64_t blocks, void* stream) {
  launch("ring_kernel", &ring_kernel<K, Gradients, T>, blocks, ring_threads,
         size_t(params.sizes.end) * sizeof(T), stream, params);
}

template <int K, class T>
void with_gradients(const RingParams<T>& params, int64_t blocks, void* stream) {
  if (params.grad_y.data) return start<K, 2>(params, blocks, stream);
  if (params.grad_x.data) return start<K, 1>(params, blocks, stream);
  start<K, 0>(params, blocks, stream);
}

template <class T>
void run(const Similarity& s, void* stream) {
  const Problem& p = s.problem;
  const Plan plan = plan_of(p);
  RingParams<T> params{};
  set_params(s, plan, params);
  const int64_t pieces = int64_t(plan.strips) * plan.bands, in_image = pieces * p.channels;
  const int64_t images =
      std::min(p.batch, std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, in_image)));
  for (int64_t first = 0; first < p.batch; first += images) {
    params.x = view(from_image(p.x, first)), params.y = view(from_image(p.y, first));
    params.grad_x = view(from_image(p.grad_x, first)), params.grad_y = view(from_image(p.grad_y, first));
    params.loss_map = view(from_image(p.loss_map, first));
    params.grad_map = view(from_image(p.grad_map, first));
    params.incoming = from_image(s.incoming, first).data;
    params.offsets = s.offsets ? static_cast<const T*>(s.offsets) + first * p.channels : nullptr;
    params.sums = s.sums ? s.sums + 2 * first * in_image : nullptr;
    const int64_t blocks = std::min(images, p.batch - first) * in_image;
    cell_side(p) == 8 ? with_gradients<8>(params, blocks, stream) : with_gradients<4>(params, blocks, stream);
  }
}

}  // namespace

bool ring_takes(const Problem& p) {
  return p.scales == 1 && p.windows[0].radius <= ring_max_radius && plan_of(p).own > 0;
}

int64_t ring_pieces(const Problem& p) {
  const Plan plan = plan_of(p);
  return int64_t(plan.strips) * plan.bands;
}

void ring_similarity(const Similarity& s, void* stream) {
  s.problem.x.dtype == DType::float64 ? run<double>(s, stream) : run<float>(s, stream);
}

}  // namespace ssimloss
