// The last few rows of the images in an item's Tile, as segments of m = x + y and d = x - y.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// The rows of a column lie next to each other. As wide.h wants them, m and d in turn, and behind all what is
// around the image. Grouped, as stream.h does: in groups of R rows, R of m and then R of d, and also the rows
// around the image have their place; a group starts where the windows of R rows of positions do, which then
// find every row at a fixed distance from few pointers. Behind d come the weights, where the problem has any:
// those of the mask, and around the image those of the pixel next to it ("zeros"), its mirror image's
// ("reflect") or 0 ("normalized"). Where a weight is 0, m and d are those of the offsets, whatever the images
// hold there.
template <class T, bool Grouped>
class Source {
  using V = Vec<T>;
  static constexpr int L = lanes<T>, R = rows_at_a_time;

  const Problem& p;
  const Tile<T>& tile;
  const int64_t capacity;
  const bool dense, direct;
  V* ring;  // of `capacity` rows; not Grouped, behind it what padding adds above and, with weights, below
  T *linear_m[2], *linear_d[2];            // the second of a pair of rows for the next level lies in [1]
  T* linear_w[2];                          // the weights
  unsigned char* whole;                    // of each row in the ring: whether all weights are 1
  Mask<T>* some;                           // and the segments in which some are not 0
  const T *segments_x[L], *segments_y[L];  // direct: where the segments start in the images' first rows
  const T* segments_w[L];                  // direct_weights: in the mask's; or, if direct_bytes, here
  const uint8_t* segments_b[L];
  V scale{};  // direct: the inverse of their range
  const char **vectors_x, **vectors_y;
  int64_t filled;

 public:
  V offset_m, offset_d;  // what m and d in the ring are less; the same in all segments of a plane
  const bool weighted, direct_weights, direct_bytes;
  const bool binary;         // all weights are 0 or 1
  const int64_t step;        // from a column to the next
  const int64_t to_d, to_w;  // from m to d and to the weights

  Source(const Problem& problem, const Tile<T>& tile_, int64_t rows)
      : p(problem),
        tile(tile_),
        capacity(Grouped ? ceil_div(rows, R) * R : smaller(rows, larger(1, tile.h))),
        dense(is_dense()),
        direct(dense && p.x.dtype == p.y.dtype),
        weighted(is_weighted(p)),
        direct_weights(direct && p.mask.data && p.mask.dtype == p.x.dtype && p.mask.stride_w == 1),
        direct_bytes(direct && p.mask.data && p.mask.dtype == DType::uint8 && p.mask.stride_w == 1 &&
                     sizeof(T) == 4 && tile.s >= 16),
        binary(!p.mask.data || p.mask.dtype == DType::uint8),
        step(Grouped ? fields() * R | 1 : fields() * slots()),
        to_d(Grouped ? R : 1),
        to_w(2 * to_d) {}

  template <class Take>
  void layout(Take take) {
    for (int i = 0; i < (p.next_m.data ? 2 : 1); ++i) {
      take(linear_m[i], L * tile.s + L);
      take(linear_d[i], L * tile.s + L);
    }
    take(vectors_x, tile.s), take(vectors_y, tile.s);
    take(ring, (Grouped ? capacity / R : 1) * step * tile.s);
    for (T*& weights : linear_w) take(weights, weighted ? L * tile.s + L : 0);
    take(whole, weighted ? slots() : 0), take(some, weighted ? slots() : 0);
  }

