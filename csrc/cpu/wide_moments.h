// The moments of 8 rows of positions under several windows, or a wide one: of a tile of columns at a time.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T>
class WideMoments : protected Item<T, false> {
 protected:
  using Base = Item<T, false>;
  using Base::exists, Base::weighted, Base::gradient;
  using Base::L, Base::p, Base::tile, Base::source, Base::s, Base::halo_pitch, Base::base_m, Base::base_d;
  using typename Base::V;
  using Flags = decltype(V{} < V{});
  // m, m^2, d, d^2, an l1; and under weights, by which these are then multiplied, the weights.
  static constexpr int R = batch_rows, moments_of_scale = 6, weights_moment = 5;

  const int scales, last, r;
  // A blurred l1 needs a moment for a loss map and a map for the gradient of one. Else its sum and its
  // gradient are |d| and its slope times what the blur weighs there: item.h's cover. Under weights that is
  // a map, and the sum is that of the moment.
  const bool l1_moment, l1_map;
  int radius[max_scales];
  const T* weights[max_scales];  // relative to the centre's, see fir.h
  T centre[max_scales];          // the centre's weight in two dimensions
  T total_weight[max_scales];    // of a column's taps
  // Windows much narrower than a segment have a base in every cell of 8 x 8 (0) or 4 x 4 (1) positions; or
  // none of their own (-1).
  int grid[max_scales];
  int reach[2] = {-1, -1};        // the largest radius of a grid's windows
  Flags first_lanes, last_lanes;  // of the planes

  V* window;               // a column's rows, of each moment or map
  V* columns[max_scales];  // [moment][R][column_pitch]: blurred down
  int64_t column_pitch[max_scales];
  V* cells;    // [grid 0, both rows of cells of grid 1][m, d][halo_pitch]: their bases
  V* moments;  // [scale][moment][R] of a tile
  const V** rows;

  int64_t window_rows() const { return block_rows + 2 * r; }
  V* cell(int grid, int half, int q) const { return cells + ((grid + half) * 2 + q) * halo_pitch + r; }
  V* column_row(int j, int q, int i) const { return columns[j] + (q * R + i) * column_pitch[j] + radius[j]; }

  WideMoments(const Problem& problem, const Items& items, int64_t item)
      : Base(problem, items, item,
             (problem.gains ? block_rows : R) + 2 * problem.windows[problem.scales - 1].radius),
        scales(p.scales),
        last(scales - 1),
        r(tile.r),
        l1_moment(p.l1_windowed && p.l1_weight != 0 && (p.loss_map.data || (weighted && !p.grad_map.data))),
        l1_map(p.l1_windowed && p.l1_weight != 0 && (p.grad_map.data || (weighted && gradient))) {
    for (int j = 0; j < scales; ++j) {
      radius[j] = p.windows[j].radius;
      // Without cells, y = 1 - x would cost several scales a digit of the gradient.
      const double share = p.windows[j].weights[0];
      const bool narrow = radius[j] > 0 && (scales > 1 ? share * double(s) > 4 : share > 0.3);
      grid[j] = narrow ? share > 0.3 : -1;
      if (narrow) reach[grid[j]] = radius[j];
      column_pitch[j] = ceil_div(s + 2 * radius[j], 2) * 2 + 1;
    }
    for (int64_t lane = 0; lane < L; ++lane) {
      first_lanes[lane] = lane % tile.across == 0 ? -1 : 0;
      last_lanes[lane] = (lane + 1) % tile.across == 0 ? -1 : 0;
    }
  }

  template <class Take>
  void layout(Take take, bool fill) {
    Base::layout(take, block_rows);
    take(rows, 2 * window_rows());
    take(window, moments_of_scale * window_rows());
    take(moments, int64_t(scales) * moments_of_scale * R);
    take(cells, 6 * halo_pitch);
    for (int j = 0; j < scales; ++j) {
      take(columns[j], (weighted ? moments_of_scale : l1_moment && j == last ? 5 : 4) * R * column_pitch[j]);
      const double* const from = p.windows[j].weights;
      T* relative = nullptr;
      take(relative, radius[j] + 1);
      for (int t = 0; fill && t <= radius[j]; ++t) relative[t] = T(from[t] / from[0]);
      weights[j] = relative, centre[j] = T(from[0] * from[0]), total_weight[j] = T(1 / from[0]);
    }
  }

