// Vectors of one instruction set, as gcc and clang extensions: plain arithmetic on them, and what arithmetic
// cannot say: transposing a block, moving values across lanes, a product that is not part of a sum.
// Included once per variant, inside its namespace and under its target pragma.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(VECTOR_BYTES)));
  typedef T unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;

// All ones or 0 in each lane.
template <class T>
using Mask = typename VecOf<std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>::type;

template <class T>
constexpr int lanes = VECTOR_BYTES / int(sizeof(T));

template <class T>
INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(p);
}

template <class T>
INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(p) = v;
}

template <class T>
INLINE Vec<T> splat(T value) {
  return value - Vec<T>{};  // which is no arithmetic: nothing changes but the type
}

// As many bytes as a vector has numbers, each as wide as these. No compiler finds the instruction.
template <class T>
INLINE Mask<T> load_bytes(const uint8_t* p) {
  Mask<T> wide{};
#if VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4)
    wide = Mask<T>(_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)p)));
  else
    wide = Mask<T>(_mm512_maskz_cvtepu8_epi64(0xff, _mm_loadl_epi64((const __m128i*)p)));
#elif VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4)
    wide = Mask<T>(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
  else
    wide = Mask<T>(_mm256_cvtepu8_epi64(_mm_loadu_si32((const void*)p)));
#else
  for (int i = 0; i < lanes<T>; ++i) wide[i] = p[i];
#endif
  return wide;
}

// The lower or the upper half of a vector. Nor this one.
template <bool upper>
INLINE Vec<double> half_in_double(Vec<float> v) {
#if VECTOR_BYTES == 64
  return Vec<double>(_mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, __m512(v), upper)));
#elif VECTOR_BYTES == 32
  return Vec<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(v), upper)));
#else
  Vec<double> half;
  for (int i = 0; i < lanes<double>; ++i) half[i] = v[i + (upper ? lanes<double> : 0)];
  return half;
#endif
}

template <class V>
INLINE V lower(V a, V b) {
  return a < b ? a : b;
}
template <class V>
INLINE V higher(V a, V b) {
  return a < b ? b : a;
}

// v in a register, of which the compiler knows nothing: it neither computes nor loads it again.
template <class V>
INLINE V opaque(V v) {
#ifdef __x86_64__
  asm("" : "+v"(v));
#endif
  return v;
}

// The same of a pointer: compilers would keep what is at each distance from it as a pointer of its own.
template <class P>
INLINE P opaque_pointer(P p) {
  asm("" : "+r"(p));
  return p;
}

// A product that stays one. Compilers would join it with each of the sums it is used in, but additions have
// units of their own, and multiplications are what there is too much of.
template <class V>
INLINE V product(V a, V b) {
  return opaque(a * b);
}

template <class V>
INLINE V absolute(V v) {  // NaN stays NaN
  return v < V{} ? -v : v;
}

#if VECTOR_BYTES == 64
// ssim_math.h's, in the one instruction that compilers find for shorter vectors only. NaN stays NaN.
INLINE Vec<float> not_negative(Vec<float> v) {
  return Vec<float>(_mm512_maskz_max_ps(0xffff, __m512{}, __m512(v)));
}
INLINE Vec<double> not_negative(Vec<double> v) {
  return Vec<double>(_mm512_maskz_max_pd(0xff, __m512d{}, __m512d(v)));
}
#endif

// 1 / v, right but for its last digit: where a division is one of many.
template <class V>
INLINE V inverse_of(V v) {
  return 1 / v;
}
#if VECTOR_BYTES == 64
INLINE Vec<float> inverse_of(Vec<float> v) {
  const Vec<float> near = Vec<float>(_mm512_maskz_rcp14_ps(0xffff, __m512(v)));
  return near * (2 - v * near);
}
// ssim_math.h's: the division would take the units of products for longer.
INLINE Vec<float> reciprocal(Vec<float> v) { return inverse_of(v); }
#endif

// v where the mask is all ones, else 0. (Comparing instead takes the units of products on Zen 4.)
template <class T>
INLINE Vec<T> masked(Vec<T> v, Mask<T> mask) {
  return Vec<T>(Mask<T>(v) & mask);
}

