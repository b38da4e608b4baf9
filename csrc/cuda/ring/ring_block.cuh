// A block of ring.cuh: what it owns, its shared memory, and the rows of pixels that it reads.
#pragma once

#include <type_traits>

#include "../common/pixels.cuh"

namespace ssimloss {

constexpr int ring_threads = 256, ring_max_radius = 16, ring_max_own = 256;
// Blocks a multiprocessor that a kernel's registers allow: the 128 of two would spill 8 to 40 bytes where it
// is one in float32. ring_plan counts on two there too: wide windows' shared memory seldom allows them.
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
  RingSizes(int K, int radius, int own, int gradients, bool windowed_l1) {
    margin = gradients ? radius : 0;
    lag = rounded(2 * radius, 4), reach = rounded(margin + radius, 4);
    groups = (own + 2 * margin + K - 1) / K;
    columns = K * groups + 2 * radius, cells = (columns + K - 1) / K;
    capacity = lag + K, chunks = (lag + K - 1) / K + 2;
    raw_pitch = rounded(columns + reach - margin - radius, 4);
    moment_pitch = odd_fours(columns), map_pitch = odd_fours(K * groups), ring_pitch = odd_fours(own);
    moments = 4 + windowed_l1, maps = gradients ? 2 + gradients + windowed_l1 : 0;
    repeated = 0;
    each_raw = capacity * raw_pitch, each_moment = K * moment_pitch;
    raw = 0;
    moments_at = raw + 2 * each_raw;
    maps_at = moments_at + moments * each_moment;
    ring = maps_at + (gradients ? maps : 1) * K * map_pitch;  // a loss map is gathered there
    bases = ring + maps * capacity * ring_pitch;
    taps = bases + rounded(2 * chunks * cells, 4);
    end = queues = taps + rounded(2 * radius + 4, 4);
  }

  static constexpr int rounded(int v, int to) { return (v + to - 1) / to * to; }
  // The four-element accesses of 2 rows and 4 groups of 8 columns side by side then meet no bank twice.
  static constexpr int odd_fours(int v) { return rounded(v, 8) + 4; }
};

template <class T>
struct RingParams {
  View x, y;  // images; or in a pyramid m and d
  View grad_x, grad_y, loss_map, grad_map;
  DType dtype, grad_map_dtype;
  bool pyramid;
  bool channel_first;  // blocks beside each other: channels of one strip
  bool in_fours;       // see elements.cuh
  bool l1, l1_windowed;
  int channels, height, width, radius;
  Padding padding;
  int own, strips, bands, band_rows;  // columns of a strip, a multiple of 8; of one plane
  RingSizes sizes;
  // The weight of input k of an output, k from 0 to 2 radius; the first ones again, for K + 2 known places.
  T taps[2 * ring_max_radius + 1], rim[10];
  T c1, c2, inverse_range;
  T luminance;  // 1, or 0: cs alone
  T ssim_weight, l1_weight, ssim_gain, l1_gain;
  const void* incoming;
  bool incoming_double;
  int64_t incoming_stride;
  const T* offsets;  // pyramid: what was taken off d, per plane
  double* sums;      // [planes][pieces][2]
};

template <class T>
class RingBlock {
 public:
  __device__ __forceinline__ RingBlock(const RingParams<T>& params, unsigned char* shared)
      : RingBlock(params, shared, int(blockIdx.x), params.bands, params.band_rows) {}

  __device__ __forceinline__ RingBlock(const RingParams<T>& params, unsigned char* shared, int piece,
                                       int bands, int band_rows)
      : p(params), s(params.sizes) {
    T* all = reinterpret_cast<T*>(shared);
    raw = all + s.raw, moments = all + s.moments_at, maps = all + s.maps_at, ring = all + s.ring;
    bases = all + s.bases, taps = all + s.taps;
    const int pieces = p.strips * bands;
    if (p.channel_first) {
      channel = piece % p.channels, piece /= p.channels;
      image = piece / pieces, piece %= pieces;
    } else {
      image = piece / pieces, piece %= pieces;
      channel = image % p.channels, image /= p.channels;
    }
    row0 = piece / p.strips * band_rows, col0 = piece % p.strips * p.own;
    row1 = row0 + band_rows < p.height ? row0 + band_rows : p.height;
    col1 = col0 + p.own < p.width ? col0 + p.own : p.width;
    filled = s.reach - s.margin - p.radius + s.columns;
  }

 protected:
  const RingParams<T>& p;
  const RingSizes& s;
  T* raw;      // [2][capacity][raw_pitch]: x and y; columns from col0 - reach
  T* moments;  // [quantity][K][moment_pitch]: columns from col0 - margin - radius
  T* maps;     // [map][K][map_pitch]: columns from col0 - margin
  T* ring;     // [map][capacity][ring_pitch]: columns from col0
  T* bases;    // [chunks][2][cells]: of m and d
  T* taps;     // that of input k at k + 3: those of inputs 1, 5, 9, ... lie on 16 bytes
  int image, channel;
  int row0, row1, col0, col1;  // own pixels
  int filled;                  // columns of `raw` that are needed

  __device__ __forceinline__ static int warp() { return int(threadIdx.x) / 32; }
  __device__ __forceinline__ static int lane() { return again(int(threadIdx.x)) % 32; }