  // What lies in the segment before, and in the one after; `outside` beyond the plane.
  V from_left(V v, V outside = V{}) const { return first_lanes ? outside : previous_lanes<T>(v, v); }
  V from_right(V v, V outside = V{}) const { return last_lanes ? outside : next_lanes<T>(v, v); }

  // Let a row be read `halo` vectors beyond both of its ends, which may be more than it has.
  void extend(V* row, int halo, V outside = V{}) const {
    for (int64_t k = 1; k <= halo; ++k) {
      row[-k] = from_left(row[s - k], outside);
      row[s - 1 + k] = from_right(row[k - 1], outside);
    }
  }

  // f(k, B) for tiles of B columns [k, k + B) of the segments.
  template <class F>
  INLINE void for_tiles(F f) const {
    int64_t k = 0;
    for (; k + R <= s; k += R) f(k, std::integral_constant<int, R>{});
    if (k < s) f(k, std::integral_constant<int, R / 2>{});
  }

  void find_bases(int64_t row, int count) {
    for (int i = 0; i < count; ++i) rows[i] = source.row(row + i) + 1;
    const V identical = -source.offset_d;
    base_m = this->typical(0, row, count, 0, s, this->first_kept(0, row, count));
    base_d = this->typical(1, row, count, 0, s, this->first_kept(1, row, count));
    Flags met{};
    for (int g = 0; g < 2; ++g) {
      const int side = R >> g;
      for (int half = 0; half <= g && (g == 0 || reach[g] >= 0); ++half) {
        const int first = half * side, height = int(larger(1, smaller(side, count - first)));
        V *const m = cell(g, half, 0), *const d = cell(g, half, 1);
        for (int64_t k = 0; k < s; k += side) {
          const int width = int(smaller(side, s - k));
          Flags here{};
          for (int i = 0; i < height; ++i) {
            const V* const values = rows[smaller(first + i, count - 1)] + k * source.step;
            for (int u = 0; u < width; ++u)
              here |= (values[u * source.step] == identical) & Flags(exists[k + u]);
            for (int u = 0; weighted && u < width; ++u)
              here &= values[u * source.step + source.to_w - source.to_d] != V{};
          }
          met |= here;
          if (reach[g] < 0) continue;
          const V one_m = this->typical(0, row + first, height, k, width, base_m);
          const V one_d = this->typical(1, row + first, height, k, width, base_d);
          for (int u = 0; u < width; ++u) m[k + u] = one_m, d[k + u] = here ? identical : one_d;
        }
        extend(m, reach[g], -source.offset_m), extend(d, reach[g], identical);
      }
    }
    // Where the images are identical, loss and gradient are 0, without rounding.
    base_d = met ? identical : base_d;
  }

  // Blurred values and blurred squares, all less a base, of taps of this total weight, where the base is `by`
  // less.
  template <class Total>
  static INLINE void move(V& sum, V& square, V by, Total total) {
    const V moved = sum + by * total;
    square += by * (sum + moved);
    sum = moved;
  }

