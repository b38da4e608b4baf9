// Which family of kernels takes a problem: route.cu. The table is in ../README.md. Host side.
#pragma once

#include "similarity.h"

namespace ssimloss {

// Kernels for value and gradient at full resolution or of one level.
struct Family {
  const char* name;
  int64_t (*pieces)(const Problem&);      // blocks of a plane, each with its own sums
  int64_t (*maps_bytes)(const Problem&);  // of scratch memory; 0 where one launch does it all
  void (*similarity)(const Similarity&, void* stream);
};
extern const Family strip_family, ring_family, scales_family, tiles_family;

const Family& route(const Problem&);

bool ring_fits(const Problem&);  // into the device's shared memory
bool scales_fit(const Problem&);

// The levels of the dyadic form where the strips take the finest: that one, which also makes the images of
// up to four coarser ones (the answer: how many) and the offsets of all; then the coarser ones.
void strip_level_pieces(const Problem* levels, int count, int64_t* pieces);
int strip_finest(const Similarity* levels, int count, void* offsets, void* stream);
void strip_coarser(const Similarity* levels, int count, void* stream);

// Of tiles_family, and of scales_family without its parts: [map][height - 2 crop][width - 2 crop] a plane.
int64_t all_maps_bytes(const Problem&);

}  // namespace ssimloss
