// The dyadic pyramid: 2x2 means of m and d, and their adjoint. Ranges are rows of the output.

// One side of the pooling: coarse i covers fine 2 i - odd and 2 i + 1 - odd; those outside are 0.
template <class T>
void pool_rows(const Pooling& p, int64_t begin, int64_t end) {
  const int64_t odd_h = p.height % 2, odd_w = p.width % 2;
  const int64_t height = (p.height + 1) / 2, width = (p.width + 1) / 2;
  T* fine = static_cast<T*>(scratch(size_t(6 * (p.width + 4)) * sizeof(T)));
  T *m[2] = {fine, fine + (p.width + 4)}, *d[2] = {fine + 2 * (p.width + 4), fine + 3 * (p.width + 4)};
  T *out_m = fine + 4 * (p.width + 4), *out_d = fine + 5 * (p.width + 4);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index % height, c = index / height % p.channels, n = index / height / p.channels;
    for (int64_t side = 0; side < 2; ++side) {
      const int64_t source = 2 * row + side - odd_h;
      const bool inside = source >= 0 && source < p.height;
      m[side][0] = d[side][0] = m[side][p.width + odd_w] = d[side][p.width + odd_w] = 0;
      if (inside) {
        read_sum_difference<T>(p.x, p.y, p.sum_difference, T(p.inverse_range), n, c, source, 0, p.width,
                               m[side] + odd_w, d[side] + odd_w);
      } else {
        for (int64_t i = 0; i < p.width; ++i) m[side][odd_w + i] = d[side][odd_w + i] = 0;
      }
    }
    const auto average = [&](const T* __restrict above, const T* __restrict below, T* __restrict out) {
      for (int64_t i = 0; i < width; ++i) {
        out[i] = T(0.25) * ((above[2 * i] + above[2 * i + 1]) + (below[2 * i] + below[2 * i + 1]));
      }
    };
    average(m[0], m[1], out_m);
    average(d[0], d[1], out_d);
    write_row<T>(p.m, n, c, row, 0, width, out_m);
    write_row<T>(p.d, n, c, row, 0, width, out_d);
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
