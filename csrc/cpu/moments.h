// The moments of R rows of positions, float32's digits kept.
//
// float32 would lose the variance of bright flat areas, and small changes of a large d. So a moment is taken
// of differences to a base, a typical value of the R rows of one segment; what comes from another segment or
// from other rows is moved to the base of where it goes. Narrow windows have a base in every column, tiny
// ones at every pixel: a value that they see.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

constexpr int max_scales = 16;

template <class T>
class LocalMoments {
 protected:
  using V = Vec<T>;
  static constexpr int L = lanes<T>, R = rows_at_a_time;

  const Problem& p;
  const bool windowed_l1;
  const int scales;
  // With one scale a row of moments is used at once, while it is in the L1 cache, and the maps take its
  // place: processors mistake some writes for what is read next when the two lie multiples of 4 KiB apart.
  const bool one_row;
  const Tile<T> tile;
  Source<T> source;
  const int64_t s, pitch, halo_pitch, moment_pitch;
  static constexpr int column_step = 5 * R | 1;  // odd, or the columns would share few sets of the cache

  int radius[max_scales];
  const T* weights[max_scales];  // relative to the centre's, see fir.h
  T centre[max_scales];          // the centre's weight in two dimensions
  T total_weight[max_scales];    // of a column's taps
  bool any_narrow = false;

  V base_m, base_d;  // of the R rows at hand
  int middle;        // of them
  V* values;         // of the same R rows, m and d, where finite: the bases of narrow windows
  V *work, *columns, *moments;
  const V** raws;

  LocalMoments(const Problem& problem, const Items& items, int64_t item)
      : p(problem),
        windowed_l1(p.l1_windowed && p.l1_weight != 0),
        scales(p.scales),
        one_row(scales == 1),
        tile(p, items, item),
        source(p, tile, R + 3 * tile.r),
        s(tile.s),
        pitch(tile.pitch),
        halo_pitch(tile.halo_pitch),
        moment_pitch(one_row ? halo_pitch : pitch) {
    for (int j = 0; j < scales; ++j) radius[j] = p.windows[j].radius, any_narrow = any_narrow || narrow(j);
  }

  // Windows much narrower than a segment (which is longer the shorter the vectors are). Without, y = 1 - x
  // would cost several scales a digit of the gradient.
  bool narrow(int j) const {
    const double several = VECTOR_BYTES > 16 ? 0.15 : 0.08;
    return radius[j] > 0 && p.windows[j].weights[0] > (scales > 1 ? several : 0.3);
  }
  bool tiny(int j) const { return narrow(j) && (p.windows[j].weights[0] > 0.3 || 2 * radius[j] + 1 < R); }

  template <class Take>
  void layout(Take take, bool fill) {
    source.layout(take);
    take(work, 2 * (R + 2 * tile.r));
    take(raws, R + 2 * tile.r);
    take(values, any_narrow ? int64_t(R) * 2 * halo_pitch : 0);
    take(columns, halo_pitch * column_step);
    take(moments, int64_t(one_row ? 1 : R) * scales * 5 * moment_pitch);
    for (int j = 0; j < scales; ++j) {
      const double* const from = p.windows[j].weights;
      T* relative = nullptr;
      take(relative, radius[j] + 1);
      for (int t = 0; fill && t <= radius[j]; ++t) relative[t] = T(from[t] / from[0]);
      weights[j] = relative, centre[j] = T(from[0] * from[0]), total_weight[j] = T(1 / from[0]);
    }
  }

  // Blurred m, m^2, d, d^2, less their bases, and for a windowed l1 |d|: of the i-th of R rows, down the
  // columns; of one row, under the window. All as fir.h leaves them, relative to the centre's weight.
  // The column rows lie side by side, the R of m first: the machine would need too many pages at a time.
  V* column_row(int i) const { return columns + tile.r * column_step + i; }
  V* moment_row(int i, int j) const {
    return one_row ? moments + tile.r : moments + (i * scales + j) * 5 * pitch;
  }

  // Four columns of each segment, to find its bases in.
  int64_t sample(int i) const { return (2 * i + 1) * s / 8; }

