// The launches of volume.cuh's kernels: as many planes at a time as the scratch memory is for.
#include "volume.cuh"

#include <cstdlib>
#include <utility>

#include "../route.h"

namespace ssimloss {
namespace {

// Scratch for several planes at a time, up to so many bytes; or for one, however large.
constexpr int64_t scratch_bytes = int64_t(256) << 20;

struct VolumeSizes {
  int64_t planes, together;            // at a time
  int64_t moments, maps;               // elements of a plane
  int64_t across, down, deep, pieces;  // blocks of depth_kernel for a plane
  int64_t sums_bytes, moments_bytes, all_bytes;
};

int gradients_of(const VolumeProblem& p) {
  return (p.grad_x.first.data ? 1 : 0) + (p.grad_y.first.data ? 1 : 0);
}

template <class T>
VolumeSizes sizes_of(const VolumeProblem& p) {
  VolumeSizes s{};
  int64_t positions[3];
  for (int i = 0; i < 3; ++i)
    positions[i] = p.size[i] - (p.padding == Padding::valid ? 2 * p.windows[i].radius : 0);
  const int gradients = gradients_of(p);
  s.planes = p.batch * p.channels;
  s.moments = 4 * p.size[0] * positions[1] * positions[2];
  s.maps = gradients ? (2 + gradients) * positions[0] * positions[1] * positions[2] : 0;
  const int64_t bytes = (s.moments + s.maps) * int64_t(sizeof(T));
  s.together = std::max<int64_t>(1, std::min(s.planes, scratch_bytes / std::max<int64_t>(1, bytes)));
  s.across = divided(positions[2], volume_columns<T>);
  s.down = divided(positions[1], volume_rows / volume_outputs);
  s.deep = divided(positions[0], volume_outputs);
  s.pieces = s.across * s.down * s.deep;
  Layout layout;
  s.sums_bytes = (layout.take(s.planes * s.pieces * 2 * int64_t(sizeof(double)), 256), layout.used());
  s.moments_bytes =
      (layout.take(s.together * s.moments * int64_t(sizeof(T)), 256), layout.used()) - s.sums_bytes;
  s.all_bytes = (layout.take(s.together * s.maps * int64_t(sizeof(T)), 256), layout.used());
  return s;
}

VolumeView view_of(const Volumes& volumes) { return {view(volumes.first), volumes.stride_d}; }

template <class T>
void run(const VolumeCall& call, char* workspace, void* stream) {
  VolumeProblem p = call.problem;
  if (!p.grad_x.first.data) std::swap(p.x, p.y), std::swap(p.grad_x, p.grad_y);  // the loss is symmetric
  const VolumeSizes s = sizes_of<T>(p);
  VolumeParams<T> params{};
  params.x = view_of(p.x), params.y = view_of(p.y);
  params.grad_x = view_of(p.grad_x), params.grad_y = view_of(p.grad_y);
  params.loss_map = view_of(p.loss_map), params.grad_map = view_of(p.grad_map);
  params.reflect = p.padding == Padding::reflect, params.l1 = p.l1_weight != 0;
  params.gradient = gradients_of(p) > 0, params.both = gradients_of(p) == 2;
  params.channels = int(p.channels);
  VolumeSide* const sides[3] = {&params.d, &params.h, &params.w};
  for (int i = 0; i < 3; ++i) {
    const int radius = p.windows[i].radius;
    *sides[i] = {int(p.size[i]), radius, p.padding == Padding::valid ? radius : 0};
    for (int t = 0; t <= 2 * radius; ++t) params.taps[i][t] = T(p.windows[i].weights[std::abs(t - radius)]);
  }
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(call.ssim_gain), params.l1_gain = T(call.l1_gain);
  params.inverse_ranges = p.inverse_ranges;
  params.incoming = call.incoming;
  params.sums = call.loss ? reinterpret_cast<double*>(workspace) : nullptr;
  params.moments = reinterpret_cast<T*>(workspace + s.sums_bytes);
  params.maps = reinterpret_cast<T*>(workspace + s.sums_bytes + s.moments_bytes);

  const size_t shared = size_t(4 * (volume_rows + 2 * params.h.radius) * volume_columns<T>) * sizeof(T);
  const size_t sums_shared = 2 * sizeof(double) * size_t(volume_threads<T> / 32);
  const auto start = [&](const char* name, auto kernel, int64_t planes, int64_t across, int64_t down,
                         int64_t deep, size_t bytes) {
    params.across = int(across), params.down = int(down), params.deep = int(deep);
    launch(name, kernel, planes * across * down * deep, volume_threads<T>, bytes, stream, params);
  };
  for (int64_t first = 0; first < s.planes; first += s.together) {
    const int64_t planes = std::min(s.together, s.planes - first);
    params.first_plane = first;
    start("moments_kernel", &moments_kernel<T>, planes, s.across, divided(params.h.positions(), volume_rows),
          p.size[0], shared);
    start("depth_kernel", &depth_kernel<T>, planes, s.across, s.down, s.deep, sums_shared);
    if (!params.gradient) continue;
    start("spread_kernel", &spread_kernel<T>, planes, s.across, s.down, divided(p.size[0], volume_outputs),
          0);
    start("voxels_kernel", &voxels_kernel<T>, planes, divided(p.size[2], volume_columns<T>),
          divided(p.size[1], volume_rows), p.size[0], shared);
  }
  if (!call.loss) return;
  const int64_t outputs = call.per_image ? p.batch : 1;
  finish(params.sums, outputs ? s.planes * s.pieces / outputs : 0, outputs, call.ssim_mean, call.l1_mean,
         call.loss, arithmetic(p.x.first.dtype), stream);
}

}  // namespace

size_t volume_workspace(const VolumeCall& call) {
  return size_t(call.problem.x.first.dtype == DType::float64 ? sizes_of<double>(call.problem).all_bytes
                                                             : sizes_of<float>(call.problem).all_bytes);
}

void volume_cuda(const VolumeCall& call, void* workspace, void* stream) {
  char* const scratch = static_cast<char*>(workspace);
  call.problem.x.first.dtype == DType::float64 ? run<double>(call, scratch, stream)
                                               : run<float>(call, scratch, stream);
}

}  // namespace ssimloss
