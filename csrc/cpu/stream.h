// Loss and gradient of one item (source.h's Tile) in one pass.
//
// Rows are kept as segments (segments.h), so that one filter (fir.h) is both directions'.
//
// R rows at a time flow through rings of the last few rows, small enough for the L2 cache:
//   source    x, y                               -> raw: m = x + y, d = x - y
//   moments   of m and d and their squares, blurred down the columns, then along the row
//   positions -> loss, coefficients a, b; blurred along the row -> map ring
//   gradient  blurred down the columns, a + b m + ... -> grad_x, grad_y
// Moments are needed radius columns and rows beyond the gradient, raw values twice as far.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

template <class T>
class Stream : LocalMoments<T> {
  using Base = LocalMoments<T>;
  using Base::L, Base::R, Base::p, Base::tile, Base::source, Base::s, Base::pitch, Base::halo_pitch;
  using Base::moment_pitch, Base::one_row, Base::raws, Base::work, Base::moment_row, Base::narrow;
  using Base::scales, Base::radius, Base::weights, Base::centre, Base::windowed_l1, Base::base_m,
      Base::base_d;
  using typename Base::V;

  const bool gradient, both;
  const int maps;        // a scale: b_m, b_d, a (or a_m and a_d), and for l1 its gain
  V ssim_gain, l1_gain;  // of each lane's plane; 0 in lanes of none
  V *map_rows, *map_ring[max_scales], *base_ring, *zeros, *shifts;
  V* edge_weight;        // reflect's, per column
  Mask<T>*exists, *own;  // all ones in columns of positions that exist here, of those that count
  V *incoming, *losses, *gradients;
  T* linear;
  const V** rows;
  double sum_ssim[L] = {}, sum_l1[L] = {};  // of the lanes

  int maps_of(int j) const { return maps + (j == scales - 1 && windowed_l1); }
  int64_t map_ring_rows(int j) const { return R + tile.r + radius[j]; }
  V& base_d_of(int64_t row) const { return base_ring[row % map_ring_rows(scales - 1)]; }

 public:
  Stream(const Problem& problem, const Items& items, int64_t item)
      : Base(problem, items, item),
        gradient(p.gains != nullptr),
        both(p.grad_x.data && p.grad_y.data),
        maps(both ? 4 : 3) {
    const size_t bytes = layout(nullptr);
    layout(static_cast<char*>(scratch(bytes)));
    source.start();
    mark_columns();
    ssim_gain = l1_gain = V{};
    for (int64_t lane = 0; gradient && lane < tile.planes * tile.across; ++lane) {
      const double* const gains = p.gains + 2 * (tile.first_plane + lane / tile.across);
      ssim_gain[lane] = T(gains[0]), l1_gain[lane] = T(gains[1]);
    }
  }

  // Returns which of the planes are beyond float32. A plane alone is not done then.
  uint32_t run() {
    const int64_t r = tile.r, end = tile.end, row1 = tile.row1;
    int64_t done = tile.row0;  // rows of the gradient
    uint32_t beyond = 0;
    for (int64_t row = tile.first, count; row < end; row += count) {
      count = smaller(R, end - row);
      source.read_to(row + count + r);
      this->find_bases(row, int(count));
      if (p.grad_map.data) read_incoming(row, count);
      for (int j = 0; j < scales; ++j) {
        this->blur_columns(j, row, int(count));
        for (int i = 0; i < count && !one_row; ++i) this->blur_row(j, i);
      }
      if (sizeof(T) == 4) beyond |= this->beyond_float32(int(count));
      if (beyond && tile.planes == 1) return beyond;
      for (int64_t i = 0; i < count; ++i) {
        if (one_row) this->blur_row(0, int(i));
        positions_of(row + i, int(i));
        if (gradient) blur_maps(row + i);
      }
      if (!gradient) continue;
      const int64_t ready = row + count == end ? row1 : smaller(row1, row + count - r);
      for (int64_t step; done < ready; done += step) {
        step = smaller(R, ready - done);
        if (both) {
          write_gradients<true, true>(done, int(step));
        } else {
          plain() ? write_gradients<false, false>(done, int(step))
                  : write_gradients<true, false>(done, int(step));
        }
      }
    }
    if (!p.plane_sums) return beyond;
    for (int64_t i = 0; i < tile.planes; ++i) {
      double* const sums = p.plane_sums + 2 * ((tile.first_plane + i) * tile.pieces + tile.piece);
      sums[0] = 0, sums[1] = windowed_l1 ? 0 : source.sum_l1[i];
      for (int64_t lane = i * tile.across; lane < (i + 1) * tile.across; ++lane)
        sums[0] += sum_ssim[lane], sums[1] += sum_l1[lane];
    }
    return beyond;
  }

