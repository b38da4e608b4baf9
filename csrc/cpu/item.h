// What both flows, stream.h and wide.h, do for an item: its images, its gains, bases of segments, what
// counts where, and the way of results to where they are wanted.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T, bool Grouped>
class Item {
 protected:
  using V = Vec<T>;
  static constexpr int L = lanes<T>;

  const Problem& p;
  const Tile<T> tile;
  Source<T, Grouped> source;
  const int64_t s, pitch, halo_pitch;
  const bool gradient, both;
  const int maps;  // a scale: b_m, b_d, a (or a_m and a_d)
  const bool reflected;
  // By weights: see source.h. Then what an l1 that is blurred weighs at a pixel is no product of a row's and
  // a column's, but one more map.
  const bool weighted, l1_by_cover;

  V ssim_gain, l1_gain;  // of each lane's plane; 0 in lanes of none
  V base_m, base_d;      // of the rows at hand: a typical value of each segment
  V* edge_weight;        // reflect's, per column
  Mask<T>*exists, *own;  // all ones in columns of positions that exist here, of those that count
  V *cover, *incoming, *losses;
  V* gains;           // of a row's positions: the incoming gradient, twice at reflected edges
  double* row_cover;  // how often the rows' l1 counts: by how much of all windows; cover: the columns'
  T* linear[2];
  T* whole[2][L];        // of grad_x and grad_y: see find_whole
  const char** vectors;  // of grad_x: Tile::find_vectors

  Item(const Problem& problem, const Items& items, int64_t item, int64_t source_rows)
      : p(problem),
        tile(p, items, item),
        source(p, tile, source_rows),
        s(tile.s),
        pitch(tile.pitch),
        halo_pitch(tile.halo_pitch),
        gradient(p.gains != nullptr),
        both(p.grad_x.data && p.grad_y.data),
        maps(both ? 4 : 3),
        reflected(p.padding == Padding::reflect),
        weighted(source.weighted),
        l1_by_cover(p.l1_weight != 0 && !(weighted && p.l1_windowed)) {}

  template <class Take>
  void layout(Take take, int incoming_rows) {
    source.layout(take);
    for (T*& row : linear) take(row, L * s + L);
    take(vectors, gradient ? s : 0);
    take(edge_weight, pitch), take(exists, pitch), take(own, pitch);
    take(losses, p.loss_map.data ? pitch : 0);
    take(gains, pitch);
    take(incoming, p.grad_map.data ? incoming_rows * pitch : 0);
    take(cover, p.l1_weight != 0 ? pitch : 0);
    take(row_cover, p.l1_weight != 0 ? larger(tile.row1 - tile.row0, tile.col1 - tile.col0) : 0);
  }

  void start() {
    source.start();
    for (int64_t i = 0; i < tile.planes; ++i) {
      for (int64_t row = tile.row0; row < tile.row1; row = tile.block_end(row)) {
        double* const sums = p.plane_sums + tile.sums_of(i, row);
        sums[0] = sums[1] = 0;
      }
    }
    mark_columns();
    if (gradient) tile.find_vectors(p.grad_x, vectors);
    find_whole(p.grad_x, whole[0]), find_whole(p.grad_y, whole[1]);
    for (int64_t k = 0; k < s; ++k) gains[k] = splat<T>(1);
    ssim_gain = l1_gain = V{};
    for (int64_t lane = 0; gradient && lane < tile.planes * tile.across; ++lane) {
      const double* const gains = p.gains + 2 * (tile.first_plane + lane / tile.across);
      ssim_gain[lane] = T(gains[0]), l1_gain[lane] = T(gains[1]);
    }
    if (p.l1_weight == 0) return;
    find_cover(tile.left, tile.right, tile.w, tile.col0, tile.col1);
    T* const columns = reinterpret_cast<T*>(cover);
    for (int64_t k = 0; k < s; ++k) {
      for (int64_t lane = 0; lane < L; ++lane) {
        const int64_t column = tile.column_of(lane) + k;
        const bool here = column >= tile.col0 && column < tile.col1;
        columns[k * L + lane] = here ? T(row_cover[column - tile.col0]) : T(0);
      }
    }
    find_cover(tile.top, tile.bottom, tile.h, tile.row0, tile.row1);
  }

