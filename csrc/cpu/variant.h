// The kernels of one instruction set. Each variant's .cpp includes what the standard library gives,
// switches the compiler to its instruction set and includes this file in a namespace of its own;
// nothing from the standard library may be instantiated here, or the linker could hand a function
// built for AVX-512 to a machine without it.

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

#include "vec.h"

// These use what the ones above define.
#include "../ssim_math.h"

#include "convert.h"
#include "fir.h"
#include "segments.h"

#include "l1.h"

#include "source.h"

#include "item.h"

#include "moments.h"

#include "stream.h"

#include "wide_moments.h"

#include "wide.h"

#include "pyramid.h"

#include "volume.h"

bool in_double(DType dtype) { return dtype == DType::float64; }

// How many planes to put side by side in an item: halved lanes a plane as long as segments do not get too
// wide and items are left for several threads.
int64_t planes_together(int64_t planes, int64_t width, int64_t lanes, int64_t widest) {
  int64_t group = 1;
  while (2 * group <= lanes && ceil_div(planes, 2 * group) >= 8 &&
         ceil_div(width, lanes / (2 * group)) * lanes <= widest)
    group *= 2;
  return group;
}

// For stream.h: strips narrow enough for the rings to stay in the L2 cache, but wide enough to repay the
// columns around them; bands high enough to repay the rows, and items enough for many threads; segments of at
// most eight radii, whose base is close enough to what a window sees. Depends on shapes alone: same bits for
// any threads.
Items items(const Problem& p, int64_t threads) {
  if (p.scales == 0) return l1_items(p);
  if (is_wide(p)) return wide_items(p, threads);
  const int64_t size = in_double(p.x.dtype) ? 8 : 4, r = p.windows[0].radius;
  const int64_t ring_rows = 2 * (2 * r + 8) + 7 * (2 * r + 8);
  const int64_t cache = 400 << 10, segments = VECTOR_BYTES / size * 8 * larger(r, 2);
  const int64_t widest = smaller(larger(smaller(32 * r, 1024), cache / (ring_rows * size)), segments);
  Items items{};
  items.planes = p.batch * p.channels;
  items.strips = ceil_div(p.width, widest);
  items.group = 1;
  if (items.strips == 1) {
    const int64_t padded = p.width + (p.padding == Padding::valid ? 0 : 2 * r);
    items.group =
        planes_together(items.planes, padded, VECTOR_BYTES / size, smaller(segments, larger(widest, 40 * r)));
  }
  const int64_t pieces = ceil_div(items.planes, items.group) * items.strips;
  const int64_t wanted = larger(ceil_div(8, larger(1, pieces)), p.width * p.height / items.strips >> 17);
  // A plane alone, as a pyramid's top, is cut in two sooner: the other thread would have nothing to do.
  const int64_t alone = pieces == 1 && p.height >= larger(64, 8 * r) ? 2 : 1;
  items.bands = larger(alone, smaller(wanted, p.height / larger(96, 4 * r)));
  items.pieces = items.strips * items.bands;
  return items;
}

template <class T>
void similarity_in(const Problem& p, const Items& items, int64_t item) {
  if (p.scales == 0) return l1<T>(p, item);
  is_wide(p) ? Wide<T>(p, items, item).run() : Stream<T>(p, items, item).run();
}

void similarity(const Problem& p, const Items& items, int64_t item, bool in_double) {
  in_double ? similarity_in<double>(p, items, item) : similarity_in<float>(p, items, item);
}

void scale(const Scaling& p, int64_t begin, int64_t end) {
  in_double(p.fine.dtype) ? scale_rows<double>(p, begin, end) : scale_rows<float>(p, begin, end);
}

void unpool(const Unpooling& p, int64_t begin, int64_t end) {
  in_double(p.scaling.fine.dtype) ? unpool_rows<double>(p, begin, end) : unpool_rows<float>(p, begin, end);
}
