// What torch/cpu.cpp asks of the CPU kernels: plain data, one set of kernels for each instruction set.
#pragma once

#include "../problem.h"
#include "../volume.h"

namespace ssimloss {

// How a problem is cut into items. Only the bands depend on the number of threads, and neither gradient nor
// sums depend on those.
struct Items {
  int64_t strips, bands, planes;
  int64_t group;   // planes that lie side by side in an item, where one alone would be too narrow
  int64_t pieces;  // of a plane, each with sums of its own
  int64_t count() const { return strips * bands * ((planes + group - 1) / group); }
};

// Which of the groups of planes an item has, and which strip and band of them. Channels interleaved in memory
// are worked on one after the other, while they are in the cache.
struct Place {
  int64_t group, strip, band;

  __attribute__((always_inline)) inline Place(const Problem& p, const Items& items, int64_t item) {
    const int64_t interleaved = p.x.stride_c == 1 && items.group == 1 ? p.channels : 1;
    const int64_t cuts = items.bands * items.strips, cut = item / interleaved % cuts;
    group = item % interleaved + item / interleaved / cuts * interleaved;
    strip = cut % items.strips, band = cut / items.strips;
  }
};

// fine *= gain[plane]
struct Scaling {
  int64_t batch, channels, height, width;
  Images fine;
  const double* gains;  // [planes]
};

// fine = gain[plane] * fine + upsampled(coarse) / 4: the adjoint of the 2x2 means; or of those under weights,
// where there are masks of both.
struct Unpooling {
  Scaling scaling;
  Images coarse;
  OddSide odd_side;
  Images mask, coarse_mask;
};

// How volumes are cut into items: parts of their depth, height and width.
struct VolumeItems {
  int64_t parts[3];
  int64_t planes;
  __attribute__((always_inline)) inline int64_t pieces() const { return parts[0] * parts[1] * parts[2]; }
  __attribute__((always_inline)) inline int64_t count() const { return planes * pieces(); }
};

// One set of CPU kernels, compiled for one instruction set. `scale` and `unpool` take rows [begin, end)
// of all planes.
struct CpuKernels {
  const char* name;
  Items (*items)(const Problem&, int64_t threads);
  void (*similarity)(const Problem&, const Items&, int64_t item, bool in_double);
  void (*scale)(const Scaling&, int64_t begin, int64_t end);
  void (*unpool)(const Unpooling&, int64_t begin, int64_t end);
  VolumeItems (*volume_items)(const VolumeProblem&);
  void (*volume)(const VolumeProblem&, const VolumeItems&, int64_t item);
  // Of a mask's weights, `count` of row h of a plane, from column `first` on.
  double (*sum_of_row)(const Images&, int64_t n, int64_t c, int64_t h, int64_t first, int64_t count);
};

const CpuKernels& cpu_kernels();  // the best set this machine runs, or SSIMLOSS_CPU's

}  // namespace ssimloss