  // Into row_cover: what an l1 term, blurred and summed over the positions [first, last), weighs at the own
  // pixels [own0, own1) of a side; 1 if it is not blurred, or has a map.
  void find_cover(int64_t first, int64_t last, int64_t size, int64_t own0, int64_t own1) {
    const bool blurred = p.l1_windowed && l1_by_cover;
    for (int64_t i = own0; i < own1; ++i) row_cover[i - own0] = blurred ? 0 : 1;
    const double* const weights = p.windows[p.scales - 1].weights;
    const int64_t r = tile.r;
    if (!blurred) return;
    for (int64_t at = larger(first, own0 - r); at < smaller(last, own1 + r); ++at) {
      for (int64_t t = -r; t <= r; ++t) {
        const int64_t to = reflected ? mirrored(at + t, size) : at + t;
        if (to >= own0 && to < own1) row_cover[to - own0] += weights[t < 0 ? -t : t];
      }
    }
  }

  void mark_columns() {
    using Number = std::remove_reference_t<decltype(own[0][0])>;
    const int64_t begin = larger(tile.left, tile.col0 - tile.margin);
    const int64_t end = smaller(tile.right, tile.col1 + tile.margin);
    T* const edges = reinterpret_cast<T*>(edge_weight);
    for (int64_t lane = 0; lane < L; ++lane) {
      for (int64_t k = 0; k < s; ++k) {
        const int64_t column = tile.column_of(lane) + k;
        const bool here = column >= begin && column < end;
        edges[k * L + lane] = edge(column, tile.w);
        exists[k][lane] = here ? ~Number(0) : 0;
        own[k][lane] = here && column >= tile.col0 && column < tile.col1 ? ~Number(0) : 0;
      }
    }
  }

  // The adjoint of blurring a reflected image: blur the reflected map with its edges doubled, then
  // halve the edges of the result.
  T edge(int64_t i, int64_t size) const { return reflected && (i == 0 || i == size - 1) ? T(0.5) : T(1); }

  // Where m, less the offset, or a contrast is more than 8 data ranges, by the squares blurred by taps of a
  // total weight: there a flat region's gradient is the small rest of large terms, which the digits of double
  // have to hold. Returns whether nothing of this item will be kept.
  bool mark_contrasts(V most, T total) const { return mark_beyond(Mask<T>(most > splat<T>(64 * total))); }

  // Lanes of no plane may hold any pixels.
  bool mark_beyond(Mask<T> beyond) const {
    bool marked = false;
    for (int64_t lane = 0; any_lane(beyond) && lane < tile.planes * tile.across; ++lane) {
      if (!beyond[lane]) continue;
      const int64_t plane = tile.first_plane + lane / tile.across;
      __atomic_store_n(p.beyond_float32 + plane * tile.strips + tile.strip, 1, __ATOMIC_RELAXED);
      marked = true;
    }
    return tile.planes == 1 && marked;
  }

  // The weights of vector k of row `row`, and all ones where they are not 0.
  V weight(int64_t row, int64_t k) const { return source.row(row)[k * source.step + source.to_w]; }
  static INLINE Mask<T> kept(V weight) { return Mask<T>(weight != V{}); }

  // Where blurred weights are so small that their inverses, or products with squares, would leave float32.
  static INLINE Mask<T> too_small(V weights) { return Mask<T>(weights < splat<T>(1e-12)); }

  // Blurred squares as they would be under blurred weights of `total`, for mark_contrasts.
  static INLINE V of_all_weights(V squares, V weights, T total) {
    const V beyond = squares - T(64) * weights;
    return beyond > V{} ? splat<T>(65 * total) : V{};
  }

  // Vector k of row `row`, of m (q = 0) or d (q = 1).
  V raw(int q, int64_t row, int64_t k) const { return source.row(row)[k * source.step + q * source.to_d]; }

  // Read on, and add up the l1 of own pixels.
  void read_to(int64_t end) {
    source.read_to(end, [&](int64_t row) {
      if (!l1_by_cover || row < tile.row0 || row >= tile.row1) return;
      const V* const d = source.row(row) + source.to_d;
      const V offset = source.offset_d;
      V sum{};
      if (source.are_whole(row, row + 1)) {
        for (int64_t k = 0; k < s; ++k) sum += cover[k] * absolute(d[k * source.step] + offset);
      } else {
        for (int64_t k = 0; k < s; ++k)
          sum += cover[k] * weight(row, k) * absolute(d[k * source.step] + offset);
      }
      add_up(row, 1, sum, row_cover[row - tile.row0]);
    });
  }