  void start() {
    offset_m = offset_d = V{};
    for (int64_t i = 0; i < tile.planes; ++i) find_offsets(i);
    tile.find_vectors(p.x, vectors_x), tile.find_vectors(p.y, vectors_y);
    for (int64_t i = capacity; i < slots(); ++i) {
      V* const pad = slot(i);
      for (int64_t k = 0; k < tile.s; ++k) {
        pad[k * step] = -offset_m, pad[k * step + to_d] = -offset_d;
        if (weighted) pad[k * step + to_w] = V{};
      }
      if (weighted) whole[i] = false;
    }
    // In segments of no plane, and in what a block of the last segment reads beyond it.
    for (int64_t k = 0; weighted && k < L * tile.s + L; ++k) linear_w[0][k] = linear_w[1][k] = 1;
    for (int i = 0; !direct && i < (p.next_m.data ? 2 : 1); ++i) {
      // Zeros: in segments of no plane, and in the row before the first of an odd side.
      for (int64_t k = 0; k < L * tile.s; ++k) {
        linear_m[i][k] = -offset_m[k / tile.s], linear_d[i][k] = -offset_d[k / tile.s];
      }
    }
    for (int lane = 0; direct && lane < L; ++lane) {
      const int64_t i = smaller(lane / tile.across, tile.planes - 1), col = tile.column_of(lane);
      scale[lane] = T(inverse_range_of(p, tile.n(i)));
      segments_x[lane] = row_of<const T>(p.x, tile.n(i), tile.c(i), 0).data + col;
      segments_y[lane] = row_of<const T>(p.y, tile.n(i), tile.c(i), 0).data + col;
      if (direct_weights) segments_w[lane] = row_of<const T>(p.mask, tile.n(i), tile.c(i), 0).data + col;
      if (direct_bytes) segments_b[lane] = row_of<const uint8_t>(p.mask, tile.n(i), tile.c(i), 0).data + col;
    }
    filled = larger(0, tile.first - tile.r);
  }

  // Row `row` of m, and to_d further on of d.
  const V* row(int64_t row) const { return slot(slot_of(row)); }

  // The same for a row of the padded image.
  const V* padded(int64_t at) const { return slot(slot_of(at)); }

