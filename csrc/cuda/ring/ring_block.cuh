// A block of ring.cuh: what it owns, its shared memory, and the rows of pixels that it reads.
#pragma once

#include <type_traits>

#include "../common/block.cuh"

namespace ssimloss {

constexpr int ring_threads = 256, ring_max_radius = 16, ring_max_own = 256;
// Blocks a multiprocessor that a kernel's registers allow: the 128 of two would spill 8 to 40 bytes where it
// is one in float32. The planner counts on two there too: wide windows' shared memory seldom allows them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool ring_spills_at_two = true;
#else
constexpr bool ring_spills_at_two = false;
#endif

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
  int moments, maps;          // kept of each place
  int each_raw, each_moment;  // from one quantity to the next
  int raw, moments_at, maps_at, ring, bases, taps, partial, queues, end;

  RingSizes() = default;
  RingSizes(int K, int radius, int own_columns, int gradients, bool windowed_l1) {
    margin = gradients ? radius : 0;
    lag = rounded(2 * radius, 4), reach = rounded(margin + radius, 4);
    groups = (own_columns + 2 * margin + K - 1) / K;
    columns = K * groups + 2 * radius, cells = (columns + K - 1) / K;
    capacity = lag + K, chunks = (lag + K - 1) / K + 2;
    raw_pitch = rounded(columns + reach - margin - radius, 4);
    moment_pitch = odd_fours(columns), map_pitch = odd_fours(K * groups), ring_pitch = odd_fours(own_columns);
    moments = 4 + windowed_l1, maps = gradients ? 2 + gradients + windowed_l1 : 0;
    repeated = 0;
    each_raw = capacity * raw_pitch, each_moment = K * moment_pitch;
    // A loss map is gathered where a gradient has its maps.
    lay_out(2 * each_raw, moments * each_moment, (gradients ? maps : 1) * K * map_pitch,
            maps * capacity * ring_pitch, 2 * chunks * cells, 2 * radius + 4);
  }
  // Where each part begins, in the order of the members; so many elements each.
  void lay_out(int of_raw, int of_moments, int of_maps, int of_ring, int of_bases, int of_taps,
               int of_partial = 0, int of_queues = 0) {
    Layout layout;
    raw = int(layout.take(of_raw)), moments_at = int(layout.take(of_moments));
    maps_at = int(layout.take(of_maps)), ring = int(layout.take(of_ring));
    bases = int(layout.take(of_bases, 4)), taps = int(layout.take(of_taps, 4));
    partial = int(layout.take(of_partial)), queues = int(layout.take(of_queues)), end = int(layout.used());
  }

  static constexpr int rounded(int v, int to) { return (v + to - 1) / to * to; }
  // The four-element accesses of 2 rows and 4 groups of 8 columns side by side then meet no bank twice.
  static constexpr int odd_fours(int v) { return rounded(v, 8) + 4; }
};

struct RingParams : KernelParams<float> {
  RingSizes sizes;
  // Half a window from its centre on; and the weights of the first inputs of an output, for K + 2 known
  // places.
  float taps[ring_max_radius + 1], rim[10];
};

// Slots of a ring of `size`, and the same of its cells.
__device__ __forceinline__ int next(int slot, int by, int size) {
  return slot + by < size ? slot + by : slot + by - size;
}
__device__ __forceinline__ int previous(int slot, int by, int size) {
  return slot >= by ? slot - by : slot - by + size;
}
__device__ __forceinline__ int divided_up(int a, int b) { return (a + b - 1) / b; }
__device__ __forceinline__ int warp() { return int(threadIdx.x) / 32; }
__device__ __forceinline__ int lane() { return again(int(threadIdx.x)) % 32; }
// The next of the tasks that all warps share, after a first one each, that of the warp's own number: then
// no scheduler, which has every fourth warp, gets more of them than another. queue counts those taken.
__device__ __forceinline__ int take(unsigned* queue) {
  const unsigned task = lane() == 0 ? atomicAdd(queue, 1u) : 0;
  return int(__shfl_sync(0xffffffffu, task, 0));
}

