// A block of strip.cuh: what it owns, its shared memory, and the rows of pixels that it reads.
#pragma once

#include <type_traits>

#include "../common/block.cuh"

namespace ssimloss {

constexpr int strip_radius = 5, strip_rows = 8;
// Of the widest strip; narrow ones have fewer warps, of 32 columns each, and more blocks run at once.
constexpr int strip_threads = 192;

// The levels of the dyadic form that come out of the launch that reads the finest one: strip_pool.cuh.
constexpr int pooled_levels = 4;
struct PooledLevels {
  float *m[pooled_levels], *d[pooled_levels];  // out: [planes][height][width] of levels 1, 2, ...
  int height[pooled_levels], width[pooled_levels];
  int count;             // of levels to be written
  int shift_h, shift_w;  // bit j: a zero comes before the side of level j
  bool repeats;          // the last pixel of an odd side
  float* offsets;        // out, see StripParams
};

struct StripParams : KernelParams<float> {
  int filled;  // columns of `raw` that are read, a multiple of 4
  float taps[strip_radius + 1];
  // taps_down = taps / taps[5]: its first and last weights are 1 and need no multiplication.
  // taps_along = taps * taps[5] puts the factor back.
  float taps_along[strip_radius + 1], taps_down[strip_radius + 1];
  // Output j has so far received rows whose weights sum to reached[j]; a change of the base by h moves it by
  // h * reached[j].
  float reached[2 * strip_radius];
  PooledLevels pooled;
};

// The coarser levels of the dyadic form, in one launch.
constexpr int levels_at_once = 4;
struct LevelsParams {
  StripParams level[levels_at_once];
  int first_block[levels_at_once];  // of levels that are not there: beyond the grid
};

constexpr int strip_groups = strip_threads / 8;
// Pitches of 4 modulo 8 and the order of the lanes keep 16-byte accesses free of bank conflicts.
constexpr int strip_raw_pitch = strip_threads + 20, strip_pitch = strip_threads + 4;
// What a block keeps in shared memory to save registers.
struct L1Row {
  float cover, gain;
};
struct alignas(16) StripPlane {
  int64_t at[4];  // of x, y, grad_x, grad_y: where the plane begins
  int image, channel;
  L1Row l1_rows[strip_rows];  // whose gradient is being made
};
constexpr size_t strip_shared =
    sizeof(StripPlane) +
    (2 * strip_rows * strip_raw_pitch + 4 * strip_rows * strip_pitch + 4 * strip_groups + strip_threads) *
        sizeof(float);

class StripBlock {
 public:
  // A coarser level of the dyadic form is float32 m and d, in units of 1, without l1 and `incoming`; said by
  // a constant, so that the kernels keep only what they need.
  INLINE StripBlock(const StripParams& params, const StripParams& common_, bool coarser_, int piece)
      : p(params), common(common_), coarser(coarser_) {
    const Piece own = piece_of(p, piece, p.bands, p.band_rows);
    row0 = own.row, col0 = own.col;
    if (threadIdx.x == 0) {
      here->image = own.image, here->channel = own.channel;
      const View* views[4] = {&p.x, &p.y, &p.grad_x, &p.grad_y};
#pragma unroll
      for (int q = 0; q < 4; ++q) here->at[q] = views[q]->at(own.image, own.channel, 0, 0);
    }
    __syncthreads();
  }

 protected:
  static constexpr int R = strip_rows, r = strip_radius, pitch = strip_pitch, raw_pitch = strip_raw_pitch;
  static constexpr int groups = strip_groups;

  const StripParams &p, &common;  // common: for what is the same in all levels, at a constant place
  const bool coarser;
  StripPlane* here = reinterpret_cast<StripPlane*>(ssimloss_shared);
  float* raw = reinterpret_cast<float*>(here + 1);  // [2][R][raw_pitch]: columns from col0 - 12
  float* slots = raw + 2 * R * raw_pitch;  // [4][R][pitch]: from col0 - Strip::margin; moments, then maps
  float* bases = slots + 4 * R * pitch;    // [2 chunks][2][groups]: see Strip::bases_of
  float* covers = bases + 4 * groups;      // [strip_threads]: of the columns from col0
  int row0, col0;

