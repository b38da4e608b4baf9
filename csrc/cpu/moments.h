// The moments of R rows of positions under one window of few taps, float32's digits kept.
//
// float32 would lose the variance of bright flat areas, and small changes of a large d. So a moment is taken
// of differences to a base, a typical value of the R rows of one segment; what comes from another segment or
// from other rows is moved to the base of where it goes.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T>
class LocalMoments : protected Item<T, true> {
 protected:
  using Base = Item<T, true>;
  using Base::L, Base::p, Base::tile, Base::source, Base::s, Base::pitch, Base::halo_pitch, Base::base_m,
      Base::base_d, Base::weighted;
  using typename Base::V;
  static constexpr int R = rows_at_a_time;

  // Blurred are m, m^2, d, d^2 or, Weighted, these times the weights, and the weights themselves.
  template <bool Weighted>
  static constexpr int moments_of = Weighted ? 5 : 4;
  template <bool Weighted>  // from column to column; odd, or these would share few sets of the cache
  static constexpr int column_step = moments_of<Weighted> * R | 1;

  const int radius;
  const T centre;        // the centre's weight in two dimensions
  const T total_weight;  // of a column's taps
  const T* weights;      // relative to the centre's, see fir.h

  // The groups of rows (source.h) that R windows, or a block of the gradient, see: at most, and R windows of
  // a radius.
  static constexpr int max_groups = 8;
  static INLINE constexpr int groups_seen(int radius) { return (R + 2 * radius + R - 1) / R; }

  V *work, *columns, *moments;

  LocalMoments(const Problem& problem, const Items& items, int64_t item)
      : Base(problem, items, item, gradient_rows + 2 * problem.windows[0].radius),
        radius(tile.r),
        centre(T(p.windows[0].weights[0] * p.windows[0].weights[0])),
        total_weight(T(1 / p.windows[0].weights[0])) {}

  template <class Take>
  void layout(Take take, bool fill) {
    Base::layout(take, gradient_rows + R);
    take(work, 2 * (R + 2 * radius));
    take(columns, halo_pitch * (weighted ? column_step<true> : column_step<false>));
    take(moments, halo_pitch * (weighted ? moments_of<true> : moments_of<false>));
    T* relative = nullptr;
    take(relative, radius + 1);
    const double* const from = p.windows[0].weights;
    for (int t = 0; fill && t <= radius; ++t) relative[t] = T(from[t] / from[0]);
    weights = relative;
  }

  // Blurred m, m^2, d, d^2, less their bases: of the i-th of R rows, down the columns; of one row, under the
  // window. All as fir.h leaves them, relative to the centre's weight. The column rows lie side by side, the
  // R of m first: the machine would need too many pages at a time. A row of moments is used at once, while it
  // is in the L1 cache, and the maps take its place: processors mistake some writes for what is read next
  // when the two lie multiples of 4 KiB apart.
  template <bool Weighted>
  V* column_row(int i) const {
    return columns + radius * column_step<Weighted> + i;
  }
  V* moment_row() const { return moments + radius; }

  // Whether x = y somewhere among the i-th plane's samples of a row of d, at a pixel that counts.
  bool meets_identical(int64_t i, const V* d) const {
    const T identical = -source.offset_d[i * tile.across];
    for (int which = 0; which < 4; ++which) {
      const int64_t at = (2 * which + 1) * s / 8;
      int64_t lane = i * tile.across;
      for (int64_t col = tile.t0 + at; lane < (i + 1) * tile.across; ++lane, col += s) {
        if (d[at * source.step][lane] == identical && col >= 0 && col < tile.w &&
            (!weighted || d[at * source.step + R][lane] != 0))
          return true;
      }
    }
    return false;
  }

  void find_bases(int64_t row, int count) {
    const V* const one = source.row(row + count / 4) + source.to_d;
    const V* const other = source.row(row + 3 * count / 4) + source.to_d;
    base_m = this->typical(0, row, count, 0, s, this->first_kept(0, row, count));
    base_d = this->typical(1, row, count, 0, s, this->first_kept(1, row, count));
    // Where the images are identical, loss and gradient are 0, without rounding.
    auto met = V{} != V{};  // in which lanes: none in most images
    for (int which = 0; which < 4; ++which) {
      const int64_t at = (2 * which + 1) * s / 8 * source.step;
      met |= (one[at] == -source.offset_d) | (other[at] == -source.offset_d);
    }
    for (int64_t i = 0; any_lane(met) && i < tile.planes; ++i) {
      if (!meets_identical(i, one) && !meets_identical(i, other)) continue;
      for (int64_t lane = i * tile.across; lane < (i + 1) * tile.across; ++lane)
        base_d[lane] = -source.offset_d[lane];
    }
  }

