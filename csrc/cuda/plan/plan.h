// The planner: how a plane is cut into strips of columns and bands of rows, one block each, for the least
// predicted time. One search, for every family of kernels; a family says what a block costs. Host side.
#pragma once

#include <algorithm>
#include <cmath>

#include "../similarity.h"
#include "machine.h"

namespace ssimloss {

// Which blocks do a plane.
struct Cut {
  int own = 0;  // columns of a strip, a multiple of 8; 0: no block fits into the device's shared memory
  int strips = 0, bands = 0, band_rows = 0;
  int threads = 0;  // of a block
  double cycles = HUGE_VAL;
  int scale_bands[max_scales] = {};  // adjoint_kernel's, one number a scale, in the place of `bands`
  int64_t pieces() const { return int64_t(strips) * bands; }
};

// The cut of the least cycles. Family:
//   height, width       of what is cut
//   widest              strip
//   gain                what part of the time a narrower strip may take at most, to be taken
//   bool set(own)       from now on strips are so wide; false: they do not fit, or narrower ones do as well
//   each_bands(f)       f(bands) for all numbers of bands worth a try
//   cycles(Cut&, least) of that cut, whose threads and scale_bands it sets; least: the best cut's so far
template <class Family>
Cut least_time(Family& family) {
  Cut best;
  for (int own = family.widest; own >= 8; own -= 8) {
    if (!family.set(own)) continue;
    Cut here;
    family.each_bands([&](int64_t bands) {
      Cut cut;
      cut.band_rows = int(std::max<int64_t>(1, divided(family.height, bands)));
      cut.own = own, cut.strips = int(divided(family.width, own));
      cut.bands = int(divided(family.height, cut.band_rows));
      cut.cycles = family.cycles(cut, std::min(best.cycles, here.cycles));
      if (cut.cycles < here.cycles) here = cut;
    });
    if (here.cycles < family.gain * best.cycles) best = here;
  }
  return best;
}

// Whether strips of `own` columns are the narrowest of their number.
inline bool narrowest(int64_t width, int own) {
  return own == 8 || divided(width, own - 8) != divided(width, own);
}

// The work of a block for a chunk of rows, in instructions of a warp as counted in
// benchmarks/results/cuda-estimate-2026-11-25.md.
struct Work {
  int warps, chunk_rows;
  Pace pace;
  double extra = 0;    // chunks beyond those of a block's own rows
  double total = 0;    // of all warps
  double longest = 0;  // of the warp that is last, from barrier to barrier
  double idle = 0;     // cycles

  // One or two kinds of tasks between two barriers, which the warps take in turn.
  void phase(int tasks, double each, int others = 0, double each_other = 0) {
    total += tasks * each + others * each_other;
    longest += (tasks + others + warps - 1) / warps * std::max(tasks ? each : 0, others ? each_other : 0);
  }
  // Tasks between two barriers where whoever is done takes the next one.
  void shared_phase(double work, double heaviest) {
    total += work, longest += std::max(work / warps, heaviest), idle += queue_idle;
  }
  // Cycles of a block of so many rows, with others beside it.
  double block(int64_t rows, int64_t resident) const {
    const double chunk = std::max(double(resident) * total / pace.rate, pace.wait * longest) + idle;
    return chunk * (double(divided(rows, chunk_rows)) + extra);
  }
};
inline int warps_of(int columns) { return (columns + 31) / 32; }

// What a plan depends on. kernel: which launch; levels: in one launch.
struct Question {
  int64_t planes, height, width;
  int kernel, levels, padding, gradients, maps, l1, scales, radius[max_scales];
  Device device;
};
Question question_of(const char* kernel, const Problem&, int levels = 1);

// find(), or what it last said of the same question: it takes up to 100 us. With SSIMLOSS_PLAN=1 each answer
// is printed, once.
Cut* remembered(const Question&, bool* known);
void report(const char* kernel, const Problem&, const Cut&);

template <class Find>
Cut plan_for(const char* kernel, const Problem& p, int levels, Find find) {
  bool known = false;
  Cut* cut = remembered(question_of(kernel, p, levels), &known);
  if (!known) report(kernel, p, *cut = find());
  return *cut;
}

}  // namespace ssimloss
