// A symmetric filter along any index: out[i] = sum_t w[|t|] in(i + radius + t), i in [0, R).
// Pairs of taps are added first: half the multiplications, and the additions have units of their own.
// R outputs at a time share their loads. Relative: w is relative to its centre, which then costs nothing.

template <int R, int Radius, bool Relative = false, class T, class In>
INLINE void fir(In in, const T* w, int radius, Vec<T>* out) {
  if constexpr (Radius > 0) {  // all in registers
    Vec<T> v[R + 2 * Radius];
#pragma GCC unroll 32
    for (int i = 0; i < R + 2 * Radius; ++i) v[i] = in(i);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      Vec<T> sum = Relative ? v[i + Radius] : w[0] * v[i + Radius];
#pragma GCC unroll 16
      for (int t = 1; t <= Radius; ++t) sum += w[t] * (v[i + Radius - t] + v[i + Radius + t]);
      out[i] = sum;
    }
  } else {
    constexpr int taps = 4;  // a time, so that loads are shared as above
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) out[i] = Relative ? in(i + radius) : w[0] * in(i + radius);
    int t = 1;
    for (; t + taps <= radius + 1; t += taps) {
      Vec<T> left[R + taps - 1], right[R + taps - 1];
#pragma GCC unroll 16
      for (int i = 0; i < R + taps - 1; ++i) {
        left[i] = in(radius - t - taps + 1 + i);
        right[i] = in(radius + t + i);
      }
#pragma GCC unroll 4
      for (int u = 0; u < taps; ++u) {
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) out[i] += w[t + u] * (left[i + taps - 1 - u] + right[i + u]);
      }
    }
    for (; t <= radius; ++t) {
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) out[i] += w[t] * (in(i + radius - t) + in(i + radius + t));
    }
  }
}

// f(k, R) for blocks of R outputs [k, k + R) that cover [0, count), f(k, 1) for a short rest.
template <int R, class F>
INLINE void for_blocks(int count, F f) {
  const std::integral_constant<int, R> block{};
  int k = 0;
  for (; k + R <= count; k += R) f(k, block);
  if (count >= R && count - k > 1) return f(count - R, block);  // cheaper than one by one
  for (; k < count; ++k) f(k, std::integral_constant<int, 1>{});
}

// The same in blocks of which every window holds the middle: what is far from it in value is then in the
// variance of each. A flat window beside an edge that it does not see would lose its digits to the edge.
template <int R, class F>
INLINE void for_local_blocks(int radius, int count, F f) {
  if (2 * radius + 1 >= R) return for_blocks<R>(count, f);
  for_blocks<1>(count, f);
}

// Call f with the radius as a constant where it is that of 11 taps (sigma 1.5), else with 0.
template <class F>
INLINE void with_radius(int radius, F f) {
  if (radius == 5) return f(std::integral_constant<int, 5>{});
  f(std::integral_constant<int, 0>{});
}

// The filter along a row: out[k] = sum_t w[|t|] in[k + t], k in [0, count); in has a halo of radius.
template <int R, class T>
INLINE void fir_row(const Vec<T>* in, const T* w, int radius, int count, Vec<T>* out) {
  with_radius(radius, [&](auto fixed) INLINE_LAMBDA {
    for_blocks<R>(count, [&](int k, auto block) INLINE_LAMBDA {
      Vec<T> sums[block];
      fir<block, fixed>([&](int i) INLINE_LAMBDA { return in[k + i - radius]; }, w, radius, sums);
      for (int i = 0; i < block; ++i) out[k + i] = sums[i];
    });
  });
}

// The value in the middle of R windows, to take differences to; finite.
template <int R, class In>
INLINE auto middle(In in, int radius) {
  using V = decltype(in(0));
  const V v = in(radius + (R - 1) / 2);
  return v - v == V{} ? v : V{};
}

struct NoVariance {};  // of single values

// Means and variances of R windows along any index, from the means and variances of what they cover: the
// law of total variance, down to rounding below 0. All means are relative to that in the middle: float32
// would lose the variance of bright flat areas. mean_in(i) is so already. room: for R + 2 radius, where the
// radius is not fixed.
template <int R, int Radius, class T, class Mean, class Variance>
INLINE void fir_moments(Mean mean_in, Variance variance_in, const T* w, int radius, Vec<T>* mean,
                        Vec<T>* variance, Vec<T>* room) {
  constexpr bool values = std::is_same_v<Variance, NoVariance>;
  Vec<T> fixed[R + 2 * Radius];  // one set of registers for both filters
  Vec<T>* v = Radius > 0 ? fixed : room;
  const int count = R + 2 * (Radius > 0 ? Radius : radius);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = mean_in(i);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, mean);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) {
    v[i] *= v[i];
    if constexpr (!values) v[i] += variance_in(i);
  }
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, variance);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) variance[i] -= mean[i] * mean[i];
  for (int i = 0; radius == 0 && i < R; ++i) {  // exactly, where it is 0
    if constexpr (values) {
      variance[i] = mean[i] * Vec<T>{};  // NaN where the value is NaN
    } else {
      variance[i] = variance_in(i);
    }
  }
}

// The maps of ssim_math.h's coefficients under R windows along any index. map_in(q, i): b_m, b_d and, for
// one image's gradient, a = a_m + a_d; for both, a_m and a_d. a_d is relative to the d of its own place
// (d_in), so it is first moved to a common d in the middle, and afterwards to that of its window's centre.
// w is relative to its centre: who makes the maps puts the square of the centre into them.
template <int R, int Radius, bool Both, class T, class Map, class Value>
INLINE void fir_maps(Map map_in, Value d_in, const T* w, int radius, Vec<T> (*map)[R], Vec<T>* room) {
  constexpr int a_d = Both ? 3 : 2;
  Vec<T> fixed[R + 2 * Radius];
  Vec<T>* v = Radius > 0 ? fixed : room;
  const int count = R + 2 * (Radius > 0 ? Radius : radius);
  const Vec<T> d0 = middle<R>(d_in, radius);
  fir<R, Radius, true>([&](int i) INLINE_LAMBDA { return map_in(0, i); }, w, radius, map[0]);
  if (Both) fir<R, Radius, true>([&](int i) INLINE_LAMBDA { return map_in(2, i); }, w, radius, map[2]);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = map_in(1, i);
  fir<R, Radius, true>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, map[1]);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = map_in(a_d, i) - v[i] * (d_in(i) - d0);
  fir<R, Radius, true>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, map[a_d]);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) map[a_d][i] += map[1][i] * (d_in(radius + i) - d0);
}
