// Loss and gradient of one item (tile.h's Tile) under one window of few taps (tile.h: is_wide), in one
// pass.
//
// Rows are kept as segments (segments.h), so that one filter (fir.h) is both directions'.
//
// R rows at a time flow through rings of the last few rows, small enough for the L2 cache:
//   source    x, y                               -> raw ring: m = x + y, d = x - y
//   moments   of m and d and their squares, blurred down the columns, then along the row
//   positions -> loss, coefficients a, b; blurred along the row -> map ring
//   gradient  blurred down the columns, a + b m + ... -> grad_x, grad_y
// Under weights (Weighted; R rows at a time whose windows see no other weight than 1 do without): moments of
// the values times their weights, and of these, by which they are divided; and the gradient is multiplied.
// Moments are needed radius columns and rows beyond the gradient, raw values twice as far.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

constexpr int unrolled_rows = VECTOR_BYTES == 64 ? 8 : 2;  // of the gradient: what the registers hold

template <class T>
class Stream : LocalMoments<T> {
  using Base = LocalMoments<T>;
  using Base::edge_weight, Base::exists, Base::own, Base::incoming, Base::losses, Base::edge;
  using Base::gradient, Base::both, Base::maps, Base::reflected, Base::ssim_gain, Base::l1_gain;
  using Base::L, Base::R, Base::p, Base::tile, Base::source, Base::s, Base::pitch, Base::halo_pitch;
  using Base::max_groups, Base::groups_seen, Base::weighted, Base::weight, Base::kept, Base::too_small;
  using Base::radius, Base::weights, Base::centre, Base::work, Base::base_m, Base::base_d;
  using typename Base::V;

  V *map_rows, *map_ring, *base_ring, *gradients;

 public:
  Stream(const Problem& problem, const Items& items, int64_t item) : Base(problem, items, item) {
    const size_t bytes = layout(nullptr);
    layout(static_cast<char*>(scratch(bytes)));
    this->start();
  }

  void run() {
    const int64_t r = radius, end = tile.end, row1 = tile.row1;
    int64_t done = tile.row0;  // rows of the gradient
    for (int64_t row = tile.first, count; row < end; row += count) {
      count = smaller(R, end - row);
      this->read_to(row + count + r);
      source.surround(row - r, row + count + r);
      this->find_bases(row, int(count));
      if (p.grad_map.data) this->read_incoming(row, count);
      const bool done_here = source.are_whole(row - r, row + count + r) ? batch<false>(row, int(count))
                                                                        : batch<weighs>(row, int(count));
      if (!done_here) return;
      if (!gradient) continue;
      const int64_t ready = row + count == end ? row1 : smaller(row1, row + count - r);
      // A block at a time: the map rows around it are fetched from the L2 cache once.
      for (int64_t next; done < ready; done = next) {
        next = smaller(ready, group_of(done) + gradient_rows);
        if (next < group_of(done) + gradient_rows && next < row1) break;
        gradients_of(done, next);
      }
    }
  }

 private:
  static constexpr bool weighs = sizeof(T) == 4;  // whether it takes weights at all: see is_wide

  // Rows [row, row + count) of positions; returns whether to go on.
  template <bool Weighted>
  bool batch(int64_t row, int count) {
    this->template blur_columns<Weighted>(row);
    if (sizeof(T) == 4 && this->template meets_contrasts<Weighted>(row, count)) return false;
    for (int i = 0; i < count; ++i) {
      this->template blur_row<Weighted>(i);
      positions_of<Weighted>(row + i, i);
      if (gradient) both ? blur_maps<true>(row + i) : blur_maps<false>(row + i);
    }
    return true;
  }

  void gradients_of(int64_t row, int64_t end) {
    if (!source.are_whole(row, end)) {
      both      ? write_gradients<true, true, weighs>(row, end)
      : plain() ? write_gradients<false, false, weighs>(row, end)
                : write_gradients<true, false, weighs>(row, end);
    } else if (both) {
      write_gradients<true, true, false>(row, end);
    } else if (!plain()) {
      write_gradients<true, false, false>(row, end);
    } else {
      p.l1_weight != 0 ? write_gradients<false, false, false, true>(row, end)
                       : write_gradients<false, false, false, false>(row, end);
    }
  }