// Whether any lane of a comparison holds.
template <class Flags>
INLINE bool any_lane(Flags flags) {
  const auto words = (typename VecOf<uint64_t>::type)(flags);
  uint64_t any = 0;
  for (int i = 0; i < VECTOR_BYTES / 8; ++i) any |= words[i];
  return any != 0;
}

template <class T>
INLINE double sum_lanes(Vec<T> v) {
  double sum = 0;
  for (int lane = 0; lane < lanes<T>; ++lane) sum += double(v[lane]);
  return sum;
}

// What machines do without moving values between blocks of 16 bytes: in each block, the elements of a and b
// in turn, of its lower half or its upper one; and what moves blocks alone: the even or the odd ones of a and
// b.
template <class T, int... I>
INLINE Vec<T> interleave(Vec<T> a, Vec<T> b, bool upper, std::integer_sequence<int, I...>) {
  constexpr int n = 16 / int(sizeof(T));
  return upper ? __builtin_shufflevector(a, b, (I % 2 * lanes<T> + I / n * n + I % n / 2 + n / 2)...)
               : __builtin_shufflevector(a, b, (I % 2 * lanes<T> + I / n * n + I % n / 2)...);
}
template <class T, int... I>
INLINE Vec<T> every_other_block(Vec<T> a, Vec<T> b, bool odd, std::integer_sequence<int, I...>) {
  constexpr int n = 16 / int(sizeof(T));
  return odd ? __builtin_shufflevector(a, b, (I / n * 2 * n + n + I % n)...)
             : __builtin_shufflevector(a, b, (I / n * 2 * n + I % n)...);
}

// In each block of 16 bytes of 4 rows: rows[i][j] <-> rows[j][i].
template <class T>
INLINE void transpose_blocks(Vec<T>* rows) {
  constexpr std::make_integer_sequence<int, lanes<T>> every{};
  Vec<T> halves[4];
  for (int i = 0; i < 4; ++i) halves[i] = interleave<T>(rows[i / 2], rows[i / 2 + 2], i % 2 != 0, every);
  for (int i = 0; i < 4; ++i) rows[i] = interleave<T>(halves[i / 2], halves[i / 2 + 2], i % 2 != 0, every);
}

// rows[i][j] <-> rows[j][i]. Every step exchanges a bit of the rows' numbers with one of the columns'.
template <class T>
INLINE void transpose(Vec<T>* rows) {
  constexpr int block = 16 / int(sizeof(T));
  constexpr std::make_integer_sequence<int, lanes<T>> every{};
  const auto step = [&](int bit, auto shuffle) INLINE_LAMBDA {
#pragma GCC unroll 16
    for (int pair = 0; pair < lanes<T> / 2; ++pair) {
      const int i = pair / bit * 2 * bit + pair % bit;
      const Vec<T> a = rows[i], b = rows[i + bit];
      rows[i] = shuffle(a, b, false), rows[i + bit] = shuffle(a, b, true);
    }
  };
#pragma GCC unroll 4
  for (int bit = block / 2; bit > 0; bit /= 2) {
    step(bit,
         [&](Vec<T> a, Vec<T> b, bool upper) INLINE_LAMBDA { return interleave<T>(a, b, upper, every); });
  }
#pragma GCC unroll 4
  for (int bit = block; bit < lanes<T>; bit *= 2) {
    step(bit,
         [&](Vec<T> a, Vec<T> b, bool odd) INLINE_LAMBDA { return every_other_block<T>(a, b, odd, every); });
  }
}

// The lanes of low and high in a row, seen one lane further on: low[1], ..., low[last], high[0].
template <class T, int... I>
INLINE Vec<T> next_lanes(Vec<T> low, Vec<T> high, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(low, high, (I + 1)...);
}
template <class T>
INLINE Vec<T> next_lanes(Vec<T> low, Vec<T> high) {
  return next_lanes<T>(low, high, std::make_integer_sequence<int, lanes<T>>{});
}

// The same, but starting at the last lane of low: low[last], high[0], ..., high[last - 1].
template <class T, int... I>
INLINE Vec<T> previous_lanes(Vec<T> low, Vec<T> high, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(low, high, (I + lanes<T> - 1)...);
}
template <class T>
INLINE Vec<T> previous_lanes(Vec<T> low, Vec<T> high) {
  return previous_lanes<T>(low, high, std::make_integer_sequence<int, lanes<T>>{});
}
