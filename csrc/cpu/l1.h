// |x - y| alone, and its gradient: one item of a problem without windows, in one pass.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// Pixels of an item: the rows of x, y and two gradients stay in the L2 cache, and a page is not shared.
constexpr int64_t l1_pixels = 1 << 15;

INLINE int64_t l1_rows(const Problem& p) { return larger(1, l1_pixels / larger(1, p.width)); }  // of an item

inline Items l1_items(const Problem& problem) {
  const Problem p = as_rows(problem);
  const int64_t strips = ceil_div(p.width, l1_pixels), bands = ceil_div(p.height, l1_rows(p));
  return {strips, bands, p.batch * p.channels, 1, strips * bands};
}

// Added in double from the first pixel on: in float32 the order of pixels in memory would show.
INLINE void add_wide(Vec<double>* sums, Vec<double> v) { sums[0] += v; }
INLINE void add_wide(Vec<double>* sums, Vec<float> v) {
  sums[0] += half_in_double<false>(v), sums[1] += half_in_double<true>(v);
}

template <class T>
void l1(const Problem& problem, int64_t item) {
  using V = Vec<T>;
  constexpr int L = lanes<T>;
  constexpr int64_t block = 512;  // pixels that are converted at a time
  const Problem p = as_rows(problem);
  const Items cut = l1_items(problem);
  const int64_t pieces = cut.strips * cut.bands, plane = item / pieces, piece = item % pieces;
  const int64_t n = plane / p.channels, c = plane % p.channels;
  const int64_t row0 = piece / cut.strips * l1_rows(p), row1 = smaller(p.height, row0 + l1_rows(p));
  const int64_t col0 = piece % cut.strips * l1_pixels, col1 = smaller(p.width, col0 + l1_pixels);
  const T gain = p.gains ? T(p.gains[2 * plane + 1]) : T(0), weight = T(p.l1_weight * inverse_range_of(p, n));
  const DType dtype = sizeof(T) == 8 ? DType::float64 : DType::float32;
  const Images* const all[] = {&p.x, &p.y, &p.loss_map, &p.grad_x, &p.grad_y, &p.grad_map, &p.mask};
  const bool bytes = p.mask.data && p.mask.dtype == DType::uint8;
  bool in_place = true;
  for (const Images* images : all) {
    const bool as_pixels = images->dtype == dtype || (bytes && images == &p.mask);
    in_place = in_place && (!images->data || (as_pixels && images->stride_w == 1));
  }

  alignas(64) T buffers[7][block];
  Vec<double> sums[sizeof(double) / sizeof(T)] = {};
  for (int64_t row = row0; row < row1; ++row) {
    for (int64_t col = col0, count; col < col1; col += count) {
      const bool direct = in_place && col1 - col >= L;
      count = direct ? (col1 - col) / L * L : smaller(block, col1 - col);
      // Where the pixels are: in memory, or in a buffer, read if they are wanted, 0 up to a whole vector.
      const auto pixels = [&](const Images& images, int which, bool read) INLINE_LAMBDA -> T* {
        if (!images.data) return nullptr;
        if (direct) return row_of<T>(images, n, c, row).data + col;
        if (read)
          read_target<T>(images, p.x.dtype, inverse_range_of(p, n), n, c, row, col, count, buffers[which]);
        for (int64_t k = count; read && k % L; ++k) buffers[which][k] = 0;
        return buffers[which];
      };
      const T *const x = pixels(p.x, 0, true), *const y = pixels(p.y, 1, true);
      const T* const incoming = pixels(p.grad_map, 2, true);
      T* const loss = pixels(p.loss_map, 3, false);
      T *const grad_x = pixels(p.grad_x, 4, false), *const grad_y = pixels(p.grad_y, 5, false);
      // Bytes are 0 and 1: of those what is kept is all that is asked.
      const auto compute = [&](auto weighted, const auto* weights) INLINE_LAMBDA {
        constexpr bool soft = weighted && sizeof(*weights) == sizeof(T);
        for (int64_t k = 0; k < count; k += L) {
          V d = load<T>(x + k) - load<T>(y + k), w{};
          Mask<T> kept{};
          if constexpr (soft) {
            w = load<T>(weights + k), kept = Mask<T>(w != V{});
          } else if (weighted) {
            kept -= load_bytes<T>(reinterpret_cast<const uint8_t*>(weights) + k);
          }
          if (weighted) d = masked<T>(d, kept);
          const V magnitude = absolute(d);
          add_wide(sums, soft ? w * magnitude : magnitude);
          if (loss) store<T>(loss + k, weight * magnitude);
          if (!grad_x) continue;
          V g = incoming ? gain * load<T>(incoming + k) : splat<T>(gain);
          if (soft && !incoming) g *= w;
          V by = d > V{} ? g : (d < V{} ? -g : d * g);  // sign(0) = 0, sign(NaN) = NaN
          if (weighted) by = masked<T>(by, kept);
          store<T>(grad_x + k, by);
          if (grad_y) store<T>(grad_y + k, -by);
        }
      };
      if (!p.mask.data) {
        compute(std::false_type{}, x);
      } else if (direct && bytes) {
        compute(std::true_type{}, row_of<const uint8_t>(p.mask, n, c, row).data + col);
      } else {
        T* const weights = direct ? row_of<T>(p.mask, n, c, row).data + col : buffers[6];
        if (!direct) read_row<T>(p.mask, n, c, row, col, count, weights);
        for (int64_t k = count; k % L; ++k) weights[k] = 0;
        compute(std::true_type{}, static_cast<const T*>(weights));
      }
      if (direct) continue;
      if (loss) write_row<T>(p.loss_map, n, c, row, col, count, loss);
      if (grad_x) write_row<T>(p.grad_x, n, c, row, col, count, grad_x);
      if (grad_y) write_row<T>(p.grad_y, n, c, row, col, count, grad_y);
    }
  }
  double sum = 0;
  for (const Vec<double>& part : sums) sum += sum_lanes<double>(part);
  double* const out = p.plane_sums + 2 * (plane * pieces + piece);
  out[0] = 0, out[1] = sum * inverse_range_of(p, n);
}
