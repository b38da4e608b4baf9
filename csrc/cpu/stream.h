// Loss and gradient of one item (a strip of columns and a band of rows of one plane) in one pass.
//
// Rows are kept as segments (segments.h), so that one filter (fir.h) is both directions'.
//
// R rows at a time flow through rings of the last few rows, small enough for the L2 cache:
//   source    x, y                               -> raw: m = x + y, d = x - y
//   moments   means and variances of m and d down the columns, then along the row
//   positions -> loss, coefficients a, b; blurred along the row -> map ring
//   gradient  blurred down the columns, a + b m + ... -> grad_x, grad_y
// Moments are needed radius columns and rows beyond the gradient, raw values twice as far.

constexpr int max_scales = 16;

template <class T>
class Stream {
  using V = Vec<T>;
  static constexpr int L = lanes<T>, R = rows_at_a_time;

  const Problem& p;
  const bool gradient, both, windowed_l1;
  const int scales, maps;  // maps a scale: b_m, b_d, a (or a_m and a_d), and for l1 its gain
  const int moment_rows;   // kept: of one scale each row is used at once, while it is in the L1 cache
  const Tile<T> tile;
  Source<T> source;
  const int64_t s, pitch, halo_pitch;
  T ssim_gain, l1_gain;

  int radius[max_scales];
  const T *weights[max_scales], *relative_weights[max_scales];  // the latter to the centre, for the maps
  V *work, *columns, *moments, *map_rows, *map_ring[max_scales], *zeros;
  V *position_mask, *map_weight, *edge_weight;  // per column: counted; in the gradient; reflect's
  V *incoming, *losses, *gradients;
  T* linear;
  const V **rows, **raws;
  double sum_ssim = 0, sum_l1 = 0;

  int maps_of(int j) const { return maps + (j == scales - 1 && windowed_l1); }
  int64_t map_ring_rows(int j) const { return R + tile.r + radius[j]; }

 public:
  Stream(const Problem& problem, const Items& items, int64_t item)
      : p(problem),
        gradient(p.gains != nullptr),
        both(p.grad_x.data && p.grad_y.data),
        windowed_l1(p.l1_windowed && p.l1_weight != 0),
        scales(p.scales),
        maps(both ? 4 : 3),
        moment_rows(scales == 1 ? 1 : R),
        tile(p, items, item),
        source(p, tile, R + 3 * tile.r),
        s(tile.s),
        pitch(tile.pitch),
        halo_pitch(tile.halo_pitch) {
    for (int j = 0; j < scales; ++j) radius[j] = p.windows[j].radius;
    const size_t bytes = layout(nullptr);
    layout(static_cast<char*>(scratch(bytes)));
    source.start();
    weigh_columns();
    ssim_gain = gradient ? T(p.gains[2 * tile.plane]) : 0;
    l1_gain = gradient ? T(p.gains[2 * tile.plane + 1]) : 0;
  }

