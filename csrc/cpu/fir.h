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

template <class V>
INLINE V finite_or_zero(V v) {
  return v - v == V{} ? v : V{};
}

// Means and variances of R windows along any index, from the means and variances (or from values:
// variance null) of what they cover: the law of total variance. Shifted by a value from the middle, or
// float32 would lose the variance of bright flat areas. shifted, squares: room for R + 2 radius, used
// where the radius is not fixed.
template <int R, int Radius, class T, class Mean, class Variance>
INLINE void fir_moments(Mean mean_in, Variance variance_in, const T* w, int radius, Vec<T>* mean,
                        Vec<T>* variance, Vec<T>* shifted, Vec<T>* squares) {
  Vec<T> fixed_shifted[R + 2 * Radius], fixed_squares[R + 2 * Radius];
  if constexpr (Radius > 0) shifted = fixed_shifted, squares = fixed_squares, radius = Radius;
  const Vec<T> shift = finite_or_zero(mean_in(radius + (R - 1) / 2));
#pragma GCC unroll 32
  for (int i = 0; i < R + 2 * radius; ++i) {
    shifted[i] = mean_in(i) - shift;
    squares[i] = shifted[i] * shifted[i] + variance_in(i);
  }
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return shifted[i]; }, w, radius, mean);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return squares[i]; }, w, radius, variance);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    variance[i] = not_negative(variance[i] - mean[i] * mean[i]);
    mean[i] += shift;
  }
}
