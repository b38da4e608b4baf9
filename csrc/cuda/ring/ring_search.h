// What ring.cu and scales.cu tell the planner, and the parameters that their kernels share. Host side.
#pragma once

#include "../plan/plan.h"
#include "ring_block.cuh"

namespace ssimloss {

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

// A family for least_time. blocks_of(own columns): as EqualBlocks.
template <class BlocksOf>
struct RingSearch {
  int64_t planes, height, width;
  BlocksOf blocks_of;
  int widest = ring_max_own;
  double gain = 1;
  Device device = current_device();
  decltype(blocks_of(8)) blocks{};
  int64_t strips = 0, resident = 0, at_once = 0;

  bool set(int own) {
    if (!narrowest(width, own)) return false;
    blocks = blocks_of(own);
    if (blocks.shared > device.shared_per_block) return false;
    strips = planes * divided(width, own);
    resident = resident_of(device, blocks.most_resident, blocks.shared);
    at_once = resident * device.multiprocessors;
    return true;
  }
  // As many as fill the device once, twice and so on.
  template <class F>
  void each_bands(F f) const {
    for (int64_t rounds = 0, before = 0; rounds <= 6; ++rounds) {
      const int64_t aimed = std::max<int64_t>(1, rounds * at_once / std::max<int64_t>(1, strips));
      const int64_t bands = std::min(aimed, divided(height, 8));
      if (bands != before) f(before = bands);
    }
  }
  double cycles(Cut& cut, double least) { return blocks.cycles(cut, strips, resident, at_once, least); }
};

template <class BlocksOf>
Cut ring_cut(int64_t planes, int64_t height, int64_t width, BlocksOf blocks_of) {
  RingSearch<BlocksOf> search{planes, height, width, blocks_of};
  return least_time(search);
}

inline void set_ring(const Similarity& s, const Cut& cut, const RingSizes& sizes, RingParams& params) {
  set_problem(s, params);
  params.own = cut.own, params.strips = cut.strips, params.bands = cut.bands,
  params.band_rows = cut.band_rows, params.sizes = sizes;
}

inline int64_t bytes_of(const RingSizes& sizes) { return int64_t(sizes.end) * int64_t(sizeof(float)); }
inline bool has_windowed_l1(const Problem& p) { return p.l1_weight != 0 && p.l1_windowed; }

}  // namespace ssimloss
