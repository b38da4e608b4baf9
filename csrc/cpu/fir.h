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

// The filter along a row: out[k] = sum_t w[|t|] in[k + t], k in [0, count); in has a halo of radius.
template <int R, class T>
INLINE void fir_row(const Vec<T>* in, const T* w, int radius, int count, Vec<T>* out) {
  const auto blocks = [&](auto fixed) INLINE_LAMBDA {
    const auto block = [&](int k) INLINE_LAMBDA {
      Vec<T> sums[R];
      fir<R, fixed>([&](int i) INLINE_LAMBDA { return in[k + i - radius]; }, w, radius, sums);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) out[k + i] = sums[i];
    };
    int k = 0;
    for (; k + R <= count; k += R) block(k);
    if (count >= R && count - k > R / 2) return block(count - R);  // cheaper than one by one
    for (; k < count; ++k) {
      fir<1, fixed>([&](int i) INLINE_LAMBDA { return in[k + i - radius]; }, w, radius, out + k);
    }
  };
  if (radius == 5) return blocks(std::integral_constant<int, 5>{});  // 11 taps: sigma 1.5
  blocks(std::integral_constant<int, 0>{});
}
