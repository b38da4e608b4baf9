// A block of ring.cuh, scales.cuh or adjoint.cuh: what it owns, its shared memory, the rows of pixels that it
// reads, the maps' blur. Means and variances: ring_moments.cuh.
//
// A mean is stored relative to the base of its cell of K x K pixels. The base is the middle one of three
// pixels, so that no single huge one or NaN spreads. A filter that reads several cells first moves their
// means to one base. A region of huge values (1e5 times those beside it) may cost the digits of windows that
// end up to K - 1 pixels before it.
#pragma once

#include "../common/portions.h"
#include "ring_filters.cuh"

namespace ssimloss {

constexpr int ring_threads = 256, ring_max_radius = 16, ring_max_own = 256;

// Sizes of a block's shared memory, in elements; K x K pixels are a cell. Columns and rows of moments lie
// radius further out than those of positions, and these radius further than those of the gradient.
struct RingSizes {
  int margin;            // of the positions around the own pixels
  int lag, reach;        // 2 radius and (margin + radius) rounded up to multiples of 4
  int groups;            // of K columns of positions
  int columns, cells;    // of moments
  int capacity, chunks;  // rows of the rings; chunks of which the bases are kept
  int repeated;          // rows that the ring of pixels has twice, so that 4 of any slot follow one another
  int raw_pitch, moment_pitch, map_pitch, ring_pitch;
  int moments, maps;                               // kept of each place
  int each_raw, each_moment, each_map, each_ring;  // from one quantity to the next
  int raw, moments_at, maps_at, ring, bases, taps, partial, queues, end;

  RingSizes() = default;
  RingSizes(int K, int radius, int own_columns, int gradients, bool windowed_l1, bool weighted) {
    margin = gradients ? radius : 0;
    lag = int(rounded(2 * radius, 4)), reach = int(rounded(margin + radius, 4));
    groups = (own_columns + 2 * margin + K - 1) / K;
    columns = K * groups + 2 * radius, cells = (columns + K - 1) / K;
    capacity = lag + K, chunks = (lag + K - 1) / K + 2;
    raw_pitch = int(rounded(columns + reach - margin - radius, 4));
    moment_pitch = odd_fours(columns), map_pitch = odd_fours(K * groups), ring_pitch = odd_fours(own_columns);
    moments = 4 + windowed_l1 + (weighted ? 2 : 0), maps = gradients ? 2 + gradients + windowed_l1 : 0;
    repeated = 0;
    each_raw = capacity * raw_pitch, each_moment = K * moment_pitch;
    each_map = K * map_pitch, each_ring = capacity * ring_pitch;
    // A loss map is gathered where a gradient has its maps.
    lay_out((weighted ? 3 : 2) * each_raw, moments * each_moment, (gradients ? maps : 1) * each_map,
            maps * each_ring, 2 * chunks * cells, 2 * radius + 4);
  }
  // Where each part begins, in the order of the members; so many elements each.
  void lay_out(int of_raw, int of_moments, int of_maps, int of_ring, int of_bases, int of_taps,
               int of_partial = 0, int of_queues = 0) {
    Layout layout;
    raw = int(layout.take(of_raw)), moments_at = int(layout.take(of_moments));
    maps_at = int(layout.take(of_maps)), ring = int(layout.take(of_ring));
    bases = int(layout.take(of_bases, 4)), taps = int(layout.take(of_taps, 4));
    partial = int(layout.take(of_partial)), queues = int(layout.take(of_queues)), end = int(layout.used);
  }

  int64_t bytes() const { return end * int64_t(sizeof(float)); }

