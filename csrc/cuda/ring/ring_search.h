// What ring.cu and scales.cu tell the planner. Host side.
#pragma once

#include <map>

#include "../plan/plan.h"
#include "ring_block.cuh"

namespace ssimloss {

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

// blocks_of(own columns): as EqualBlocks.
template <class BlocksOf>
Cut ring_cut(int64_t planes, int64_t height, int64_t width, BlocksOf blocks_of) {
  const Device device = current_device();
  return least_time(height, width, ring_max_own, 1, [&](int own, auto consider) {
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

inline int64_t bytes_of(const RingSizes& sizes) { return int64_t(sizes.end) * int64_t(sizeof(float)); }
inline bool has_windowed_l1(const Problem& p) { return p.l1_weight != 0 && p.l1_windowed; }

}  // namespace ssimloss
