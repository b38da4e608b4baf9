// A symmetric filter along any index, relative to its centre's weight, which then costs nothing:
//   out[i] = in(i + radius) + sum_t w[t] (in(i + radius - t) + in(i + radius + t)), i in [0, R), t in [1,
//   radius].
// Pairs of taps are added first: half the multiplications, and the additions have units of their own.
// R outputs at a time share their loads.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// The weights and the radius: a constant, or 0 here for any. Enough registers hold them, too: their loads,
// each of a whole vector, would be what a filter waits for.
template <class T, int Radius>
struct Taps {
  static constexpr bool in_registers = Radius > 0 && VECTOR_BYTES == 64;
  const T* memory;
  int any_radius;
  Vec<T> held[in_registers ? Radius : 1];

  INLINE Taps(const T* w, int radius) : memory(w), any_radius(radius) {
#pragma GCC unroll 16
    for (int t = 0; in_registers && t < Radius; ++t) held[t] = opaque(splat(w[t + 1]));
  }
  INLINE int radius() const { return Radius > 0 ? Radius : any_radius; }
  INLINE auto operator[](int t) const {
    if constexpr (in_registers)
      return held[t - 1];
    else
      return memory[t];
  }
};

// Call f with the taps of a radius that is a constant where it is that of 11 taps (sigma 1.5).
template <class T, class F>
INLINE void with_taps(const T* w, int radius, F f) {
  if (radius == 5) return f(Taps<T, 5>(w, radius));
  f(Taps<T, 0>(w, radius));
}

// put(i, out[i]) takes the results.
template <int R, class T, int Radius, class In, class Put>
INLINE void fir(In in, const Taps<T, Radius>& w, Put put) {
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
        for (int u = 0; u < 4; ++u) put(i + u, sums[u]);
      }
    } else {
      Vec<T> sums[R];
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        sums[i] = v[i + Radius];
#pragma GCC unroll 16
        for (int t = 1; t <= Radius; ++t) sums[i] += w[t] * pair(i, t);
      }
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) put(i, sums[i]);
    }
  } else {
    constexpr int taps = 4;  // a time, so that loads are shared as above
    const int radius = w.radius();
    Vec<T> out[R];
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
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) put(i, out[i]);
  }
}

// The same of values that lie next to each other, for wide filters: U taps a time share their loads, one on
// either side of an output.
template <int R, int U, class T>
INLINE void add_pairs(const Vec<T>* left_of, const Vec<T>* right_of, const T* w, Vec<T>* out) {
  // Where the compiler saw that the next taps meet the same values, it would keep those and spill the sums.
  asm("" : "+r"(left_of), "+r"(right_of));
  Vec<T> weight[U], left[U], right[U];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u) {
    weight[u] = opaque(splat(w[u]));
    if (u > 0) left[u] = opaque(left_of[-u]);
    if (u + 1 < U) right[u] = opaque(right_of[u]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    left[0] = left_of[i], right[U - 1] = right_of[i + U - 1];
    if (U > 1) left[0] = opaque(left[0]), right[U - 1] = opaque(right[U - 1]);
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) out[i] += weight[u] * (left[u] + right[u]);
#pragma GCC unroll 4
    for (int u = U - 1; u > 0; --u) left[u] = left[u - 1];
#pragma GCC unroll 4
    for (int u = 0; u + 1 < U; ++u) right[u] = right[u + 1];
  }
}
template <int R, class T, class Put>
INLINE void fir_wide(const Vec<T>* in, const T* w, int radius, Put put) {
  constexpr int taps = VECTOR_BYTES == 64 ? 4 : 2;  // what the registers hold
  const Vec<T>*left = in + radius - 1, *right = in + radius + 1;
  Vec<T> out[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) out[i] = in[radius + i];
  int rest = radius;
  for (++w; rest >= taps; rest -= taps, left -= taps, right += taps, w += taps)
    add_pairs<R, taps>(left, right, w, out);
  if (taps > 2 && rest >= 2) add_pairs<R, 2>(left, right, w, out), rest -= 2, left -= 2, right += 2, w += 2;
  if (rest > 0) add_pairs<R, 1>(left, right, w, out);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) put(i, out[i]);
}

// The same where in(i) is more than a load. room: for R + 2 radius, where the radius is not fixed.
template <int R, class T, int Radius, class In, class Put>
INLINE void fir_computed(In in, const Taps<T, Radius>& w, Put put, Vec<T>* room) {
  if constexpr (Radius > 0) return fir<R>(in, w, put);
  for (int i = 0; i < R + 2 * w.radius(); ++i) room[i] = in(i);
  fir<R>([&](int i) INLINE_LAMBDA { return room[i]; }, w, put);
}

// The same of values and of their squares.
template <int R, class T, int Radius, class In, class Put, class PutSquare>
INLINE void fir_squares(In in, const Taps<T, Radius>& w, Put put, PutSquare put_square, Vec<T>* room) {
  Vec<T> fixed[R + 2 * Radius];  // one set of registers for both filters
  Vec<T>* v = Radius > 0 ? fixed : room;
  const int count = R + 2 * w.radius();
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = in(i);
  fir<R>([&](int i) INLINE_LAMBDA { return v[i]; }, w, put);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = product(v[i], v[i]);
  fir<R>([&](int i) INLINE_LAMBDA { return v[i]; }, w, put_square);
}

// The same under weights: of weight(i) in(i), and of weight(i) in(i)^2.
template <int R, class T, int Radius, class In, class Weight, class Put, class PutSquare>
INLINE void fir_weighted(In in, Weight weight, const Taps<T, Radius>& w, Put put, PutSquare put_square,
                         Vec<T>* room) {
  Vec<T> fixed[R + 2 * Radius];
  Vec<T>* v = Radius > 0 ? fixed : room;
  const int count = R + 2 * w.radius();
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = product(weight(i), in(i));
  fir<R>([&](int i) INLINE_LAMBDA { return v[i]; }, w, put);
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i) v[i] = product(v[i], in(i));
  fir<R>([&](int i) INLINE_LAMBDA { return v[i]; }, w, put_square);
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

// The filter along `rows` rows: out[q out_pitch + k OutStep] from in[q in_pitch + (k + t) Step], k in [0,
// count); in has a halo of radius.
template <int R, int Step, int OutStep, class T>
INLINE void fir_rows(const Vec<T>* in, int64_t in_pitch, int rows, const T* weights, int radius, int count,
                     Vec<T>* out, int64_t out_pitch) {
  with_taps(weights, radius, [&](const auto& w) INLINE_LAMBDA {
    for_blocks<R>(count, [&](int k, auto block) INLINE_LAMBDA {
      const Vec<T>* from = in + (k - w.radius()) * Step;
      Vec<T>* to = out + k * OutStep;
      for (int q = 0; q < rows; ++q, from += in_pitch, to += out_pitch) {
        fir<block>([&](int i) INLINE_LAMBDA { return from[i * Step]; }, w,
                   [&](int i, Vec<T> sum) INLINE_LAMBDA { to[i * OutStep] = sum; });
      }
    });
  });
}
