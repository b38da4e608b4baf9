// A symmetric filter along any index, relative to its centre's weight, which then costs nothing:
//   out[i] = in(i + radius) + sum_t w[t] (in(i + radius - t) + in(i + radius + t)), i in [0, R), t in [1,
//   radius].
// Pairs of taps are added first: half the multiplications, and the additions have units of their own.
// R outputs at a time share their loads.

template <int R, int Radius, class T, class In>
INLINE void fir(In in, const T* w, int radius, Vec<T>* out) {
  if constexpr (Radius > 0) {  // all in registers
    Vec<T> v[R + 2 * Radius];
    const auto pair = [&](int i, int t) INLINE_LAMBDA { return v[i + Radius - t] + v[i + Radius + t]; };
#pragma GCC unroll 32
    for (int i = 0; i < R + 2 * Radius; ++i) v[i] = in(i);
    if constexpr (VECTOR_BYTES == 64 && R % 4 == 0) {  // enough registers
      // Additions come in fours: with one beside each FMA, Zen 4 cannot read the operands of both (1.7
      // instead of 2 operations a cycle).
#pragma GCC unroll 4
      for (int i = 0; i < R; i += 4) {
        Vec<T> sums[4], pairs[4];
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) sums[u] = v[i + u + Radius];
#pragma GCC unroll 16
        for (int t = 1; t <= Radius; ++t) {
#pragma GCC unroll 4
          for (int u = 0; u < 4; ++u) pairs[u] = pair(i + u, t);
#pragma GCC unroll 4
          for (int u = 0; u < 4; ++u) sums[u] += w[t] * pairs[u];
        }
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) out[i + u] = sums[u];
      }
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        Vec<T> sum = v[i + Radius];
#pragma GCC unroll 16
        for (int t = 1; t <= Radius; ++t) sum += w[t] * pair(i, t);
        out[i] = sum;
      }
    }
  } else {
    constexpr int taps = 4;  // a time, so that loads are shared as above
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) out[i] = in(i + radius);
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

// The same where in(i) is more than a load. room: for R + 2 radius, where the radius is not fixed.
template <int R, int Radius, class T, class In>
INLINE void fir_computed(In in, const T* w, int radius, Vec<T>* out, Vec<T>* room) {
  if constexpr (Radius > 0) return fir<R, Radius>(in, w, radius, out);
  for (int i = 0; i < R + 2 * radius; ++i) room[i] = in(i);
  fir<R, 0>([&](int i) INLINE_LAMBDA { return room[i]; }, w, radius, out);
}

// The same of values and of their squares.
template <int R, int Radius, class T, class In>
INLINE void fir_squares(In in, const T* w, int radius, Vec<T>* out, Vec<T>* out_squares, Vec<T>* room) {
  Vec<T> fixed[R + 2 * Radius];  // one set of registers for both filters
  Vec<T>* v = Radius > 0 ? fixed : room;
  const int count = R + 2 * (Radius > 0 ? Radius : radius);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = in(i);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, out);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = product(v[i], v[i]);
  fir<R, Radius>([&](int i) INLINE_LAMBDA { return v[i]; }, w, radius, out_squares);
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

// Call f with the radius as a constant where it is that of 11 taps (sigma 1.5), else with 0.
template <class F>
INLINE void with_radius(int radius, F f) {
  if (radius == 5) return f(std::integral_constant<int, 5>{});
  f(std::integral_constant<int, 0>{});
}

// The filter along `rows` rows: out[q out_pitch + k] from in[q in_pitch + (k + t) step], k in [0, count); in
// has a halo of radius.
template <int R, class T>
INLINE void fir_rows(const Vec<T>* in, int64_t in_pitch, int64_t step, int rows, const T* w, int radius,
                     int count, Vec<T>* out, int64_t out_pitch) {
  with_radius(radius, [&](auto fixed) INLINE_LAMBDA {
    for_blocks<R>(count, [&](int k, auto block) INLINE_LAMBDA {
      const Vec<T>* from = in + (k - radius) * step;
      Vec<T>* to = out + k;
      for (int q = 0; q < rows; ++q, from += in_pitch, to += out_pitch) {
        Vec<T> sums[block];
        fir<block, fixed>([&](int i) INLINE_LAMBDA { return from[i * step]; }, w, radius, sums);
        for (int i = 0; i < block; ++i) to[i] = sums[i];
      }
    });
  });
}