  // A mean of values of each segment in two rows. Without those far out of range and out of the others', or
  // NaN: the base of a stray huge value would cost its neighbours their digits.
  V typical(const V* one, const V* other) const {
    V least = V{} + T(1e30);
    for (int i = 0; i < 4; ++i)
      least = lower(absolute(one[sample(i)]), lower(absolute(other[sample(i)]), least));
    const V most = T(2) + T(2) * least;
    const auto middle_of = [&](const V* values) INLINE_LAMBDA {
      V at[4];
      for (int i = 0; i < 4; ++i) {
        const V v = values[sample(i)];
        at[i] = absolute(v) <= most ? v : V{};
      }
      return T(0.5) * (higher(lower(at[0], at[1]), lower(at[2], at[3])) +
                       lower(higher(at[0], at[1]), higher(at[2], at[3])));
    };
    return T(0.5) * (middle_of(one) + middle_of(other));
  }

  // Whether x = y somewhere among the i-th plane's samples of a row of d.
  bool meets_identical(int64_t i, const V* d) const {
    const T identical = -source.offset_d[i * tile.across];
    for (int which = 0; which < 4; ++which) {
      const int64_t at = sample(which);
      int64_t lane = i * tile.across;
      for (int64_t col = tile.t0 + at; lane < (i + 1) * tile.across; ++lane, col += s) {
        if (d[at][lane] == identical && col >= 0 && col < tile.w) return true;
      }
    }
    return false;
  }

  void find_bases(int64_t row, int count) {
    const V *const one = source.row(row + count / 4), *const other = source.row(row + 3 * count / 4);
    base_m = typical(one, other), base_d = typical(one + pitch, other + pitch);
    // Where the images are identical, loss and gradient are 0, without rounding.
    auto met = V{} != V{};  // in which lanes: none in most images
    for (int which = 0; which < 4; ++which) {
      const int64_t at = pitch + sample(which);
      met |= (one[at] == -source.offset_d) | (other[at] == -source.offset_d);
    }
    bool any = false;
    for (int lane = 0; lane < L; ++lane) any = any || met[lane] != 0;
    for (int64_t i = 0; any && i < tile.planes; ++i) {
      if (!meets_identical(i, one + pitch) && !meets_identical(i, other + pitch)) continue;
      for (int64_t lane = i * tile.across; lane < (i + 1) * tile.across; ++lane)
        base_d[lane] = -source.offset_d[lane];
    }
    if (!any_narrow) return;
    middle = count / 2;
    for (int i = 0; i < count; ++i) {
      for (int q = 0; q < 2; ++q) {
        const V* const from = source.row(row + i) + q * pitch;
        V* const to = value_row(i, q);
        const V other = q == 0 ? base_m : base_d;
        for (int64_t k = 0; k < s; ++k) to[k] = from[k] - from[k] == V{} ? from[k] : other;
        extend_segments<T>(to, s, tile.r);
      }
    }
  }

  // In which planes m, less the offset, or a contrast is more than 8 data ranges here, by the columns of the
  // largest window. Beyond, a flat region's gradient is the small rest of large terms, which the digits of
  // double have to hold (variant.h). Every row is within two of one that is looked at; narrow windows have a
  // base in every column, and so no contrast in one.
  uint32_t beyond_float32(int count) const {
    const int j = scales - 1, step = int(smaller(smaller(R, 4), 2 * radius[j] + 1));
    const T total = total_weight[j];
    V most = base_m * base_m * total;
    for (int first = 0; first < count; first += step) {
      const int i = int(smaller(first + step / 2, count - 1));
      const V *at = column_row(i), *const bases = narrow(j) ? base_row(j, i, 0) : nullptr;
      for (int64_t k = 0; k < s; ++k, at += column_step) {
        most = higher(most, at[R] + at[3 * R]);
        if (bases) most = higher(most, bases[k] * bases[k] * total);
      }
    }
    const auto beyond = most > T(64) * total;
    uint32_t planes = 0;
    for (int lane = 0; lane < L; ++lane) planes |= uint32_t(beyond[lane] != 0) << lane / tile.across;
    return planes;
  }

