// The launches of volume.cuh's kernels: as many planes at a time as the scratch memory is for.
#include "volume.cuh"

#include <utility>

#include "../route.h"

namespace ssimloss {
namespace {

// Scratch for several planes at a time, up to so many bytes; or for one, however large.
constexpr int64_t scratch_bytes = int64_t(256) << 20;

VolumeView view_of(const Volumes& volumes) { return {view(volumes.first), volumes.stride_d}; }

template <class T>
size_t run(const VolumeCall& call, void* workspace, void* stream) {
  VolumeProblem p = call.problem;
  if (!p.grad_x.first.data) std::swap(p.x, p.y), std::swap(p.grad_x, p.grad_y);  // the loss is symmetric
  VolumeParams<T> params{};
  params.x = view_of(p.x), params.y = view_of(p.y);
  params.grad_x = view_of(p.grad_x), params.grad_y = view_of(p.grad_y);
  params.loss_map = view_of(p.loss_map), params.grad_map = view_of(p.grad_map);
  params.padding = p.padding, params.l1 = p.l1_weight != 0;
  params.gradient = p.grad_x.first.data, params.both = p.grad_y.first.data;
  params.channels = int(p.channels);
  VolumeSide<T>&d = params.d, &h = params.h, &w = params.w;
  VolumeSide<T>* const sides[3] = {&d, &h, &w};
  for (int i = 0; i < 3; ++i)
    *sides[i] = {int(p.size[i]), p.padding == Padding::valid ? p.windows[i].radius : 0,
                 half_window<T>(p.windows[i])};
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(call.ssim_gain), params.l1_gain = T(call.l1_gain);
  params.inverse_ranges = p.inverse_ranges;
  params.incoming = call.incoming;

  // Scratch memory, of as many planes at a time as there is room for; the sums are of all.
  const int64_t planes = p.batch * p.channels, slice = int64_t(h.positions()) * w.positions();
  const int64_t moments = 4 * d.size * slice;
  const int64_t maps = params.gradient ? (3 + params.both) * d.positions() * slice : 0;
  const int64_t bytes = std::max<int64_t>(1, (moments + maps) * int64_t(sizeof(T)));
  const int64_t most = std::max<int64_t>(1, std::min(planes, scratch_bytes / bytes));
  const int64_t across = divided(w.positions(), tile_width<T>), down = divided(h.positions(), volume_rows),
                deep = divided(d.positions(), tile_outputs), pieces = planes * across * down * deep;
  Layout layout{workspace};
  double* const sums = layout.array<double>(pieces * 2);
  params.sums = call.loss ? sums : nullptr;
  params.moments = layout.array<T>(most * moments), params.maps = layout.array<T>(most * maps);
  if (!workspace) return layout.bytes();

  const size_t shared = size_t(4 * (tile_height + 2 * h.window.radius) * tile_width<T>) * sizeof(T);
  const size_t sums_shared = 2 * sizeof(double) * size_t(tile_threads<T> / 32);
  for (params.first_plane = 0; params.first_plane < planes; params.first_plane += most) {
    const int64_t together = std::min(most, planes - params.first_plane);
    const auto start = [&](const char* name, auto kernel, int64_t of_w, int64_t of_h, int64_t of_d,
                           size_t bytes) {
      params.across = int(of_w), params.down = int(of_h), params.deep = int(of_d);
      launch(name, kernel, together * of_w * of_h * of_d, tile_threads<T>, bytes, stream, params);
    };
    start("moments_kernel", &moments_kernel<T>, across, divided(h.positions(), tile_height), d.size, shared);
    start("depth_kernel", &depth_kernel<T>, across, down, deep, sums_shared);
    if (!params.gradient) continue;
    start("spread_kernel", &spread_kernel<T>, across, down, divided(d.size, tile_outputs), 0);
    start("voxels_kernel", &voxels_kernel<T>, divided(w.size, tile_width<T>), divided(h.size, tile_height),
          d.size, shared);
  }
  finish(call, sums, pieces, p.batch, arithmetic(p.x.first.dtype), stream);
  return layout.bytes();
}

}  // namespace

size_t volume_cuda(const VolumeCall& call, void* workspace, void* stream) {
  return call.problem.x.first.dtype == DType::float64 ? run<double>(call, workspace, stream)
                                                      : run<float>(call, workspace, stream);
}

}  // namespace ssimloss