  // Without options, which the compiler then knows.
  bool plain() const { return !p.grad_map.data && !reflected; }

  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    Base::layout(take, base != nullptr);
    map_rows = this->moment_row() - radius;
    if (gradient) {
      take(map_ring, ring_groups() * group_size());
      take(base_ring, ring_groups() * R);
      take(gradients, 2 * gradient_rows * pitch);
    }
    return used;
  }

  // Where the R rows of the gradient start that a row is done with, cut only where a band begins or ends:
  // rows that are ready as soon as R rows of positions are there.
  int64_t group_of(int64_t row) const {
    const int64_t before_first = radius - tile.top;
    return (row + before_first) / R * R - before_first;
  }

  static constexpr int groups = gradient_rows / R;  // of a block

  // The ring of maps is one of groups of R rows, and a group lies by columns. One starts where the windows of
  // a group of the gradient do, which then finds every row of them at a fixed distance from few pointers.
  template <bool Both>
  static constexpr int map_step = (Both ? 4 : 3) * R | 1;  // from column to column; odd as column_step
  int64_t ring_groups() const { return ceil_div(gradient_rows + 2 * radius, R); }
  int64_t group_size() const { return s * (both ? map_step<true> : map_step<false>); }
  V* map_row(int64_t row) const {
    const int64_t slot = row - tile.top + 2 * radius;
    return map_ring + slot / R % ring_groups() * group_size() + slot % R;
  }
  // The base of d in the row's batch of positions, or in the one next to it.
  V& base_d_of(int64_t row) const {
    return base_ring[smaller(larger(row, tile.first), tile.end - 1) % (ring_groups() * R)];
  }

  template <bool Weighted>
  void positions_of(int64_t row, int i) {
    const bool own_map = p.loss_map.data && row >= tile.row0 && row < tile.row1;
    const auto with = [&](auto luminance, auto general) {
      !gradient ? positions<luminance, general, 0, Weighted>(row, i)
      : both    ? positions<luminance, general, 2, Weighted>(row, i)
                : positions<luminance, general, 1, Weighted>(row, i);
    };
    const std::true_type yes{};
    const std::false_type no{};
    if constexpr (Weighted) {
      if (gradient && !plain()) this->find_gains(row, i);
      if (!plain() || p.loss_map.data) {
        with(yes, yes);
      } else {
        p.luminance ? with(yes, no) : with(no, no);
      }
      if (own_map) this->write_losses(row);
    } else {
      // A loss map beside a gradient is worked out apart: what is done without one stays the same, to the
      // bit.
      if (own_map) {
        p.luminance ? positions<true, true, 0, false>(row, i) : positions<false, true, 0, false>(row, i);
        this->write_losses(row);
      }
      if (p.loss_map.data && !gradient) return;
      if (plain()) {
        p.luminance ? with(yes, no) : with(no, no);
      } else {
        if (gradient) this->find_gains(row, i);
        p.luminance ? with(yes, yes) : with(no, yes);
      }
    }
  }

  // Losses, and coefficients where a gradient is wanted, at the positions of one row, the i-th of R.
  template <bool Luminance, bool General, int Gradients, bool Weighted>
  void positions(int64_t row, int i) {
    // Variances in units of the centre's weight, which spares products: the gain of cs is divided by it. Both
    // gains are multiplied by it, as the maps are blurred relative to it, too. Weighted, the inverse of the
    // blurred weights takes its place, and variances are in units of 1.
    const T centre = this->centre, c1 = T(p.c1), c2 = T(Weighted ? p.c2 : p.c2 / double(centre));
    const T two = Weighted && !p.luminance ? 0 : 2;
    const bool of_map = p.grad_map.data != nullptr, binary = source.binary;
    const V gain_l = ssim_gain * centre, gain_cs = ssim_gain;
    const V base_m = this->base_m, from_m = base_m + source.offset_m, from_d = base_d + source.offset_d;
    const int64_t halo_pitch = this->halo_pitch, s = this->s;
    const V* moments = this->moment_row();
    const Mask<T>*const exists = this->exists, *const own = this->own;
    const V *const gains = this->gains, *const d_row = source.row(row) + R;
    const int64_t raw_step = source.step;
    V* const losses = p.loss_map.data ? this->losses : nullptr;
    V *out = map_rows + radius, sum{};
    Mask<T> small{};
    const Ahead next_x = source.next_x(i), next_y = source.next_y(i);
    for (int64_t k = 0; k < s; ++k, ++moments, ++out) {
      fetch(next_x, k), fetch(next_y, k);
      const V sum_m = moments[0], sum_d = moments[2 * halo_pitch];
      const V weight = Weighted ? d_row[k * raw_step + R] : splat<T>(1);
      const V inverse = Weighted ? inverse_of(moments[4 * halo_pitch]) : splat<T>(centre);
      const V mean_m = inverse * sum_m, mean_d = inverse * sum_d;
      const V mm = moments[halo_pitch], dd = moments[3 * halo_pitch];
      const Moments<V> at{mean_m + from_m, mean_d + from_d,
                          not_negative(Weighted ? inverse * mm - mean_m * mean_m : mm - mean_m * sum_m),
                          not_negative(Weighted ? inverse * dd - mean_d * mean_d : dd - mean_d * sum_d)};
      // m relative to 0 (less offset_m): b_m, small where x and y are close, forgives its rounding.
      const V m = mean_m + base_m, gain = General ? gains[k] : splat<T>(1);
      V g_l = General ? gain_l * gain : gain_l, g_cs = General ? gain_cs * gain : gain_cs;
      if (Weighted) g_l = g_cs = g_cs * inverse * (General && of_map ? splat<T>(1) : weight);
      const OneGradient<V> one = one_gradient<Luminance, T>(at, c1, c2, m, mean_d, g_l, g_cs, two);
      const V loss = not_negative(one.loss);
      const Mask<T> left = Weighted ? kept(weight) & exists[k] : ~Mask<T>{};
      if (Weighted && !binary) small |= too_small(moments[4 * halo_pitch]) & left;
      sum += masked<T>(Weighted ? weight * loss : loss, Weighted ? own[k] & left : own[k]);
      if (General && losses) {
        losses[k] = T(p.ssim_weight) * loss;
        if (p.l1_weight != 0) losses[k] += T(p.l1_weight) * absolute(d_row[k * raw_step] + source.offset_d);
        if (Weighted) losses[k] = masked<T>(losses[k], left);
      }
      if (Gradients == 0) continue;
      const Mask<T> counts = Weighted ? left : exists[k];
      const auto put = [&](int q, V value) INLINE_LAMBDA { out[q * halo_pitch] = masked<T>(value, counts); };
      put(0, one.b_m), put(1, one.b_d);
      if (Gradients == 1) {
        put(2, one.a);
      } else {
        put(2, one.b_m * m - one.luminance_m), put(3, one.luminance_d - one.b_d * mean_d);
      }
    }
    const bool counted = !General || Gradients > 0 || !gradient;  // or it is a map beside a gradient
    if (counted && row >= tile.row0 && row < tile.row1) this->add_up(row, 0, sum);
    if (Weighted) this->mark_beyond(small);
  }

  // The maps of one row, blurred along it into their ring. The gradient is a + b_d (d - base): where the base
  // moves by h, a (with both gradients a_d) moves by b_d h.
  template <bool Both>
  void blur_maps(int64_t row) {
    constexpr int maps = Both ? 4 : 3, step = map_step<Both>;
    base_d_of(row) = base_d;
    const V from_left = previous_lane(base_d) - base_d, from_right = next_lane(base_d) - base_d;
    V* const in = map_rows + radius;
    V *const b_d = in + halo_pitch, *const a_d = in + (maps - 1) * halo_pitch;
    const auto blur = [&](int64_t from, int64_t to) {
      fir_rows<R, 1, step>(in + from, halo_pitch, maps, weights, radius, int(to - from),
                           map_row(row) + from * step, R);
    };
    // Where no halo reaches first: the last maps, which halos are made of, are still being computed.
    const int64_t last = s / R * R - R;
    const bool apart = !reflected && radius <= R && last > R;
    if (apart) blur(R, last);
    if (reflected) this->reflect_columns(in, halo_pitch, maps);
    for (int q = 0; q < maps - 1; ++q) extend_segments<T>(in + q * halo_pitch, s, radius);
    for (int64_t k = 1; k <= radius; ++k) {
      a_d[-k] = previous_lane(a_d[s - k]) - b_d[-k] * from_left;
      a_d[s - 1 + k] = next_lane(a_d[k - 1]) - b_d[s - 1 + k] * from_right;
    }
    if (apart) blur(0, R);
    blur(apart ? last : 0, s);
  }

  // Rows [row, end) of the gradients, up to a block. General: with every option, else as plain() says, and
  // with an l1.
  template <bool General, bool Both, bool Weighted, bool L1 = true>
  void write_gradients(int64_t row, int64_t end) {
    const bool with_l1 = General || Weighted ? p.l1_weight != 0 : L1;
    const int count = int(end - row);
    if (General && with_l1 && p.grad_map.data) this->read_incoming(group_of(row), gradient_rows);
    const V* const incoming = General && with_l1 && p.grad_map.data ? this->incoming : nullptr;
    const V l1_gain = this->l1_gain, offset_d = source.offset_d;
    const int64_t pitch = this->pitch;
    const int64_t first = group_of(row), reach = R + 2 * radius;  // rows that a group sees
    T row_weight[gradient_rows];
    for (int i = 0; i < gradient_rows; ++i) row_weight[i] = edge(first + i, tile.h);
    fill_around<Both>(row, end);
    const V *windows[max_groups], *raw_groups[groups];
    for (int64_t i = 0; i < ring_groups(); ++i) windows[i] = map_row(first - radius + i * R);
    for (int64_t i = 0; i < groups; ++i) raw_groups[i] = source.row(first + i * R);
    // Row i of a window is of its batch_of(i)-th batch of positions, of whose bases one is the group's own.
    const auto batch_of = [](int i, int radius) INLINE_LAMBDA { return (i + (R - 2 * radius % R) % R) / R; };
    V shifts[groups][max_groups + 1], bases[groups]{};
    const int64_t parts = ceil_div(end - first, R);
    for (int64_t part = 0; part < parts; ++part) {
      bases[part] = base_d_of(first + part * R + R / 2);
      for (int i = 0; i < reach; i += R)
        shifts[part][batch_of(i, radius)] = base_d_of(first - radius + part * R + i) - bases[part];
      shifts[part][batch_of(reach - 1, radius)] =
          base_d_of(first - radius + part * R + reach - 1) - bases[part];
    }
    constexpr int step = map_step<Both>;
    const int64_t raw_step = source.step;
    const Ahead own = ahead(p.grad_x, this->vectors, row, count);
    for (int64_t k = 0; k < s; ++k) {
      fetch(own, k);
      for (int64_t part = 0; part < parts; ++part) {
        const V* const raws = opaque_pointer(raw_groups[part] + k * raw_step);
        const V base_d = bases[part];
        V b_m[R], b_d[R], a_m[R], a_d[R];  // a_d is the sum of both for one gradient
        with_taps(weights, radius, [&](const auto& w) INLINE_LAMBDA {
          const V* at[max_groups];
          for (int i = 0; i < groups_seen(w.radius()); ++i)
            at[i] = opaque_pointer(windows[part + i] + k * step);
          const auto map_in = [&](int q, int i) INLINE_LAMBDA { return at[i / R][q * R + i % R]; };
          const int middle = batch_of(w.radius() + R / 2, w.radius());
          const auto blur = [&](int q, V* to) INLINE_LAMBDA {
            fir<R>([&](int i) INLINE_LAMBDA { return map_in(q, i); }, w,
                   [&](int i, V sum) INLINE_LAMBDA { to[i] = sum; });
          };
          blur(0, b_m), blur(1, b_d);
          if (Both) blur(2, a_m);
          fir_computed<R>(
              [&](int i) INLINE_LAMBDA {
                const V a = map_in(Both ? 3 : 2, i);
                const int batch = batch_of(i, w.radius());
                return batch == middle ? a : a - map_in(1, i) * shifts[part][batch];
              },
              w, [&](int i, V sum) INLINE_LAMBDA { a_d[i] = sum; }, work);
        });
        V* out = gradients + 2 * part * R * pitch + k;
#pragma GCC unroll unrolled_rows
        for (int i = 0; i < R; ++i, out += 2 * pitch) {
          const V own_weight = Weighted ? raws[2 * R + i] : splat<T>(1);
          V weight = General ? edge_weight[k] * row_weight[part * R + i] : splat<T>(1);
          if (Weighted) weight *= own_weight;
          const V d = raws[R + i];
          const V by_m = b_m[i] * raws[i], by_d = a_d[i] + b_d[i] * (d - base_d);
          // dx and dy from dm and dd; x's alone comes as their sum.
          V one = weight * (Both ? (a_m[i] - by_m) + by_d : by_d - by_m);
          V two = Both ? weight * ((a_m[i] - by_m) - by_d) : V{};
          if (with_l1) {
            V gain = incoming ? l1_gain * incoming[(part * R + i) * pitch + k] : l1_gain;
            if (Weighted && !incoming) gain *= own_weight;
            const V by_l1 = this->l1_slope(d + offset_d, gain);
            one += by_l1, two -= by_l1;
          }
          if (Weighted) one = masked<T>(one, kept(own_weight)), two = masked<T>(two, kept(own_weight));
          out[0] = one;
          if (Both) out[pitch] = two;
        }
      }
    }
    store_gradients(row, end);
  }

  // Apart, or every kind of write_gradients would hold a copy.
  __attribute__((noinline)) void store_gradients(int64_t row, int64_t end) {
    const int64_t first = group_of(row);
    for (int which = 0; which < (both ? 2 : 1); ++which) {
      this->write_gradient(which, row, end,
                           [&](int64_t at) { return gradients + (2 * (at - first) + which) * pitch; });
    }
  }

  // The map rows around rows [row, end) of the gradient where no positions are: zeros, or the mirror image's,
  // of which a is moved from their base to the one here.
  template <bool Both>
  void fill_around(int64_t row, int64_t end) {
    for (int64_t at = row - radius; at < end + radius; ++at) {
      if (at >= tile.top && at < tile.bottom) continue;
      const int64_t from = reflected ? mirrored(at, tile.h) : at;
      const V *in = map_row(from), shift = base_d_of(from) - base_d_of(at);
      V* out = map_row(at);
      for (int64_t k = 0; k < s; ++k, in += map_step<Both>, out += map_step<Both>) {
        for (int q = 0; q < maps; ++q) out[q * R] = reflected ? in[q * R] : V{};
        if (reflected) out[(maps - 1) * R] -= in[R] * shift;
      }
    }
  }
};
