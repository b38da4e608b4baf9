// Loss and gradient of one item (tile.h's Tile) under several windows, or one of many taps (tile.h:
// is_wide).
//
// Wide filters are what takes the time, so every filter reads whole vectors next to each other that lie in
// the L1 cache, 8 outputs at a time: see the drawing in csrc/README.md.
//   columns    a column's rows around 8 rows of positions -> window -> blurred down, of every scale
//   tiles      8 columns of one of the rows: blurred along, the loss, the maps b_m, b_d, a of every scale
//   map rows   blurred along -> ring, a column's rows next to each other again
//   blocks     a column's maps around 16 rows of the gradient -> window -> blurred down, summed over scales
// Batches of rows and blocks lie where they would in the whole plane, so that bands do not show.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T>
class Wide : WideMoments<T> {
  using Base = WideMoments<T>;
  using Base::base_d, Base::gradient, Base::both, Base::maps, Base::reflected, Base::ssim_gain, Base::l1_gain;
  using Base::edge_weight, Base::exists, Base::own, Base::incoming, Base::losses, Base::edge, Base::cover;
  using Base::L, Base::p, Base::tile, Base::source, Base::s, Base::pitch, Base::halo_pitch, Base::base_m;
  using Base::R, Base::moments_of_scale, Base::scales, Base::last, Base::r;
  using Base::radius, Base::weights, Base::centre, Base::grid, Base::window, Base::moments, Base::rows,
      Base::gains;
  using Base::weighted, Base::weight, Base::kept, Base::too_small, Base::weights_moment, Base::l1_moment,
      Base::l1_map;
  using typename Base::V;
  static constexpr int most_maps = 5;

  V *map_rows, *map_ring[max_scales], *base_ring, *shifts;
  V* sums;  // [s][sum_rows][x, y]: the gradients, as far as the scales have been added

  int maps_of(int j) const { return maps + (l1_map && j == last); }
  // Rows of a scale's gradient at a time: smaller windows take half as much room for half as many.
  int block_of(int j) const { return radius[j] == r ? block_rows : R; }
  int64_t ring_rows(int j) const { return block_of(j) + 2 * radius[j]; }
  int64_t sum_rows() const { return block_rows + r - radius[0]; }
  // Where the block of a row of the gradient ends: as soon as a batch of positions makes it ready.
  int64_t block_end(int j, int64_t row) const {
    const int64_t size = block_of(j), before = (radius[j] - tile.top + r) % size + size - r % size;
    return ((row + before) / size + 1) * size - before;
  }
  V* sum_at(int64_t row) const { return sums + row % sum_rows() * (both ? 2 : 1); }
  int64_t sum_step() const { return sum_rows() * (both ? 2 : 1); }
  int64_t ring_step(int j) const { return (ring_rows(j) + 1) * maps_of(j); }  // the last row is zeros
  V* ring_at(int j, int64_t row) const { return map_ring[j] + row % ring_rows(j) * maps_of(j); }
  V& base_d_of(int64_t row) const { return base_ring[row % ring_rows(last)]; }
  V* map_row(int j, int q) const { return map_rows + (j * maps + q) * halo_pitch + r; }

 public:
  Wide(const Problem& problem, const Items& items, int64_t item) : Base(problem, items, item) {
    const size_t bytes = layout(nullptr);
    layout(static_cast<char*>(scratch(bytes)));
    this->start();
    for (int j = 0; gradient && j < scales; ++j) {
      for (int64_t k = 0; k < s; ++k) {
        V* const zeros = map_ring[j] + k * ring_step(j) + ring_rows(j) * maps_of(j);
        for (int q = 0; q < maps_of(j); ++q) zeros[q] = V{};
      }
    }
  }