// From one barrier to the next: tasks of four kinds, which warps take in turn. Those of kind j end before
// ends[j].
struct Interval {
  unsigned taken;
  int ends[4];

  __device__ __forceinline__ void set(int first, int second, int third, int fourth) {
    taken = blockDim.x / 32;
    ends[0] = first, ends[1] = first + second, ends[2] = ends[1] + third, ends[3] = ends[2] + fourth;
  }
  template <class First, class Second, class Third, class Fourth>
  __device__ __forceinline__ void each_task(First first, Second second, Third third, Fourth fourth) {
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
  // The own pixels, or positions, begin `crop` further down and to the right than those of the piece.
  __device__ __forceinline__ RingBlock(const RingParams& params, unsigned char* shared, int crop = 0)
      : RingBlock(params, shared, piece_of(params, int(blockIdx.x), params.bands, params.band_rows),
                  params.band_rows, crop) {}

  __device__ __forceinline__ RingBlock(const RingParams& params, unsigned char* shared, const Piece& own,
                                       int band_rows, int crop = 0)
      : p(params),
        s(params.sizes),
        plane{params, own.image, own.channel},
        row0(own.row + crop),
        col0(own.col + crop) {
    float* all = reinterpret_cast<float*>(shared);
    raw = all + s.raw, moments = all + s.moments_at, maps = all + s.maps_at, ring = all + s.ring;
    bases = all + s.bases, taps = all + s.taps;
    row1 = row0 + band_rows < p.height - crop ? row0 + band_rows : p.height - crop;
    col1 = col0 + p.own < p.width - crop ? col0 + p.own : p.width - crop;
    filled = s.reach - s.margin - p.radius + s.columns;
  }

 protected:
  const RingParams& p;
  const RingSizes& s;
  const Plane<float> plane;
  float* raw;                  // [2][capacity][raw_pitch]: x and y; columns from col0 - reach
  float* moments;              // [quantity][K][moment_pitch]: columns from col0 - margin - radius
  float* maps;                 // [map][K][map_pitch]: columns from col0 - margin
  float* ring;                 // [map][capacity][ring_pitch]: columns from col0
  float* bases;                // [chunks][2][cells]: of m and d
  float* taps;                 // that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  int row0, col0, row1, col1;  // own pixels
  int filled;                  // columns of `raw` that are needed

  // ---- `count` rows of x and y from image row `row`, with what padding adds, into slot `slot` of the ring.
  __device__ __forceinline__ void fill(int row, int slot, int count) {
    with_type<float>(p.x.dtype, [&](auto* tag) {
#pragma unroll 1
      for (int line = warp(); line < count; line += ring_threads / 32) {
        float* to = raw + next(slot, line, s.capacity) * s.raw_pitch;
        copy_row(plane, tag, row + line, col0 - s.reach, filled, lane(), 32, plane.pad_d(), to,
                 to + s.each_raw);
      }
    });
    __pipeline_commit();
  }

  // m and d of pixels x and y, less their bases. Of a pyramid m is x and d is y; the other one is then
  // multiplied by 0, as a NaN reaches the whole plane anyway. Pairs: x is x + y, or m, and y is x - y, or d.
  template <bool Pairs>
  struct Values {
    Reading of_m, of_d;
    bool pyramid;
    __device__ __forceinline__ float m(float x, float y) const {
      return Pairs ? x * of_m.scale - of_m.base : of_m(x, y);
    }
    __device__ __forceinline__ float d(float x, float y) const {
      return Pairs ? y * of_d.scale - of_d.base : of_d(pyramid ? y : x, y);
    }
  };
  template <bool Pairs = false>
  __device__ __forceinline__ Values<Pairs> values(float base_m, float base_d) const {
    const float by = p.pyramid ? 0.f : 1.f, scale = p.pyramid ? 1.f : p.inverse_range;
    return {{by, scale, base_m}, {-by, scale, base_d}, p.pyramid};
  }
};

}  // namespace ssimloss
