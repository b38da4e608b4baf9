// Loss and gradient of one item (a strip of columns and a band of rows of one plane) in one pass.
//
// Rows are kept as segments (segments.h), so that one filter (fir.h) is both directions'.
//
// R rows at a time flow through rings of the last few rows, small enough for the L2 cache:
//   read      x, y                          -> raw: m = x + y, d = x - y
//   moments   means and variances of m and d along the row -> moment ring of each scale
//   positions the same down the columns -> loss, coefficients a, b; blurred along the row -> map ring
//   gradient  blurred down the columns, a + b m + ... -> grad_x, grad_y
// Moments are needed radius columns and rows beyond the gradient, raw values twice as far.

constexpr int max_scales = 16;

// torch's "reflect": the edge is not repeated.
INLINE int64_t mirrored(int64_t i, int64_t size) { return i < 0 ? -i : (i >= size ? 2 * (size - 1) - i : i); }

template <class T>
class Stream {
  using V = Vec<T>;
  static constexpr int L = lanes<T>;
  static constexpr int R = VECTOR_BYTES / 8;  // rows at a time: what the registers hold

  const Problem& p;
  const bool gradient, both, windowed_l1;
  const int scales, maps;  // maps a scale: b_m, b_d, a (or a_m and a_d), and for l1 its gain
  const int r, margin;     // largest radius; how far moments reach beyond the own columns
  const int64_t h, w;
  int64_t n, c, plane;
  int64_t row0, row1, col0, col1;    // own pixels
  int64_t top, bottom, left, right;  // positions that exist
  int64_t first, end, t0;            // rows of positions; column of segment 0's start
  int64_t s, raw_pitch, pitch;       // vectors in a segment, in a raw row, in others
  T offset_d, ssim_gain, l1_gain;    // raw d is less offset_d (0 at full resolution)

  int radius[max_scales];
  const T* weights[max_scales];
  V *raw, *work, *moments[max_scales], *map_rows, *map_ring[max_scales], *zeros, *pad;
  V *position_mask, *map_weight, *edge_weight;  // per column: counted; in the gradient; reflect's
  V *incoming, *loss_rows, *gradients;
  T *linear_m, *linear_d;
  const V **rows, **raw_around;
  int64_t filled, blurred[max_scales];
  double sum_ssim = 0, sum_l1 = 0;

  int channels_of(int j) const { return j == scales - 1 && windowed_l1 ? 5 : 4; }
  int maps_of(int j) const { return maps + (j == scales - 1 && windowed_l1); }
  int64_t raw_rows() const { return R + 3 * r; }
  int64_t moment_rows(int j) const { return R + 2 * radius[j]; }
  int64_t map_ring_rows(int j) const { return R + r + radius[j]; }

 public:
  Stream(const Problem& problem, const Items& items, int64_t item)
      : p(problem),
        gradient(p.gains != nullptr),
        both(p.grad_x.data && p.grad_y.data),
        windowed_l1(p.l1_windowed && p.l1_weight != 0),
        scales(p.scales),
        maps(both ? 4 : 3),
        r(p.windows[p.scales - 1].radius),
        margin(gradient ? r : 0),
        h(p.height),
        w(p.width) {
    // Channels side by side in memory are worked on one after the other, while they are in the cache.
    const int64_t pieces = items.bands * items.strips;
    const bool interleaved = p.x.stride_c == 1 && p.channels > 1;
    int64_t piece;
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
    row0 = h * band / items.bands, row1 = h * (band + 1) / items.bands;
    col0 = w * strip / items.strips, col1 = w * (strip + 1) / items.strips;
    const int64_t crop = p.padding == Padding::valid ? r : 0;
    top = left = crop, bottom = h - crop, right = w - crop;
    first = larger(top, row0 - margin), end = smaller(bottom, row1 + margin);
    t0 = col0 - margin;
    s = ceil_div(col1 - col0 + 2 * margin, L);
    // Odd pitches, or the rows of a ring would fall into the same few sets of the cache.
    pitch = ceil_div(s, 2) * 2 + 1;
    raw_pitch = ceil_div(larger(s, L) + 2 * r, 2) * 2 + 1;
    for (int j = 0; j < scales; ++j) radius[j] = p.windows[j].radius;

    const size_t bytes = layout(nullptr);
    layout(static_cast<char*>(scratch(bytes)));
    offset_d = p.sum_difference ? median_d() : T(0);
    weigh_columns();
    ssim_gain = gradient ? T(p.gains[2 * plane]) : 0;
    l1_gain = gradient ? T(p.gains[2 * plane + 1]) : 0;
    item_sums = p.plane_sums ? p.plane_sums + 2 * (plane * pieces + piece) : nullptr;
  }

