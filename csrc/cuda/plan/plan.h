// The planner: how a plane is cut into strips of columns and bands of rows, one block each, for the least
// predicted time. One search, for every family of kernels; a family says what a block costs. Host side.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "../route.h"
#include "machine.h"

namespace ssimloss {

// The cut of the least cycles.
//   height, width   of what is cut
//   gain            what part of the time a narrower strip may take at most, to be taken
//   of_width(own, consider)   calls consider(bands, cycles) for all numbers of bands of such strips that are
//                   worth a try; cycles(Cut&, least) of that cut, whose threads and scale_rows it sets;
//                   least: the best cut's so far
template <class OfWidth>
Cut least_time(int64_t height, int64_t width, int widest, double gain, OfWidth of_width) {
  Cut best;
  best.cycles = HUGE_VAL;
  for (int own = widest; own >= 8; own -= 8) {
    Cut here;
    here.cycles = HUGE_VAL;
    of_width(own, [&](int64_t bands, auto cycles) {
      Cut cut = cut_into(height, width, own, std::max<int64_t>(1, divided(height, bands)));
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

// Of blocks[j] blocks that take each[j], from the last kind to the first; so many run at once, and where one
// is done the next one starts.
inline double makespan(int64_t at_once, const int64_t* blocks, const double* each, int kinds) {
  std::map<double, int64_t> done{{0., at_once}};  // when, and how many
  double rounds = 0;
  for (int j = kinds - 1; j >= 0; --j) {
    for (int64_t left = blocks[j]; left > 0;) {
      const auto first = done.begin();
      if (left >= at_once && done.rbegin()->first - first->first <= each[j]) {  // one more each, in turn
        rounds += double(left / at_once) * each[j], left %= at_once;
        continue;
      }
      const int64_t now = std::min(left, first->second);
      done[first->first + each[j]] += now;
      left -= now;
      if ((first->second -= now) == 0) done.erase(first);
    }
  }
  return rounds + done.rbegin()->first;
}

// Blocks with so much work, all of one kind.
struct EqualBlocks {
  int64_t shared;  // bytes
  int most_resident;
  Work work;
  double cycles(Cut& cut, int64_t strips, int64_t resident, int64_t at_once, double) const {
    cut.threads = 32 * work.warps;
    return double(divided(strips * cut.bands, at_once)) * work.block(cut.band_rows, resident);
  }
};

// The cut for blocks that stream down in chunks of 8 rows or 16; blocks_of(own columns): as EqualBlocks.
template <class BlocksOf>
Cut cut_for_blocks(int64_t planes, int64_t height, int64_t width, int widest, BlocksOf blocks_of) {
  const Device device = current_device();
  return least_time(height, width, widest, 1, [&](int own, auto consider) {
    if (!narrowest(width, own)) return;
    const auto blocks = blocks_of(own);
    if (blocks.shared > device.shared_per_block) return;
    const int64_t strips = planes * divided(width, own);
    const int64_t resident = resident_of(device, blocks.most_resident, blocks.shared);
    const int64_t at_once = resident * device.multiprocessors;
    // Bands: as many as fill the device once, twice and so on.
    for (int64_t rounds = 0, before = 0; rounds <= 6; ++rounds) {
      const int64_t aimed = std::max<int64_t>(1, rounds * at_once / std::max<int64_t>(1, strips));
      const int64_t bands = std::min(aimed, divided(height, 8));
      if (bands == before) continue;
      before = bands;
      consider(bands,
               [&](Cut& cut, double least) { return blocks.cycles(cut, strips, resident, at_once, least); });
    }
  });
}

// find(), or what it last said of the same problem, kernel, number of levels and device: it takes up to 100
// us. With SSIMLOSS_PLAN=1 each answer is printed, once.
Cut plan_for(const Family&, const char* kernel, const Problem&, int levels, const std::function<Cut()>& find);

}  // namespace ssimloss
