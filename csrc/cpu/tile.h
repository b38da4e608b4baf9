// Which flow a problem takes, and where one item lies in its plane: Tile.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// torch's "reflect": the edge is not repeated.
INLINE int64_t mirrored(int64_t i, int64_t size) { return i < 0 ? -i : (i >= size ? 2 * (size - 1) - i : i); }

constexpr int rows_at_a_time = VECTOR_BYTES / 8;  // what the registers hold: in stream.h
constexpr int gradient_rows = VECTOR_BYTES == 64 ? 16 : rows_at_a_time;  // a block of its gradient: measured
constexpr int batch_rows = 8, block_rows = 16;  // of positions and of the gradient: see Tile

// Whether wide.h's flow takes a problem: several windows, one of more than 11 taps (15 where registers are
// many: measured), one much narrower than sigma 1.5, a blurred l1, or a c2 too large for stream.h's units.
INLINE bool is_wide(const Problem& p, bool in_double) {
  if (is_weighted(p) && in_double) return true;  // one flow is enough for what is seldom wanted
  const Window& first = p.windows[0];
  const double centre = first.weights[0];
  const bool large = first.radius > (VECTOR_BYTES == 64 ? 7 : 5);
  return p.scales > 1 || large || centre > 0.3 || (p.l1_windowed && p.l1_weight != 0) ||
         !(p.c2 < 1e30 * centre * centre);
}

// Under padding "normalized" they have no weight.
INLINE bool has_zeros_around(const Problem& p) {
  return p.padding == Padding::zeros || p.padding == Padding::normalized;
}

// Where the i-th of `count` parts of a side begins. Pairs of rows or columns that the next level of a
// pyramid joins stay together.
INLINE int64_t part(const Halving<int64_t>& side, int64_t i, int64_t count) {
  const int64_t at = side.n * i / count;
  return i == 0 || i == count ? at : larger(0, at - (at + side.zeros()) % 2);
}

// A strip of columns and a band of rows of one plane, with the margins that its own pixels need; or the same
// rows of several planes, each whole, side by side as one row. No position that exists in one sees another.
// Bands depend on the number of threads, bits do not: positions are done in batches, pixels and sums in
// blocks of rows that lie where they would in the whole plane.
template <class T>
struct Tile {
  static constexpr int L = lanes<T>;
  int r, margin;  // largest radius; how far the positions reach beyond the own pixels
  int64_t channels, first_plane, planes, strips, strip, pieces;
  int64_t h, w, before;              // height, width, rows of zeros before the first when it is halved
  int64_t row0, row1, col0, col1;    // own pixels
  int64_t top, bottom, left, right;  // positions that exist
  int64_t first, end;                // rows of positions
  int64_t t0, t1;                    // columns of the images that they need; segment 0 starts at t0
  int64_t s;                         // vectors in a segment
  int64_t across;                    // segments of a plane
  // Vectors in a row, without and with room for a halo. Odd, or rows above each other would fall into the
  // same few sets of the cache.
  int64_t pitch, halo_pitch;

  Tile(const Problem& p, const Items& items, int64_t item)
      : r(p.windows[p.scales - 1].radius),
        margin(p.gains ? r : 0),
        channels(p.channels),
        h(p.height),
        w(p.width),
        across(L / items.group) {
    const Halving down{h, p.odd_side}, along{w, p.odd_side};
    before = down.zeros();
    strips = items.strips, pieces = items.pieces;
    const Place place(p, items, item);
    first_plane = items.group * place.group, strip = place.strip;
    planes = smaller(items.group, items.planes - first_plane);
    const auto row_of_band = [&](int64_t i) {
      return block_begin(ceil_div(h + before, block_rows) * i / items.bands);
    };
    row0 = row_of_band(place.band), row1 = row_of_band(place.band + 1);
    col0 = part(along, strip, items.strips), col1 = part(along, strip + 1, items.strips);
    const int64_t crop = p.padding == Padding::valid ? r : 0;
    top = left = crop, bottom = h - crop, right = w - crop;
    // From the middle on of the block that the first own row is in, whose base wide.h takes.
    first = larger(top, row0 - (p.gains ? larger(r, block_rows / 2) : 0)),
    end = smaller(bottom, row1 + margin);
    t0 = larger(left, col0 - margin) - r, t1 = smaller(right, col1 + margin) + r;
    first -= (first - top) % batch_rows;
    end = smaller(bottom, top + ceil_div(end - top, batch_rows) * batch_rows);
    const bool wide = is_wide(p, sizeof(T) == 8);  // to which zeros around the image are no columns
    if (wide && has_zeros_around(p)) t0 = larger(0, t0), t1 = smaller(w, t1);
    s = ceil_div(t1 - t0, across);
    if (wide) s = ceil_div(s, 4) * 4;
    // Whole lines of the cache, where that is at most a sixteenth more, and all are columns of the image: a
    // segment's base may not come from what is none.
    const int64_t lines = ceil_div(s, L) * L;
    if (!wide && t0 >= 0 && t1 <= w && across * lines <= w && (lines - s) * 16 <= s) s = lines;
    // Further left at the right border: the segments are full of pixels where there are enough.
    if (t1 <= w && across * s <= w) t0 = smaller(t0, w - across * s);
    if (t0 > 0 && t0 % L <= across * s - (t1 - t0))
      t0 -= t0 % L;  // where a line of the cache begins, if rows do
    pitch = ceil_div(larger(s, L), 2) * 2 + 1;
    halo_pitch = ceil_div(larger(s, L) + 2 * r, 2) * 2 + 1;
  }

  // Where a block of rows begins: pairs stay together, as in part().
  int64_t block_begin(int64_t block) const { return larger(0, smaller(h, block * block_rows - before)); }
  int64_t block_end(int64_t row) const {
    return smaller(h, ((row + before) / block_rows + 1) * block_rows - before);
  }

  // Where the sums of the i-th plane's own row go.
  int64_t sums_of(int64_t i, int64_t row) const {
    return 2 * ((first_plane + i) * pieces + (row + before) / block_rows * strips + strip);
  }

  // The i-th plane's image and channel, and where it starts in a row.
  int64_t n(int64_t i) const { return (first_plane + i) / channels; }
  int64_t c(int64_t i) const { return (first_plane + i) % channels; }
  int64_t start(int64_t i) const { return i * across * s; }
  int64_t column_of(int64_t lane) const { return t0 + lane % across * s; }  // where its segment starts

  // Where each of the s vectors of a row lies in the first rows of images: of several planes, too.
  void find_vectors(const Images& images, const char** vectors) const {
    const int64_t size = size_of(images.dtype);
    for (int64_t i = 0, k = 0; i < planes; ++i) {
      const char* const plane =
          static_cast<const char*>(images.data) + size * (n(i) * images.stride_n + c(i) * images.stride_c);
      for (; k < s && (i == planes - 1 || k * L < start(i + 1)); ++k) {
        const int64_t col = larger(0, smaller(t0 + k * L - start(i), w - 1));
        vectors[k] = plane + size * col * images.stride_w;
      }
    }
  }
};