  void run() {
    if (!windowed_l1 && p.l1_weight != 0 && !p.loss_map.data) sum_pixels();
    for (int64_t k = 0; k < 2 * raw_pitch; ++k) pad[k] = k < raw_pitch ? V{} : splat<T>(-offset_d);
    filled = larger(0, first - r);
    for (int j = 0; j < scales; ++j) blurred[j] = larger(0, first - radius[j]);
    int64_t done = row0;  // rows of the gradient
    for (int64_t row = first, count; row < end; row += count) {
      count = smaller(R, end - row);
      for (const int64_t to = smaller(h, row + count + r); filled < to; ++filled) read(filled);
      for (int j = 0; j < scales; ++j) {
        for (const int64_t to = smaller(h, row + count + radius[j]); blurred[j] < to; ++blurred[j]) {
          blur_moments(raw_row(blurred[j]), j, moment_row(j, blurred[j]));
        }
      }
      if (p.grad_map.data) read_incoming(row, count);
      const bool plain = scales == 1 && !both && !windowed_l1 && !p.loss_map.data && !p.grad_map.data;
      if (plain) {
        p.luminance ? positions<1, true, false>(row, int(count))
                    : positions<1, false, false>(row, int(count));
      } else if (scales == 1) {
        p.luminance ? positions<1, true, true>(row, int(count)) : positions<1, false, true>(row, int(count));
      } else {
        positions<max_scales, true, true>(row, int(count));
      }
      if (p.loss_map.data) write_losses(row, count);
      if (!gradient) continue;
      both ? blur_maps<true>(row, count) : blur_maps<false>(row, count);
      const int64_t ready = row + count == end ? row1 : smaller(row1, row + count - r);
      for (int64_t step; done < ready; done += step) {
        step = smaller(R, ready - done);
        if (both) {
          write_gradients<true, true>(done, int(step));
        } else {
          plain ? write_gradients<false, false>(done, int(step))
                : write_gradients<true, false>(done, int(step));
        }
      }
    }
    if (item_sums) item_sums[0] = sum_ssim, item_sums[1] = sum_l1;
  }

