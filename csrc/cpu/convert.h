// Rows of any dtype and stride to and from linear rows of the arithmetic type (float or double).
// The 16-bit conversions are branch-free bit arithmetic, which every compiler vectorises.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

template <class To, class From>
INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Choices by a weight, made on bits: under a condition of numbers, compilers vectorise no arithmetic.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <class T>
INLINE T select_bits(Bits<T> all_ones, T one, T other) {
  return bit_cast<T>((bit_cast<Bits<T>>(one) & all_ones) | (bit_cast<Bits<T>>(other) & ~all_ones));
}
template <class T>
INLINE Bits<T> is_below(T weight, T limit) {  // neither is negative; NaN is below nothing
  return bit_cast<Bits<T>>(weight) < bit_cast<Bits<T>>(limit) ? ~Bits<T>(0) : Bits<T>(0);
}
template <class T>
INLINE T select(T weight, T if_kept, T if_zero) {
  const Bits<T> zero = (bit_cast<Bits<T>>(weight) << 1) == 0 ? ~Bits<T>(0) : Bits<T>(0);  // or -0
  return select_bits<T>(zero, if_zero, if_kept);
}

INLINE float widen(float v) { return v; }
INLINE double widen(double v) { return v; }
INLINE float widen(uint8_t v) { return v; }
INLINE float widen(Brain v) { return bit_cast<float>(uint32_t(v.bits) << 16); }
INLINE float widen(Half v) {
  const uint32_t magnitude = uint32_t(v.bits & 0x7fff) << 13;
  const uint32_t exponent = magnitude & 0x0f800000;
  const uint32_t special = exponent == 0x0f800000 ? 0x38000000u : 0;  // Inf, NaN
  const uint32_t normal = magnitude + 0x38000000 + special;
  const float small = bit_cast<float>(magnitude + 0x38800000) - bit_cast<float>(uint32_t(0x38800000));
  const uint32_t bits = exponent == 0 ? bit_cast<uint32_t>(small) : normal;
  return bit_cast<float>(bits | uint32_t(v.bits & 0x8000) << 16);
}

template <class To, class From>
INLINE To narrow(From v) {
  return To(v);
}
template <>
INLINE Brain narrow<Brain, float>(float v) {
  const uint32_t bits = bit_cast<uint32_t>(v);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
  return {uint16_t(v != v ? 0x7fc0 : rounded)};
}
template <>
INLINE Half narrow<Half, float>(float v) {
  const uint32_t bits = bit_cast<uint32_t>(v);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t normal = (magnitude + 0xc8000fff + (magnitude >> 13 & 1)) >> 13;
  const uint32_t rounded = magnitude >= 0x47800000 ? special : (magnitude < 0x38800000 ? subnormal : normal);
  return {uint16_t(rounded | (bits >> 16 & 0x8000))};
}

INLINE int64_t size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : dtype == DType::uint8 ? 1 : 2;
}

template <class T>
struct Row {  // one row of an image, in elements from its first column
  T* data;
  int64_t stride;
};

template <class T>
INLINE Row<T> row_of(const Images& images, int64_t n, int64_t c, int64_t h) {
  T* data = static_cast<T*>(images.data);
  return {data + n * images.stride_n + c * images.stride_c + h * images.stride_h, images.stride_w};
}

// Call f with the element type of a dtype: f(float*) etc.; the pointer is only a tag. read_row takes uint8.
template <class F>
INLINE void with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::float32: return f(static_cast<float*>(nullptr));
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::float16: return f(static_cast<Half*>(nullptr));
    case DType::bfloat16: return f(static_cast<Brain*>(nullptr));
    case DType::uint8: return;
  }
}

// Strides 1 (planes) and 3 (channels_last pictures) as constants let the compiler vectorise.
template <class F>
INLINE void with_stride(int64_t stride, F f) {
  if (stride == 1) return f(std::integral_constant<int64_t, 1>{});
  if (stride == 3) return f(std::integral_constant<int64_t, 3>{});
  f(stride);
}

// A row less offset, which is taken away before rounding to T.
template <class T>
void read_row(const Images& images, int64_t n, int64_t c, int64_t h, int64_t first, int64_t count, T* out,
              double offset = 0) {
  const auto read = [&](auto* tag) INLINE_LAMBDA {
    using In = std::remove_pointer_t<decltype(tag)>;
    const Row<In> row = row_of<In>(images, n, c, h);
    with_stride(row.stride, [&](auto stride) INLINE_LAMBDA {
      using Exact = decltype(widen(In{}) + T{});  // the wider of the two
      for (int64_t i = 0; i < count; ++i)
        out[i] = T(Exact(widen(row.data[(first + i) * stride])) - Exact(offset));
    });
  };
  images.dtype == DType::uint8 ? read(static_cast<uint8_t*>(nullptr)) : with_type(images.dtype, read);
}

