// Windows of any radius in a block of 32 x 32 places of one plane (16 x 32 in float64), which tiles and
// volumes share: along the rows, 4 places of a row a thread, into shared memory; then down the columns, 4
// places of a column a thread. Means and variances are worked out as in ../ring/ring_moments.cuh; one is
// handed on less the pixel of its own place, as the a of a map is: differences alone.
#pragma once

#include "block.cuh"

namespace ssimloss {

constexpr int tile_outputs = 4;  // a thread makes side by side, or one below the other
constexpr int tile_height = 32;

template <class T>
constexpr int tile_width = sizeof(T) == 8 ? 16 : 32;
template <class T>
constexpr int tile_threads = tile_width<T> * tile_height / tile_outputs;
// Blocks a multiprocessor: without a number ptxas aims at more, and spills on some.
template <class T>
constexpr int tile_blocks = sizeof(T) == 4 ? 2 : 1;

// A block's tile, whose first row and column are row0 and col0; within it a thread has 4 rows from `group` on
// of column `col`.
template <class T>
struct Tile {
  int row0, col0;
  int col = int(threadIdx.x) % tile_width<T>, group = int(threadIdx.x) / tile_width<T> * tile_outputs;
};

// Of a place, each in a plane of memory of its own: the means of m and d, their variances, and the mean of
// |d|, where l1 is blurred; or the maps b_m, b_d, a (or a_m and a_d, for both gradients), and then l1's gain.
template <class T>
using Numbers = Some<5, T>;
struct Planes {
  bool fourth, fifth;  // there are

  template <class F>
  INLINE void each(F f) const {  // f(which number, of which plane)
#pragma unroll
    for (int q = 0; q < 5; ++q) {
      if (q < 3 || (q == 3 ? fourth : fifth)) f(q, q < 4 ? q : 3 + fourth);
    }
  }
  template <class T, class Apart>
  INLINE Numbers<T> load(const T* from, Apart apart) const {
    Numbers<T> v{};
    each([&](int q, int plane) { v[q] = from[plane * apart]; });
    return v;
  }
  template <class T, class Apart>
  INLINE void store(const Numbers<T>& v, T* to, Apart apart) const {
    each([&](int q, int plane) { to[plane * apart] = v[q]; });
  }
};

// Half a window, from its centre on.
template <class T>
struct HalfWindow {
  int radius;
  T taps[cuda_max_radius + 1];
};
template <class T>
HalfWindow<T> half_window(const Window& window) {
  HalfWindow<T> half{window.radius, {}};
  for (int t = 0; t <= window.radius; ++t) half.taps[t] = T(window.weights[t]);
  return half;
}

// Sums under a thread's windows. f(i, v): the numbers of input i, from 0 to tile_outputs - 1 + 2 radius, if
// there are any. An input is used for the windows that hold it and no others: 0 * NaN would be NaN.
template <class T, class F>
INLINE void blur(const HalfWindow<T>& window, Planes planes, Numbers<T> (&out)[tile_outputs], F f) {
  const int radius = window.radius;
  T w[tile_outputs] = {};
  Numbers<T> sums[tile_outputs] = {};  // not `out`, which may lie in memory
  const auto input = [&](int i, auto ends) {
#pragma unroll
    for (int o = tile_outputs - 1; o > 0; --o) w[o] = w[o - 1];
    const int t = i - radius;
    w[0] = t <= radius ? window.taps[t < 0 ? -t : t] : T(0);
    Numbers<T> v;
    if (!f(i, v)) return;
    planes.each([&](int q, int) {
#pragma unroll
      for (int o = 0; o < tile_outputs; ++o) {
        if (!decltype(ends)::value || (i >= o && i - o <= 2 * radius)) sums[o][q] += w[o] * v[q];
      }
    });
  };
  int i = 0;
#pragma unroll 1  // three copies would spill
  for (; i < tile_outputs - 1; ++i) input(i, std::true_type{});
  for (; i <= 2 * radius; ++i) input(i, std::false_type{});
  for (; i < tile_outputs + 2 * radius; ++i) input(i, std::true_type{});
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) out[o] = sums[o];
}