 private:
  double* item_sums;

  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    take(linear_m, L * s + 2 * r + 3 * L);
    take(linear_d, L * s + 2 * r + 3 * L);
    take(position_mask, pitch);
    take(map_weight, pitch);
    take(edge_weight, pitch);
    take(raw, raw_rows() * 2 * raw_pitch);
    take(work, 2 * larger(raw_pitch, R + 2 * r));
    take(rows, int64_t(scales) * (R + 2 * r));
    take(raw_around, int64_t(scales) * (R + 2 * r));
    take(loss_rows, p.loss_map.data ? R * pitch : 0);
    take(incoming, p.grad_map.data ? R * pitch + L : 0);
    for (int j = 0; j < scales; ++j) {
      T* own = nullptr;
      take(own, radius[j] + 1);
      if (base) {
        for (int t = 0; t <= radius[j]; ++t) own[t] = T(p.windows[j].weights[t]);
      }
      weights[j] = own;
      take(moments[j], moment_rows(j) * channels_of(j) * pitch);
      if (gradient) take(map_ring[j], map_ring_rows(j) * maps_of(j) * pitch);
    }
    if (gradient) {
      take(map_rows, int64_t(R) * scales * 5 * raw_pitch);
      take(gradients, 2 * R * pitch);
    }
    const int64_t widest = larger(5 * pitch, 2 * raw_pitch);
    take(zeros, widest);
    for (int64_t k = 0; base && k < widest; ++k) zeros[k] = V{};
    take(pad, 2 * raw_pitch);  // a raw row outside the images
    return used;
  }

  V* raw_row(int64_t row) { return raw + row % raw_rows() * 2 * raw_pitch; }
  V* moment_row(int j, int64_t row) { return moments[j] + row % moment_rows(j) * channels_of(j) * pitch; }
  V* map_row(int j, int64_t row) { return map_ring[j] + row % map_ring_rows(j) * maps_of(j) * pitch; }

  // Row `row`, columns [col, col + count) of m and d - offset_d.
  void read_images(int64_t row, int64_t col, int64_t count, T* m, T* d) const {
    if (p.sum_difference) {
      read_row<T>(p.x, n, c, row, col, count, m);
      read_row<T>(p.y, n, c, row, col, count, d, double(offset_d));
    } else {
      read_sum_difference<T>(p.x, p.y, T(p.inverse_range), offset_d, n, c, row, col, count, m, d);
    }
  }

  // The median of d on a coarse grid, over finite values, so that neither NaN nor a stray huge value
  // spreads: rounding a halved uniform difference to T would cost the digits of its variation.
  T median_d() {
    T sorted[64];
    int count = 0;
    offset_d = 0;
    const int64_t down = ceil_div(row1 - row0, 8), across = ceil_div(col1 - col0, 8);
    for (int64_t row = row0; row < row1; row += down) {
      for (int64_t col = col0; col < col1; col += across) {
        T m, d;
        read_images(row, col, 1, &m, &d);
        if (d - d != 0) continue;
        int at = count++;
        for (; at > 0 && sorted[at - 1] > d; --at) sorted[at] = sorted[at - 1];
        sorted[at] = d;
      }
    }
    // A large offset would cost small values beside it theirs.
    return count > 0 && absolute(sorted[count / 2]) <= 2 ? sorted[count / 2] : T(0);
  }

  void weigh_columns() {
    T* counted = reinterpret_cast<T*>(position_mask);
    T* mapped = reinterpret_cast<T*>(map_weight);
    T* edges = reinterpret_cast<T*>(edge_weight);
    for (int64_t lane = 0; lane < L; ++lane) {
      for (int64_t k = 0; k < s; ++k) {
        const int64_t col = t0 + lane * s + k, at = k * L + lane;
        const bool exists = left <= col && col < right && col < col1 + margin;
        counted[at] = T(exists && col0 <= col && col < col1);
        mapped[at] = exists ? T(1) / edge(col, w) : T(0);
        edges[at] = edge(col, w);
      }
    }
  }

  // The adjoint of blurring a reflected image: blur the reflected map with its edges doubled, then
  // halve the edges of the result.
  T edge(int64_t i, int64_t size) const {
    return p.padding == Padding::reflect && (i == 0 || i == size - 1) ? T(0.5) : T(1);
  }

  // Row `row` of the images, unshifted, with what padding adds to its left and right.
  void read(int64_t row) {
    const int64_t begin = t0 - r - L, count = L * s + 2 * r + 3 * L;  // columns in the linear row
    const int64_t from = larger(0, t0 - r), to = smaller(w, col1 + margin + r);
    for (int64_t i = 0; i < from - begin; ++i) linear_m[i] = 0, linear_d[i] = -offset_d;
    for (int64_t i = to - begin; i < count; ++i) linear_m[i] = 0, linear_d[i] = -offset_d;
    read_images(row, from, to - from, linear_m + (from - begin), linear_d + (from - begin));
    if (p.padding == Padding::reflect) {
      const auto reflect = [&](int64_t col) {
        const int64_t source = mirrored(col, w) - begin;
        if (source < from - begin || source >= to - begin) return;  // no position needs it
        linear_m[col - begin] = linear_m[source], linear_d[col - begin] = linear_d[source];
      };
      for (int64_t col = t0 - r; col < 0; ++col) reflect(col);
      for (int64_t col = w; col < col1 + margin + r; ++col) reflect(col);
    }
    prefetch(p.x, n, c, row + R, h, from, to);
    prefetch(p.y, n, c, row + R, h, from, to);
    V* out = raw_row(row);
    to_segments<T>(linear_m + r + L, s, r, out + r);
    to_segments<T>(linear_d + r + L, s, r, out + raw_pitch + r);
  }

  // One raw row -> means and variances of m and d (and the mean of |d|) under the window along the row.
  // Means are relative to the raw value in their middle, so that they have all its digits.
  void blur_moments(const V* source, int j, V* out) {
    const int halo = radius[j], count = int(s);
    const T* weights = this->weights[j];
    for (int q = 0; q < 2; ++q) {
      const V* in = source + q * raw_pitch + r;
      V *mean = out + 2 * q * pitch, *variance = mean + pitch;
      const auto blocks = [&](auto fixed) INLINE_LAMBDA {
        for_blocks<R>(count, [&](int k, auto block) INLINE_LAMBDA {
          V means[block], variances[block];
          const auto values = [&](int i) INLINE_LAMBDA { return in[k + i - halo]; };
          const V base = typical<block>(values, halo);
          fir_moments<block, fixed>([&](int i) INLINE_LAMBDA { return values(i) - base; },
                                    [&](int) INLINE_LAMBDA { return V{}; }, weights, halo, means, variances,
                                    work);
          for (int i = 0; i < block; ++i) {
            mean[k + i] = means[i] + (base - in[k + i]);
            variance[k + i] = variances[i];
          }
        });
      };
      with_radius(halo, blocks);
    }
    if (channels_of(j) < 5) return;
    const V* d = source + raw_pitch + r;
    for (int k = -halo; k < count + halo; ++k) work[halo + k] = absolute(d[k] + offset_d);
    fir_row<R, T>(work + halo, weights, halo, count, out + 4 * pitch);
  }

  void read_incoming(int64_t row, int64_t count) {
    const int64_t begin = larger(left, t0), to = smaller(right, col1 + margin);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t k = 0; k < L * s + 2 * L; ++k) linear_m[k] = 0;
      if (row + i >= top && row + i < bottom) {
        read_row<T>(p.grad_map, n, c, row + i - top, begin - left, to - begin, linear_m + (begin - t0));
      }
      to_segments<T>(linear_m, s, 0, incoming + i * pitch);
    }
  }

  // Pointers to the moment rows around rows [row, row + R), and to the raw row of each; those past
  // `count` are never used.
  void gather_moments(int j, int64_t row, int64_t count, const V** out, const V** raws) {
    for (int64_t i = 0; i < R + 2 * radius[j]; ++i) {
      int64_t source = smaller(row - radius[j] + i, row + count - 1 + radius[j]);
      const bool outside = source < 0 || source >= h;
      if (outside && p.padding == Padding::reflect) source = mirrored(source, h);
      const bool zero = outside && p.padding == Padding::zeros;
      out[i] = zero ? zeros : moment_row(j, source);
      raws[i] = zero ? pad : raw_row(source) + r;
    }
  }

  // The same for the maps around rows [row, row + R) of the gradient.
  void gather_maps(int j, int64_t row, int64_t count, const V** out, const V** raws) {
    for (int64_t i = 0; i < R + 2 * radius[j]; ++i) {
      int64_t source = smaller(row - radius[j] + i, row + count - 1 + radius[j]);
      const bool outside = source < top || source >= bottom;
      if (outside && p.padding == Padding::reflect) source = mirrored(source, h);
      out[i] = outside && p.padding != Padding::reflect ? zeros : map_row(j, source);
      raws[i] = source < 0 || source >= h ? zeros : raw_row(source) + r;
    }
  }

  // Blur down the columns: out[i] is the value at offset `at` of row i, i in [0, R).
  INLINE void fir_column(const V* const* source, int j, int64_t at, V* out) const {
    const auto in = [&](int i) INLINE_LAMBDA { return source[i][at]; };
    with_radius(radius[j], [&](auto fixed) INLINE_LAMBDA { fir<R, fixed>(in, weights[j], radius[j], out); });
  }

  // The moments down the columns, of m (raw_at: k) or of d; returns what the means are relative to.
  INLINE V fir_column_moments(const V* const* source, const V* const* raws, int j, int64_t at, int64_t raw_at,
                              V* mean, V* variance) const {
    const auto values = [&](int i) INLINE_LAMBDA { return raws[i][raw_at]; };
    const V base = typical<R>(values, radius[j]);
    const auto means = [&](int i) INLINE_LAMBDA { return (values(i) - base) + source[i][at]; };
    const auto variances = [&](int i) INLINE_LAMBDA { return source[i][at + pitch]; };
    with_radius(radius[j], [&](auto fixed) INLINE_LAMBDA {
      fir_moments<R, fixed>(means, variances, weights[j], radius[j], mean, variance, work);
    });
    return base;
  }

  // Loss and coefficients at the positions of rows [row, row + count). General: with every option;
  // otherwise one scale, one gradient, no l1 in the windows and no maps, which the compiler then knows.
  template <int Scales, bool Luminance, bool General>
  void positions(int64_t row, int count) {
    const int scales = General ? this->scales : 1, last = scales - 1;
    const bool windowed_l1 = General && this->windowed_l1, both = General && this->both;
    const bool for_x = p.grad_x.data, gradient = this->gradient;
    const V* const incoming = General && p.grad_map.data ? this->incoming : nullptr;
    V* const loss_rows = General && p.loss_map.data ? this->loss_rows : nullptr;
    const T c1 = T(p.c1), c2 = T(p.c2), offset_d = this->offset_d;
    const T ssim_gain = this->ssim_gain, l1_gain = this->l1_gain;
    const int64_t scale_pitch = 5 * raw_pitch, row_pitch = scales * scale_pitch;

    for (int j = 0; j < scales; ++j)
      gather_moments(j, row, count, rows + j * (R + 2 * r), raw_around + j * (R + 2 * r));
    V row_ssim[R] = {}, row_l1[R] = {};
    T row_weight[R];
    const V* sources[R];
    for (int i = 0; i < R; ++i) {
      row_weight[i] = 1 / edge(row + i, h);
      sources[i] = raw_row(row + i) + r;
    }
    for (int64_t k = 0; k < s; ++k) {
      V mu[Scales][4][R], base_m[Scales] = {}, base_d[Scales] = {}, l1[R] = {};
      for (int j = 0; j < scales; ++j) {
        const V* const* source = rows + j * (R + 2 * r);
        const V* const* raws = raw_around + j * (R + 2 * r);
        base_m[j] = fir_column_moments(source, raws, j, k, k, mu[j][0], mu[j][2]);
        base_d[j] = fir_column_moments(source, raws, j, 2 * pitch + k, raw_pitch + k, mu[j][1], mu[j][3]);
        if (windowed_l1 && j == last) fir_column(source, j, 4 * pitch + k, l1);
      }
      const V column_weight = map_weight[k], column_counts = position_mask[k];
      V* out = map_rows + r + k;
      // All R rows, also those past count: a fixed number of iterations overlap better.
#pragma GCC unroll 2
      for (int i = 0; i < R; ++i, out += row_pitch) {
        const auto moments_at = [&](int j) INLINE_LAMBDA {
          return Moments<V>{mu[j][0][i] + base_m[j], mu[j][1][i] + (base_d[j] + offset_d), mu[j][2][i],
                            mu[j][3][i]};
        };
        Dissimilarity<V> e[Scales];
        for (int j = 0; j < last; ++j) e[j] = dissimilarity<false>(moments_at(j), c1, c2);
        e[last] = dissimilarity<Luminance>(moments_at(last), c1, c2);
        V loss = e[last].e_l;
        for (int j = 0; j < scales; ++j) loss += e[j].e_cs - loss * e[j].e_cs;
        loss = not_negative(loss);
        row_ssim[i] += column_counts != V{} ? loss : V{};
        if (windowed_l1) row_l1[i] += column_counts != V{} ? l1[i] : V{};
        if (loss_rows) {
          V total = T(p.ssim_weight) * loss;
          if (windowed_l1) {
            total += T(p.l1_weight) * l1[i];
          } else if (p.l1_weight != 0) {
            total += T(p.l1_weight) * absolute(sources[i][raw_pitch + k] + offset_d);
          }
          loss_rows[i * pitch + k] = total;
        }
        if (!gradient) continue;

        const V m = sources[i][k], d = sources[i][raw_pitch + k];
        V gain = column_weight * row_weight[i];
        if (incoming) gain *= incoming[i * pitch + k];
        // d loss / d e_j is the product of the other factors, l and cs.
        V behind[Scales];  // product of the factors after j
        behind[last] = splat<T>(1);
        for (int j = last; j > 0; --j) behind[j - 1] = behind[j] * e[j].cs;
        V before = ssim_gain * gain;
        const V g_l = before * behind[0] * e[0].cs;
        before *= e[last].l;
        const auto put = [&](V* to, V value) INLINE_LAMBDA { *to = column_weight != V{} ? value : V{}; };
        for (int j = 0; j < scales; ++j) {
          V* maps_out = out + j * scale_pitch;
          const V g_cs = before * behind[j];
          const V delta_m = (m - base_m[j]) - mu[j][0][i], delta_d = (d - base_d[j]) - mu[j][1][i];
          const Coefficients<V> at =
              j == last ? coefficients<Luminance, T>(moments_at(j), e[j], delta_m, delta_d, g_l, g_cs)
                        : coefficients<false, T>(moments_at(j), e[j], delta_m, delta_d, g_l, g_cs);
          put(maps_out, at.b_m);
          if (both) {
            put(maps_out + raw_pitch, at.b_d);
            put(maps_out + 2 * raw_pitch, at.a_m);
            put(maps_out + 3 * raw_pitch, at.a_d);
          } else {
            put(maps_out + raw_pitch, for_x ? at.b_d : -at.b_d);
            put(maps_out + 2 * raw_pitch, for_x ? at.a_m + at.a_d : at.a_m - at.a_d);
          }
          before *= e[j].cs;
        }
        if (windowed_l1) put(out + last * scale_pitch + maps * raw_pitch, l1_gain * gain);
      }
    }
    for (int i = 0; i < count; ++i) {
      if (row + i < row0 || row + i >= row1) continue;
      sum_ssim += sum_lanes<T>(row_ssim[i]);
      if (windowed_l1) sum_l1 += sum_lanes<T>(row_l1[i]);
    }
  }

  void write_losses(int64_t row, int64_t count) {
    const int64_t begin = larger(left, col0), to = smaller(right, col1);
    for (int64_t i = 0; i < count && begin < to; ++i) {
      if (row + i < row0 || row + i >= row1) continue;
      from_segments<T>(loss_rows + i * pitch, s, linear_m);
      write_row<T>(p.loss_map, n, c, row + i - top, begin - left, to - begin, linear_m + (begin - t0));
    }
  }

  // The maps of rows [row, row + count), blurred along the row into their ring.
  template <bool Both>
  void blur_maps(int64_t row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const V *m = raw_row(row + i) + r, *d = m + raw_pitch;
      for (int j = 0; j < scales; ++j) {
        const int halo = radius[j];
        V* in = map_rows + (i * scales + j) * 5 * raw_pitch + r;
        V* out = map_row(j, row + i);
        for (int q = 0; q < maps_of(j); ++q) {
          V* map = in + q * raw_pitch;
          if (p.padding == Padding::reflect) reflect_columns(map);
          for (int64_t k = 1; k <= halo; ++k) {  // as in to_segments; nothing is beyond the row
            map[-k] = previous_lanes<T>(V{}, map[s - k]);
            map[s - 1 + k] = next_lanes<T>(map[k - 1], V{});
          }
        }
        const auto blocks = [&](auto fixed) INLINE_LAMBDA {
          for_blocks<R>(int(s), [&](int k, auto block) INLINE_LAMBDA {
            V map[4][block];
            const auto map_in = [&](int q, int i) INLINE_LAMBDA { return in[q * raw_pitch + k + i - halo]; };
            const auto m_in = [&](int i) INLINE_LAMBDA { return m[k + i - halo]; };
            const auto d_in = [&](int i) INLINE_LAMBDA { return d[k + i - halo]; };
            fir_maps<block, fixed, Both>(map_in, m_in, d_in, weights[j], halo, map, work);
            for (int q = 0; q < (Both ? 4 : 3); ++q) {
              for (int i = 0; i < block; ++i) out[q * pitch + k + i] = map[q][i];
            }
          });
        };
        with_radius(halo, blocks);
        if (maps_of(j) > maps)
          fir_row<R, T>(in + maps * raw_pitch, weights[j], halo, int(s), out + maps * pitch);
      }
    }
  }

  void reflect_columns(V* map) const {
    T* values = reinterpret_cast<T*>(map);
    const auto at = [&](int64_t col) -> T& { return values[(col - t0) % s * L + (col - t0) / s]; };
    for (int64_t col = t0; col < 0; ++col) at(col) = at(mirrored(col, w));
    for (int64_t col = w; col < col1 + margin; ++col) at(col) = at(mirrored(col, w));
  }

  // Rows [row, row + count) of the gradients. General as in positions, but for a plain l1 as well.
  template <bool General, bool Both>
  void write_gradients(int64_t row, int count) {
    const int scales = General ? this->scales : 1;
    const bool windowed_l1 = General && this->windowed_l1, for_x = p.grad_x.data;
    const bool pixel_l1 = !windowed_l1 && p.l1_weight != 0;
    if (General && pixel_l1 && p.grad_map.data) read_incoming(row, count);
    const V* const incoming = General && pixel_l1 && p.grad_map.data ? this->incoming : nullptr;
    const T l1_gain = this->l1_gain, offset_d = this->offset_d;
    const V* d_rows[R];
    T row_weight[R];
    for (int i = 0; i < R; ++i) {
      d_rows[i] = raw_row(smaller(row + i, row + count - 1)) + r + raw_pitch;
      row_weight[i] = edge(row + i, h);
    }
    for (int j = 0; j < scales; ++j) {
      gather_maps(j, row, count, rows, raw_around);
      const bool first_scale = j == 0, last_scale = j == scales - 1;
      for (int64_t k = 0; k < s; ++k) {
        V map[4][R], l1[R] = {};
        const auto map_in = [&](int q, int i) INLINE_LAMBDA { return rows[i][q * pitch + k]; };
        const auto m_in = [&](int i) INLINE_LAMBDA { return raw_around[i][k]; };
        const auto d_in = [&](int i) INLINE_LAMBDA { return raw_around[i][raw_pitch + k]; };
        with_radius(radius[j], [&](auto fixed) INLINE_LAMBDA {
          fir_maps<R, fixed, Both>(map_in, m_in, d_in, weights[j], radius[j], map, work);
        });
        if (windowed_l1 && last_scale) fir_column(rows, j, maps * pitch + k, l1);
        V* out = gradients + k;
#pragma GCC unroll 2
        for (int i = 0; i < R; ++i, out += 2 * pitch) {
          const V weight = edge_weight[k] * row_weight[i];
          // dx and dy from dm and dd; one gradient alone comes as their sum.
          V one = weight * (Both ? map[2][i] + map[3][i] : map[2][i]);
          V two = Both ? weight * (map[2][i] - map[3][i]) : V{};
          if (!first_scale) one += out[0];
          if (!first_scale && Both) two += out[pitch];
          if (last_scale && (windowed_l1 || pixel_l1)) {
            V gain = windowed_l1 ? weight * l1[i] : splat<T>(l1_gain);
            if (incoming) gain *= incoming[i * pitch + k];
            const V d = d_rows[i][k] + offset_d;
            const V by_d = d > V{} ? gain : (d < V{} ? -gain : d * gain);  // sign(0) = 0, sign(NaN) = NaN
            one += for_x ? by_d : -by_d;
            two -= by_d;
          }
          out[0] = one;
          if (Both) out[pitch] = two;
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      prefetch(for_x ? p.grad_x : p.grad_y, n, c, row + i + R, h, col0, col1);
      from_segments<T>(gradients + 2 * i * pitch, s, linear_m);
      write_row<T>(for_x ? p.grad_x : p.grad_y, n, c, row + i, col0, col1 - col0, linear_m + margin);
      if (!Both) continue;
      from_segments<T>(gradients + (2 * i + 1) * pitch, s, linear_m);
      write_row<T>(p.grad_y, n, c, row + i, col0, col1 - col0, linear_m + margin);
    }
  }

  // The plain l1 term: every own pixel, whatever the padding.
  void sum_pixels() {
    for (int64_t row = row0; row < row1; ++row) {
      read_sum_difference<T>(p.x, p.y, T(p.inverse_range), T(0), n, c, row, col0, col1 - col0, linear_m,
                             linear_d);
      V sum{};
      int64_t i = 0;
      for (; i + L <= col1 - col0; i += L) {
        const V d = load<T>(linear_d + i);
        sum += absolute(d);
      }
      sum_l1 += sum_lanes<T>(sum);
      for (; i < col1 - col0; ++i) sum_l1 += double(linear_d[i] < 0 ? -linear_d[i] : linear_d[i]);
    }
  }
};