  // Grouped: give the rows of [begin, end) that are around the image their values.
  void surround(int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      if (at >= 0 && at < tile.h) continue;
      const bool reflected = p.padding == Padding::reflect;
      const int64_t from = reflected ? mirrored(at, tile.h) : (at < 0 ? 0 : tile.h - 1);
      const V* const in = slot(slot_of(from));
      V* const out = slot(slot_of(at));
      for (int64_t k = 0; k < tile.s; ++k) {
        const V w = !weighted ? splat<T>(1) : p.padding == Padding::normalized ? V{} : in[k * step + to_w];
        const Mask<T> kept = Mask<T>(w != V{});
        out[k * step] = masked<T>(reflected ? in[k * step] : -offset_m, kept);
        out[k * step + to_d] = masked<T>(reflected ? in[k * step + to_d] : -offset_d, kept);
        if (weighted) out[k * step + to_w] = w;
      }
      if (weighted) whole[slot_of(at)] = p.padding != Padding::normalized && whole[slot_of(from)];
    }
  }

  // Whether all weights of rows [begin, end) of the padded image are 1.
  bool are_whole(int64_t begin, int64_t end) const {
    bool all = true;
    for (int64_t at = begin; weighted && at < end; ++at) all = all && whole[slot_of(at)];
    return all;
  }

  // The segments in which row `row` has weights that are not 0: all ones in their lanes.
  Mask<T> some_kept(int64_t row) const { return some[slot_of(row)]; }

  // Calls then(row) for every row it reads.
  template <class F>
  INLINE void read_to(int64_t end, F then) {
    for (end = smaller(tile.h, end); filled < end; ++filled) read(filled), then(filled);
  }

  // The i-th of the rows of x and y to be read next; the last once more where there is none.
  INLINE Ahead next_x(int i) const { return ahead(p.x, vectors_x, smaller(filled + i, tile.h - 1), 1); }
  INLINE Ahead next_y(int i) const { return ahead(p.y, vectors_y, smaller(filled + i, tile.h - 1), 1); }

 private:
  int64_t fields() const { return weighted ? 3 : 2; }
  int64_t slots() const { return capacity + (Grouped ? 0 : weighted ? 2 : 1); }
  V* slot(int64_t i) const { return Grouped ? ring + i / R * step * tile.s + i % R : ring + i * fields(); }
  int64_t slot_of(int64_t at) const {
    if (Grouped) return (at + tile.r - tile.top + capacity) % capacity;
    if (at >= 0 && at < tile.h) return at % capacity;
    if (p.padding == Padding::reflect) return mirrored(at, tile.h) % capacity;
    return capacity + (weighted && at >= tile.h);
  }

  // Columns [col, col + count) of a row of the i-th plane, less the offsets.
  void read_images(int64_t i, int64_t row, int64_t col, int64_t count, T* m, T* d) const {
    const int64_t n = tile.n(i), c = tile.c(i), lane = i * tile.across;
    const T less_m = offset_m[lane], less_d = offset_d[lane];
    if (p.sum_difference) {
      read_row<T>(p.x, n, c, row, col, count, m, double(less_m));
      read_row<T>(p.y, n, c, row, col, count, d, double(less_d));
    } else {
      read_sum_difference<T>(p.x, p.y, inverse_range_of(p, n), less_m, less_d, n, c, row, col, count, m, d);
    }
  }

  // Medians on a coarse grid, over finite values, so that neither NaN nor a stray huge value spreads. d has
  // an offset only where it is a mean, which rounding to T would cost the digits of its variation.
  void find_offsets(int64_t i) {
    constexpr int grid = 4;
    T m[grid * grid], d[grid * grid];
    int count_m = 0, count_d = 0;
    const auto insert = [](T* sorted, int& count, T value) {
      if (value - value != 0) return;
      int at = count++;
      for (; at > 0 && sorted[at - 1] > value; --at) sorted[at] = sorted[at - 1];
      sorted[at] = value;
    };
    for (int k = 0; k < grid * grid; ++k) {
      const int64_t row = (2 * (k / grid) + 1) * tile.h / (2 * grid);
      const int64_t col = tile.col0 + (2 * (k % grid) + 1) * (tile.col1 - tile.col0) / (2 * grid);
      T one_m, one_d, weight = 1;
      if (p.mask.data) read_row<T>(p.mask, tile.n(i), tile.c(i), row, col, 1, &weight);
      if (weight == 0) continue;
      read_images(i, row, col, 1, &one_m, &one_d);
      insert(m, count_m, one_m), insert(d, count_d, one_d);
    }
    // A large offset would cost small values beside it their digits.
    const auto middle = [](const T* sorted, int count, T most) {
      return count > 0 && absolute(sorted[count / 2]) <= most ? sorted[count / 2] : T(0);
    };
    const T plane_m = middle(m, count_m, 64), plane_d = p.sum_difference ? middle(d, count_d, 2) : T(0);
    for (int64_t lane = i * tile.across; lane < (i + 1) * tile.across; ++lane)
      offset_m[lane] = plane_m, offset_d[lane] = plane_d;
  }

  // Whether a row is dense pixels from end to end, those of x of type T, and nothing but the ring asks for
  // them.
  bool is_dense() const {
    const bool linear = p.x.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32) &&
                        p.x.stride_w == 1 && p.y.stride_w == 1;
    return linear && !p.sum_difference && !p.next_m.data && tile.s >= L && tile.t0 >= 0 &&
           tile.t0 + tile.across * tile.s <= tile.w;
  }

  // LeaveOut: pixels of weight 0, which is in the ring, become the offsets.
  template <bool LeaveOut>
  void read_direct(int64_t row, V* out) const {
    const int64_t row_x = row * p.x.stride_h, row_y = row * p.y.stride_h;
    const V scale = this->scale;
    const V offset_m = this->offset_m, offset_d = this->offset_d;
    const auto x = [&](int lane, int64_t k) INLINE_LAMBDA { return load(segments_x[lane] + row_x + k); };
    const auto y = [&](int lane, int64_t k) INLINE_LAMBDA { return load(segments_y[lane] + row_y + k); };
    const auto kept = [&](V value, const V* to, int64_t to_w) INLINE_LAMBDA {
      return LeaveOut ? masked<T>(value, Mask<T>(to[to_w] != V{})) : value;
    };
    load_segments<T>(
        [&](int lane, int64_t k) INLINE_LAMBDA { return x(lane, k) + y(lane, k); }, tile.s, out, step,
        [&](V sum, const V* to) INLINE_LAMBDA { return kept(sum * scale - offset_m, to, to_w); });
    load_segments<T>(
        [&](int lane, int64_t k) INLINE_LAMBDA { return x(lane, k) - y(lane, k); }, tile.s, out + to_d, step,
        [&](V less, const V* to) INLINE_LAMBDA { return kept(less * scale - offset_d, to, to_w - to_d); });
  }

  // Row `row` of every plane.
  void read(int64_t row) {
    V* const out = slot(slot_of(row));
    const Halving down{tile.h, p.odd_side};
    const bool second = p.next_m.data && (row + down.zeros()) % 2;
    // A row's stores go far from each other, so each would wait until its line has come from the L2 cache.
    for (int64_t k = 0; Grouped && k < tile.s; ++k)
      __builtin_prefetch(out + k * step, 1, 3), __builtin_prefetch(out + k * step + to_d, 1, 3);
    const bool leave_out = weighted && take_weights(row, second, out);
    if (!direct) return read_joined(row, second, leave_out, out);
    leave_out ? read_direct<true>(row, out) : read_direct<false>(row, out);
  }

  void read_joined(int64_t row, bool second, bool leave_out, V* out) {
    const bool own = row >= tile.row0 && row < tile.row1;
    const Halving down{tile.h, p.odd_side};
    const bool joined = own && p.next_m.data && (second || down.times(row) == 2);
    for (int64_t i = 0; i < tile.planes; ++i) {
      T *const m = linear_m[second] + tile.start(i), *const d = linear_d[second] + tile.start(i);
      read_padded(i, row, m, d);
      const T* const w = linear_w[second] + tile.start(i);
      for (int64_t k = 0; leave_out && k < tile.across * tile.s; ++k)
        m[k] = select<T>(w[k], m[k], 0), d[k] = select<T>(w[k], d[k], 0);
      if (joined && p.next_mask.data) {
        const bool wide = p.next_m.dtype == DType::float64;
        wide ? join_under_weights<double>(i, row, second) : join_under_weights<float>(i, row, second);
      } else if (joined) {
        join_rows(i, down.of(row), linear_m[0], linear_m[second], offset_m, p.next_m);
        join_rows(i, down.of(row), linear_d[0], linear_d[second], offset_d, p.next_d);
      }
    }
    to_segments<T>(linear_m[second], tile.s, out, step);
    to_segments<T>(linear_d[second], tile.s, out + to_d, step);
  }

  // A row of the weights of every plane, with what padding adds to its left and right.
  void read_weights(int64_t row, T* linear) const {
    const int64_t from = larger(0, tile.t0);
    const int64_t to = dense ? tile.t0 + tile.across * tile.s : smaller(tile.w, tile.t1);  // as read_padded
    for (int64_t i = 0; i < tile.planes; ++i) {
      T* const w = linear + tile.start(i);
      if (p.mask.data) {
        read_row<T>(p.mask, tile.n(i), tile.c(i), row, from, to - from, w + (from - tile.t0));
      } else {
        for (int64_t col = from; col < to; ++col) w[col - tile.t0] = 1;
      }
      const bool none = p.padding == Padding::normalized;
      const T left = none ? T(0) : w[from - tile.t0], right = none ? T(0) : w[to - 1 - tile.t0];
      for (int64_t k = 0; k < from - tile.t0; ++k) w[k] = left;
      for (int64_t k = to - tile.t0; k < tile.across * tile.s; ++k) w[k] = right;
      if (p.padding == Padding::reflect)
        each_reflected(from, to, [&](int64_t k, int64_t source) INLINE_LAMBDA { w[k] = w[source]; });
    }
  }

  // The same into the ring, and what follows of them for the row. Returns whether some are 0.
  bool take_weights(int64_t row, bool second, V* out) {
    const int64_t s = tile.s, at = row * p.mask.stride_h;
    const Mask<T> one = Mask<T>(splat<T>(1));
    Mask<T> other{}, any{};
    V least = splat<T>(1);
    const auto look = [&](V w, const V*) INLINE_LAMBDA {
      other |= Mask<T>(w) ^ one, any |= Mask<T>(w), least = lower(w, least);
      return w;
    };
    if (direct_bytes) {
      if constexpr (sizeof(T) == 4) {
        const Mask<T> ones = Mask<T>{} + 0x01010101;
        load_byte_segments<T>([&](int lane, int64_t k) INLINE_LAMBDA { return segments_b[lane] + at + k; }, s,
                              out + to_w, step,
                              [&](Mask<T> word) INLINE_LAMBDA { other |= word ^ ones, any |= word; });
        least = Mask<T>(other) == Mask<T>{} ? splat<T>(1) : V{};
      }
    } else {
      if (!direct_weights) read_weights(row, linear_w[second]);
      const T* from[L];
      for (int i = 0; i < L; ++i) from[i] = direct_weights ? segments_w[i] + at : linear_w[second] + i * s;
      load_segments<T>([&](int lane, int64_t k) INLINE_LAMBDA { return load(from[lane] + k); }, s, out + to_w,
                       step, look);
    }
    whole[slot_of(row)] = !any_lane(other), some[slot_of(row)] = Mask<T>(any != Mask<T>{});
    // The zeros above and below weigh as the outermost rows.
    for (int64_t i = 0; !Grouped && p.padding == Padding::zeros && i < 2; ++i) {
      if (row != (i == 0 ? 0 : tile.h - 1)) continue;
      for (int64_t k = 0; k < s; ++k) slot(capacity + i)[k * step + to_w] = out[k * step + to_w];
      whole[capacity + i] = whole[slot_of(row)];
    }
    return any_lane(least == V{});
  }

  // Row `row` of the i-th plane, with what padding adds to its left and right.
  void read_padded(int64_t i, int64_t row, T* m, T* d) const {
    const int64_t t0 = tile.t0, w = tile.w, count = tile.across * tile.s;
    // A target that is converted is read as far as its copy in the type of x would be: bases depend on it.
    const int64_t from = larger(0, t0), to = dense ? t0 + count : smaller(w, tile.t1), end = to - t0;
    const T zero_m = -offset_m[i * tile.across], zero_d = -offset_d[i * tile.across];
    for (int64_t k = 0; k < from - t0; ++k) m[k] = zero_m, d[k] = zero_d;
    read_images(i, row, from, to - from, m + (from - t0), d + (from - t0));
    // Without zeros around the images nobody needs what comes now, but it can become a segment's base.
    const bool zeros = has_zeros_around(p);
    const T beyond_m = zeros ? zero_m : m[end - 1], beyond_d = zeros ? zero_d : d[end - 1];
    for (int64_t k = end; k < count; ++k) m[k] = beyond_m, d[k] = beyond_d;
    if (p.padding != Padding::reflect) return;
    each_reflected(from, to,
                   [&](int64_t k, int64_t source) INLINE_LAMBDA { m[k] = m[source], d[k] = d[source]; });
  }

  // f(k, source): element k of a plane's row mirrors element `source`, which lies in columns [from, to).
  template <class F>
  INLINE void each_reflected(int64_t from, int64_t to, F f) const {
    const auto reflect = [&](int64_t col) INLINE_LAMBDA {
      const int64_t source = mirrored(col, tile.w);
      if (source >= from && source < to) f(col - tile.t0, source - tile.t0);  // or no position needs it
    };
    for (int64_t col = tile.t0; col < 0; ++col) reflect(col);
    for (int64_t col = tile.w; col < tile.t1; ++col) reflect(col);
  }

  // 2x2 means of the own pixels of two rows of the i-th plane, or of one twice: row `row` of the next level.
  void join_rows(int64_t i, int64_t row, const T* a, const T* b, V offsets, const Images& next) const {
    next.dtype == DType::float64 ? join_rows<double>(i, row, a, b, offsets, next)
                                 : join_rows<float>(i, row, a, b, offsets, next);
  }
  template <class To>
  void join_rows(int64_t i, int64_t row, const T* a, const T* b, V offsets, const Images& next) const {
    using Wide = decltype(To{} + T{});
    const Halving across{tile.w, p.odd_side};
    const int64_t before = across.zeros(), end = (tile.col1 + before) / 2;
    const int64_t shift = tile.start(i) - tile.t0 - before;
    const Wide offset = Wide(offsets[i * tile.across]);
    To* const __restrict out = row_of<To>(next, tile.n(i), tile.c(i), row).data;
    const T* const __restrict above = a + shift;
    const T* const __restrict below = b + shift;
    int64_t k = (tile.col0 + before) / 2;
    if (tile.col0 == 0 && before) {  // a column of zeros before the first
      out[0] = To(Wide(0.25) * (Wide(above[1]) + Wide(below[1]) + 2 * offset));
      ++k;
    }
    for (; k < end; ++k) {
      const Wide first = Wide(above[2 * k]) + Wide(above[2 * k + 1]),
                 second = Wide(below[2 * k]) + Wide(below[2 * k + 1]);
      out[k] = To(Wide(0.25) * (first + second) + offset);
    }
    if (tile.col1 == tile.w && across.times(tile.w - 1) == 2)  // the last column, twice
      out[end] = To(Wide(0.5) * (Wide(above[2 * end]) + Wide(below[2 * end])) + offset);
  }

  // The same under weights, whose means are the next level's mask. A zero weighs as the first pixel.
  template <class To>
  void join_under_weights(int64_t i, int64_t row, bool second) const {
    const int64_t to = Halving{tile.h, p.odd_side}.of(row), n = tile.n(i), c = tile.c(i);
    const Halving across{tile.w, p.odd_side};
    const int64_t before = across.zeros(), end = (tile.col1 + before) / 2;
    const int64_t shift = tile.start(i) - tile.t0 - before;
    const T offset_m = this->offset_m[i * tile.across], offset_d = this->offset_d[i * tile.across];
    const T* const w_a = (row == 0 ? linear_w[second] : linear_w[0]) + shift;
    const T* const w_b = linear_w[second] + shift;
    const T *const m_a = linear_m[0] + shift, *const m_b = linear_m[second] + shift;
    const T *const d_a = linear_d[0] + shift, *const d_b = linear_d[second] + shift;
    To* const out_w = row_of<To>(p.next_mask, n, c, to).data;
    To* const out_m = row_of<To>(p.next_m, n, c, to).data;
    double* const out_d = row_of<double>(p.next_d, n, c, to).data;
    // Pixel k, of one column and, beside it, zeros or that column again.
    const auto join_one = [&](int64_t k, int64_t at, bool zeros) {
      const T w[2][2] = {{w_a[at], w_a[at]}, {w_b[at], w_b[at]}};
      const T m[2][2] = {{zeros ? -offset_m : m_a[at], m_a[at]}, {zeros ? -offset_m : m_b[at], m_b[at]}};
      const T d[2][2] = {{zeros ? -offset_d : d_a[at], d_a[at]}, {zeros ? -offset_d : d_b[at], d_b[at]}};
      join_pairs(1, w[0], w[1], m[0], m[1], d[0], d[1], out_w + k, out_m + k, out_d + k, offset_m, offset_d);
    };
    int64_t k = (tile.col0 + before) / 2;
    if (tile.col0 == 0 && before) join_one(k++, 1, true);
    join_pairs(end - k, w_a + 2 * k, w_b + 2 * k, m_a + 2 * k, m_b + 2 * k, d_a + 2 * k, d_b + 2 * k,
               out_w + k, out_m + k, out_d + k, offset_m, offset_d);
    if (tile.col1 == tile.w && across.times(tile.w - 1) == 2) join_one(end, 2 * end, false);
  }
};
