// Maps in bounded memory: a problem goes through them portion by portion, some planes and some of their rows
// at a time, each launch after the other. The maps of a plane are a ring of rows, so that none is made twice:
// a portion makes those that its gradient needs and the ones before have not made, over the oldest.
//
//     pixels     ├── portion 0 ──┼── portion 1 ──┼── portion 2 ──┤
//     positions  ├─ made by 0 ──────┼─ made by 1 ───┼─ by 2 ─────┤     radius further; in steps
//     kept for portion 1      ├───────────────────┤                    its rows, a radius to both sides
//
// Host side, no CUDA headers.
#pragma once

#include <algorithm>

#include "../route.h"

namespace ssimloss {

// Numbers that a family of kernels keeps of a position, and of a pixel of the portion. A portion's first
// position is a multiple of `step`.
struct Kept {
  int64_t maps, parts, step;
};

// What the kernels are told of a launch, in rows of the image.
struct LaunchRows {
  int first, end;             // of the positions or pixels that it makes
  int first_band, bands;      // which of a plane's bands these are
  int ring_first, ring_rows;  // the row, not after the first one needed, that lies where the ring begins
  int maps_end;               // rows from here on have no maps yet
  int part_rows;              // of the gradient in scratch memory

  // Where in the ring the maps of a row lie.
  SSIMLOSS_BOTH int in_ring(int row) const {
    const int at = row - ring_first;
    return at < ring_rows ? at : at - ring_rows;
  }
};

inline int64_t positions_down(const Problem& p) { return p.height - 2 * crop_of(p); }

// What maps may have: all but the sums of blocks, of which each has 8 x 8 positions at least (or half, for
// planes of one pixel or two).
inline int64_t room_for_maps(const Problem& p) {
  const int64_t blocks = p.batch * p.channels * divided(p.height, 8) * divided(p.width, 8);
  const int64_t bound = scratch_bound(p);
  return std::max(bound / 2, bound - rounded(blocks * 2 * int64_t(sizeof(double)), 256));
}

// As many rows of these planes as there is room for, in portions of about the same size; or the least.
inline Portions of_planes(const Problem& p, const Kept& kept, int64_t images, int64_t channels) {
  Portions at{images, channels, p.height, positions_down(p), 0};
  const int64_t least = std::max<int64_t>(16, kept.step);
  const auto too_large = [&] {
    const int64_t of_maps = kept.maps * at.map_rows * (p.width - 2 * crop_of(p));
    at.bytes =
        images * channels * (of_maps + kept.parts * at.rows * p.width) * element_size(arithmetic(p.x.dtype));
    return at.bytes > room_for_maps(p);
  };
  for (int64_t n = 2; too_large() && at.rows > least; ++n) {
    at.rows = std::min(p.height, rounded(divided(p.height, n), least));
    at.map_rows = positions_down(p);
    if (at.rows < p.height)
      at.map_rows = std::min(at.map_rows, at.rows + 2 * largest_radius(p) + kept.step - 1);
  }
  return at;
}

// f(portions) for those that there is room for, from all planes at a time to half as many as have room with
// all of their rows. All at once, if they have: then nothing else.
template <class F>
void each_of_planes(const Problem& p, const Kept& kept, F f) {
  const int64_t batch = std::max<int64_t>(1, p.batch);
  int64_t whole = 0, before = 0;  // planes
  for (int64_t n = 1; n < batch + p.channels; ++n) {
    const int64_t images = n <= batch ? divided(batch, n) : 1;
    const int64_t channels = n <= batch ? p.channels : divided(p.channels, n - batch + 1);
    const int64_t planes = images * channels;
    if (planes == before) continue;
    const Portions at = of_planes(p, kept, images, channels);
    before = planes;
    if (at.bytes > room_for_maps(p) && planes > 1) continue;
    if (at.rows == p.height && whole == 0) whole = planes;
    if (2 * planes < whole) return;
    f(at);
    if (whole == batch * p.channels) return;
  }
}

inline int64_t count_of(const Problem& p, const Portions& at) {
  return divided(p.batch, at.images) * divided(p.channels, at.channels) * divided(p.height, at.rows);
}

inline LaunchRows in_bands(LaunchRows rows, int64_t band_rows) {
  rows.bands = int(divided(rows.end - rows.first, band_rows));
  return rows;
}

// f(rows of positions, in bands, rows of pixels) for each portion of a plane's rows.
template <class F>
void each_of_rows(const Problem& p, const Kept& kept, const Portions& at, int64_t band_rows, F f) {
  const int64_t crop = crop_of(p), radius = largest_radius(p);
  LaunchRows positions{}, pixels{};
  positions.end = int(crop);
  for (int64_t row = 0; row < p.height; row += at.rows, positions.first_band += positions.bands) {
    const int64_t until = std::min(p.height, row + at.rows);
    const int64_t made = until == p.height ? p.height : rounded(until + radius - crop, kept.step);
    const int64_t ring = std::max<int64_t>(0, row - radius - crop) / at.map_rows * at.map_rows;
    positions.first = positions.end, positions.end = int(crop + std::min(positions_down(p), made));
    positions.ring_first = int(crop + ring), positions.ring_rows = int(at.map_rows);
    positions.maps_end = positions.end, positions.part_rows = int(at.rows);
    positions = in_bands(positions, band_rows);
    pixels = positions, pixels.first = int(row), pixels.end = int(until);
    f(positions, pixels);
  }
}

// f(similarity) for each portion of the planes.
template <class F>
void each_portion(const Similarity& s, F f) {
  const Problem& p = s.problem;
  const Portions& at = s.cut.portions;
  for (int64_t image = 0; image < p.batch; image += at.images) {
    for (int64_t channel = 0; channel < p.channels; channel += at.channels) {
      Similarity part = from_image(s, image, channel);
      part.problem.batch = std::min(at.images, p.batch - image);
      part.problem.channels = std::min(at.channels, p.channels - channel);
      f(part);
    }
  }
}

// The problem, or, where a ring of whole rows would be too large, its transpose: windows are as high as wide.
inline Problem upright(const Problem& p, const Kept& kept) {
  if (p.width <= p.height || of_planes(p, kept, 1, 1).bytes <= room_for_maps(p)) return p;
  Problem turned = p;
  std::swap(turned.height, turned.width);
  for (Images* images : {&turned.x, &turned.y, &turned.grad_x, &turned.grad_y, &turned.loss_map,
                         &turned.grad_map, &turned.mask})
    std::swap(images->stride_h, images->stride_w);
  return turned;
}

}  // namespace ssimloss
