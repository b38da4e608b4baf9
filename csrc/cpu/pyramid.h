// What is done to gradients that are there already: multiplying them, and adding to them those of the coarser
// level of the dyadic form, the adjoint of the 2x2 means (those are source.h's). Ranges are rows of the
// output.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// f(values, image, channel, row of the plane, plane) for rows [begin, end), read before and written after.
template <class T, class F>
void each_row(const Scaling& p, int64_t begin, int64_t end, T* buffer, F f) {
  const bool in_place =
      p.fine.stride_w == 1 && p.fine.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index % p.height, c = index / p.height % p.channels;
    const int64_t n = index / p.height / p.channels;
    T* const fine = in_place ? row_of<T>(p.fine, n, c, row).data : buffer;
    if (!in_place) read_row<T>(p.fine, n, c, row, 0, p.width, fine);
    f(fine, n, c, row, T(p.gains[n * p.channels + c]));
    if (!in_place) write_row<T>(p.fine, n, c, row, 0, p.width, fine);
  }
}

template <class T>
void scale_rows(const Scaling& p, int64_t begin, int64_t end) {
  T* buffer = static_cast<T*>(scratch(size_t(p.width) * sizeof(T)));
  each_row<T>(p, begin, end, buffer, [&](T* __restrict fine, int64_t, int64_t, int64_t, T gain) {
    for (int64_t i = 0; i < p.width; ++i) fine[i] *= gain;
  });
}

// A row of them. Where nothing is kept the coarse gradient is 0.
template <class T>
void add_under_weights(T* __restrict fine, T gain, T share, const T* __restrict w,
                       const T* __restrict coarse_w, T* __restrict coarse, const Halving<int64_t>& across) {
  const int64_t width = across.n, before = across.zeros(), last = width - 1;
  for (int64_t i = 0; i < across.size(); ++i)
    coarse[i] = coarse[i] / select<T>(coarse_w[i], coarse_w[i], 1) * share;
  const auto add = [=](int64_t to, T more)
                       INLINE_LAMBDA { fine[to] = select<T>(w[to], fine[to] * gain + w[to] * more, 0); };
  if (before) add(0, coarse[0]);
  for (int64_t i = 0; i < width / 2; ++i)
    add(before + 2 * i, coarse[before + i]), add(before + 2 * i + 1, coarse[before + i]);
  if ((width - before) % 2 == 0) return;
  const int64_t times = across.times(last);
  add(last, times > 0 ? T(times) * coarse[across.of(last)] : T(0));
}

template <class T>
void unpool_rows(const Unpooling& unpooling, int64_t begin, int64_t end) {
  const Scaling& p = unpooling.scaling;
  const Halving down{p.height, unpooling.odd_side}, across{p.width, unpooling.odd_side};
  const int64_t before = across.zeros(), pairs_end = p.width - (p.width - before) % 2;
  T* buffer = static_cast<T*>(scratch(size_t(4 * p.width + 8) * sizeof(T)));
  T* coarse = buffer + p.width;
  T *const w = coarse + p.width + 4, *const coarse_w = w + p.width;
  each_row<T>(p, begin, end, buffer, [&](T* __restrict fine, int64_t n, int64_t c, int64_t row, T gain) {
    const T share = T(0.25) * T(down.times(row));
    if (share == 0) {  // the row that is left out
      for (int64_t i = 0; i < p.width; ++i) fine[i] *= gain;
      return;
    }
    read_row<T>(unpooling.coarse, n, c, down.of(row), 0, across.size(), coarse);
    if (unpooling.mask.data) {
      read_row<T>(unpooling.mask, n, c, row, 0, p.width, w);
      read_row<T>(unpooling.coarse_mask, n, c, down.of(row), 0, across.size(), coarse_w);
      return add_under_weights(fine, gain, share, w, coarse_w, coarse, across);
    }
    if (before) fine[0] = fine[0] * gain + share * coarse[0];
    const T* __restrict source = coarse + before;
    T* __restrict pairs = fine + before;
    for (int64_t i = 0; i < p.width / 2; ++i) {
      pairs[2 * i] = pairs[2 * i] * gain + share * source[i];
      pairs[2 * i + 1] = pairs[2 * i + 1] * gain + share * source[i];
    }
    if (pairs_end == p.width) return;
    fine[pairs_end] *= gain;
    const int64_t times = across.times(pairs_end);
    if (times > 0) fine[pairs_end] += share * T(times) * coarse[across.of(pairs_end)];
  });
}