// Means, less the base that is returned, and variances. read(i): the pixel of input i; before(i): what the
// directions before have made of it; null in the first direction.
template <class T, class Read, class Before>
INLINE Pair<T> moments_of(const HalfWindow<T>& window, bool with_l1, Read read, Before before,
                          Numbers<T> (&out)[tile_outputs]) {
  constexpr bool first = std::is_same_v<Before, std::nullptr_t>;
  const Pair<T> base = base_of_windows<tile_outputs>(window.radius, read);
  blur(window, {true, with_l1}, out, [&](int i, Numbers<T>& v) {
    const Pair<T> pixel = read(i), by = pixel - base;
    if constexpr (first) {
      v = {by.m, by.d, by.m * by.m, by.d * by.d, magnitude(pixel.d)};
    } else {
      const Numbers<T> from = before(i);
      const Pair<T> mean = by + Pair<T>{from[0], from[1]};
      v = {mean.m, mean.d, mean.m * mean.m + from[2], mean.d * mean.d + from[3], from[4]};
    }
    return true;
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    Numbers<T>& v = out[o];
    v[2] = variance(window.radius, v[0], v[2]), v[3] = variance(window.radius, v[1], v[3]);
    if constexpr (!first) {
      if (window.radius == 0) v[2] = before(o)[2], v[3] = before(o)[3];
    }
  }
  return base;
}
// Makes such means relative to the pixels own(0) to own(3) of their places.
template <class T, class Own>
INLINE void make_own(Pair<T> base, Own own, Numbers<T> (&out)[tile_outputs]) {
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) {
    const Pair<T> by = base - own(o);
    out[o][0] += by.m, out[o][1] += by.d;
  }
}

// Blurred maps. fetch(i, v): those of input i, if there are any. Their a is relative to the pixel of its own
// place before and after, and to one base in between.
template <class T, class Read, class Fetch>
INLINE void maps_of(const HalfWindow<T>& window, Planes maps, Read read, Fetch fetch,
                    Numbers<T> (&out)[tile_outputs]) {
  const Pair<T> base = base_of_windows<tile_outputs>(window.radius, read);
  const auto move = [&](Numbers<T>& v, Pair<T> by) {
    v[2] += v[0] * by.m;
    if (maps.fourth)
      v[3] -= v[1] * by.d;
    else
      v[2] -= v[1] * by.d;
  };
  blur(window, maps, out, [&](int i, Numbers<T>& v) {
    if (!fetch(i, v)) return false;
    move(v, read(i) - base);
    return true;
  });
#pragma unroll
  for (int o = 0; o < tile_outputs; ++o) move(out[o], base - read(window.radius + o));
}

// ---- Both directions of a tile. Along its rows and those that windows of this radius reach above and below:
// along(row, column, out) makes 4 results from that place on, which go into shared memory. The answer is what
// reads input i of a thread's windows down the columns.
template <class T, class Along>
INLINE auto along_rows(const Tile<T>& tile, int radius, Planes planes, Along along) {
  constexpr int width = tile_width<T>, groups = width / tile_outputs;
  T* slots = reinterpret_cast<T*>(ssimloss_shared);
  const int rows = tile_height + 2 * radius, pitch = rows * width;
#pragma unroll 1
  for (int task = int(threadIdx.x); task < rows * groups; task += tile_threads<T>) {  // in turn
    const int line = task / groups, first = task % groups * tile_outputs;
    Numbers<T> out[tile_outputs];
    along(tile.row0 - radius + line, tile.col0 + first, out);
#pragma unroll
    for (int o = 0; o < tile_outputs; ++o) planes.store(out[o], slots + line * width + first + o, pitch);
  }
  __syncthreads();
  const T* const from = slots + tile.group * width + tile.col;
  return [=](int i) { return planes.load(from + i * width, pitch); };
}

// read(row, col): the pixel there.
template <class T, class Read>
INLINE Pair<T> moments_of_tile(const Tile<T>& tile, const HalfWindow<T>& across, const HalfWindow<T>& down,
                               bool with_l1, Read read, Numbers<T> (&out)[tile_outputs]) {
  const auto before = along_rows(tile, down.radius, {true, with_l1}, [&](int row, int col, auto& along) {
    const auto here = [&](int i) { return read(row, col - across.radius + i); };
    make_own(
        moments_of(across, with_l1, here, nullptr, along), [&](int o) { return read(row, col + o); }, along);
  });
  const int row = tile.row0 + tile.group - down.radius, col = tile.col0 + tile.col;
  return moments_of(down, with_l1, [&](int i) { return read(row + i, col); }, before, out);
}
// fetch(row, col, v): the maps there, if there are any.
template <class T, class Read, class Fetch>
INLINE void maps_of_tile(const Tile<T>& tile, const HalfWindow<T>& across, const HalfWindow<T>& down,
                         Planes maps, Read read, Fetch fetch, Numbers<T> (&out)[tile_outputs]) {
  const auto before = along_rows(tile, down.radius, maps, [&](int row, int col, auto& along) {
    col -= across.radius;
    maps_of(
        across, maps, [&](int i) { return read(row, col + i); },
        [&](int i, Numbers<T>& v) { return fetch(row, col + i, v); }, along);
  });
  const int row = tile.row0 + tile.group - down.radius, col = tile.col0 + tile.col;
  maps_of(
      down, maps, [&](int i) { return read(row + i, col); },
      [&](int i, Numbers<T>& v) { return v = before(i), true; }, out);
}

}  // namespace ssimloss
