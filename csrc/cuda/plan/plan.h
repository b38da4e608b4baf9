// The planner: how a plane is cut into strips of columns and bands of rows, one block each, for the least
// predicted time. One search, for every family of kernels; a family says what a block costs. Host side.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "../route.h"
#include "machine.h"

namespace ssimloss {

// The cut of the least cycles.
//   height, width   of what is cut
//   gain            what part of the time a narrower strip may take at most, to be taken
//   of_width(own, consider)   calls consider(bands, cycles) for all numbers of bands of such strips that are
//                   worth a try; cycles(Cut&, least) of that cut, whose threads and scale_bands it sets;
//                   least: the best cut's so far
template <class OfWidth>
Cut least_time(int64_t height, int64_t width, int widest, double gain, OfWidth of_width) {
  Cut best;
  best.cycles = HUGE_VAL;
  for (int own = widest; own >= 8; own -= 8) {
    Cut here;
    here.cycles = HUGE_VAL;
    of_width(own, [&](int64_t bands, auto cycles) {
      Cut cut;
      cut.band_rows = int(std::max<int64_t>(1, divided(height, bands)));
      cut.own = own, cut.strips = int(divided(width, own));
      cut.bands = int(divided(height, cut.band_rows));
      cut.cycles = cycles(cut, std::min(best.cycles, here.cycles));
      if (cut.cycles < here.cycles) here = cut;
    });
    if (here.cycles < gain * best.cycles) best = here;
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

// find(), or what it last said of the same problem, kernel, number of levels and device: it takes up to 100
// us. With SSIMLOSS_PLAN=1 each answer is printed, once.
Cut plan_for(const Family&, const char* kernel, const Problem&, int levels, const std::function<Cut()>& find);

}  // namespace ssimloss