  // The column rows of rows [row, row + count), of all scales.
  void blur_columns(int64_t row, int count) {
    for (int i = 0; i < R + 2 * r; ++i)  // those of rows past count are never used
      rows[i] = source.padded(smaller(row - r + i, row + count - 1 + r));
    const bool any_wide = grid[0] < 0 || grid[last] < 0;  // one tap counts as wide
    const auto blur = [&](auto height, int j, int reach, int64_t k, int first) INLINE_LAMBDA {
      this->template blur_column<height>(j, reach, k, 0, 4, first);
      if (weighted) this->template blur_column<height>(j, reach, k, weights_moment, moments_of_scale, first);
    };
    const std::integral_constant<int, R> whole{};
    const std::integral_constant<int, R / 2> half_a_cell{};
    for (int64_t k = 0; k < s; ++k) {
      if (any_wide) read_window(rows, R + 2 * r, k, base_m, base_d);
      for (int j = 0; j < scales; ++j) {
        if (grid[j] < 0) blur(whole, j, r, k, 0);
      }
      if (reach[0] >= 0) {
        read_window(rows + r - reach[0], R + 2 * reach[0], k, cell(0, 0, 0)[k], cell(0, 0, 1)[k]);
        for (int j = 0; j < scales; ++j) {
          if (grid[j] == 0) blur(whole, j, reach[0], k, 0);
        }
      }
      for (int half = 0; reach[1] >= 0 && half < 2; ++half) {
        const int first = half * R / 2;
        read_window(rows + first + r - reach[1], R / 2 + 2 * reach[1], k, cell(1, half, 0)[k],
                    cell(1, half, 1)[k]);
        for (int j = 0; j < scales; ++j) {
          if (grid[j] == 1) blur(half_a_cell, j, reach[1], k, first);
        }
      }
      if (!l1_moment) continue;
      for (int i = 0; i < R + 2 * r; ++i) {
        const V* const at = rows[i] + k * source.step;
        const V l1 = absolute(at[1] + source.offset_d);
        window[4 * window_rows() + i] = weighted ? at[2] * l1 : l1;
      }
      blur_column<R>(last, r, k, 4, 5, 0);
    }
    for (int j = 0; j < scales; ++j) {
      for (int i = 0; weighted && i < R; ++i) extend_weights(column_row(j, weights_moment, i), radius[j]);
      extend_moments(j, 0, base_m, -source.offset_m), extend_moments(j, 1, base_d, -source.offset_d);
      for (int i = 0; l1_moment && j == last && i < R; ++i) extend(column_row(j, 4, i), radius[j]);
    }
  }

  // As extend: the zeros of padding weigh as the outermost pixels.
  void extend_weights(V* row, int halo) const {
    const bool zeros = p.padding == Padding::zeros;
    const V before = zeros ? row[0] : V{}, after = zeros ? row[s - 1] : V{};
    for (int64_t k = 1; k <= halo; ++k) {
      row[-k] = from_left(row[s - k], before);
      row[s - 1 + k] = from_right(row[k - 1], after);
    }
  }

  // As moments.h; narrow windows have a base in every cell, and so no contrast in one.
  bool meets_contrasts(int64_t row, int count) const {
    const T total = total_weight[last];
    const int step = radius[last] > 1 ? 4 : 1, g = grid[last];
    V most = base_m * base_m * total;
    const auto look = [&](int i) {
      const V *const m = column_row(last, 1, i), *const d = column_row(last, 3, i);
      const V* const w = weighted ? column_row(last, weights_moment, i) : nullptr;
      const V* const bases = g >= 0 ? cell(g, g * (i / (R / 2)), 0) : nullptr;
      for (int64_t k = 0; k < s; ++k) {
        most = higher(most, w ? this->of_all_weights(m[k] + d[k], w[k], total) : m[k] + d[k]);
        if (bases) most = higher(most, bases[k] * bases[k] * total);
      }
    };
    for (int first = 0; first < count; first += step) look(int(smaller(first + step / 2, count - 1)));
    if (row == tile.top) look(0);
    if (row + count == tile.bottom) look(count - 1);
    return this->mark_contrasts(most, total);
  }

  __attribute__((noinline)) void read_window(const V* const* rows, int count, int64_t k, V base_m, V base_d) {
    if (weighted) return read_weighted(rows, count, k, base_m, base_d);
    const int64_t size = window_rows(), step = source.step;
    V* to = window;
    for (int i = 0; i < count; ++i, ++to) {
      const V* const from = rows[i] + k * step;
      for (int64_t line = 0; line < 2 * VECTOR_BYTES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(from + step) + line, 0, 3);
      const V m = from[0] - base_m, d = from[1] - base_d;
      to[0] = m, to[size] = m * m, to[2 * size] = d, to[3 * size] = d * d;
    }
  }

  INLINE void read_weighted(const V* const* rows, int count, int64_t k, V base_m, V base_d) {
    const int64_t size = window_rows(), step = source.step;
    V* to = window;
    for (int i = 0; i < count; ++i, ++to) {
      const V* const from = rows[i] + k * step;
      for (int64_t line = 0; line < 3 * VECTOR_BYTES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(from + step) + line, 0, 2);
      const V w = from[2], m = from[0] - base_m, d = from[1] - base_d;
      to[0] = w * m, to[size] = w * m * m, to[2 * size] = w * d, to[3 * size] = w * d * d;
      to[weights_moment * size] = w;
    }
  }