  V* value_row(int i, int q) const { return values + (i * 2 + q) * halo_pitch + tile.r; }

  // The bases of m (q = 0) or d (q = 1) in the i-th of R rows, under a narrow window of scale j.
  const V* base_row(int j, int i, int q) const { return value_row(tiny(j) ? i : middle, q); }
  V base(int j, int i, int q, int64_t k) const {
    return narrow(j) ? base_row(j, i, q)[k] : (q == 0 ? base_m : base_d);
  }

  // The column rows of rows [row, row + count), of scale j.
  void blur_columns(int j, int64_t row, int count) {
    const int halo = radius[j];
    for (int i = 0; i < R + 2 * halo; ++i)  // those of rows past count are never used
      raws[i] = source.padded(smaller(row - halo + i, row + count - 1 + halo));
    if (tiny(j)) {
      blur_tiny_columns(j);
    } else {
      with_taps(weights[j], halo, [&](const auto& w) INLINE_LAMBDA { blur_columns(j, w); });
    }
    extend_moments(column_row(0), narrow(j) ? V{} : base_m, j);
    extend_moments(column_row(0) + 2 * R, narrow(j) ? V{} : base_d, j);
    for (int i = 0; i < count && j == scales - 1 && windowed_l1; ++i)
      extend_segments<T>(column_row(i) + 4 * R, s, halo, column_step);
  }

  template <int Radius>
  INLINE void blur_columns(int j, const Taps<T, Radius>& w) {
    const bool with_l1 = windowed_l1 && j == scales - 1;
    const int64_t pitch = this->pitch;
    const V offset_d = source.offset_d;
    const V* const* const raws = this->raws;
    V base_m = this->base_m, base_d = this->base_d;
    const bool narrow = this->narrow(j);
    V* out = column_row(0);
    const auto put = [&](int q) INLINE_LAMBDA {
      return [out = out + q * R](int i, V sum) INLINE_LAMBDA { out[i] = sum; };
    };
    for (int64_t k = 0; k < s; ++k, out += column_step) {
      if (narrow) base_m = value_row(middle, 0)[k], base_d = value_row(middle, 1)[k];
      const auto d = [&](int i) INLINE_LAMBDA { return raws[i][pitch + k]; };
      fir_squares<R>([&](int i) INLINE_LAMBDA { return raws[i][k] - base_m; }, w, put(0), put(1), work);
      fir_squares<R>([&](int i) INLINE_LAMBDA { return d(i) - base_d; }, w, put(2), put(3), work);
      if (with_l1) fir<R>([&](int i) INLINE_LAMBDA { return absolute(d(i) + offset_d); }, w, put(4));
    }
  }

  // The same under a tiny window.
  void blur_tiny_columns(int j) {
    const int halo = radius[j];
    const T* const w = weights[j];
    for (int i = 0; i < R; ++i) {
      V* out = column_row(i);
      for (int64_t k = 0; k < s; ++k, out += column_step) {
        for (int q = 0; q < 2; ++q) {
          const V base = value_row(i, q)[k];
          const auto at = [&](int t) INLINE_LAMBDA { return raws[i + halo + t][q * pitch + k] - base; };
          V sum = at(0), squares = sum * sum;
          for (int t = 1; t <= halo; ++t) {
            const V above = at(-t), below = at(t);
            sum += w[t] * (above + below), squares += w[t] * (above * above + below * below);
          }
          out[2 * q * R] = sum, out[(2 * q + 1) * R] = squares;
        }
        if (windowed_l1 && j == scales - 1) {
          const auto l1 = [&](int t)
                              INLINE_LAMBDA { return absolute(raws[i + t][pitch + k] + source.offset_d); };
          fir<1>(l1, Taps<T, 0>(w, halo), [&](int, V sum) INLINE_LAMBDA { out[4 * R] = sum; });
        }
      }
    }
  }

