// The launches of volume.cuh's kernels: as many planes at a time as the scratch memory is for.
#include "volume.cuh"

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
  int64_t moments_at, maps_at, bytes;  // of the scratch memory, which the sums begin
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
  s.across = divided(positions[2], tile_width<T>);
  s.down = divided(positions[1], volume_rows);
  s.deep = divided(positions[0], tile_outputs);
  s.pieces = s.across * s.down * s.deep;
  Layout layout;
  layout.take(s.planes * s.pieces * 2 * int64_t(sizeof(double)), 256);
  s.moments_at = layout.take(s.together * s.moments * int64_t(sizeof(T)), 256);
  s.maps_at = layout.take(s.together * s.maps * int64_t(sizeof(T)), 256);
  s.bytes = layout.used();
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
  params.padding = p.padding, params.l1 = p.l1_weight != 0;
  params.gradient = gradients_of(p) > 0, params.both = gradients_of(p) == 2;
  params.channels = int(p.channels);
  VolumeSide<T>* const sides[3] = {&params.d, &params.h, &params.w};
  for (int i = 0; i < 3; ++i)
    *sides[i] = {int(p.size[i]), p.padding == Padding::valid ? p.windows[i].radius : 0,
                 half_window<T>(p.windows[i])};
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(call.ssim_gain), params.l1_gain = T(call.l1_gain);
  params.inverse_ranges = p.inverse_ranges;
  params.incoming = call.incoming;
  params.sums = call.loss ? reinterpret_cast<double*>(workspace) : nullptr;
  params.moments = reinterpret_cast<T*>(workspace + s.moments_at);
  params.maps = reinterpret_cast<T*>(workspace + s.maps_at);

  const size_t shared = size_t(4 * (tile_height + 2 * params.h.window.radius) * tile_width<T>) * sizeof(T);
  const size_t sums_shared = 2 * sizeof(double) * size_t(tile_threads<T> / 32);
  const auto start = [&](const char* name, auto kernel, int64_t planes, int64_t across, int64_t down,
                         int64_t deep, size_t bytes) {
    params.across = int(across), params.down = int(down), params.deep = int(deep);
    launch(name, kernel, planes * across * down * deep, tile_threads<T>, bytes, stream, params);
  };
  for (int64_t first = 0; first < s.planes; first += s.together) {
    const int64_t planes = std::min(s.together, s.planes - first);
    params.first_plane = first;
    start("moments_kernel", &moments_kernel<T>, planes, s.across, divided(params.h.positions(), tile_height),
          p.size[0], shared);
    start("depth_kernel", &depth_kernel<T>, planes, s.across, s.down, s.deep, sums_shared);
    if (!params.gradient) continue;
    start("spread_kernel", &spread_kernel<T>, planes, s.across, s.down, divided(p.size[0], tile_outputs), 0);
    start("voxels_kernel", &voxels_kernel<T>, planes, divided(p.size[2], tile_width<T>),
          divided(p.size[1], tile_height), p.size[0], shared);
  }
  if (!call.loss) return;
  const int64_t outputs = call.per_image ? p.batch : 1;
  const int64_t count = outputs ? s.planes * s.pieces / outputs : 0;
  const DType dtype = arithmetic(p.x.first.dtype);
  finish(params.sums, count, outputs, call.ssim_mean, call.l1_mean, call.loss, dtype, stream);
  if (call.terms)
    finish_terms(params.sums, count, outputs, call.ssim_count, call.l1_count, call.terms, dtype, stream);
}

}  // namespace

size_t volume_workspace(const VolumeCall& call) {
  return size_t(call.problem.x.first.dtype == DType::float64 ? sizes_of<double>(call.problem).bytes
                                                             : sizes_of<float>(call.problem).bytes);
}

void volume_cuda(const VolumeCall& call, void* workspace, void* stream) {
  char* const scratch = static_cast<char*>(workspace);
  call.problem.x.first.dtype == DType::float64 ? run<double>(call, scratch, stream)
                                               : run<float>(call, scratch, stream);
}

}  // namespace ssimloss
