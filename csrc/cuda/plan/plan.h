// What the launchers of ring.cuh and scales.cuh share: which strips and bands, and the parameters of a block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../common/launch.h"
#include "../common/params.h"
#include "../ring/ring_block.cuh"

namespace ssimloss {

struct RingPlan {
  int own = 0, strips = 0, bands = 0, band_rows = 0;  // own = 0: the device has not the shared memory
  RingSizes sizes{};
  double time = HUGE_VAL;
  int scale_bands[max_scales] = {};  // adjoint_kernel's, aimed at in the place of `bands`
};

// A block of a strip of so many columns, its work in instructions as counted in
// benchmarks/results/cuda-estimate-2026-11-25.md.
struct RingCost {
  RingSizes sizes;
  int chunk_rows;
  double extra = 0;       // chunks beyond those of its own rows
  int most_resident = 2;  // blocks of a multiprocessor, as far as registers go
  double total = 0;       // of all warps for a chunk
  double longest = 0;     // of the warp that is last from barrier to barrier
  double rate = 4;        // of a multiprocessor, in instructions a cycle
  double wait = 1.5;      // of a warp, in cycles an instruction
  double idle = 0;        // cycles of a chunk

  // One or two kinds of tasks between two barriers, which the warps take in turn.
  void phase(int tasks, double each, int others = 0, double each_other = 0) {
    constexpr int warps = ring_threads / 32;
    total += tasks * each + others * each_other;
    longest += (tasks + others + warps - 1) / warps * std::max(tasks ? each : 0, others ? each_other : 0);
  }
  // Tasks between two barriers where whoever is done takes the next one.
  void shared_phase(int warps, double work, double heaviest) {
    total += work, longest += std::max(work / warps, heaviest), idle += 1000;
  }

  // Of a block of so many rows, with others beside it.
  double block(int64_t rows, int64_t resident) const {
    const double chunk = std::max(double(resident) * total / rate, wait * longest) + idle;
    return chunk * (double(divided(rows, chunk_rows)) + extra);
  }
  // Of all planes' strips, with so many blocks at once.
  double all(const RingPlan& plan, int64_t strips, int64_t resident, int64_t at_once, double) const {
    return double(divided(strips * plan.bands, at_once)) * block(plan.band_rows, resident);
  }
};
inline int warps_of(int columns) { return (columns + 31) / 32; }

inline int arithmetic_size(const Problem& p) { return p.x.dtype == DType::float64 ? 8 : 4; }
inline int gradients_of(const Problem& p) { return wants_gradient(p) ? (p.grad_y.data ? 2 : 1) : 0; }

// The least time for height x width of each plane, where cost(own columns) is that of a block.
template <class Cost>
RingPlan ring_plan(const Problem& p, int64_t height, int64_t width, Cost cost) {
  const Device device = current_device();
  const int64_t planes = p.batch * p.channels;
  RingPlan best;
  for (int own = ring_max_own; own >= 8; own -= 8) {
    const int64_t strips = (width + own - 1) / own;
    if (own > 8 && (width + own - 9) / (own - 8) == strips) continue;  // narrower ones do as well
    const auto block = cost(own);
    const int64_t shared = int64_t(block.sizes.end) * arithmetic_size(p);
    if (shared > device.shared_per_block) continue;
    const int64_t resident = resident_of(device, arithmetic_size(p) == 8 ? 1 : block.most_resident, shared);
    const int64_t at_once = resident * device.multiprocessors;
    for (int64_t rounds = 0, before = 0; rounds <= 6; ++rounds) {  // aimed at
      int64_t bands = rounds * at_once / std::max<int64_t>(1, planes * strips);
      bands = std::min(std::max<int64_t>(1, bands), (height + 7) / 8);
      const int64_t rows = std::max<int64_t>(1, (height + bands - 1) / bands);
      bands = (height + rows - 1) / rows;
      if (bands == before) continue;
      before = bands;
      RingPlan plan{own, int(strips), int(bands), int(rows), block.sizes};
      plan.time = block.all(plan, planes * strips, resident, at_once, best.time);
      if (plan.time < best.time) best = plan;
    }
  }
  return best;
}

// find(), or what it last said of the same question: it takes up to 100 us, and a call asks several times.
template <class Find>
RingPlan remembered(int kernel, const Problem& p, Find find) {
  struct Question {
    int64_t planes, height, width;
    int kernel, padding, element, gradients, l1, scales, radius[max_scales];
    Device device;
  };
  struct Answer {
    Question question;
    RingPlan plan;
  };
  constexpr int kept = 64;  // a dyadic call of 16 levels asks 32 questions
  thread_local Answer answers[kept] = {};
  thread_local int oldest = 0;
  Question now;
  std::memset(&now, 0, sizeof now);  // as it is compared byte by byte
  now.planes = p.batch * p.channels, now.height = p.height, now.width = p.width;
  now.kernel = kernel, now.padding = int(p.padding), now.element = arithmetic_size(p);
  now.gradients = gradients_of(p), now.l1 = p.l1_weight != 0 ? 1 + p.l1_windowed : 0, now.scales = p.scales;
  for (int j = 0; j < p.scales; ++j) now.radius[j] = p.windows[j].radius;
  now.device = current_device();
  for (const Answer& answer : answers) {
    if (std::memcmp(&answer.question, &now, sizeof now) == 0) return answer.plan;
  }
  Answer& answer = answers[oldest];
  oldest = (oldest + 1) % kept;
  std::memcpy(&answer.question, &now, sizeof now);
  return answer.plan = find();
}

// All but the weights and what differs from image to image.
template <class T>
void set_ring(const Similarity& s, const RingPlan& plan, RingParams<T>& params) {
  const Problem& p = s.problem;
  params.channels = int(p.channels), params.height = int(p.height), params.width = int(p.width);
  params.radius = p.windows[p.scales - 1].radius;
  params.dtype = p.x.dtype, params.grad_map_dtype = p.grad_map.dtype;
  params.pyramid = p.sum_difference, params.padding = p.padding;
  params.own = plan.own, params.strips = plan.strips;
  params.bands = plan.bands, params.band_rows = plan.band_rows, params.sizes = plan.sizes;
  params.channel_first = p.x.stride_c == 1 && p.channels > 1;
  params.in_fours = in_fours(p.x) && in_fours(p.y);
  params.c1 = T(p.c1), params.c2 = T(p.c2), params.inverse_range = T(p.inverse_range);
  params.luminance = p.luminance ? T(1) : T(0);
  params.l1 = p.l1_weight != 0, params.l1_windowed = p.l1_windowed;
  params.ssim_weight = T(p.ssim_weight), params.l1_weight = T(p.l1_weight);
  params.ssim_gain = T(s.ssim_gain), params.l1_gain = T(s.l1_gain);
  params.incoming_double = s.incoming.dtype == DType::float64, params.incoming_stride = s.incoming.stride;
}

// start(first image, images), with params set, for as many images at a time as one launch takes. An image has
// so many blocks.
template <class T, class Start>
void for_images(const Similarity& s, RingParams<T>& params, int64_t blocks, Start start) {
  const Problem& p = s.problem;
  const int64_t pieces = int64_t(params.strips) * params.bands * p.channels;
  const int64_t images = std::min(p.batch, std::max<int64_t>(1, most_blocks / std::max<int64_t>(1, blocks)));
  for (int64_t first = 0; first < p.batch; first += images) {
    set_images(s, first, pieces, params.offsets, params);
    start(first, std::min(images, p.batch - first));
  }
}

}  // namespace ssimloss
