// Where one item lies in its plane, and the last few rows of the images there, as segments of m = x + y
// and d = x - y.

// torch's "reflect": the edge is not repeated.
INLINE int64_t mirrored(int64_t i, int64_t size) { return i < 0 ? -i : (i >= size ? 2 * (size - 1) - i : i); }

constexpr int rows_at_a_time = VECTOR_BYTES / 8;  // what the registers hold

// Where the i-th of `count` parts of a side begins. Pairs of rows or columns that the next level of a
// pyramid joins stay together.
INLINE int64_t part(int64_t size, int64_t i, int64_t count) {
  const int64_t at = size * i / count;
  return i == 0 || i == count ? at : larger(0, at - (at + size) % 2);
}

// A strip of columns and a band of rows of one plane, with the margins that its own pixels need.
template <class T>
struct Tile {
  static constexpr int L = lanes<T>;
  int r, margin;  // largest radius; how far the positions reach beyond the own pixels
  int64_t n, c, plane, pieces, piece;
  int64_t h, w;
  int64_t row0, row1, col0, col1;    // own pixels
  int64_t top, bottom, left, right;  // positions that exist
  int64_t first, end;                // rows of positions
  int64_t t0, t1;                    // columns of the images that they need; segment 0 starts at t0
  int64_t s;                         // vectors in a segment
  // Vectors in a row, without and with room for a halo. Odd, or the rows of a ring would fall into the
  // same few sets of the cache.
  int64_t pitch, halo_pitch;

  Tile(const Problem& p, const Items& items, int64_t item)
      : r(p.windows[p.scales - 1].radius), margin(p.gains ? r : 0), h(p.height), w(p.width) {
    // Channels side by side in memory are worked on one after the other, while they are in the cache.
    pieces = items.bands * items.strips;
    const bool interleaved = p.x.stride_c == 1 && p.channels > 1;
    if (interleaved) {
      c = item % p.channels;
      piece = item / p.channels % pieces;
      n = item / p.channels / pieces;
    } else {
      piece = item % pieces;
      c = item / pieces % p.channels;
      n = item / pieces / p.channels;
    }
    plane = n * p.channels + c;
    const int64_t band = piece / items.strips, strip = piece % items.strips;
    row0 = part(h, band, items.bands), row1 = part(h, band + 1, items.bands);
    col0 = part(w, strip, items.strips), col1 = part(w, strip + 1, items.strips);
    const int64_t crop = p.padding == Padding::valid ? r : 0;
    top = left = crop, bottom = h - crop, right = w - crop;
    first = larger(top, row0 - margin), end = smaller(bottom, row1 + margin);
    t0 = larger(left, col0 - margin) - r, t1 = smaller(right, col1 + margin) + r;
    s = ceil_div(t1 - t0, L);
    // Further left at the right border: the segments are full of pixels where there are enough.
    if (t1 <= w && L * s <= w) t0 = smaller(t0, w - L * s);
    pitch = ceil_div(larger(s, L), 2) * 2 + 1;
    halo_pitch = ceil_div(larger(s, L) + 2 * r, 2) * 2 + 1;
  }
};

template <class T>
class Source {
  using V = Vec<T>;
  static constexpr int L = lanes<T>, R = rows_at_a_time;

  const Problem& p;
  const Tile<T>& tile;
  const int64_t capacity;
  V *ring, *pad;
  T *linear_m[2], *linear_d[2];  // the second of a pair of rows for the next level lies in [1]
  int64_t filled;

 public:
  T offset_m, offset_d;  // what m and d in the ring are less
  double sum_l1 = 0;     // of |d| over the own pixels read so far

  Source(const Problem& problem, const Tile<T>& tile_, int64_t rows)
      : p(problem), tile(tile_), capacity(smaller(rows, larger(1, tile.h))) {}

  template <class Take>
  void layout(Take take) {
    for (int i = 0; i < (p.next_m.data ? 2 : 1); ++i) {
      take(linear_m[i], L * tile.s + L);
      take(linear_d[i], L * tile.s + L);
    }
    take(ring, capacity * 2 * tile.pitch);
    take(pad, 2 * tile.pitch);
  }