  // The four-element accesses of 2 rows and 4 groups of 8 columns side by side then meet no bank twice.
  static int odd_fours(int v) { return int(rounded(v, 8)) + 4; }
};

struct RingParams : KernelParams<float> {
  RingSizes sizes;
  // Half a window from its centre on; and the weights of the first inputs of an output, for K + 2 known
  // places.
  float taps[ring_max_radius + 1], rim[10];
};

// The three pixels of a cell of K x K that its base is made of: place u of both its rows and its columns.
template <int K>
INLINE int cell_pixel(int u) {
  constexpr int step = K / 4;  // 1, 4, 6 of 8 or 0, 2, 3 of 4
  return u == 0 ? step - 1 : (u == 1 ? 2 * step : 3 * step);
}

// Slots of a ring of `size`, and the same of its cells.
INLINE int next(int slot, int by, int size) { return slot + by < size ? slot + by : slot + by - size; }
INLINE int previous(int slot, int by, int size) { return slot >= by ? slot - by : slot - by + size; }
INLINE int divided_up(int a, int b) { return (a + b - 1) / b; }
INLINE int warp() { return int(threadIdx.x) / 32; }
INLINE int lane() { return again(int(threadIdx.x)) % 32; }
// The next of the tasks that all warps share, after a first one each, that of the warp's own number: then
// no scheduler, which has every fourth warp, gets more of them than another. queue counts those taken.
INLINE int take(unsigned* queue) {
  const unsigned task = lane() == 0 ? atomicAdd(queue, 1u) : 0;
  return int(__shfl_sync(0xffffffffu, task, 0));
}

// From one barrier to the next: tasks of four kinds, which warps take in turn. Those of kind j end before
// ends[j].
struct Interval {
  unsigned taken;
  int ends[4];

  INLINE void set(int first, int second, int third, int fourth) {
    taken = blockDim.x / 32;
    ends[0] = first, ends[1] = first + second, ends[2] = ends[1] + third, ends[3] = ends[2] + fourth;
  }
  template <class First, class Second, class Third, class Fourth>
  INLINE void each_task(First first, Second second, Third third, Fourth fourth) {
#pragma unroll 1
    for (int task = warp(); task < ends[3]; task = take(&taken)) {
      if (task < ends[0]) {
        first(task);
      } else if (task < ends[1]) {
        second(task - ends[0]);
      } else if (task < ends[2]) {
        third(task - ends[1]);
      } else {
        fourth(task - ends[2]);
      }
    }
  }
};

class RingBlock {
 public:
  INLINE RingBlock(const RingParams& params)
      : RingBlock(params, piece_of(params, int(blockIdx.x), params.bands, params.band_rows),
                  params.band_rows) {}

  // The own pixels, or positions, begin `crop` further down and to the right than those of the piece.
  INLINE RingBlock(const RingParams& params, const Piece& own, int band_rows, int crop = 0)
      : p(params),
        s(params.sizes),
        plane{params, own.image, own.channel},
        row0(own.row + crop),
        col0(own.col + crop) {
    row1 = row0 + band_rows < p.height - crop ? row0 + band_rows : p.height - crop;
    col1 = col0 + p.own < p.width - crop ? col0 + p.own : p.width - crop;
  }

 protected:
  // The own rows, of a launch that has some of the image: from its `row` on.
  INLINE void set_rows(const LaunchRows& launch, int row, int band_rows) {
    row0 = launch.first + row, row1 = row0 + band_rows < launch.end ? row0 + band_rows : launch.end;
  }

  INLINE static float* shared(int at) { return reinterpret_cast<float*>(ssimloss_shared) + at; }

  const RingParams& p;
  const RingSizes& s;
  const Plane<float> plane;
  float* raw = shared(s.raw);             // [2][capacity][raw_pitch]: x and y; columns from col0 - reach
  float* moments = shared(s.moments_at);  // [quantity][K][moment_pitch]: from col0 - margin - radius
  float* maps = shared(s.maps_at);        // [map][K][map_pitch]: columns from col0 - margin
  float* ring = shared(s.ring);           // [map][capacity][ring_pitch]: columns from col0
  float* bases = shared(s.bases);         // [chunks][2][cells]: of m and d
  float* taps = shared(s.taps);  // that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  int row0, col0, row1, col1;    // own pixels
  int filled = s.reach - s.margin - p.radius + s.columns;  // columns of `raw` that are needed