  // Add what the lanes have of a row to its plane's sums, of ssim (which = 0) or of l1.
  void add_up(int64_t row, int which, V of_a_row, double weight = 1) const {
    for (int64_t i = 0; i < tile.planes; ++i) {
      double sum = 0;
      for (int64_t lane = i * tile.across; lane < (i + 1) * tile.across; ++lane)
        sum += double(of_a_row[lane]);
      p.plane_sums[tile.sums_of(i, row) + which] += weight * sum;
    }
  }

  // A mean of 4 values of each segment in each of two rows. Without those far out of range and out of the
  // others', or NaN: the base of a stray huge value would cost its neighbours their digits.
  static V typical(const V* values) {
    V least = V{} + T(1e30);
    for (int i = 0; i < 8; ++i) least = lower(absolute(values[i]), least);
    const V most = T(2) + T(2) * least;
    const auto middle_of = [&](const V* values) INLINE_LAMBDA {
      V at[4];
      for (int i = 0; i < 4; ++i) at[i] = absolute(values[i]) <= most ? values[i] : V{};
      return T(0.5) * (higher(lower(at[0], at[1]), lower(at[2], at[3])) +
                       lower(higher(at[0], at[1]), higher(at[2], at[3])));
    };
    return T(0.5) * (middle_of(values) + middle_of(values + 4));
  }

  // The same of columns [k, k + width) of a segment, in `count` rows. Among pixels that are left out, or in
  // place of them, one that is kept; where none is, `otherwise`.
  V typical(int q, int64_t row, int64_t count, int64_t k, int64_t width, V otherwise = V{}) const {
    V values[8];
    const auto row_at = [&](int i) INLINE_LAMBDA { return row + (i / 4 * 2 + 1) * count / 4; };
    const auto column_at = [&](int i) INLINE_LAMBDA { return k + (2 * (i % 4) + 1) * width / 8; };
    for (int i = 0; i < 8; ++i) values[i] = raw(q, row_at(i), column_at(i));
    if (weighted) {
      for (int i = 0; i < 8; ++i) {
        const auto finite = values[i] - values[i] == V{};
        otherwise = (weight(row_at(i), column_at(i)) != V{}) & finite ? values[i] : otherwise;
      }
      for (int i = 0; i < 8; ++i) values[i] = weight(row_at(i), column_at(i)) != V{} ? values[i] : otherwise;
    }
    return typical(values);
  }

  // Of each segment the first pixel that is kept, from the middle row on, or the offset: a base where the
  // samples of `typical` are all left out. Every row is looked at, as a mask may keep one alone.
  V first_kept(int q, int64_t row, int64_t count) const {
    V first{};
    auto open = V{} == V{};
    for (int64_t i = 0; weighted && i < count && any_lane(open); ++i) {
      const int64_t at = row + (count / 2 + i) % count;
      if (source.are_whole(at, at + 1)) return raw(q, at, 0);
      const auto here = decltype(open)(source.some_kept(at));
      for (int64_t k = 0; k < s && any_lane(open & here); ++k) {
        const V value = raw(q, at, k);
        const auto found = open & (weight(at, k) != V{}) & (value - value == V{});
        first = found ? value : first, open &= ~found;
      }
    }
    return first;
  }

