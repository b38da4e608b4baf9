// What torch/cpu.cpp asks of the CPU kernels: plain data, one set of kernels for each instruction set.
#pragma once

#include "../problem.h"

namespace ssimloss {

// How a problem is cut into items: the same for every number of threads, so the sums are too.
struct Items {
  int64_t strips, bands, planes;
  int64_t group;  // planes that lie side by side in an item, where one alone would be too narrow
  int64_t count() const { return strips * bands * ((planes + group - 1) / group); }
};

// fine *= gain[plane]
struct Scaling {
  int64_t batch, channels, height, width;
  Images fine;
  const double* gains;  // [planes]
};

// fine = gain[plane] * fine + upsampled(coarse) / 4: the adjoint of the 2x2 means.
struct Unpooling {
  Scaling scaling;
  Images coarse;
  OddSide odd_side;
};

// One set of CPU kernels, compiled for one instruction set. The last two take rows [begin, end) of all
// planes.
struct CpuKernels {
  const char* name;
  Items (*items)(const Problem&);
  void (*similarity)(const Problem&, int64_t item);
  void (*scale)(const Scaling&, int64_t begin, int64_t end);
  void (*unpool)(const Unpooling&, int64_t begin, int64_t end);
};

const CpuKernels& cpu_kernels();  // the best set this machine runs, or SSIMLOSS_CPU's

}  // namespace ssimloss
