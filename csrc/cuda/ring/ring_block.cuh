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
    Layout layout;
    raw = int(layout.take(2 * each_raw)), moments_at = int(layout.take(moments * each_moment));
    maps_at = int(layout.take((gradients ? maps : 1) * K * map_pitch));  // a loss map is gathered there
    ring = int(layout.take(maps * capacity * ring_pitch));
    bases = int(layout.take(2 * chunks * cells, 4));
    taps = int(layout.take(2 * radius + 4, 4));
    end = queues = int(layout.used());
  }

  static constexpr int rounded(int v, int to) { return (v + to - 1) / to * to; }
  // The four-element accesses of 2 rows and 4 groups of 8 columns side by side then meet no bank twice.
  static constexpr int odd_fours(int v) { return rounded(v, 8) + 4; }
};

struct RingParams : KernelParams<float> {
  RingSizes sizes;
  // The weight of input k of an output, k from 0 to 2 radius; the first ones again, for K + 2 known places.
  float taps[2 * ring_max_radius + 1], rim[10];
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
// In the phases along rows a thread has a row and a group of K columns; for K = 8, 8 lanes have two rows of
// four groups.
template <int K>
__device__ __forceinline__ int row_of_lane() {
  return K == 8 ? lane() / 8 * 2 + lane() / 4 % 2 : lane() / 8;
}
template <int K>
__device__ __forceinline__ int group_of_lane(int task) {
  return K == 8 ? 4 * task + lane() % 4 : 8 * task + lane() % 8;
}
// The next of the tasks that all warps share, after a first one each, that of the warp's own number: then
// no scheduler, which has every fourth warp, gets more of them than another. queue counts those taken.
__device__ __forceinline__ int take(unsigned* queue) {
  const unsigned task = lane() == 0 ? atomicAdd(queue, 1u) : 0;
  return int(__shfl_sync(0xffffffffu, task, 0));
}

class RingBlock {
 public:
  __device__ __forceinline__ RingBlock(const RingParams& params, unsigned char* shared)
      : RingBlock(params, shared, int(blockIdx.x), params.bands, params.band_rows) {}

  __device__ __forceinline__ RingBlock(const RingParams& params, unsigned char* shared, int piece, int bands,
                                       int band_rows)
      : p(params), s(params.sizes) {
    float* all = reinterpret_cast<float*>(shared);
    raw = all + s.raw, moments = all + s.moments_at, maps = all + s.maps_at, ring = all + s.ring;
    bases = all + s.bases, taps = all + s.taps;
    const Piece own = piece_of(p, piece, bands, band_rows);
    image = own.image, channel = own.channel, row0 = own.row, col0 = own.col;
    row1 = row0 + band_rows < p.height ? row0 + band_rows : p.height;
    col1 = col0 + p.own < p.width ? col0 + p.own : p.width;
    filled = s.reach - s.margin - p.radius + s.columns;
  }

 protected:
  const RingParams& p;
  const RingSizes& s;
  float* raw;      // [2][capacity][raw_pitch]: x and y; columns from col0 - reach
  float* moments;  // [quantity][K][moment_pitch]: columns from col0 - margin - radius
  float* maps;     // [map][K][map_pitch]: columns from col0 - margin
  float* ring;     // [map][capacity][ring_pitch]: columns from col0
  float* bases;    // [chunks][2][cells]: of m and d
  float* taps;     // that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  int image, channel;
  int row0, row1, col0, col1;  // own pixels
  int filled;                  // columns of `raw` that are needed

  // What zero padding is in d: of a pyramid, less what was taken off.
  __device__ __forceinline__ float pad_d() const {
    return p.pyramid ? -p.offsets[plane_of(p, image, channel)] : 0.f;
  }

  // ---- `count` rows of x and y from image row `row`, with what padding adds, into slot `slot` of the ring.
  __device__ __forceinline__ void fill(int row, int slot, int count) {
    with_type(p.dtype, [&](auto* tag) { fill_from(row, slot, count, tag); });
    __pipeline_commit();
  }

  template <class E>
  __device__ __forceinline__ void fill_from(int row, int slot, int count, E*) {
    const int first = col0 - s.reach, pitch = s.raw_pitch;
    const E *plane_x = p.x.plane<E>(image, channel), *plane_y = p.y.plane<E>(image, channel);
#pragma unroll 1
    for (int line = warp(); line < count; line += ring_threads / 32) {
      int from = row + line;
      if (p.padding == Padding::reflect) from = mirrored(from, p.height);
      const bool exists = from >= 0 && from < p.height;
      const E *x = plane_x + (exists ? from : 0) * p.x.h, *y = plane_y + (exists ? from : 0) * p.y.h;
      const int at = slot + line < s.capacity ? slot + line : slot + line - s.capacity;
      float *to_x = raw + at * pitch, *to_y = to_x + s.each_raw;
      const int step = p.in_fours ? 4 : 1;
#pragma unroll 1
      for (int k = step * lane(); k < filled; k += step * 32) {
        if (p.in_fours && exists && first + k >= 0 && first + k + 4 <= p.width) {
          copy_four(x + (first + k), to_x + k);
          copy_four(y + (first + k), to_y + k);
          continue;
        }
#pragma unroll 1
        for (int u = k; u < k + step; ++u)
          fill_pixel(p, x, y, first + u, exists, pad_d(), to_x + u, to_y + u);
      }
    }
  }

  // m and d, in units of the data range, less their bases: from x and y, but a pyramid's m is x and its d is
  // y (then the other one is multiplied by 0: a NaN reaches the whole plane anyway).
  struct Reading {
    float by, scale, base_m, base_d;
    bool pyramid;
    __device__ __forceinline__ float m(float x, float y) const { return (by * y + x) * scale - base_m; }
    __device__ __forceinline__ float d(float x, float y) const {
      return ((pyramid ? y : x) - by * y) * scale - base_d;
    }
  };
  __device__ __forceinline__ Reading reading(float base_m, float base_d) const {
    return {p.pyramid ? 0.f : 1.f, p.pyramid ? 1.f : p.inverse_range, base_m, base_d, p.pyramid};
  }
};

}  // namespace ssimloss
