// A symmetric filter along any index: out[i] = sum_t w[|t|] in(i + radius + t), i in [0, R).
// Pairs of taps are added first: half the multiplications, and the additions have units of their own.
// R outputs at a time share their loads.

template <int R, int Radius, class T, class In>
INLINE void fir(In in, const T* w, int radius, Vec<T>* out) {
  if constexpr (Radius > 0) {  // all in registers
    Vec<T> v[R + 2 * Radius];
#pragma GCC unroll 32
    for (int i = 0; i < R + 2 * Radius; ++i) v[i] = in(i);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      Vec<T> sum = w[0] * v[i + Radius];
#pragma GCC unroll 16
      for (int t = 1; t <= Radius; ++t) sum += w[t] * (v[i + Radius - t] + v[i + Radius + t]);
      out[i] = sum;
    }
  } else {
    constexpr int taps = 4;  // a time, so that loads are shared as above
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) out[i] = w[0] * in(i + radius);
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
  if (count >= R && count - k > R / 2) return f(count - R, block);  // cheaper than one by one
  for (; k < count; ++k) f(k, std::integral_constant<int, 1>{});
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

// A value that is typical of R windows and in each of them, to take differences to; finite. Windows
// that are narrow may not share one: then the middle one of three, so that no huge one spreads.
template <int R, class In>
INLINE auto typical(In in, int radius) {
  auto v = in(radius + (R - 1) / 2);
  if (2 * radius + 1 < R) {
    const auto a = in(radius), b = in(radius + R - 1);
    const auto low = a < b ? a : b, high = a < b ? b : a;
    v = v < low ? low : (v > high ? high : v);
  }
  return v - v == decltype(v){} ? v : decltype(v){};
}

// Means and variances of R windows along any index, from the means and variances of what they cover: the
// law of total variance. All means are relative to a typical value: float32 would lose the variance of
// bright flat areas. mean_in(i) is so already. room: for 2 (R + 2 radius), where the radius is not fixed.
template <int R, int Radius, class T, class Mean, class Variance>
INLINE void fir_moments(Mean mean_in, Variance variance_in, const T* w, int radius, Vec<T>* mean,
                        Vec<T>* variance, Vec<T>* room) {
  Vec<T> fixed[2 * (R + 2 * Radius)];
  Vec<T>* means = Radius > 0 ? fixed : room;
  const int count = R + 2 * (Radius > 0 ? Radius : radius);
  Vec<T>* squares = means + count;
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) {
    means[i] = mean_in(i);
    squares[i] = means[i] * means[i] + variance_in(i);
  }
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return means[i]; }, w, radius, mean);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return squares[i]; }, w, radius, variance);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) variance[i] = not_negative(variance[i] - mean[i] * mean[i]);
  for (int i = 0; radius == 0 && i < R; ++i) variance[i] = variance_in(i);  // exactly, where it is 0
}

// The maps of ssim_math.h's coefficients under R windows along any index. map_in(q, i): b_m, b_d and, for
// one image's gradient, a = a_m + a_d; for both, a_m and a_d. Every a is relative to the m and d of its own
// place, so it is first moved to a common pair in the middle, and afterwards to that of its window's centre.
template <int R, int Radius, bool Both, class T, class Map, class ValueM, class ValueD>
INLINE void fir_maps(Map map_in, ValueM m_in, ValueD d_in, const T* w, int radius, Vec<T> (*map)[R],
                     Vec<T>* room) {
  Vec<T> fixed[2 * (R + 2 * Radius)];
  Vec<T>* a = Radius > 0 ? fixed : room;
  const int count = R + 2 * (Radius > 0 ? Radius : radius);
  Vec<T>* a_d = a + count;
  const Vec<T> m0 = typical<R>(m_in, radius), d0 = typical<R>(d_in, radius);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) {
    const Vec<T> moved_m = map_in(0, i) * (m_in(i) - m0), moved_d = map_in(1, i) * (d_in(i) - d0);
    a[i] = Both ? map_in(2, i) + moved_m : map_in(2, i) + moved_m - moved_d;
    if (Both) a_d[i] = map_in(3, i) - moved_d;
  }
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return map_in(0, i); }, w, radius, map[0]);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return map_in(1, i); }, w, radius, map[1]);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return a[i]; }, w, radius, map[2]);
  if (Both) fir<R, Radius>([&](int i) INLINE_LAMBDA { return a_d[i]; }, w, radius, map[3]);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    const Vec<T> moved_m = map[0][i] * (m_in(radius + i) - m0), moved_d = map[1][i] * (d_in(radius + i) - d0);
    map[2][i] = Both ? map[2][i] - moved_m : map[2][i] - moved_m + moved_d;
    if (Both) map[3][i] += moved_d;
  }
}