  void run() {
    const int64_t end = tile.end, row1 = tile.row1;
    int64_t done[max_scales];  // rows of the gradient
    for (int j = 0; j < scales; ++j) done[j] = tile.row0;
    for (int64_t row = tile.first, count; row < end; row += count) {
      count = smaller(R, end - row);
      this->read_to(row + count + r);
      this->find_bases(row, int(count));
      if (p.grad_map.data) this->read_incoming(row, count);
      this->blur_columns(row, int(count));
      if (sizeof(T) == 4 && this->meets_contrasts(row, int(count))) return;
      for (int64_t i = 0; i < count; ++i) {
        positions_of(row + i, int(i));
        if (gradient) blur_maps(row + i);
      }
      // After the last positions go on as if there were more: the rings hold no more than that.
      for (int64_t reached = row + count; gradient; reached += R) {
        for (int j = 0; j < scales; ++j) {
          for (int64_t next; done[j] < row1; done[j] = next) {
            next = block_end(j, done[j]);
            if (next > reached - radius[j]) break;
            next = smaller(row1, next);
            both ? add_gradients<true>(j, done[j], int(next - done[j]))
                 : add_gradients<false>(j, done[j], int(next - done[j]));
            if (j == last) write_gradients(done[j], next);
          }
        }
        if (row + count < end || done[last] == row1) break;
      }
    }
  }