  // Ends of the own rows and columns; worked out each time: registers.
  INLINE int row1() const { return row0 + p.band_rows < p.height ? row0 + p.band_rows : p.height; }
  INLINE int col1() const { return col0 + p.own < p.width ? col0 + p.own : p.width; }

  INLINE Plane<float> plane() const { return {p, here->image, here->channel}; }

  // What zero padding is in d: of a coarser level, less what was taken off. Read anew each time: registers.
  INLINE float pad_d() const { return coarser ? -p.offsets[plane().index()] : 0.f; }

  template <class F>
  INLINE void with_type(F f) const {
    coarser ? f(static_cast<float*>(nullptr)) : ssimloss::with_type<float>(p.x.dtype, f);
  }

  // ---- Rows [row, row + R) of x and y, with what padding adds, into `raw`.
  INLINE void fill(int row) {
    with_type([&](auto* tag) { fill_from(row, tag); });
    __pipeline_commit();
  }

  template <class E>
  INLINE E* pixels(int q) const {
    return static_cast<E*>((q < 2 ? (q ? p.y : p.x) : (q > 2 ? p.grad_y : p.grad_x)).data) + here->at[q];
  }

  template <class E>
  INLINE void fill_from(int row, E* tag) {
    const int warps_a_row = blockDim.x >= 128 ? 2 : 1;
    const int thread = again(int(threadIdx.x)), lane = thread & (32 * warps_a_row - 1);
    const int begin = thread / 32 >> (warps_a_row - 1), at_once = int(blockDim.x) / 32 >> (warps_a_row - 1);
    const int first = col0 - 12;
    if (begin >= at_once) return;
    const E *plane_x = pixels<E>(0), *plane_y = pixels<E>(1);
    if (p.in_fours && row >= 0 && row + R <= p.height) {  // nearly always: few instructions
      if (4 * lane >= p.filled) return;
      const int col = first + 4 * lane;
      float* to = raw + begin * raw_pitch + 4 * lane;
      if (col >= 0 && col + 4 <= p.width) {
        const E *x = plane_x + (row + begin) * p.x.h + col, *y = plane_y + (row + begin) * p.y.h + col;
        return at_once == 3   ? copy_rows<3>(x, y, begin, to)
               : at_once == 2 ? copy_rows<2>(x, y, begin, to)
                              : copy_rows<1>(x, y, begin, to);
      }
      if (common.padding != Padding::reflect && (col <= -4 || col >= p.width)) {
        const float d = pad_d();
#pragma unroll 1
        for (; to < raw + R * raw_pitch; to += at_once * raw_pitch) {
          put(Some<4>{}, to), put(Some<4>{d, d, d, d}, to + R * raw_pitch);
        }
        return;
      }
    }
#pragma unroll 1
    for (int line = begin; line < R; line += at_once) {
      float* to = raw + line * raw_pitch;
      copy_row(plane(), tag, row + line, first, p.filled, lane, 32 * warps_a_row, pad_d(), to,
               to + R * raw_pitch);
    }
  }

  // Four columns of rows begin, begin + at_once, ...
  template <int at_once, class E>
  INLINE void copy_rows(const E* x, const E* y, int begin, float* to) const {
#pragma unroll
    for (int i = 0; i < R; i += at_once) {
      if (i + at_once > R && i + begin >= R) return;  // begin < at_once: the last time alone
      copy<4>(x, to + i * raw_pitch);
      copy<4>(y, to + (R + i) * raw_pitch);
      x += at_once * p.x.h, y += at_once * p.y.h;
    }
  }

  INLINE Values<> values(Pair<float> base) const { return {coarser, plane().inverse_range(), base}; }

  INLINE bool l1() const { return !coarser && p.l1; }
  INLINE float l1_cover(int i, int size) const {
    return p.l1_windowed ? cover(i, size, common.padding, common.taps, r) : 1.f;
  }

  INLINE float incoming() const { return coarser ? 1.f : plane().incoming(); }
};

}  // namespace ssimloss