  // The next of the tasks that all warps share, after a first one each, that of the warp's own number: then
  // no scheduler, which has every fourth warp, gets more of them than another. queue counts those taken.
  __device__ __forceinline__ static int take(unsigned* queue) {
    const unsigned task = lane() == 0 ? atomicAdd(queue, 1u) : 0;
    return int(__shfl_sync(0xffffffffu, task, 0));
  }

  __device__ __forceinline__ int crop() const {  // where positions begin
    return p.padding == Padding::valid ? p.radius : 0;
  }

  // What zero padding is in d: of a pyramid, less what was taken off.
  __device__ __forceinline__ T pad_d() const {
    return p.pyramid ? -p.offsets[int64_t(image) * p.channels + channel] : T(0);
  }

  // f(a pointer of the images' type)
  template <class F>
  __device__ __forceinline__ void with_type(F f) const {
    if constexpr (std::is_same_v<T, double>) {
      f(static_cast<double*>(nullptr));
    } else {
      switch (p.dtype) {
        case DType::float16: return f(static_cast<Half*>(nullptr));
        case DType::bfloat16: return f(static_cast<Brain*>(nullptr));
        default: return f(static_cast<float*>(nullptr));
      }
    }
  }

  // ---- `count` rows of x and y from image row `row`, with what padding adds, into slot `slot` of the ring.
  __device__ __forceinline__ void fill(int row, int slot, int count) {
    with_type([&](auto* tag) { fill_from(row, slot, count, tag); });
    __pipeline_commit();
  }

  template <class E>
  __device__ __forceinline__ void fill_from(int row, int slot, int count, E*) {
    const int first = col0 - s.reach, pitch = s.raw_pitch;
    const E *plane_x = p.x.template plane<E>(image, channel),
            *plane_y = p.y.template plane<E>(image, channel);
#pragma unroll 1
    for (int line = warp(); line < count; line += ring_threads / 32) {
      int from = row + line;
      if (p.padding == Padding::reflect) from = mirrored(from, p.height);
      const bool exists = from >= 0 && from < p.height;
      const E *x = plane_x + (exists ? from : 0) * p.x.h, *y = plane_y + (exists ? from : 0) * p.y.h;
      const int at = slot + line < s.capacity ? slot + line : slot + line - s.capacity;
      T *to_x = raw + at * pitch, *to_y = to_x + s.each_raw;
      const int again = at < s.repeated ? s.capacity * pitch : 0;
      const int step = p.in_fours ? 4 : 1;
#pragma unroll 1
      for (int k = step * lane(); k < filled; k += step * 32) {
        const bool together = p.in_fours && exists && first + k >= 0 && first + k + 4 <= p.width;
#pragma unroll 1
        for (int copy = 0; copy <= again; copy += again ? again : 1) {
          if (together) {
            copy_four(x + (first + k), to_x + copy + k);
            copy_four(y + (first + k), to_y + copy + k);
          } else {
#pragma unroll 1
            for (int u = k; u < k + step; ++u)
              fill_one(x, y, first + u, exists, to_x + copy + u, to_y + copy + u);
          }
        }
      }
    }
  }

  template <class E>
  __device__ __forceinline__ void fill_one(const E* x, const E* y, int col, bool exists, T* to_x,
                                           T* to_y) const {
    if (p.padding == Padding::reflect) col = mirrored(col, p.width);
    if (exists && col >= 0 && col < p.width) {
      copy_one(x + col * p.x.w, to_x);
      copy_one(y + col * p.y.w, to_y);
    } else {
      *to_x = 0, *to_y = pad_d();
    }
  }

  // m and d, in units of the data range, less their bases: from x and y, but a pyramid's m is x and its d is
  // y (then the other one is multiplied by 0: a NaN reaches the whole plane anyway).
  struct Reading {
    T by, scale, base_m, base_d;
    bool pyramid;
    __device__ __forceinline__ T m(T x, T y) const { return (by * y + x) * scale - base_m; }
    __device__ __forceinline__ T d(T x, T y) const { return ((pyramid ? y : x) - by * y) * scale - base_d; }
  };
  __device__ __forceinline__ Reading reading(T base_m, T base_d) const {
    return {p.pyramid ? T(0) : T(1), p.pyramid ? T(1) : p.inverse_range, base_m, base_d, p.pyramid};
  }

  __device__ __forceinline__ T incoming() const {
    if (!p.incoming) return T(1);
    const int64_t at = image * p.incoming_stride;
    return p.incoming_double ? T(static_cast<const double*>(p.incoming)[at])
                             : T(static_cast<const float*>(p.incoming)[at]);
  }

  // grad_map at a position, 0 where there is none; mirrored under reflect.
  __device__ __forceinline__ T incoming_at(int row, int col) const {
    if (p.padding == Padding::reflect) row = mirrored(row, p.height), col = mirrored(col, p.width);
    if (row < crop() || row >= p.height - crop() || col < crop() || col >= p.width - crop()) return T(0);
    const View& map = p.grad_map;
    return T(read_as(map.data, p.grad_map_dtype,
                     image * map.n + channel * map.c + (row - crop()) * map.h + (col - crop()) * map.w));
  }
};

}  // namespace ssimloss