  // The halos of R rows of blurred values and R of their squares, of scale j, less the base of each segment.
  void extend_moments(V* sums, V base, int j) {
    const V from_left = previous_lane(base) - base, from_right = next_lane(base) - base;
    const V sum_left = from_left * total_weight[j], sum_right = from_right * total_weight[j];
    for (int64_t k = 1; k <= radius[j]; ++k) {
      V *const before = sums - k * column_step, *const after = sums + (s - 1 + k) * column_step;
      const V *const last = sums + (s - k) * column_step, *const first = sums + (k - 1) * column_step;
      for (int i = 0; i < R; ++i) {
        const V left = previous_lane(last[i]), right = next_lane(first[i]);
        before[i] = left + sum_left, after[i] = right + sum_right;
        before[R + i] = previous_lane(last[R + i]) + from_left * (left + (left + sum_left));
        after[R + i] = next_lane(first[R + i]) + from_right * (right + (right + sum_right));
      }
    }
  }

  // The moments of the i-th of R rows from its column row, of scale j.
  void blur_row(int j, int i) {
    const V* const column = column_row(i);
    V* const out = moment_row(i, j);
    const bool with_l1 = windowed_l1 && j == scales - 1;
    const T* const w = weights[j];
    if (!narrow(j))
      return fir_rows<R, column_step>(column, R, 4 + with_l1, w, radius[j], int(s), out, moment_pitch);
    if (with_l1)
      fir_rows<R, column_step>(column + 4 * R, 0, 1, w, radius[j], int(s), out + 4 * moment_pitch, 0);
    for (int q = 0; q < 2; ++q) {
      const V *const base = base_row(j, i, q), *const sums = column + 2 * q * R;
      V* const to = out + 2 * q * moment_pitch;
      if (tiny(j)) {
        blur_tiny_row(j, base, sums, to);
      } else {
        for_blocks<R>(int(s),
                      [&](int k, auto block) INLINE_LAMBDA { blur_narrow<block>(j, k, base, sums, to); });
      }
    }
  }

  // All that a moment is made of is moved to its own base.
  INLINE void blur_tiny_row(int j, const V* base, const V* sums, V* out) {
    const T *const w = weights[j], total = total_weight[j];
    const int halo = radius[j];
    for (int64_t k = 0; k < s; ++k) {
      V sum = sums[k * column_step], square = sums[k * column_step + R];
      const auto add = [&](int64_t at, T weight) INLINE_LAMBDA {
        const V *const from = sums + at * column_step, by = base[at] - base[k], moved = from[0] + by * total;
        sum += weight * moved, square += weight * (from[R] + by * (from[0] + moved));
      };
      for (int t = 1; t <= halo; ++t) add(k - t, w[t]), add(k + t, w[t]);
      out[k] = sum, out[moment_pitch + k] = square;
    }
  }

  // The same for `block` moments at a time: to the base of the middle one first, at last to their own.
  template <int block>
  INLINE void blur_narrow(int j, int k, const V* base, const V* sums, V* out) {
    const int halo = radius[j], count = block + 2 * halo;
    const V common = base[k + block / 2];
    V *const moved = work, *const moved_squares = work + count;
    const auto move = [](V& sum, V& square, V by, T total) INLINE_LAMBDA {
      const V moved = sum + by * total;
      square += by * (sum + moved);
      sum = moved;
    };
    for (int t = 0; t < count; ++t) {
      const int at = k + t - halo;
      moved[t] = sums[at * column_step], moved_squares[t] = sums[at * column_step + R];
      move(moved[t], moved_squares[t], base[at] - common, total_weight[j]);
    }
    V sum[block], square[block];
    const Taps<T, 0> w(weights[j], halo);
    fir<block>([&](int t) INLINE_LAMBDA { return moved[t]; }, w,
               [&](int b, V v) INLINE_LAMBDA { sum[b] = v; });
    fir<block>([&](int t) INLINE_LAMBDA { return moved_squares[t]; }, w,
               [&](int b, V v) INLINE_LAMBDA { square[b] = v; });
    for (int b = 0; b < block; ++b) {
      move(sum[b], square[b], common - base[k + b], 1 / centre[j]);
      out[k + b] = sum[b], out[moment_pitch + k + b] = square[b];
    }
  }
};
