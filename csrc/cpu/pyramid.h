// The adjoint of the dyadic pyramid's 2x2 means (those are source.h's). Ranges are rows of the output.

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
