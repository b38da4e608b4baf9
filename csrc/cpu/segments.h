// A row cut into as many segments as a vector has lanes, laid side by side: vector k holds element k of
// every segment. A filter along the row then reads whole aligned vectors, as one down the columns does.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Linear row -> segments of s elements: vector k of out is made by `finish` of elements k, s + k, 2 s + k,
// ... and of where it goes. load_at(lane, k) gives the elements from lane * s + k on, a vector beyond lanes *
// s of them where segments are shorter than a block. The last block overlaps the one before. step: from a
// vector of out to the next.
template <class T, class Load, class Finish>
INLINE void load_segments(Load load_at, int64_t s, Vec<T>* out, int64_t step, Finish finish) {
  constexpr int n = lanes<T>;
  for (int64_t begin = 0; begin < s; begin += n) {
    const int64_t k = s < n ? 0 : smaller(begin, s - n);
    Vec<T> block[n];
    for (int lane = 0; lane < n; ++lane) block[lane] = load_at(lane, k);
    transpose<T>(block);
    const auto put = [&](int i)
                         INLINE_LAMBDA { out[(k + i) * step] = finish(block[i], out + (k + i) * step); };
    if (s < n) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i)
        if (i < s) put(i);
      return;
    }
    for (int i = 0; i < n; ++i) put(i);
  }
}

// The same of bytes, at least 16 of them in a segment, as numbers; `look` sees 4 vectors' at a time. Words of
// 4 columns are exchanged between the lanes of a block of 4, which takes a quarter of the moves.
template <class T, class At, class Look>
INLINE void load_byte_segments(At at, int64_t s, Vec<T>* out, int64_t step, Look look) {
  static_assert(sizeof(T) == 4, "a word is as long as a lane");
  for (int64_t begin = 0; begin < s; begin += 16) {
    const int64_t k = smaller(begin, s - 16);
    Vec<T> words[4];
    for (int i = 0; i < 4; ++i) {
      for (int block = 0; block < lanes<T> / 4; ++block)
        __builtin_memcpy(reinterpret_cast<char*>(words + i) + 16 * block, at(4 * block + i, k), 16);
    }
    transpose_blocks<T>(words);
    for (int i = 0; i < 4; ++i) {
      const Mask<T> word = Mask<T>(words[i]);
      look(word);
      for (int j = 0; j < 4; ++j) {
        const auto bytes = (typename VecOf<int32_t>::type)(word >> 8 * j & 255);
        out[(k + 4 * i + j) * step] = __builtin_convertvector(bytes, Vec<T>);
      }
    }
  }
}

template <class T>
INLINE void to_segments(const T* linear, int64_t s, Vec<T>* out, int64_t step = 1) {
  load_segments<T>([&](int lane, int64_t k) INLINE_LAMBDA { return load<T>(linear + lane * s + k); }, s, out,
                   step, [&](Vec<T> v, const Vec<T>*) INLINE_LAMBDA { return v; });
}

// What lies in the segment before, and in the one after; nothing is beyond the row.
template <class V>
INLINE V previous_lane(V v) {
  return previous_lanes<std::remove_reference_t<decltype(v[0])>>(V{}, v);
}
template <class V>
INLINE V next_lane(V v) {
  return next_lanes<std::remove_reference_t<decltype(v[0])>>(v, V{});
}

// Let a row be read `halo` vectors beyond both of its ends.
template <class T>
INLINE void extend_segments(Vec<T>* row, int64_t s, int64_t halo) {
  for (int64_t k = 1; k <= halo; ++k)
    row[-k] = previous_lane(row[s - k]), row[s - 1 + k] = next_lane(row[k - 1]);
}

// Segments -> linear rows: each segment goes to a place of its own, to[lane]; where segments are shorter than
// a block, what is too much of one has to be overwritten by the next.
template <class T>
INLINE void from_segments(const Vec<T>* in, int64_t s, T* const* to, int64_t step = 1) {
  constexpr int n = lanes<T>;
  Vec<T> block[n];
  const auto put = [&](int64_t k) INLINE_LAMBDA {
    transpose<T>(block);
#pragma GCC unroll 16
    for (int lane = 0; lane < n; ++lane) store<T>(to[lane] + k, block[lane]);
  };
  if (s < n) {
    for (int i = 0; i < n; ++i) block[i] = i < s ? in[i * step] : Vec<T>{};
    return put(0);
  }
  for (int64_t begin = 0; begin < s; begin += n) {
    const int64_t k = smaller(begin, s - n);
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) block[i] = in[(k + i) * step];
    put(k);
  }
}