  // The incoming gradient at rows [row, row + count) of positions.
  void read_incoming(int64_t row, int64_t count) {
    const int64_t begin = larger(tile.left, tile.t0), to = smaller(tile.right, tile.t1);
    T* const linear = this->linear[0];
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t k = 0; k < L * s + L; ++k) linear[k] = 0;
      const bool exists = row + i >= tile.top && row + i < tile.bottom;
      for (int64_t plane = 0; exists && plane < tile.planes; ++plane) {
        read_row<T>(p.grad_map, tile.n(plane), tile.c(plane), row + i - tile.top, begin - tile.left,
                    to - begin, linear + tile.start(plane) + (begin - tile.t0));
      }
      to_segments<T>(linear, s, incoming + i * pitch);
    }
  }

  // The gains of row `row`, the i-th whose incoming gradient was read.
  void find_gains(int64_t row, int i) {
    const T row_weight = 1 / edge(row, tile.h);
    for (int64_t k = 0; k < s; ++k) {
      gains[k] = row_weight / edge_weight[k];
      if (p.grad_map.data) gains[k] *= incoming[i * pitch + k];
    }
  }

  void write_losses(int64_t row) {
    const int64_t begin = larger(tile.left, tile.col0), to = smaller(tile.right, tile.col1);
    if (begin >= to) return;
    T *const linear = this->linear[0], *segments[L];
    for (int64_t lane = 0; lane < L; ++lane) segments[lane] = linear + lane * s;
    from_segments<T>(losses, s, segments);
    for (int64_t i = 0; i < tile.planes; ++i) {
      write_row<T>(p.loss_map, tile.n(i), tile.c(i), row - tile.top, begin - tile.left, to - begin,
                   linear + tile.start(i) + (begin - tile.t0));
    }
  }

  // Where in the first row of `to` each segment goes, if all its pixels are own ones, as T holds them.
  void find_whole(const Images& to, T** whole) const {
    const bool alike = to.data && to.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32);
    for (int64_t lane = 0; lane < L; ++lane) {
      const int64_t i = lane / tile.across, column = tile.column_of(lane);
      const bool all_own = i < tile.planes && column >= tile.col0 && column + s <= tile.col1;
      whole[lane] = alike && to.stride_w == 1 && s >= L && all_own
                        ? row_of<T>(to, tile.n(i), tile.c(i), 0).data + column
                        : nullptr;
    }
  }

  // Rows [row, end) of grad_x (which = 0) or grad_y: whole segments straight to memory, without `linear`; the
  // rest by way of it, a row later: machines have to wait for what was stored just before in other pieces.
  template <class Values>
  void write_gradient(int which, int64_t row, int64_t end, Values values_of, int64_t step = 1) {
    const Images& to = which == 0 ? p.grad_x : p.grad_y;
    T* segments[L];
    for (int64_t at = row; at <= end; ++at) {
      for (int64_t lane = 0; lane < L && at < end; ++lane) {
        T* const straight = whole[which][lane];
        segments[lane] = straight ? straight + at * to.stride_h : linear[at % 2] + lane * s;
      }
      if (at < end) from_segments<T>(values_of(at), s, segments, step);
      if (at > row) write_rest(to, whole[which], at - 1);
    }
  }

  void write_rest(const Images& to, T* const* whole, int64_t row) const {
    for (int64_t i = 0; i < tile.planes; ++i) {
      int64_t begin = tile.col0;
      const auto write_to = [&](int64_t end) {
        if (begin >= end) return;
        write_row<T>(to, tile.n(i), tile.c(i), row, begin, end - begin,
                     linear[row % 2] + tile.start(i) + (begin - tile.t0));
      };
      for (int64_t j = 0, at = tile.t0; j < tile.across; ++j, at += s) {
        if (whole[i * tile.across + j]) write_to(at), begin = at + s;
      }
      write_to(tile.col1);
    }
  }

  // What reflecting adds to the left and right of a row of maps, `apart` vectors from each other. The
  // gradient is a + b_d (d - base): where the base moves by h, the last map, a (with both gradients a_d),
  // moves by b_d h.
  void reflect_columns(V* in, int64_t apart, int count) const {
    for (int64_t i = 0; i < tile.planes; ++i) {
      const auto reflect = [&](int64_t col) {
        const auto lane_of = [&](int64_t column) { return i * tile.across + (column - tile.t0) / s; };
        const int64_t from = mirrored(col, tile.w), lane = lane_of(col), from_lane = lane_of(from);
        const auto at = [&](int q, int64_t column) -> T& {
          return reinterpret_cast<T*>(in + q * apart + (column - tile.t0) % s)[lane_of(column)];
        };
        for (int q = 0; q < count; ++q) at(q, col) = at(q, from);
        at(maps - 1, col) -= at(1, col) * (base_d[from_lane] - base_d[lane]);
      };
      for (int64_t col = tile.t0; col < 0; ++col) reflect(col);
      for (int64_t col = tile.w; col < tile.t1; ++col) reflect(col);
    }
  }

  // What a pixel's l1 adds to the gradient of x; sign(0) = 0, sign(NaN) = NaN.
  static INLINE V l1_slope(V d, V gain) { return d > V{} ? gain : (d < V{} ? -gain : d * gain); }
};