  void run() {
    const int64_t r = tile.r, end = tile.end, row1 = tile.row1;
    int64_t done = tile.row0;  // rows of the gradient
    for (int64_t row = tile.first, count; row < end; row += count) {
      count = smaller(R, end - row);
      source.read_to(row + count + r);
      if (p.grad_map.data) read_incoming(row, count);
      for (int j = 0; j < scales; ++j) {
        blur_columns(j, row, int(count));
        for (int i = 0; i < count && moment_rows == R; ++i) blur_row(j, row + i, i);
      }
      for (int64_t i = 0; i < count; ++i) {
        if (moment_rows == 1) blur_row(0, row + i, int(i));
        positions_of(row + i, int(i));
        if (gradient) both ? blur_maps<true>(row + i) : blur_maps<false>(row + i);
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
    if (!p.plane_sums) return;
    double* sums = p.plane_sums + 2 * (tile.plane * tile.pieces + tile.piece);
    sums[0] = sum_ssim, sums[1] = windowed_l1 ? sum_l1 : source.sum_l1;
  }

 private:
  // One scale, one gradient and no options, which the compiler then knows.
  bool plain() const { return scales == 1 && !both && !windowed_l1 && !p.loss_map.data && !p.grad_map.data; }

  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    source.layout(take);
    take(linear, L * s + L);
    take(position_mask, pitch);
    take(map_weight, pitch);
    take(edge_weight, pitch);
    take(work, R + 2 * tile.r);
    take(rows, R + 2 * tile.r);
    take(raws, R + 2 * tile.r);
    take(losses, p.loss_map.data ? pitch : 0);
    take(incoming, p.grad_map.data ? R * pitch : 0);
    take(columns, int64_t(R) * 5 * halo_pitch);
    take(moments, int64_t(moment_rows) * scales * 5 * pitch);
    for (int j = 0; j < scales; ++j) {
      const double* const from = p.windows[j].weights;
      T *own = nullptr, *relative = nullptr;
      take(own, radius[j] + 1);
      take(relative, radius[j] + 1);
      for (int t = 0; base && t <= radius[j]; ++t) own[t] = T(from[t]), relative[t] = T(from[t] / from[0]);
      weights[j] = own, relative_weights[j] = relative;
      if (gradient) take(map_ring[j], map_ring_rows(j) * maps_of(j) * pitch);
    }
    if (gradient) {
      take(map_rows, int64_t(scales) * 5 * halo_pitch);
      take(gradients, 2 * R * pitch);
    }
    take(zeros, 5 * halo_pitch);
    for (int64_t k = 0; base && k < 5 * halo_pitch; ++k) zeros[k] = V{};
    return used;
  }

  // Means and variances of m and d and, for a windowed l1, the mean of |d|: of the i-th of R rows, down the
  // columns; of one row, under the window. The mean of d is less d at the place itself: so it keeps all
  // digits.
  V* column_row(int i) const { return columns + i * 5 * halo_pitch + tile.r; }
  V* moment_row(int i, int j) const { return moments + (i % moment_rows * scales + j) * 5 * pitch; }
  V* map_row(int j, int64_t row) const { return map_ring[j] + row % map_ring_rows(j) * maps_of(j) * pitch; }

  void weigh_columns() {
    T* counted = reinterpret_cast<T*>(position_mask);
    T* mapped = reinterpret_cast<T*>(map_weight);
    T* edges = reinterpret_cast<T*>(edge_weight);
    const int64_t begin = larger(tile.left, tile.col0 - tile.margin);
    const int64_t end = smaller(tile.right, tile.col1 + tile.margin);
    for (int64_t lane = 0; lane < L; ++lane) {
      for (int64_t k = 0; k < s; ++k) {
        const int64_t col = tile.t0 + lane * s + k, at = k * L + lane;
        const bool exists = begin <= col && col < end;
        counted[at] = T(exists && tile.col0 <= col && col < tile.col1);
        mapped[at] = exists ? T(1) / edge(col, tile.w) : T(0);
        edges[at] = edge(col, tile.w);
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
      if (row + i >= tile.top && row + i < tile.bottom) {
        read_row<T>(p.grad_map, tile.n, tile.c, row + i - tile.top, begin - tile.left, to - begin,
                    linear + (begin - tile.t0));
      }
      to_segments<T>(linear, s, incoming + i * pitch);
    }
  }

  // The column rows of rows [row, row + count), of scale j.
  void blur_columns(int j, int64_t row, int count) {
    const int halo = radius[j];
    for (int i = 0; i < R + 2 * halo; ++i)  // those of rows past count are never used
      raws[i] = source.padded(smaller(row - halo + i, row + count - 1 + halo));
    with_radius(halo, [&](auto fixed) INLINE_LAMBDA { blur_columns<fixed>(j); });
    for (int i = 0; i < count; ++i) {
      for (int q = 0; q < (j == scales - 1 && windowed_l1 ? 5 : 4); ++q)
        extend_segments<T>(column_row(i) + q * halo_pitch, s, halo);
    }
  }

  template <int Radius>
  INLINE void blur_columns(int j) {
    const int halo = Radius > 0 ? Radius : radius[j];
    const bool with_l1 = windowed_l1 && j == scales - 1;
    const int64_t row_pitch = 5 * halo_pitch, halo_pitch = this->halo_pitch;
    const T offset_d = source.offset_d;
    const T* const w = weights[j];
    const V* const* const raws = this->raws;
    V* out = column_row(0);
    const Ahead next_x = source.next(p.x), next_y = source.next(p.y);
    for (int64_t k = 0; k < s; ++k, ++out) {
      if (j == 0) fetch<false>(next_x, k), fetch<false>(next_y, k);
      for_local_blocks<R>(halo, R, [&](int first, auto block) INLINE_LAMBDA {
        V mean[block], variance[block];
        V* const to = out + first * row_pitch;
        const auto m = [&](int i) INLINE_LAMBDA { return raws[first + i][k]; };
        const auto d = [&](int i) INLINE_LAMBDA { return raws[first + i][halo_pitch + k]; };
        const V base_m = middle<block>(m, halo), base_d = middle<block>(d, halo);
        fir_moments<block, Radius>([&](int i) INLINE_LAMBDA { return m(i) - base_m; }, NoVariance{}, w, halo,
                                   mean, variance, work);
        for (int i = 0; i < block; ++i) {
          to[i * row_pitch] = mean[i] + base_m;
          to[i * row_pitch + halo_pitch] = variance[i];
        }
        fir_moments<block, Radius>([&](int i) INLINE_LAMBDA { return d(i) - base_d; }, NoVariance{}, w, halo,
                                   mean, variance, work);
        for (int i = 0; i < block; ++i) {
          to[i * row_pitch + 2 * halo_pitch] = mean[i] + (base_d - d(halo + i));
          to[i * row_pitch + 3 * halo_pitch] = variance[i];
        }
        if (!with_l1) return;
        fir<block, Radius>([&](int i) INLINE_LAMBDA { return absolute(d(i) + offset_d); }, w, halo, mean);
        for (int i = 0; i < block; ++i) to[i * row_pitch + 4 * halo_pitch] = mean[i];
      });
    }
  }

  // The moments of the i-th of R rows, `row`, from its column row, of scale j.
  void blur_row(int j, int64_t row, int i) {
    const V* const d_row = source.row(row) + halo_pitch;
    const int64_t halo_pitch = this->halo_pitch, pitch = this->pitch;
    const int halo = radius[j];
    const T* const w = weights[j];
    const V* const column = column_row(i);
    V* const moment = moment_row(i, j);
    with_radius(halo, [&](auto fixed) INLINE_LAMBDA {
      for_local_blocks<R>(halo, int(s), [&](int k, auto block) INLINE_LAMBDA {
        const V *const in = column + k - halo, *const d = d_row + k - halo;
        V* const out = moment + k;
        V mean[block], variance[block];
        const V base_m = middle<block>([&](int t) INLINE_LAMBDA { return in[t]; }, halo);
        fir_moments<block, fixed>([&](int t) INLINE_LAMBDA { return in[t] - base_m; },
                                  [&](int t) INLINE_LAMBDA { return in[halo_pitch + t]; }, w, halo, mean,
                                  variance, work);
        for (int b = 0; b < block; ++b) {
          out[b] = mean[b] + base_m;
          out[pitch + b] = variance[b];
        }
        const V base_d = middle<block>([&](int t) INLINE_LAMBDA { return d[t]; }, halo);
        fir_moments<block, fixed>(
            [&](int t) INLINE_LAMBDA { return (d[t] - base_d) + in[2 * halo_pitch + t]; },
            [&](int t) INLINE_LAMBDA { return in[3 * halo_pitch + t]; }, w, halo, mean, variance, work);
        for (int b = 0; b < block; ++b) {
          out[2 * pitch + b] = mean[b] + (base_d - d[halo + b]);
          out[3 * pitch + b] = variance[b];
        }
      });
    });
    if (windowed_l1 && j == scales - 1)
      fir_row<R, T>(column + 4 * halo_pitch, w, halo, int(s), moment + 4 * pitch);
  }

  void positions_of(int64_t row, int i) {
    if (plain()) {
      p.luminance ? positions<1, true, false>(row, i) : positions<1, false, false>(row, i);
    } else if (scales == 1) {
      p.luminance ? positions<1, true, true>(row, i) : positions<1, false, true>(row, i);
    } else {
      positions<max_scales, true, true>(row, i);
    }
    if (p.loss_map.data && row >= tile.row0 && row < tile.row1) write_losses(row);
  }

  // Losses, and coefficients where a gradient is wanted, at the positions of one row, the i-th of R.
  // General: with every option; otherwise as plain() says.
  template <int Scales, bool Luminance, bool General>
  void positions(int64_t row, int i) {
    const int scales = General ? this->scales : 1, last = scales - 1;
    const bool windowed_l1 = General && this->windowed_l1, both = General && this->both;
    const bool gradient = this->gradient;
    const V* const incoming = General && p.grad_map.data ? this->incoming + i * pitch : nullptr;
    V* const losses = General && p.loss_map.data ? this->losses : nullptr;
    const T c1 = T(p.c1), c2 = T(p.c2), offset_m = source.offset_m, offset_d = source.offset_d;
    const T row_weight = 1 / edge(row, tile.h);
    const auto centre = [&](int j) INLINE_LAMBDA { return weights[j][0] * weights[j][0]; };  // see fir_maps
    const T ssim_gain = this->ssim_gain * row_weight * (General ? T(1) : centre(0));
    const T l1_gain = this->l1_gain * row_weight;
    const int64_t halo_pitch = this->halo_pitch, pitch = this->pitch;
    const V *const moments = moment_row(i, 0), *const d_row = source.row(row) + halo_pitch;
    const V *const counts = position_mask, *const column_weights = map_weight;
    V* const maps_out = map_rows + tile.r;
    V sum_ssim{}, sum_l1{};
    for (int64_t k = 0; k < s; ++k) {
      const V d = d_row[k], *const at_k = moments + k;
      const auto moments_at = [&](int j) INLINE_LAMBDA {
        const V* const at = at_k + j * 5 * pitch;
        return Moments<V>{at[0] + offset_m, at[2 * pitch] + (d + offset_d), not_negative(at[pitch]),
                          not_negative(at[3 * pitch])};
      };
      Dissimilarity<V> e[Scales];
      for (int j = 0; j < last; ++j) e[j] = dissimilarity<false>(moments_at(j), c1, c2);
      e[last] = dissimilarity<Luminance>(moments_at(last), c1, c2);
      V loss = e[last].e_l;
      for (int j = 0; j < scales; ++j) loss += e[j].e_cs - loss * e[j].e_cs;
      loss = not_negative(loss);
      sum_ssim += counts[k] != V{} ? loss : V{};
      const V l1 = windowed_l1 ? at_k[(last * 5 + 4) * pitch] : V{};
      if (windowed_l1) sum_l1 += counts[k] != V{} ? l1 : V{};
      if (losses) {
        losses[k] = T(p.ssim_weight) * loss;
        if (p.l1_weight != 0) losses[k] += T(p.l1_weight) * (windowed_l1 ? l1 : absolute(d + offset_d));
      }
      if (!gradient) continue;

      const V column_weight = column_weights[k];
      V gain = column_weight;
      if (incoming) gain *= incoming[k];
      // d loss / d e_j is the product of the other factors, l and cs.
      V behind[Scales];  // product of the factors after j
      behind[last] = splat<T>(1);
      for (int j = last; j > 0; --j) behind[j - 1] = behind[j] * e[j].cs;
      V before = ssim_gain * gain;
      const V g_l = before * behind[0] * e[0].cs;
      before *= e[last].l;
      V* out = maps_out + k;
      const auto put = [&](V* to, V value) INLINE_LAMBDA { *to = column_weight != V{} ? value : V{}; };
      for (int j = 0; j < scales; ++j, out += 5 * halo_pitch) {
        const V g_cs = General ? before * behind[j] * centre(j) : before * behind[j];
        // m relative to 0 (less offset_m): b_m, small where x and y are close, forgives its rounding.
        const V delta_m = -at_k[j * 5 * pitch], delta_d = -at_k[(j * 5 + 2) * pitch];
        const Coefficients<V> at =
            j == last ? coefficients<Luminance, T>(moments_at(j), e[j], delta_m, delta_d,
                                                   General ? g_l * centre(j) : g_l, g_cs)
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
    this->sum_ssim += sum_lanes<T>(sum_ssim), this->sum_l1 += sum_lanes<T>(sum_l1);
  }

  void write_losses(int64_t row) {
    const int64_t begin = larger(tile.left, tile.col0), to = smaller(tile.right, tile.col1);
    if (begin >= to) return;
    from_segments<T>(losses, s, linear);
    write_row<T>(p.loss_map, tile.n, tile.c, row - tile.top, begin - tile.left, to - begin,
                 linear + (begin - tile.t0));
  }

  // The maps of one row, blurred along it into their ring.
  template <bool Both>
  void blur_maps(int64_t row) {
    const V* const d = source.row(row) + halo_pitch;
    for (int j = 0; j < scales; ++j) {
      const int halo = radius[j];
      V* const in = map_rows + j * 5 * halo_pitch + tile.r;
      V* const out = map_row(j, row);
      for (int q = 0; q < maps_of(j); ++q) {
        if (p.padding == Padding::reflect) reflect_columns(in + q * halo_pitch);
        extend_segments<T>(in + q * halo_pitch, s, halo);
      }
      with_radius(halo, [&](auto fixed) INLINE_LAMBDA {
        for_local_blocks<R>(halo, int(s), [&](int k, auto block) INLINE_LAMBDA {
          V map[4][block];
          const auto map_in = [&](int q, int i) INLINE_LAMBDA { return in[q * halo_pitch + k + i - halo]; };
          const auto d_in = [&](int i) INLINE_LAMBDA { return d[k + i - halo]; };
          fir_maps<block, fixed, Both>(map_in, d_in, relative_weights[j], halo, map, work);
          for (int q = 0; q < (Both ? 4 : 3); ++q) {
            for (int i = 0; i < block; ++i) out[q * pitch + k + i] = map[q][i];
          }
        });
      });
      if (maps_of(j) > maps)
        fir_row<R, T>(in + maps * halo_pitch, weights[j], halo, int(s), out + maps * pitch);
    }
  }

  void reflect_columns(V* map) const {
    T* values = reinterpret_cast<T*>(map);
    const auto at = [&](int64_t col) -> T& { return values[(col - tile.t0) % s * L + (col - tile.t0) / s]; };
    for (int64_t col = tile.t0; col < 0; ++col) at(col) = at(mirrored(col, tile.w));
    for (int64_t col = tile.w; col < tile.t1; ++col) at(col) = at(mirrored(col, tile.w));
  }

  // Rows [row, row + count) of the gradients. General as in positions, but for a plain l1 as well.
  template <bool General, bool Both>
  void write_gradients(int64_t row, int count) {
    const int scales = General ? this->scales : 1;
    const bool windowed_l1 = General && this->windowed_l1;
    const bool pixel_l1 = !windowed_l1 && p.l1_weight != 0;
    if (General && pixel_l1 && p.grad_map.data) read_incoming(row, count);
    const V* const incoming = General && pixel_l1 && p.grad_map.data ? this->incoming : nullptr;
    const T l1_gain = this->l1_gain, offset_d = source.offset_d;
    T row_weight[R];
    for (int i = 0; i < R; ++i) row_weight[i] = edge(row + i, tile.h);
    for (int j = 0; j < scales; ++j) {
      const int halo = radius[j];
      gather_maps(j, row, count);
      const bool first_scale = j == 0, last_scale = j == scales - 1;
      const Ahead own = ahead<T>(p.grad_x, tile.n, tile.c, row, count, tile.col0);
      for (int64_t k = 0; k < s; ++k) {
        if (first_scale) fetch<true>(own, k);
        V map[4][R], l1[R] = {};
        const auto map_in = [&](int q, int i) INLINE_LAMBDA { return rows[i][q * pitch + k]; };
        const auto d_in = [&](int i) INLINE_LAMBDA { return raws[i][halo_pitch + k]; };
        with_radius(halo, [&](auto fixed) INLINE_LAMBDA {
          for_local_blocks<R>(halo, R, [&](int first, auto block) INLINE_LAMBDA {
            V part[4][block];
            fir_maps<block, fixed, Both>([&](int q, int i) INLINE_LAMBDA { return map_in(q, first + i); },
                                         [&](int i) INLINE_LAMBDA { return d_in(first + i); },
                                         relative_weights[j], halo, part, work);
            for (int q = 0; q < (Both ? 4 : 3); ++q) {
              for (int i = 0; i < block; ++i) map[q][first + i] = part[q][i];
            }
          });
          if (windowed_l1 && last_scale) {
            fir<R, fixed>([&](int i) INLINE_LAMBDA { return map_in(maps, i); }, weights[j], halo, l1);
          }
        });
        V* out = gradients + k;
#pragma GCC unroll 2
        for (int i = 0; i < R; ++i, out += 2 * pitch) {
          const V weight = edge_weight[k] * row_weight[i];
          const V a_m = map[2][i] - map[0][i] * raws[halo + i][k];
          // dx and dy from dm and dd; x's alone comes as their sum.
          V one = weight * (Both ? a_m + map[3][i] : a_m);
          V two = Both ? weight * (a_m - map[3][i]) : V{};
          if (!first_scale) one += out[0];
          if (!first_scale && Both) two += out[pitch];
          if (last_scale && (windowed_l1 || pixel_l1)) {
            V gain = windowed_l1 ? weight * l1[i] : splat<T>(l1_gain);
            if (incoming) gain *= incoming[i * pitch + k];
            const V d = d_in(halo + i) + offset_d;
            const V by_d = d > V{} ? gain : (d < V{} ? -gain : d * gain);  // sign(0) = 0, sign(NaN) = NaN
            one += by_d;
            two -= by_d;
          }
          out[0] = one;
          if (Both) out[pitch] = two;
        }
      }
    }
    const int64_t begin = tile.col0 - tile.t0, width = tile.col1 - tile.col0;
    for (int i = 0; i < count; ++i) {
      from_segments<T>(gradients + 2 * i * pitch, s, linear);
      write_row<T>(p.grad_x, tile.n, tile.c, row + i, tile.col0, width, linear + begin);
      if (!Both) continue;
      from_segments<T>(gradients + (2 * i + 1) * pitch, s, linear);
      write_row<T>(p.grad_y, tile.n, tile.c, row + i, tile.col0, width, linear + begin);
    }
  }

  // Pointers to the map rows around rows [row, row + R) of the gradient, and to the raw row of each; those
  // past count are never used.
  void gather_maps(int j, int64_t row, int64_t count) {
    for (int64_t i = 0; i < R + 2 * radius[j]; ++i) {
      int64_t at = smaller(row - radius[j] + i, row + count - 1 + radius[j]);
      const bool outside = at < tile.top || at >= tile.bottom;
      if (outside && p.padding == Padding::reflect) at = mirrored(at, tile.h);
      rows[i] = outside && p.padding != Padding::reflect ? zeros : map_row(j, at);
      raws[i] = at < 0 || at >= tile.h ? zeros + tile.r : source.row(at);
    }
  }
};