  // By the columns of the window, around rows [row, row + count). Every row is within two of one that is
  // looked at, and so are those that only the outermost positions see.
  template <bool Weighted>
  bool meets_contrasts(int64_t row, int count) const {
    const int step = int(smaller(smaller(R, 4), 2 * radius + 1));
    V most = base_m * base_m * total_weight;
    const auto look = [&](int i) {
      const V* at = column_row<Weighted>(i);
      for (int64_t k = 0; k < s; ++k, at += column_step<Weighted>) {
        const V squares = at[R] + at[3 * R];
        most = higher(most, Weighted ? this->of_all_weights(squares, at[4 * R], total_weight) : squares);
      }
    };
    for (int first = 0; first < count; first += step) look(int(smaller(first + step / 2, count - 1)));
    if (row == tile.top) look(0);
    if (row + count == tile.bottom) look(count - 1);
    return this->mark_contrasts(most, total_weight);
  }

  // The column rows of rows [row, row + R); those past the last position mean nothing.
  template <bool Weighted>
  void blur_columns(int64_t row) {
    const bool binary = Weighted && source.binary;
    with_taps(weights, radius, [&](const auto& w) INLINE_LAMBDA {
      binary ? this->blur_columns<Weighted, Weighted>(row, w) : this->blur_columns<Weighted, false>(row, w);
    });
    if (Weighted) extend_weights(column_row<true>(0) + 4 * R);
    extend_moments<Weighted>(column_row<Weighted>(0), base_m, 4 * R);
    extend_moments<Weighted>(column_row<Weighted>(0) + 2 * R, base_d, 2 * R);
  }

  // Binary: all weights are 0 or 1; and where they are 0, so is m and d.
  template <bool Weighted, bool Binary, int Radius>
  INLINE void blur_columns(int64_t row, const Taps<T, Radius>& w) {
    const int64_t step = source.step;
    const V base_m = this->base_m, base_d = this->base_d;
    const V* groups[max_groups];
    for (int i = 0; i < groups_seen(w.radius()); ++i) groups[i] = source.row(row - w.radius() + i * R);
    V* out = column_row<Weighted>(0);
    const auto put = [&](int q) INLINE_LAMBDA {
      return [out = out + q * R](int i, V sum) INLINE_LAMBDA { out[i] = sum; };
    };
    for (int64_t k = 0; k < s; ++k, out += column_step<Weighted>) {
      const V* at[max_groups];
      for (int i = 0; i < groups_seen(w.radius()); ++i) at[i] = opaque_pointer(groups[i] + k * step);
      const auto weight = [&](int i) INLINE_LAMBDA { return at[i / R][2 * R + i % R]; };
      const auto from_base = [&](int i, V base) INLINE_LAMBDA { return Binary ? weight(i) * base : base; };
      const auto m = [&](int i) INLINE_LAMBDA { return at[i / R][i % R] - from_base(i, base_m); };
      const auto d = [&](int i) INLINE_LAMBDA { return at[i / R][R + i % R] - from_base(i, base_d); };
      if constexpr (Weighted && !Binary) {
        fir_weighted<R>(m, weight, w, put(0), put(1), work);
        fir_weighted<R>(d, weight, w, put(2), put(3), work);
      } else {
        fir_squares<R>(m, w, put(0), put(1), work);
        fir_squares<R>(d, w, put(2), put(3), work);
      }
      if constexpr (Weighted) fir<R>(weight, w, put(4));
    }
  }

  // The halos of R rows of blurred weights.
  void extend_weights(V* sums) {
    constexpr int step = column_step<true>;
    for (int64_t k = 1; k <= radius; ++k) {
      for (int i = 0; i < R; ++i) {
        sums[i - k * step] = previous_lane(sums[i + (s - k) * step]);
        sums[i + (s - 1 + k) * step] = next_lane(sums[i + (k - 1) * step]);
      }
    }
  }

  // The halos of R rows of blurred values and R of their squares, less the base of each segment. The blurred
  // weights lie to_weights further on.
  template <bool Weighted>
  void extend_moments(V* sums, V base, int to_weights) {
    constexpr int step = column_step<Weighted>;
    const V from_left = previous_lane(base) - base, from_right = next_lane(base) - base;
    V sum_left = from_left * total_weight, sum_right = from_right * total_weight;
    for (int64_t k = 1; k <= radius; ++k) {
      V *const before = sums - k * step, *const after = sums + (s - 1 + k) * step;
      const V *const last = sums + (s - k) * step, *const first = sums + (k - 1) * step;
      for (int i = 0; i < R; ++i) {
        const V left = previous_lane(last[i]), right = next_lane(first[i]);
        if (Weighted)
          sum_left = from_left * before[to_weights + i], sum_right = from_right * after[to_weights + i];
        before[i] = left + sum_left, after[i] = right + sum_right;
        before[R + i] = previous_lane(last[R + i]) + from_left * (left + (left + sum_left));
        after[R + i] = next_lane(first[R + i]) + from_right * (right + (right + sum_right));
      }
    }
  }

  // The moments of the i-th of R rows from its column row.
  template <bool Weighted>
  void blur_row(int i) {
    fir_rows<R, column_step<Weighted>, 1>(column_row<Weighted>(i), R, moments_of<Weighted>, weights, radius,
                                          int(s), moment_row(), halo_pitch);
  }
};