 private:
  // One scale, one gradient and no options, which the compiler then knows.
  bool plain() const {
    return scales == 1 && radius[0] > 0 && !narrow(0) && !both && !windowed_l1 && !p.loss_map.data &&
           !p.grad_map.data && p.padding != Padding::reflect &&
           p.c2 < 1e30 * double(centre[0]);  // whose quotient T has to hold
  }

  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    Base::layout(take, base != nullptr);
    take(linear, L * s + L);
    take(edge_weight, pitch);
    take(exists, pitch), take(own, pitch);
    take(rows, R + 2 * tile.r);
    take(losses, p.loss_map.data ? pitch : 0);
    take(incoming, p.grad_map.data ? R * pitch : 0);
    for (int j = 0; gradient && j < scales; ++j) take(map_ring[j], map_ring_rows(j) * maps_of(j) * pitch);
    if (gradient) {
      take(base_ring, map_ring_rows(scales - 1));
      take(shifts, R + 2 * tile.r);
      take(map_rows, one_row ? 0 : int64_t(scales) * 5 * halo_pitch);
      if (one_row) map_rows = moment_row(0, 0) - tile.r;
      take(gradients, 2 * R * pitch);
    }
    take(zeros, 5 * pitch);
    for (int64_t k = 0; base && k < 5 * pitch; ++k) zeros[k] = V{};
    return used;
  }

  V* map_row(int j, int64_t row) const { return map_ring[j] + row % map_ring_rows(j) * maps_of(j) * pitch; }

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
  T edge(int64_t i, int64_t size) const {
    return p.padding == Padding::reflect && (i == 0 || i == size - 1) ? T(0.5) : T(1);
  }

  void read_incoming(int64_t row, int64_t count) {
    const int64_t begin = larger(tile.left, tile.t0), to = smaller(tile.right, tile.t1);
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

  void positions_of(int64_t row, int i) {
    if (plain() && gradient) {
      p.luminance ? plain_positions<true, true>(row, i) : plain_positions<false, true>(row, i);
    } else if (plain()) {
      p.luminance ? plain_positions<true, false>(row, i) : plain_positions<false, false>(row, i);
    } else if (scales == 1) {
      p.luminance ? positions<1, true>(row, i) : positions<1, false>(row, i);
    } else {
      positions<max_scales, true>(row, i);
    }
    if (p.loss_map.data && row >= tile.row0 && row < tile.row1) write_losses(row);
  }

  // Losses, and coefficients where a gradient is wanted, at the positions of one row, the i-th of R.
  template <bool Luminance, bool Gradient>
  void plain_positions(int64_t row, int i) {
    // Variances in units of the centre's weight, which spares products: the gain of cs is divided by it. Both
    // gains are multiplied by it, as the maps are blurred relative to it, too.
    const T centre = this->centre[0], c1 = T(p.c1), c2 = T(p.c2 / double(centre));
    const V gain_l = ssim_gain * centre, gain_cs = ssim_gain;
    const V base_m = this->base_m, from_m = base_m + source.offset_m, from_d = base_d + source.offset_d;
    const int64_t moment_pitch = this->moment_pitch, halo_pitch = this->halo_pitch, s = this->s;
    const V* moments = moment_row(i, 0);
    const Mask<T>*const exists = this->exists, *const own = this->own;
    V *out = map_rows + tile.r, sum{};
    const Ahead next_x = source.next(p.x, i), next_y = source.next(p.y, i);
    for (int64_t k = 0; k < s; ++k, ++moments, ++out) {
      fetch(next_x, k), fetch(next_y, k);
      const V sum_m = moments[0], sum_d = moments[2 * moment_pitch];
      const V mean_m = centre * sum_m, mean_d = centre * sum_d;
      const Moments<V> at{mean_m + from_m, mean_d + from_d,
                          not_negative(moments[moment_pitch] - mean_m * sum_m),
                          not_negative(moments[3 * moment_pitch] - mean_d * sum_d)};
      // m relative to 0 (less offset_m): b_m, small where x and y are close, forgives its rounding.
      const OneGradient<V> one =
          one_gradient<Luminance, T>(at, c1, c2, mean_m + base_m, mean_d, gain_l, gain_cs);
      sum += masked<T>(not_negative(one.loss), own[k]);
      if (!Gradient) continue;
      out[0] = masked<T>(one.b_m, exists[k]);
      out[halo_pitch] = masked<T>(one.b_d, exists[k]);
      out[2 * halo_pitch] = masked<T>(one.a, exists[k]);
    }
    if (row >= tile.row0 && row < tile.row1) add_up(sum, sum_ssim);
  }

  // The same with every option.
  template <int Scales, bool Luminance>
  void positions(int64_t row, int i) {
    const int scales = this->scales, last = scales - 1;
    const bool windowed_l1 = this->windowed_l1, both = this->both, gradient = this->gradient;
    const V* const incoming = p.grad_map.data ? this->incoming + i * pitch : nullptr;
    V* const losses = p.loss_map.data ? this->losses : nullptr;
    const T c1 = T(p.c1), c2 = T(p.c2);
    const V offset_m = source.offset_m, offset_d = source.offset_d;
    const bool reflected = p.padding == Padding::reflect;
    const T row_weight = 1 / edge(row, tile.h);
    const V ssim_gain = this->ssim_gain, l1_gain = this->l1_gain * centre[last];
    const int64_t halo_pitch = this->halo_pitch, moment_pitch = this->moment_pitch;
    const V *const moments = moment_row(i, 0), *const d_row = source.row(row) + pitch;
    const V base_d = this->base_d;
    V* const maps_out = map_rows + tile.r;
    V sum_ssim{}, sum_l1{};
    const Ahead next_x = source.next(p.x, i), next_y = source.next(p.y, i);
    for (int64_t k = 0; k < s; ++k) {
      fetch(next_x, k), fetch(next_y, k);
      const V* const at_k = moments + k;
      const auto mean = [&](int j, int q)
                            INLINE_LAMBDA { return centre[j] * at_k[(j * 5 + q) * moment_pitch]; };
      const auto variance = [&](int j, int q) INLINE_LAMBDA {
        const V mu = mean(j, q - 1);
        if (radius[j] == 0) return mu * V{};  // NaN where the value is NaN
        return not_negative(mean(j, q) - mu * mu);
      };
      const auto base = [&](int j, int q) INLINE_LAMBDA { return this->base(j, i, q, k); };
      const auto moments_at = [&](int j) INLINE_LAMBDA {
        return Moments<V>{mean(j, 0) + (base(j, 0) + offset_m), mean(j, 2) + (base(j, 1) + offset_d),
                          variance(j, 1), variance(j, 3)};
      };
      Dissimilarity<V> e[Scales];
      for (int j = 0; j < last; ++j) e[j] = dissimilarity<false>(moments_at(j), c1, c2);
      e[last] = dissimilarity<Luminance>(moments_at(last), c1, c2);
      V loss = e[last].e_l;
      for (int j = 0; j < scales; ++j) loss += e[j].e_cs - loss * e[j].e_cs;
      loss = not_negative(loss);
      sum_ssim += masked<T>(loss, own[k]);
      const V l1 = windowed_l1 ? mean(last, 4) : V{};
      if (windowed_l1) sum_l1 += masked<T>(l1, own[k]);
      if (losses) {
        losses[k] = T(p.ssim_weight) * loss;
        if (p.l1_weight != 0)
          losses[k] += T(p.l1_weight) * (windowed_l1 ? l1 : absolute(d_row[k] + offset_d));
      }
      if (!gradient) continue;

      V gain = splat<T>(row_weight);
      if (reflected) gain /= edge_weight[k];
      if (incoming) gain *= incoming[k];
      // d loss / d e_j is the product of the other factors, l and cs.
      V behind[Scales];  // product of the factors after j
      behind[last] = splat<T>(1);
      for (int j = last; j > 0; --j) behind[j - 1] = behind[j] * e[j].cs;
      V before = ssim_gain * gain;
      // Times cs and times l, each as one multiplication with an addition.
      const V g_l = before * behind[0] - before * behind[0] * e[0].e_cs;
      before -= before * e[last].e_l;
      V* out = maps_out + k;
      const auto put = [&](V* to, V value) INLINE_LAMBDA { *to = masked<T>(value, exists[k]); };
      for (int j = 0; j < scales; ++j, out += 5 * halo_pitch) {
        // One tap has no variance, but large terms that would have to cancel.
        const V g_cs = (radius[j] > 0 ? centre[j] : T(0)) * before * behind[j];
        const V delta_m = -(mean(j, 0) + base(j, 0));
        const V delta_d = -(mean(j, 2) + (base(j, 1) - base_d));
        const Coefficients<V> at =
            j == last
                ? coefficients<Luminance, T>(moments_at(j), e[j], delta_m, delta_d, g_l * centre[j], g_cs)
                : coefficients<false, T>(moments_at(j), e[j], delta_m, delta_d, g_l, g_cs);
        put(out, at.b_m);
        if (both) {
          put(out + halo_pitch, at.b_d);
          put(out + 2 * halo_pitch, at.a_m);
          put(out + 3 * halo_pitch, at.a_d);
        } else {
          put(out + halo_pitch, at.b_d);
          put(out + 2 * halo_pitch, at.a_m + at.a_d);
        }
        if (windowed_l1 && j == last) put(out + maps * halo_pitch, l1_gain * gain);
        before *= e[j].cs;
      }
    }
    if (row < tile.row0 || row >= tile.row1) return;
    add_up(sum_ssim, this->sum_ssim);
    if (windowed_l1) add_up(sum_l1, this->sum_l1);
  }

  static void add_up(V of_a_row, double* sums) {
    for (int lane = 0; lane < L; ++lane) sums[lane] += double(of_a_row[lane]);
  }

  void write_losses(int64_t row) {
    const int64_t begin = larger(tile.left, tile.col0), to = smaller(tile.right, tile.col1);
    if (begin >= to) return;
    from_segments<T>(losses, s, linear);
    for (int64_t i = 0; i < tile.planes; ++i) {
      write_row<T>(p.loss_map, tile.n(i), tile.c(i), row - tile.top, begin - tile.left, to - begin,
                   linear + tile.start(i) + (begin - tile.t0));
    }
  }

  // The maps of one row, blurred along it into their ring. The gradient is a + b_d (d - base): where the base
  // moves by h, a (with both gradients a_d) moves by b_d h.
  void blur_maps(int64_t row) {
    base_d_of(row) = base_d;
    const V from_left = previous_lane(base_d) - base_d, from_right = next_lane(base_d) - base_d;
    for (int j = 0; j < scales; ++j) {
      V* const in = map_rows + j * 5 * halo_pitch + tile.r;
      V *const b_d = in + halo_pitch, *const a_d = in + (maps - 1) * halo_pitch;
      const auto blur = [&](int64_t from, int64_t to) {
        fir_rows<R, 1>(in + from, halo_pitch, maps_of(j), weights[j], radius[j], int(to - from),
                       map_row(j, row) + from, pitch);
      };
      // Where no halo reaches first: the last maps, which halos are made of, are still being computed.
      const int64_t last = s / R * R - R;
      const bool apart = p.padding != Padding::reflect && radius[j] <= R && last > R;
      if (apart) blur(R, last);
      if (p.padding == Padding::reflect) reflect_columns(in, maps_of(j));
      for (int q = 0; q < maps_of(j); ++q) {
        if (q != maps - 1) extend_segments<T>(in + q * halo_pitch, s, radius[j]);
      }
      for (int64_t k = 1; k <= radius[j]; ++k) {
        a_d[-k] = previous_lane(a_d[s - k]) - b_d[-k] * from_left;
        a_d[s - 1 + k] = next_lane(a_d[k - 1]) - b_d[s - 1 + k] * from_right;
      }
      if (apart) blur(0, R);
      blur(apart ? last : 0, s);
    }
  }

  void reflect_columns(V* in, int count) const {
    for (int64_t i = 0; i < tile.planes; ++i) reflect_columns(in, count, i * tile.across);
  }
  void reflect_columns(V* in, int count, int64_t first_lane) const {
    const auto reflect = [&](int64_t col) {
      const auto lane_of = [&](int64_t column) { return first_lane + (column - tile.t0) / s; };
      const int64_t from = mirrored(col, tile.w), lane = lane_of(col), from_lane = lane_of(from);
      const auto at = [&](int q, int64_t column) -> T& {
        return reinterpret_cast<T*>(in + q * halo_pitch + (column - tile.t0) % s)[lane_of(column)];
      };
      for (int q = 0; q < count; ++q) at(q, col) = at(q, from);
      at(maps - 1, col) -= at(1, col) * (base_d[from_lane] - base_d[lane]);
    };
    for (int64_t col = tile.t0; col < 0; ++col) reflect(col);
    for (int64_t col = tile.w; col < tile.t1; ++col) reflect(col);
  }

  // Rows [row, row + count) of the gradients. General: with every option, else as plain() says, and with a
  // plain l1.
  template <bool General, bool Both>
  void write_gradients(int64_t row, int count) {
    const int scales = General ? this->scales : 1;
    const bool windowed_l1 = General && this->windowed_l1;
    const bool pixel_l1 = !windowed_l1 && p.l1_weight != 0;
    if (General && pixel_l1 && p.grad_map.data) read_incoming(row, count);
    const V* const incoming = General && pixel_l1 && p.grad_map.data ? this->incoming : nullptr;
    const V l1_gain = this->l1_gain, offset_d = source.offset_d;
    T row_weight[R];
    for (int i = 0; i < R; ++i) row_weight[i] = edge(row + i, tile.h);
    const V base_d = base_d_of(smaller(larger(row + count / 2, tile.first), tile.end - 1));
    const int64_t pitch = this->pitch;
    for (int j = 0; j < scales; ++j) {
      gather_maps(j, row, count, base_d);
      const bool first_scale = j == 0, last_scale = j == scales - 1;
      const Ahead own =
          ahead<T>(p.grad_x, tile.n(0), tile.c(0), row, tile.planes == 1 ? count : 0, tile.col0);
      for (int64_t k = 0; k < s; ++k) {
        if (first_scale) fetch(own, k);
        V b_m[R], b_d[R], a_m[R], a_d[R], l1[R] = {};  // a_d is the sum of both for one gradient
        const auto map_in = [&](int q, int i) INLINE_LAMBDA { return rows[i][q * pitch + k]; };
        with_taps(weights[j], radius[j], [&](const auto& w) INLINE_LAMBDA {
          const auto blur = [&](int q, V* to) INLINE_LAMBDA {
            fir<R>([&](int i) INLINE_LAMBDA { return map_in(q, i); }, w,
                   [&](int i, V sum) INLINE_LAMBDA { to[i] = sum; });
          };
          blur(0, b_m), blur(1, b_d);
          if (Both) blur(2, a_m);
          fir_computed<R>([&](int i)
                              INLINE_LAMBDA { return map_in(Both ? 3 : 2, i) - map_in(1, i) * shifts[i]; },
                          w, [&](int i, V sum) INLINE_LAMBDA { a_d[i] = sum; }, work);
          if (windowed_l1 && last_scale) blur(maps, l1);
        });
        V* out = gradients + k;
#pragma GCC unroll 2
        for (int i = 0; i < R; ++i, out += 2 * pitch) {
          const V weight = General ? edge_weight[k] * row_weight[i] : splat<T>(1);
          const V d = raws[i][pitch + k];
          const V by_m = b_m[i] * raws[i][k], by_d = a_d[i] + b_d[i] * (d - base_d);
          // dx and dy from dm and dd; x's alone comes as their sum.
          V one = weight * (Both ? (a_m[i] - by_m) + by_d : by_d - by_m);
          V two = Both ? weight * ((a_m[i] - by_m) - by_d) : V{};
          if (!first_scale) one += out[0];
          if (!first_scale && Both) two += out[pitch];
          if (last_scale && (windowed_l1 || pixel_l1)) {
            V gain = windowed_l1 ? weight * l1[i] : l1_gain;
            if (incoming) gain *= incoming[i * pitch + k];
            const V true_d = d + offset_d;
            // sign(0) = 0, sign(NaN) = NaN
            const V by_l1 = true_d > V{} ? gain : (true_d < V{} ? -gain : true_d * gain);
            one += by_l1;
            two -= by_l1;
          }
          out[0] = one;
          if (Both) out[pitch] = two;
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      write_gradient(p.grad_x, row + i, gradients + 2 * i * pitch);
      if (Both) write_gradient(p.grad_y, row + i, gradients + (2 * i + 1) * pitch);
    }
  }

  void write_gradient(const Images& to, int64_t row, const V* values) {
    from_segments<T>(values, s, linear);
    for (int64_t i = 0; i < tile.planes; ++i) {
      write_row<T>(to, tile.n(i), tile.c(i), row, tile.col0, tile.col1 - tile.col0,
                   linear + tile.start(i) + (tile.col0 - tile.t0));
    }
  }

  // Pointers to the map rows around rows [row, row + R) of the gradient, with their bases less base_d, and to
  // the raw rows; those past count are never used.
  void gather_maps(int j, int64_t row, int64_t count, V base_d) {
    for (int64_t i = 0; i < R + 2 * radius[j]; ++i) {
      int64_t at = smaller(row - radius[j] + i, row + count - 1 + radius[j]);
      bool outside = at < tile.top || at >= tile.bottom;
      if (outside && p.padding == Padding::reflect) at = mirrored(at, tile.h), outside = false;
      rows[i] = outside ? zeros : map_row(j, at);
      shifts[i] = outside ? V{} : base_d_of(at) - base_d;
    }
    for (int64_t i = 0; i < R; ++i) raws[i] = source.row(smaller(row + i, row + count - 1));
  }
};