  void start() {
    find_offsets();
    for (int64_t k = 0; k < 2 * tile.pitch; ++k) pad[k] = splat<T>(k < tile.pitch ? -offset_m : -offset_d);
    for (int64_t k = 0; p.next_m.data && k < L * tile.s + L; ++k)  // the row before the first of an odd side
      linear_m[0][k] = -offset_m, linear_d[0][k] = -offset_d;
    filled = larger(0, tile.first - tile.r);
  }

  // Row `row` of m, and a pitch further on of d.
  const V* row(int64_t row) const { return ring + row % capacity * 2 * tile.pitch; }

  // The same for a row of the padded image.
  const V* padded(int64_t at) const {
    if (at >= 0 && at < tile.h) return row(at);
    return p.padding == Padding::reflect ? row(mirrored(at, tile.h)) : pad;
  }

  void read_to(int64_t end) {
    for (end = smaller(tile.h, end); filled < end; ++filled) read(filled);
  }

  // The next rows of x or y to be read.
  Ahead next(const Images& images) const {
    return ahead<T>(images, tile.n, tile.c, filled, smaller(R, tile.h - filled), larger(0, tile.t0));
  }

 private:
  // Columns [col, col + count) of a row, less the offsets.
  void read_images(int64_t row, int64_t col, int64_t count, T* m, T* d) const {
    if (p.sum_difference) {
      read_row<T>(p.x, tile.n, tile.c, row, col, count, m, double(offset_m));
      read_row<T>(p.y, tile.n, tile.c, row, col, count, d, double(offset_d));
    } else {
      read_sum_difference<T>(p.x, p.y, T(p.inverse_range), offset_m, offset_d, tile.n, tile.c, row, col,
                             count, m, d);
    }
  }

  // Medians on a coarse grid, over finite values, so that neither NaN nor a stray huge value spreads.
  // d has an offset only where it is a mean, which rounding to T would cost the digits of its variation.
  void find_offsets() {
    constexpr int across = 4;
    T m[across * across], d[across * across];
    int count_m = 0, count_d = 0;
    const auto insert = [](T* sorted, int& count, T value) {
      if (value - value != 0) return;
      int at = count++;
      for (; at > 0 && sorted[at - 1] > value; --at) sorted[at] = sorted[at - 1];
      sorted[at] = value;
    };
    offset_m = offset_d = 0;
    for (int i = 0; i < across * across; ++i) {
      const int64_t row = tile.row0 + (2 * (i / across) + 1) * (tile.row1 - tile.row0) / (2 * across);
      const int64_t col = tile.col0 + (2 * (i % across) + 1) * (tile.col1 - tile.col0) / (2 * across);
      T one_m, one_d;
      read_images(row, col, 1, &one_m, &one_d);
      insert(m, count_m, one_m), insert(d, count_d, one_d);
    }
    // A large offset would cost small values beside it their digits.
    const auto middle = [](const T* sorted, int count, T most) {
      return count > 0 && absolute(sorted[count / 2]) <= most ? sorted[count / 2] : T(0);
    };
    offset_m = middle(m, count_m, 64);
    offset_d = p.sum_difference ? middle(d, count_d, 2) : T(0);
  }