  // ---- `count` rows of x and y from image row `row`, with what padding adds, into slot `slot` of the ring.
  template <bool Weighted = false>
  INLINE void fill(int row, int slot, int count) {
    plane.with_type<Weighted>([&](auto* tag) {
#pragma unroll 1
      for (int line = warp(); line < count; line += ring_threads / 32) {
        float* to = raw + next(slot, line, s.capacity) * s.raw_pitch;
        copy_row(plane, tag, row + line, col0 - s.reach, filled, lane(), 32, plane.pad_d(), to,
                 to + s.each_raw);
      }
    });
    __pipeline_commit();
  }

  template <bool Sums = false>
  INLINE Values<Sums> values(Pair<float> base) const {
    return {p.pyramid, plane.inverse_range(), base};
  }
  INLINE Cells cells(int at) const { return {bases + at, s.cells}; }

  // ---- The maps of a chunk along a row, from windows that begin at `from`, a cell's first, into the ring of
  // maps. cells: from that cell on; cells[middle] becomes the base of the result.
  template <int K, int M>
  INLINE void maps_along(const RingWindow& window, const float* from, Cells cells, int middle, bool with_l1,
                         float* to) const {
    Some<K> out[M], l1[1];
    blur_maps(
        window, [&](int q, int i, auto N) { return some<N.value>(from + q * s.each_map + i); },
        [&](int i) { return cells[i / K]; }, cells[middle], with_l1, out, l1);
#pragma unroll
    for (int q = 0; q < M; ++q) put(out[q], to + q * s.each_ring);
    if (with_l1) put(l1[0], to + M * s.each_ring);
  }

  // ---- Then down a column, which gives the gradient at the own ones of the K pixels from `row` on: out's
  // last one or two. Input i lies in slot `slot_of(i)` of the ring, as the three after it; its base is
  // cells[chunk(i)]. The answer: the pixels' x - y.
  template <bool Weighted, int K, int M, class SlotOf, class Chunk>
  INLINE Some<K> maps_down(const RingWindow& window, int row, int column, SlotOf slot_of, Cells cells,
                           Chunk chunk, bool with_l1, Some<K> (&out)[M]) const {
    const Pair<float> base = cells[chunk(window.radius + (K - 1) / 2)];
    const auto part = [&](int q, int i, auto N) {
      const float* from = ring + q * s.each_ring + slot_of(i) * s.ring_pitch + column;
      Some<N.value> part;
#pragma unroll
      for (int u = 0; u < N.value; ++u) part[u] = from[u * s.ring_pitch];
      return part;
    };
    Some<K> l1[1];
    blur_maps(window, part, [&](int i) { return cells[chunk(i)]; }, base, with_l1, out, l1);
    float x[K] = {}, y[K] = {};
    plane.with_pixels<Weighted>(row, col0 + column, [&](auto* from_x, auto* from_y) {
#pragma unroll
      for (int o = 0; o < K; ++o) {
        if (row + o >= row0 && row + o < row1) x[o] = wide(from_x[o * p.x.h]), y[o] = wide(from_y[o * p.y.h]);
      }
    });
    const Values<> value = values(base);
    Some<K> difference;
#pragma unroll
    for (int o = 0; o < K; ++o) {
      difference[o] = x[o] - y[o];
      const Pair<float> pixel = value(x[o], y[o]);
      const float by_m = pixel.m * out[0][o], by_d = pixel.d * out[1][o];
      out[2][o] = (out[2][o] - by_m) + by_d;
      if (M == 4) out[M - 1][o] = (out[M - 1][o] - by_m) - by_d;
      if (!with_l1) continue;
      const float by = gradient_of_l1(difference[o], l1[0][o]);
      out[2][o] += by;
      if (M == 4) out[M - 1][o] -= by;
    }
    return difference;
  }
};

}  // namespace ssimloss
