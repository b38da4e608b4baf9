// The dyadic pyramid: 2x2 means of m and d, and their adjoint. Ranges are rows of the output.

// 2x2 means of two rows: coarse i covers fine 2 i and 2 i + 1.
template <class To, class From>
INLINE void pool_row(const From* __restrict above, const From* __restrict below, int64_t width,
                     To* __restrict out) {
  for (int64_t i = 0; i < width; ++i) {
    out[i] =
        To(0.25) * ((To(above[2 * i]) + To(above[2 * i + 1])) + (To(below[2 * i]) + To(below[2 * i + 1])));
  }
}

// Row index of the coarser m and d. A row or column before the first of an odd side, and one after the
// last, is 0. The means of d are float64: a uniform difference would otherwise cost the digits of its
// variation. D: what d is at this level.
template <class T, class D>
INLINE void pool_one(const Pooling& p, int64_t index, char* room) {
  const int64_t height = (p.height + 1) / 2, width = (p.width + 1) / 2, room_width = p.width + 2;
  const int64_t row = index % height, c = index / height % p.channels, n = index / height / p.channels;
  const int64_t odd_h = p.height % 2, odd_w = p.width % 2;
  T* const m = reinterpret_cast<T*>(room);
  D* const d = reinterpret_cast<D*>(room + 2 * room_width * sizeof(double));
  for (int64_t side = 0; side < 2; ++side) {
    const int64_t source = 2 * row + side - odd_h;
    T* const m_row = m + side * room_width;
    D* const d_row = d + side * room_width;
    const bool exists = source >= 0 && source < p.height;
    m_row[0] = 0, d_row[0] = 0;
    for (int64_t i = exists ? p.width + odd_w : 0; i < room_width; ++i) m_row[i] = 0, d_row[i] = 0;
    if (!exists) continue;
    if constexpr (std::is_same_v<T, D>) {
      if (!p.sum_difference) {
        read_sum_difference<T>(p.x, p.y, T(p.inverse_range), T(0), T(0), n, c, source, 0, p.width,
                               m_row + odd_w, d_row + odd_w);
        continue;
      }
    }
    read_row<T>(p.x, n, c, source, 0, p.width, m_row + odd_w);
    read_row<D>(p.y, n, c, source, 0, p.width, d_row + odd_w);
  }
  pool_row<T>(m, m + room_width, width, row_of<T>(p.m, n, c, row).data);
  pool_row<double>(d, d + room_width, width, row_of<double>(p.d, n, c, row).data);
}

template <class T>
void pool_rows(const Pooling& p, int64_t begin, int64_t end) {
  char* room = static_cast<char*>(scratch(size_t(4 * (p.width + 2)) * sizeof(double)));
  for (int64_t index = begin; index < end; ++index) {
    p.sum_difference ? pool_one<T, double>(p, index, room) : pool_one<T, T>(p, index, room);
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
