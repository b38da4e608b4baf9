// The dyadic pyramid: 2x2 means of m and d, and their adjoint. Ranges are rows of the output.

// One row of the 2x2 means of what read(row, out) reads: coarse i covers fine 2 i - odd and
// 2 i + 1 - odd, and what is outside is 0. room: for 2 (width + 2).
template <class T, class F>
INLINE void pool_row(const Pooling& p, int64_t row, F read, T* room, T* __restrict out) {
  const int64_t odd_h = p.height % 2, odd_w = p.width % 2;
  T* sides[2] = {room, room + p.width + 2};
  for (int64_t side = 0; side < 2; ++side) {
    const int64_t source = 2 * row + side - odd_h;
    for (int64_t i = 0; i < p.width + 2; ++i) sides[side][i] = 0;
    if (source >= 0 && source < p.height) read(source, sides[side] + odd_w);
  }
  const T* __restrict above = sides[0], * __restrict below = sides[1];
  for (int64_t i = 0; i < (p.width + 1) / 2; ++i) {
    out[i] = T(0.25) * ((above[2 * i] + above[2 * i + 1]) + (below[2 * i] + below[2 * i + 1]));
  }
}

// d in float64 throughout: a uniform difference would otherwise cost the digits of its variation.
template <class T>
void pool_rows(const Pooling& p, int64_t begin, int64_t end) {
  const int64_t height = (p.height + 1) / 2, width = (p.width + 1) / 2;
  double* room = static_cast<double*>(scratch(size_t(4 * (p.width + 2)) * sizeof(double)));
  double *out = room + 2 * (p.width + 2), *other = out + (p.width + 2);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index % height, c = index / height % p.channels, n = index / height / p.channels;
    const auto m_row = [&](int64_t source, T* to) INLINE_LAMBDA {
      if (p.sum_difference) return read_row<T>(p.x, n, c, source, 0, p.width, to);
      read_sum_difference<T>(p.x, p.y, T(p.inverse_range), T(0), T(0), n, c, source, 0, p.width, to,
                             reinterpret_cast<T*>(other));
    };
    const auto d_row = [&](int64_t source, double* to) INLINE_LAMBDA {
      if (p.sum_difference) return read_row<double>(p.y, n, c, source, 0, p.width, to);
      read_sum_difference<double>(p.x, p.y, p.inverse_range, 0, 0, n, c, source, 0, p.width, other, to);
    };
    pool_row<T>(p, row, m_row, reinterpret_cast<T*>(room), reinterpret_cast<T*>(out));
    write_row<T>(p.m, n, c, row, 0, width, reinterpret_cast<T*>(out));
    pool_row<double>(p, row, d_row, room, out);
    write_row<double>(p.d, n, c, row, 0, width, out);
  }
}

template <class T>
void unpool_rows(const Unpooling& p, int64_t begin, int64_t end) {
  const int64_t odd_h = p.height % 2, odd_w = p.width % 2, coarse_width = (p.width + 1) / 2;
  T* buffer = static_cast<T*>(scratch(size_t(2 * p.width + 4) * sizeof(T)));
  T* coarse = buffer + p.width;
  const bool in_place =
      p.fine.stride_w == 1 && p.fine.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index % p.height, c = index / p.height % p.channels;
    const int64_t n = index / p.height / p.channels;
    const T gain = T(p.gains[n * p.channels + c]);
    T* __restrict fine = in_place ? row_of<T>(p.fine, n, c, row).data : buffer;
    if (!in_place) read_row<T>(p.fine, n, c, row, 0, p.width, fine);
    if (p.coarse.data) {
      read_row<T>(p.coarse, n, c, (row + odd_h) / 2, 0, coarse_width, coarse);
      if (odd_w) fine[0] = fine[0] * gain + T(0.25) * coarse[0];
      const T* __restrict source = coarse + odd_w;
      T* __restrict pairs = fine + odd_w;
      for (int64_t i = 0; i < p.width / 2; ++i) {
        pairs[2 * i] = pairs[2 * i] * gain + T(0.25) * source[i];
        pairs[2 * i + 1] = pairs[2 * i + 1] * gain + T(0.25) * source[i];
      }
    } else {
      for (int64_t i = 0; i < p.width; ++i) fine[i] *= gain;
    }
    if (!in_place) write_row<T>(p.fine, n, c, row, 0, p.width, fine);
  }
}