 private:
  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    Base::layout(take, base != nullptr);
    for (int j = 0; j < scales; ++j) take(map_ring[j], gradient ? s * ring_step(j) : 0);
    if (!gradient) return used;
    take(map_rows, (scales * maps + 1) * halo_pitch);
    take(base_ring, ring_rows(last));
    take(shifts, this->window_rows());
    take(sums, s * sum_step());
    return used;
  }

  void positions_of(int64_t row, int i) {
    if (gradient && (reflected || p.grad_map.data)) this->find_gains(row, i);
    V sums[3]{};
    const Ahead next_x = source.next_x(i), next_y = source.next_y(i);
    this->for_tiles([&](int64_t k, auto tile) INLINE_LAMBDA {
      for (int u = 0; u < tile; ++u) fetch(next_x, k + u), fetch(next_y, k + u);
      this->template blur_tile<tile>(i, k);
      if (weighted) {
        positions_of_scales<true>(row, i, k, tile, sums);
      } else {
        positions_of_scales<false>(row, i, k, tile, sums);
      }
    });
    if (weighted && sizeof(T) == 4) this->mark_beyond(Mask<T>(sums[2]));
    if (row < tile.row0 || row >= tile.row1) return;
    this->add_up(row, 0, sums[0]);
    if (weighted && l1_moment) this->add_up(row, 1, sums[1]);
    if (p.loss_map.data) this->write_losses(row);
  }

  template <bool Weighted>
  INLINE void positions_of_scales(int64_t row, int i, int64_t begin, int count, V* sums) {
    constexpr int five = Weighted && sizeof(T) == 8 ? 0 : 5;  // which is seldom wanted
    constexpr int one = Weighted && sizeof(T) == 8 ? 0 : 1;
    if (both) {
      scales == 1   ? positions<one, true, Weighted>(row, i, begin, count, sums)
      : scales == 5 ? positions<five, true, Weighted>(row, i, begin, count, sums)
                    : positions<0, true, Weighted>(row, i, begin, count, sums);
    } else {
      scales == 1   ? positions<one, false, Weighted>(row, i, begin, count, sums)
      : scales == 5 ? positions<five, false, Weighted>(row, i, begin, count, sums)
                    : positions<0, false, Weighted>(row, i, begin, count, sums);
    }
  }

  // Losses, and maps where a gradient is wanted, at columns [begin, begin + count) of a row. The formulas of
  // one_gradient in ssim_math.h. Scales: a constant, or 0 here for any. Weighted: the inverse of the blurred
  // weights in the place of the centre's weight. row_sums: of the loss and, under weights, of a blurred l1,
  // and flags where blurred weights are too small.
  template <int Scales, bool Both, bool Weighted>
  __attribute__((noinline)) void positions(int64_t row, int i, int64_t begin, int count, V* row_sums) {
    constexpr int most = Scales > 0 ? Scales : max_scales;
    const int scales = Scales > 0 ? Scales : this->scales, last = scales - 1;
    const T c1 = T(2 * p.c1), c2 = T(2 * p.c2), two = p.luminance ? 2 : 0;
    const bool of_map = p.grad_map.data != nullptr;
    const V offset_m = source.offset_m, offset_d = source.offset_d, ssim_gain = this->ssim_gain;
    const V base_m = this->base_m, base_d = this->base_d;
    const V *from_m[most], *from_d[most];  // bases
    T g_centre[most];
    for (int j = 0; j < scales; ++j) {
      const int half = grid[j] == 1 ? i / (R / 2) : 0;
      from_m[j] = grid[j] < 0 ? &base_m : this->cell(grid[j], half, 0) + begin;
      from_d[j] = grid[j] < 0 ? &base_d : this->cell(grid[j], half, 1) + begin;
      // No variance, but large terms that would have to cancel.
      g_centre[j] = radius[j] == 0 ? T(0) : Weighted ? T(1) : centre[j];
    }
    V sum = row_sums[0];
    Mask<T> small = Mask<T>(row_sums[2]);
    for (int u = 0; u < count; ++u) {
      const int64_t k = begin + u;
      const V own_weight = Weighted ? weight(row, k) : splat<T>(1);
      const Mask<T> left = Weighted ? kept(own_weight) & exists[k] : ~Mask<T>{};
      V inverse_w[most];  // Weighted
      // Of each scale: 1 - cs; b_m and b_d of a gain of 1, and the parts of a_m and a_d by variances.
      V e[most], b_m[most], b_d[most], a_m[most], a_d[most], mu_m{}, mu_d{};
#pragma GCC unroll 8
      for (int j = 0; j < scales; ++j) {
        const V* const at = moments + j * moments_of_scale * R + u;
        const bool one_tap = radius[j] == 0;  // NaN where the value is NaN
        V m, d, s_mm, s_dd;
        if constexpr (Weighted) {
          const V inverse = inverse_w[j] = inverse_of(at[weights_moment * R]);
          m = inverse * at[0], d = inverse * at[2 * R];
          s_mm = one_tap ? m * V{} : not_negative(inverse * at[R] - m * m);
          s_dd = one_tap ? d * V{} : not_negative(inverse * at[3 * R] - d * d);
        } else {
          m = centre[j] * at[0], d = centre[j] * at[2 * R];
          s_mm = one_tap ? m * V{} : not_negative(centre[j] * at[R] - m * m);
          s_dd = one_tap ? d * V{} : not_negative(centre[j] * at[3 * R] - d * d);
        }
        const V n = s_mm + c2, inverse = T(2) / (n + s_dd);
        e[j] = s_dd * inverse, b_m[j] = e[j] * inverse, b_d[j] = n * inverse * inverse;
        const V by_d = from_d[j][grid[j] < 0 ? 0 : u];
        mu_m = m + from_m[j][grid[j] < 0 ? 0 : u], mu_d = d + by_d;
        a_m[j] = b_m[j] * mu_m, a_d[j] = b_d[j] * (d + (by_d - base_d));
      }
      mu_m += offset_m, mu_d += offset_d;
      const V inverse_a = two / (mu_m * mu_m + c1 + mu_d * mu_d), by_d = mu_d * inverse_a, e_l = mu_d * by_d;
      V loss = e_l;
#pragma GCC unroll 8
      for (int j = 0; j < scales; ++j) loss += e[j] - loss * e[j];
      loss = not_negative(loss);
      sum += masked<T>(Weighted ? own_weight * loss : loss, Weighted ? own[k] & left : own[k]);
      const V l1_at = moments[(last * moments_of_scale + 4) * R + u];  // l1_moment
      if (Weighted) small |= too_small(moments[weights_moment * R + u]) & left;
      const V inverse_last = Weighted ? inverse_w[last] : splat<T>(centre[last]);
      if (Weighted && l1_moment) row_sums[1] += masked<T>(own_weight * (inverse_last * l1_at), own[k] & left);
      if (p.loss_map.data) {
        losses[k] = T(p.ssim_weight) * loss;
        if (l1_moment) {
          losses[k] += T(p.l1_weight) * (inverse_last * l1_at);
        } else if (p.l1_weight != 0) {
          losses[k] += T(p.l1_weight) * absolute(this->raw(1, row, k) + offset_d);
        }
        if (Weighted) losses[k] = masked<T>(losses[k], left);
      }
      if (!gradient) continue;

      // d loss / d e_j is the product of the other factors, l and cs.
      V behind[most];  // product of the factors after j
      const V gain = Weighted && !of_map ? gains[k] * own_weight : gains[k];
      behind[last] = ssim_gain * gain;
#pragma GCC unroll 8
      for (int j = last; j > 0; --j) behind[j - 1] = behind[j] - behind[j] * e[j];
      V g_l = behind[0] - behind[0] * e[0];
      g_l = inverse_last * g_l;
      V before = T(1) - e_l;
      V* out = map_row(0, 0) + k;
      const Mask<T> counts = Weighted ? left : exists[k];
      const auto put = [&](int q, V value) INLINE_LAMBDA { out[q * halo_pitch] = masked<T>(value, counts); };
#pragma GCC unroll 8
      for (int j = 0; j < scales; ++j, out += maps * halo_pitch) {
        V g = before * behind[j] * g_centre[j];
        if (Weighted) g *= inverse_w[j];
        before -= before * e[j];
        put(0, g * b_m[j]), put(1, g * b_d[j]);
        if (Both) {
          V m = g * a_m[j], d = V{} - g * a_d[j];
          if (j == last) {
            const V g_a = g_l * inverse_a;
            m -= g_a * e_l * mu_m, d += g_a * ((mu_m * mu_m + c1) * inverse_a) * mu_d;
          }
          put(2, m), put(3, d);
        } else {
          V a = g * (a_m[j] - a_d[j]);
          if (j == last) a += g_l * inverse_a * (by_d * (mu_m * (mu_m - mu_d) + c1));
          put(2, a);
        }
        if (l1_map && j == last)
          put(maps, Weighted ? l1_gain * inverse_last * gain : l1_gain * centre[last] * gain);
      }
    }
    row_sums[0] = sum, row_sums[2] = V(small);
  }

  // The maps of one row, blurred along it into their rings. The gradient is a + b_d (d - base): where the
  // base moves by h, a (with both gradients a_d) moves by b_d h.
  void blur_maps(int64_t row) {
    base_d_of(row) = base_d;
    const V left = this->from_left(base_d, base_d) - base_d,
            right = this->from_right(base_d, base_d) - base_d;
    for (int j = 0; j < scales; ++j) {
      const V* const b_d = map_row(j, 1);
      V* const a_d = map_row(j, maps - 1);
      if (reflected) this->reflect_columns(map_row(j, 0), halo_pitch, maps_of(j));
      for (int q = 0; q < maps_of(j); ++q) this->extend(map_row(j, q), q == maps - 1 ? 0 : radius[j]);
      for (int64_t k = 1; k <= radius[j]; ++k) {
        a_d[-k] = this->from_left(a_d[s - k]) - b_d[-k] * left;
        a_d[s - 1 + k] = this->from_right(a_d[k - 1]) - b_d[s - 1 + k] * right;
      }
      const int64_t step = ring_step(j);
      this->for_tiles([&](int64_t k, auto tile) INLINE_LAMBDA {
        for (int q = 0; q < maps_of(j); ++q) {
          const V* const in = map_row(j, q) + k - radius[j];
          V* const out = ring_at(j, row) + k * step + q;
          fir_wide<tile>(in, weights[j], radius[j], [&](int u, V sum) INLINE_LAMBDA { out[u * step] = sum; });
        }
      });
    }
  }

  // Add what a scale gives to rows [row, row + count) of the gradients, up to a block.
  template <bool Both>
  void add_gradients(int j, int64_t row, int count) {
    const int64_t middle = block_end(j, row) - block_of(j) / 2;
    const V base_d = base_d_of(smaller(larger(middle, tile.first), tile.end - 1));
    const V** const map_rows_at = rows + this->window_rows();
    find_map_rows(j, row, count, base_d, map_rows_at);
    V* to[block_rows];  // each row's first column
    for (int i = 0; i < count; ++i) rows[i] = source.row(row + i), to[i] = sum_at(row + i);
    const bool with_l1 = j == last && p.l1_weight != 0;
    if (with_l1 && !l1_map && p.grad_map.data) this->read_incoming(row, count);
    const Ahead own = ahead(p.grad_x, this->vectors, row, j == last ? count : 0);
    for (int64_t k = 0; k < s; ++k) {
      fetch(own, k);
      V blurred[most_maps][block_rows];  // b_m, b_d, a (or a_m and a_d), l1
      read_map_window<Both>(j, k, count, map_rows_at);
      blur_map_window(j, count, blurred);
      j > 0 ? add_column<Both, true>(k, count, base_d, blurred, to)
            : add_column<Both, false>(k, count, base_d, blurred, to);
      if (with_l1 || (j == last && (reflected || weighted)))
        finish_column<Both>(k, row, count, blurred[maps], to);
    }
  }

  // These are apart so that each has the registers for itself.
  __attribute__((noinline)) void blur_map_window(int j, int count, V (*blurred)[block_rows]) {
    for (int q = 0; q < maps_of(j); ++q) {
      for (int b = 0; b < count; b += R) {
        V* const out = blurred[q] + b;
        fir_wide<R>(window + q * this->window_rows() + b, weights[j], radius[j],
                    [&](int i, V sum) INLINE_LAMBDA { out[i] = sum; });
      }
    }
  }

  // A scale's part of column k of `count` rows, to[i] of the i-th, beside that of those before (More).
  template <bool Both, bool More>
  __attribute__((noinline)) void add_column(int64_t k, int count, V base_d, const V (*blurred)[block_rows],
                                            V* const* to) const {
    const int64_t from = k * source.step, at = k * sum_step();
    const V *const b_m = blurred[0], *const b_d = blurred[1], *const a_m = blurred[2];
    const V* const a_d = blurred[Both ? 3 : 2];  // the sum of both for one gradient
    for (int i = 0; i < count; ++i) {
      const V m = rows[i][from], d = rows[i][from + 1];
      const V by_m = b_m[i] * m, by_d = a_d[i] + b_d[i] * (d - base_d);
      // dx and dy from dm and dd; x's alone comes as their sum.
      const V one = Both ? (a_m[i] - by_m) + by_d : by_d - by_m;
      to[i][at] = More ? one + to[i][at] : one;
      if (!Both) continue;
      const V two = (a_m[i] - by_m) - by_d;
      to[i][at + 1] = More ? two + to[i][at + 1] : two;
    }
  }

  // What is done to the sum over the scales: weights, and the gradient of an l1.
  template <bool Both>
  __attribute__((noinline)) void finish_column(int64_t k, int64_t row, int count, const V* blurred_l1,
                                               V* const* to) const {
    const bool pixel_incoming = !l1_map && p.grad_map.data;
    for (int i = 0; i < count; ++i) {
      const V* const raw = rows[i] + k * source.step;
      V& first = to[i][k * sum_step()];
      V* const second = &first + 1;
      const V own_weight = weighted ? raw[2] : splat<T>(1);
      V weight = edge_weight[k] * edge(row + i, tile.h);
      if (weighted) weight *= own_weight;
      V one = first * weight, two = Both ? *second * weight : V{};
      if (p.l1_weight != 0) {
        V gain = l1_map ? weight * blurred_l1[i] : l1_gain;
        if (!l1_map) {
          gain *=
              pixel_incoming ? incoming[i * pitch + k] : cover[k] * T(this->row_cover[row + i - tile.row0]);
          if (weighted && !pixel_incoming) gain *= own_weight;
        }
        const V by_l1 = this->l1_slope(raw[1] + source.offset_d, gain);
        one += by_l1, two -= by_l1;
      }
      if (weighted) one = masked<T>(one, kept(own_weight)), two = masked<T>(two, kept(own_weight));
      first = one;
      if (Both) *second = two;
    }
  }

  void write_gradients(int64_t row, int64_t end) {
    for (int which = 0; which < (both ? 2 : 1); ++which)
      this->write_gradient(which, row, end, [&](int64_t at) { return sum_at(at) + which; }, sum_step());
  }

  // Pointers to the map rows of a scale around rows [row, row + count) of the gradient, and their bases less
  // base_d.
  void find_map_rows(int j, int64_t row, int64_t count, V base_d, const V** out) {
    for (int64_t i = 0; i < ceil_div(count, R) * R + 2 * radius[j]; ++i) {
      int64_t at = smaller(row - radius[j] + i, row + count - 1 + radius[j]);
      bool outside = at < tile.top || at >= tile.bottom;
      if (outside && reflected) at = mirrored(at, tile.h), outside = false;
      shifts[i] = outside ? V{} : base_d_of(at) - base_d;
      out[i] = outside ? map_ring[j] + ring_rows(j) * maps_of(j) : ring_at(j, at);
    }
  }

  // A column's maps of a scale, around `count` rows and what fills whole filters.
  template <bool Both>
  __attribute__((noinline)) void read_map_window(int j, int64_t k, int count, const V* const* from) {
    const int64_t size = this->window_rows(), step = ring_step(j);
    const bool with_l1 = maps_of(j) > maps;
    V* to = window;
    for (int i = 0; i < ceil_div(count, R) * R + 2 * radius[j]; ++i, ++to) {
      const V* const at = from[i] + k * step;
      for (int64_t line = 0; line < (Both ? 4 : 3) * VECTOR_BYTES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(at + step) + line, 0, 3);
      to[0] = at[0], to[size] = at[1];
      if (Both) to[2 * size] = at[2];
      to[(Both ? 3 : 2) * size] = at[Both ? 3 : 2] - at[1] * shifts[i];
      if (with_l1) to[(Both ? 4 : 3) * size] = at[Both ? 4 : 3];
    }
  }
};

// How many columns 4 MB of rings hold.
int64_t wide_columns(const Problem& p, int64_t size) {
  const int64_t r = p.windows[p.scales - 1].radius, maps = p.grad_x.data && p.grad_y.data ? 4 : 3;
  // Vectors for each of a segment, and for halos.
  const int64_t weights = is_weighted(p);
  int64_t rows = (2 + weights) * (block_rows + 2 * r + 1) + 16, halos = 0;
  for (int j = 0; j < p.scales; ++j) {
    const int64_t moments = 4 + weights;
    rows += moments * batch_rows, halos += (moments * batch_rows + maps) * 2 * p.windows[j].radius;
    if (p.gains)
      rows += maps * ((p.windows[j].radius < r ? batch_rows : block_rows) + 2 * p.windows[j].radius + 2);
  }
  if (p.gains) rows += (maps - 2) * (block_rows + r - p.windows[0].radius);
  return ((int64_t(4) << 20) / VECTOR_BYTES - halos) / rows / 4 * 4 * (VECTOR_BYTES / size);
}