// Of weights: so many additions that do not wait for each other, whatever the stride.
double sum_of_row(const Images& images, int64_t n, int64_t c, int64_t h, int64_t first, int64_t count) {
  double sum = 0;
  const auto add_up = [&](const auto* tag) INLINE_LAMBDA {
    using In = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    using Sum = std::conditional_t<sizeof(In) == 1, uint32_t, double>;
    constexpr int parts = sizeof(In) == 1 ? 1 : 32;
    const Row<const In> row = row_of<const In>(images, n, c, h);
    Sum sums[parts] = {};
    int64_t i = 0;
    for (; row.stride == 1 && i + parts <= count; i += parts) {
      for (int j = 0; j < parts; ++j) sums[j] += Sum(row.data[first + i + j]);
    }
    for (; i < count; ++i) sums[i % parts] += Sum(row.data[(first + i) * row.stride]);
    for (const Sum part : sums) sum += double(part);
  };
  switch (images.dtype) {
    case DType::float64: return add_up(static_cast<const double*>(nullptr)), sum;
    case DType::uint8: return add_up(static_cast<const uint8_t*>(nullptr)), sum;
    default: return add_up(static_cast<const float*>(nullptr)), sum;
  }
}

// A row of y in the units of x, whose dtype says what bytes are rounded to.
template <class T>
void read_target(const Images& y, DType of_x, double inverse_range, int64_t n, int64_t c, int64_t h,
                 int64_t first, int64_t count, T* out) {
  read_row<T>(y, n, c, h, first, count, out);
  if (y.dtype != DType::uint8) return;
  const auto scale = [&](auto range) INLINE_LAMBDA {
    using Exact = decltype(range);
    for (int64_t i = 0; i < count; ++i) out[i] = T(Exact(out[i]) * range / Exact(255));
  };
  of_x == DType::float64 ? scale(1 / inverse_range) : scale(float(1 / inverse_range));
}

// m = x + y - offset_m and d = x - y - offset_d in units of the data range.
template <class T>
void read_sum_difference(const Images& x, const Images& y, double inverse_range, T offset_m, T offset_d,
                         int64_t n, int64_t c, int64_t h, int64_t first, int64_t count, T* __restrict m,
                         T* __restrict d) {
  const T scale = T(inverse_range);
  const auto put = [&](int64_t i, T a, T b) INLINE_LAMBDA {
    m[i] = (a + b) * scale - offset_m;
    d[i] = (a - b) * scale - offset_d;
  };
  if (y.dtype != x.dtype) {
    read_row<T>(x, n, c, h, first, count, m);
    read_target<T>(y, x.dtype, inverse_range, n, c, h, first, count, d);
    for (int64_t i = 0; i < count; ++i) put(i, m[i], d[i]);
    return;
  }
  with_type(x.dtype, [&](auto* tag) INLINE_LAMBDA {
    using In = std::remove_pointer_t<decltype(tag)>;
    const Row<In> row_x = row_of<In>(x, n, c, h), row_y = row_of<In>(y, n, c, h);
    const auto read = [&](auto stride_x, auto stride_y) INLINE_LAMBDA {
      const In* __restrict px = row_x.data + first * stride_x;
      const In* __restrict py = row_y.data + first * stride_y;
      for (int64_t i = 0; i < count; ++i) put(i, T(widen(px[i * stride_x])), T(widen(py[i * stride_y])));
    };
    if (row_x.stride == row_y.stride) {
      with_stride(row_x.stride, [&](auto stride) INLINE_LAMBDA { read(stride, stride); });
    } else {
      read(row_x.stride, row_y.stride);
    }
  });
}

template <class T>
void write_row(const Images& images, int64_t n, int64_t c, int64_t h, int64_t first, int64_t count,
               const T* __restrict values) {
  with_type(images.dtype, [&](auto* tag) INLINE_LAMBDA {
    using Out = std::remove_pointer_t<decltype(tag)>;
    using Wide = decltype(widen(Out{}));
    const Row<Out> row = row_of<Out>(images, n, c, h);
    with_stride(row.stride, [&](auto stride) INLINE_LAMBDA {
      Out* __restrict out = row.data + first * stride;
      for (int64_t i = 0; i < count; ++i) out[i * stride] = narrow<Out, Wide>(Wide(values[i]));
    });
  });
}

// Rows that will be read or written soon, fetched in small doses while others work: machines do not foresee
// the start of a strip's next row, and all of it at once would stall them.
struct Ahead {
  const char* const* vectors;  // where each vector of the images' first rows lies
  int64_t offset, row_bytes;   // from there to the first of `rows` rows, and to the next
  int rows;
};

// Fetch the k-th vector of each row, into the L2 cache: the L1 cache is too small to hold it until it is
// used.
INLINE void fetch(const Ahead& ahead, int64_t k) {
  const char* const at = ahead.vectors[k];
  __builtin_prefetch(at + ahead.offset, 0, 2);
#pragma GCC unroll 8
  for (int i = 1; i < ahead.rows; ++i) __builtin_prefetch(at + (ahead.offset + i * ahead.row_bytes), 0, 2);
}
INLINE Ahead ahead(const Images& images, const char* const* vectors, int64_t row, int rows) {
  const int64_t row_bytes = size_of(images.dtype) * images.stride_h;
  return {vectors, row * row_bytes, row_bytes, rows};
}
