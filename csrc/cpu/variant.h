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

#include "tile.h"

#include "join.h"

#include "source.h"

#include "item.h"

#include "moments.h"

#include "stream.h"

#include "wide_moments.h"

#include "wide.h"

#include "pyramid.h"

#include "volume_side.h"

#include "volume.h"

#include "volume_items.h"

bool in_double(DType dtype) { return dtype == DType::float64; }

// How wide strips may be: as the rings fit into the L2 cache, or 4 MB where wide filters take longer than it
// takes to fetch what they read; and as far as one base in a segment is close enough to what a window sees
// (8 radii: with 13, photographs beside their negatives lose half of a gradient's last digit).
int64_t widest_strip(const Problem& p, bool wide, int64_t size) {
  const Window& window = p.windows[p.scales - 1];
  const int64_t r = window.radius, lanes = VECTOR_BYTES / size;
  if (!wide) return smaller((640 << 10) / (9 * (2 * r + 8) * size), (8 * lanes + 2) * larger(r, 2));
  const int64_t longest = larger(larger(8 * r, int64_t(12 / window.weights[0])), 16);
  return smaller(larger(wide_columns(p, size), 8 * r), lanes * longest);
}

// Planes side by side where one alone would leave lanes idle or halos wide; bands for as many threads as
// there are, whose cost is the rows around them.
Items items(const Problem& p, int64_t threads) {
  if (p.scales == 0) return l1_items(p);
  const bool wide = is_wide(p, in_double(p.x.dtype));
  const int64_t size = in_double(p.x.dtype) ? 8 : 4, lanes = VECTOR_BYTES / size;
  const int64_t r = p.windows[p.scales - 1].radius, widest = widest_strip(p, wide, size);
  const bool around = p.padding == Padding::reflect || (has_zeros_around(p) && !wide);
  const int64_t padded = p.width + (around ? 2 * r : 0);
  Items items{};
  items.planes = p.batch * p.channels;
  items.strips = padded <= widest ? 1 : ceil_div(p.width, larger(widest - 2 * r, 4 * r));
  items.group = 1;
  int64_t least = INT64_MAX;
  for (int64_t group = 1; group <= lanes && items.strips == 1; group *= 2) {
    const int64_t s = wide ? ceil_div(padded, 4 * lanes / group) * 4 : ceil_div(padded, lanes / group);
    const int64_t beside = wide ? r : 3 * r + (group > 1 ? 8 : 0);  // several planes are not fetched ahead
    const int64_t cost = ceil_div(items.planes, group) * (4 * s + beside);
    if (s * lanes <= larger(widest, ceil_div(padded, lanes) * lanes) && cost < least)
      least = cost, items.group = group;
  }
  const int64_t blocks = ceil_div(p.height + Halving{p.height, p.odd_side}.zeros(), block_rows);
  items.pieces = items.strips * blocks;
  const int64_t cuts = ceil_div(items.planes, items.group) * items.strips;
  items.bands = 1;
  least = INT64_MAX;
  for (int64_t bands = 1; bands <= larger(1, blocks / (ceil_div(r, block_rows) + 1)); ++bands) {
    const int64_t beyond = bands == 1 ? 0 : (bands == 2 ? r : 2 * r);
    const int64_t cost =
        ceil_div(cuts * bands, threads) * (ceil_div(blocks, bands) * block_rows * 5 + beyond * 4);
    if (cost < least) least = cost, items.bands = bands;
  }
  return items;
}

template <class T>
void similarity_in(const Problem& p, const Items& items, int64_t item) {
  if (p.scales == 0) return l1<T>(p, item);
  is_wide(p, sizeof(T) == 8) ? Wide<T>(p, items, item).run() : Stream<T>(p, items, item).run();
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
