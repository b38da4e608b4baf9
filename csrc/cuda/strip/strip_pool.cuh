// The dyadic form's coarser levels, made by the blocks of strip.cuh from the rows of the finest one that
// they have in shared memory anyway.
//
// Pooling windows never overlap: 16 x 16 places make one pixel of level 4 and all that lies between; call
// them a cell. Cell k has the places from 16 k on, and place i is row i - shift: bit j of shift is 1 where a
// zero comes before an odd side of level j, and then the last cell ends with the image. Elsewhere the last
// cell reaches beyond it, and where odd sides repeat their last pixel `pixel_at` says what is there.
//   rows     a band owns the cells with 16 k in it. Its chunks begin at a multiple of 8 less shift, so that
//            a chunk is half a cell and the bands need no alignment; up to 17 rows more are read
//   columns  a strip owns the cells whose first column is in it (the first strip also one that begins
//            outside the image): up to two for each 32 threads, as the strip has at least 16 columns less
//            than the block threads; a cell takes 8 threads for m and 8 for d; a thread has two columns
// For each element, m and d together, an even width: 2 shared-memory reads of 8 bytes, 9 FP32 and about 30
// other instructions; 2.7 bytes written.
#pragma once

#include "strip_block.cuh"

namespace ssimloss {

constexpr int strip_cells = strip_threads / 16;
constexpr size_t strip_shared_pooling = strip_shared + (2 * strip_cells + 1) * sizeof(float);

class StripPool : protected StripBlock {
 protected:
  using StripBlock::StripBlock;

  // [begin, end): the rows that the block reads, to be widened. The plane's offset of d into shared memory.
  INLINE void start_pool(int& begin, int& end) const {
    const int shift = p.pooled.shift_h;
    const int first = (row0 + 15) / 16 * 16 - shift, last = (row1() + 15) / 16 * 16 - shift;
    begin = first < begin ? first : begin, end = last > end ? last : end;
    begin -= (begin + shift) & 7;
    if (threadIdx.x != 0) return;
    const float offset = carried()[2 * strip_cells] = plane().offset();
    if (row0 == 0 && col0 == 0) p.pooled.offsets[plane().index()] = offset;
  }

  // Rows [row, row + R) are in `raw`.
  INLINE void pool(int row) const {
    const PooledLevels& to = p.pooled;
    const int from_cell = row + to.shift_h, cell_row = from_cell & ~15;
    if (cell_row < row0 || cell_row >= row1()) return;
    const int thread = again(int(threadIdx.x)), of_m = int(blockDim.x) / 2;  // threads
    const bool of_d = thread >= of_m;
    const int task = thread - (of_d ? of_m : 0), pair = task % 8;
    const int before = col0 == 0 ? 0 : (col0 + to.shift_w + 15) / 16;  // cells of the strips before this one
    const int cell_col = 16 * (before + task / 8) - to.shift_w, col = cell_col + 2 * pair;
    const bool is_own = cell_col < col1();
    const float base = of_d ? carried()[2 * strip_cells] : 0.f;
    const Reading value = values({0, base}).of(of_d);

    float one[4] = {};
    const float* from = raw + 12 + col - col0;
    if (is_own && row >= 0 && row + R <= p.height && col >= 0 && col + 2 <= p.width &&
        (col - col0) % 2 == 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float *x = from + 2 * i * raw_pitch, *y = x + R * raw_pitch;
        const Some<2> x0 = some<2>(x), x1 = some<2>(x + raw_pitch), y0 = some<2>(y),
                      y1 = some<2>(y + raw_pitch);
        one[i] = 0.25f *
                 ((value(x0[0], y0[0]) + value(x0[1], y0[1])) + (value(x1[0], y1[0]) + value(x1[1], y1[1])));
      }
    } else if (is_own && row < p.height) {  // the image's border, or an odd width
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float v[4];
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int line = pixel_at(row + 2 * i + u / 2, 3, p.height, to.height);
          const int column = pixel_at(col + u % 2, 4, p.width, to.width);
          const bool pixel = line >= 0 && line < p.height && column >= 0 && column < p.width;
          const float* at = raw + 12 + (line - row) * raw_pitch + column - col0;
          v[u] = pixel ? value(at[0], at[R * raw_pitch]) : -base;
        }
        one[i] = 0.25f * ((v[0] + v[1]) + (v[2] + v[3]));
      }
    }
    // The pixels of a level that come from this chunk, from the first row on, if this thread has one of them.
    const auto write = [&](int level, const float* v, int rows) {
      const int part = (1 << level) - 1;
      int to_row = (row + (to.shift_h & part)) >> level;
      const int to_col = (col + (to.shift_w & part)) >> level;
      const int width = to.width[level - 1], height = to.height[level - 1];
      if (!is_own || pair % (1 << (level - 1)) || level > to.count || to_col < 0 || to_col >= width) return;
      const int64_t index = plane().index();
      float* at = (of_d ? to.d[level - 1] : to.m[level - 1]) + ((index * height + to_row) * width + to_col);
      for (int i = 0; i < rows; ++i, ++to_row, at += width) {
        if (to_row >= 0 && to_row < height) *at = v[i];
      }
    };
    write(1, one, 4);
    const float two[2] = {0.25f * (beside(one[0], 1) + beside(one[1], 1)),
                          0.25f * (beside(one[2], 1) + beside(one[3], 1))};
    write(2, two, 2);
    const float three = 0.25f * (beside(two[0], 2) + beside(two[1], 2));
    write(3, &three, 1);
    float& upper = carried()[thread / 8];  // half of a cell, from one chunk to the next
    const float half = beside(three, 4);
    const float four = 0.25f * (upper + (row < p.height ? half : upper));
    if (from_cell & 8) write(4, &four, 1);
    __syncwarp();
    if (pair == 0) upper = half;
  }

 private:
  // The row or column at a place in a cell of 2^levels. Beyond an odd side of level j, half of level j + 1,
  // the 2^j places repeat those before them. halves: the sizes of levels 1, 2, ...
  INLINE int pixel_at(int place, int levels, int size, const int* halves) const {
    if (!p.pooled.repeats) return place;
#pragma unroll
    for (int j = pooled_levels - 1; j >= 0; --j) {
      if (j >= levels || j >= p.pooled.count) continue;
      if (place >> j >= (j ? halves[j - 1] : size)) place -= 1 << j;
    }
    return place;
  }

  // The sum with the neighbour's.
  INLINE static float beside(float v, int lanes) { return v + __shfl_xor_sync(0xffffffffu, v, lanes); }
  INLINE float* carried() const { return covers + strip_threads; }
};

}  // namespace ssimloss