  // Whether a row is dense pixels of type T from end to end, and nothing but the ring asks for them.
  bool direct() const {
    const bool dense = p.x.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32) && p.x.stride_w == 1 &&
                       p.y.stride_w == 1;
    const bool for_others = p.next_m.data || (p.l1_weight != 0 && !p.l1_windowed);
    return dense && !p.sum_difference && !for_others && tile.s >= L && tile.t0 >= 0 &&
           tile.t0 + L * tile.s <= tile.w;
  }

  void read_direct(int64_t row, V* out) const {
    const T* const x = row_of<const T>(p.x, tile.n, tile.c, row).data + tile.t0;
    const T* const y = row_of<const T>(p.y, tile.n, tile.c, row).data + tile.t0;
    const T scale = T(p.inverse_range), offset_m = this->offset_m, offset_d = this->offset_d;
    const auto m = [&](int64_t i) INLINE_LAMBDA { return (load(x + i) + load(y + i)) * scale - offset_m; };
    const auto d = [&](int64_t i) INLINE_LAMBDA { return (load(x + i) - load(y + i)) * scale - offset_d; };
    load_segments<T>(m, tile.s, out);
    load_segments<T>(d, tile.s, out + tile.pitch);
  }

  // Row `row`, with what padding adds to its left and right.
  void read(int64_t row) {
    V* const out = ring + row % capacity * 2 * tile.pitch;
    if (direct()) return read_direct(row, out);
    const int64_t t0 = tile.t0, w = tile.w;
    const int64_t from = larger(0, t0), to = smaller(w, tile.t1), count = L * tile.s + L;
    const bool own = row >= tile.row0 && row < tile.row1;
    const bool second = p.next_m.data && (row + tile.h) % 2;
    T *const m = linear_m[second], *const d = linear_d[second];
    for (int64_t i = 0; i < from - t0; ++i) m[i] = -offset_m, d[i] = -offset_d;
    read_images(row, from, to - from, m + (from - t0), d + (from - t0));
    // Without zeros around the images nobody needs what comes now, but it can become a segment's base.
    const int64_t end = to - t0;
    const bool zeros = p.padding == Padding::zeros;
    const T beyond_m = zeros ? -offset_m : m[end - 1], beyond_d = zeros ? -offset_d : d[end - 1];
    for (int64_t i = end; i < count; ++i) m[i] = beyond_m, d[i] = beyond_d;
    if (p.padding == Padding::reflect) {
      const auto reflect = [&](int64_t col) {
        const int64_t source = mirrored(col, w);
        if (source < from || source >= to) return;  // no position needs it
        m[col - t0] = m[source - t0], d[col - t0] = d[source - t0];
      };
      for (int64_t col = t0; col < 0; ++col) reflect(col);
      for (int64_t col = w; col < tile.t1; ++col) reflect(col);
    }
    if (own && !p.l1_windowed && p.l1_weight != 0) sum_pixels(d + (tile.col0 - t0));
    if (own && second) {
      join_rows(row, linear_m, offset_m, p.next_m, m);
      join_rows(row, linear_d, offset_d, p.next_d, static_cast<double*>(nullptr));
    }
    to_segments<T>(m, tile.s, out);
    to_segments<T>(d, tile.s, out + tile.pitch);
  }

  // 2x2 means of the own pixels of the two rows that end with `row`; the last argument is only a tag.
  template <class To>
  void join_rows(int64_t row, T* const* linear, T offset, const Images& next, To*) const {
    const int64_t odd = tile.w % 2, end = (tile.col1 + odd) / 2;
    To* const __restrict out = row_of<To>(next, tile.n, tile.c, (row + tile.h % 2) / 2).data;
    const T* const __restrict above = linear[0] - tile.t0 - odd;
    const T* const __restrict below = linear[1] - tile.t0 - odd;
    int64_t i = (tile.col0 + odd) / 2;
    if (tile.col0 == 0 && odd) {  // a column of zeros before the first
      out[0] = To(0.25) * (To(above[1]) + To(below[1]) + 2 * To(offset));
      ++i;
    }
    for (; i < end; ++i) {
      const To first = To(above[2 * i]) + To(above[2 * i + 1]),
               second = To(below[2 * i]) + To(below[2 * i + 1]);
      out[i] = To(0.25) * (first + second) + To(offset);
    }
  }

  void sum_pixels(const T* d) {
    const int64_t count = tile.col1 - tile.col0;
    V sum{};
    int64_t i = 0;
    for (; i + L <= count; i += L) sum += absolute(load<T>(d + i) + offset_d);
    for (; i < count; ++i) sum_l1 += double(absolute(d[i] + offset_d));
    sum_l1 += sum_lanes<T>(sum);
  }
};