  // Moments [begin, end) of B rows from the first-th on, from a window of `reach` more on both sides.
  template <int B>
  __attribute__((noinline)) void blur_column(int j, int reach, int64_t k, int begin, int end, int first) {
    const int64_t pitch = column_pitch[j];
    for (int q = begin; q < end; ++q) {
      const V* const in = window + q * window_rows() + reach - radius[j];
      V* const out = column_row(j, q, first) + k;
      fir_wide<B>(in, weights[j], radius[j], [&](int i, V sum) INLINE_LAMBDA { out[i * pitch] = sum; });
    }
  }

  // The halos of the column rows of m (q = 0) or d (q = 1), moved to the base of their segment.
  void extend_moments(int j, int q, V base, V outside) {
    const V left = grid[j] >= 0 ? V{} : from_left(base, outside) - base;
    const V right = grid[j] >= 0 ? V{} : from_right(base, outside) - base;
    const T total = total_weight[j];
    for (int i = 0; i < R; ++i) {
      V *const sums = column_row(j, 2 * q, i), *const squares = column_row(j, 2 * q + 1, i);
      if (weighted) {
        const V* const weights = column_row(j, weights_moment, i);
        for (int64_t k = 1; k <= radius[j]; ++k) {
          sums[-k] = from_left(sums[s - k]), squares[-k] = from_left(squares[s - k]);
          move(sums[-k], squares[-k], left, weights[-k]);
          sums[s - 1 + k] = from_right(sums[k - 1]), squares[s - 1 + k] = from_right(squares[k - 1]);
          move(sums[s - 1 + k], squares[s - 1 + k], right, weights[s - 1 + k]);
        }
        continue;
      }
      for (int64_t k = 1; k <= radius[j]; ++k) {
        V sum = from_left(sums[s - k]), square = from_left(squares[s - k]);
        move(sum, square, left, total);
        sums[-k] = sum, squares[-k] = square;
        sum = from_right(sums[k - 1]), square = from_right(squares[k - 1]);
        move(sum, square, right, total);
        sums[s - 1 + k] = sum, squares[s - 1 + k] = square;
      }
    }
  }

  // The moments of B positions of the i-th of R rows.
  template <int B>
  __attribute__((noinline)) void blur_tile(int i, int64_t k) {
    for (int j = 0; j < scales; ++j) {
      V* const out = moments + j * moments_of_scale * R;
      for (int q = grid[j] < 0 ? 0 : 4; q < (weighted ? moments_of_scale : 5); ++q) {
        if (q == 4 && !(l1_moment && j == last)) continue;
        const V* const in = column_row(j, q, i) + k - radius[j];
        fir_wide<B>(in, weights[j], radius[j], [&](int u, V sum) INLINE_LAMBDA { out[q * R + u] = sum; });
      }
      if (grid[j] == 0) blur_cell<B>(j, i, k, 0, out);
      for (int b = 0; grid[j] == 1 && b < B; b += R / 2) blur_cell<R / 2>(j, i, k + b, i / (R / 2), out + b);
    }
  }

  // The same under a narrow window, of one cell: all that a moment is made of is moved to its base.
  template <int B>
  INLINE void blur_cell(int j, int i, int64_t k, int half, V* out) {
    const int halo = radius[j];
    const T total = total_weight[j];
    V *const moved = window, *const moved_squares = window + window_rows();
    for (int q = 0; q < 2; ++q, out += 2 * R) {
      const V *const base = cell(grid[j], half, q) + k - halo, common = base[halo];
      const V* const sums = column_row(j, 2 * q, i) + k - halo;
      const V* const squares = column_row(j, 2 * q + 1, i) + k - halo;
      const V* const weights_of = column_row(j, weights_moment, i) + k - halo;
      for (int t = 0; t < B + 2 * halo; ++t) {
        V sum = sums[t], square = squares[t];
        if (weighted) {
          move(sum, square, base[t] - common, weights_of[t]);
        } else {
          move(sum, square, base[t] - common, total);
        }
        moved[t] = sum, moved_squares[t] = square;
      }
      fir_wide<B>(moved, weights[j], halo, [&](int u, V sum) INLINE_LAMBDA { out[u] = sum; });
      fir_wide<B>(moved_squares, weights[j], halo, [&](int u, V sum) INLINE_LAMBDA { out[R + u] = sum; });
    }
  }
};
