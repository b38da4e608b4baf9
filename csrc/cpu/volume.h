// Loss and gradient of one item of a volume: a box of voxels of one plane, in one pass along its depth.
//
// A few slices at a time flow through rings:
//   raw        x and y around the box, as they are                         -> ring of slices
//   moments    of m = x + y and d = x - y and their squares, blurred along the depth, then along the width;
//              at last along the height, some rows of positions at a time
//   positions  -> loss, coefficients b_m, b_d, a; blurred along the width and the height -> ring of slices
//   gradient   the coefficients blurred along the depth, a + b_d d - b_m m -> grad_x, grad_y
// Moments are needed a radius beyond the own voxels on all sides, raw voxels twice as far.
//
// All arithmetic is in double, whatever the voxels are: so no variance is lost near large means, and nothing
// has to be moved from base to base. At M data ranges from 0 double knows a variance to 2e-16 M^2, in squares
// of the range.
//
// Weighted: a mask's weights, or those of padding "normalized", are a third row beside x and y, which are 0
// where it is. Moments are those of the values times their weights, and, as a fifth, the weights' own, by
// which they are divided; so are the coefficients, and a voxel's gradient is multiplied by its weight.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

constexpr int slices_at_a_time = VECTOR_BYTES == 64 ? 4 : 2;  // what share the loads along the depth

// E: what voxels are kept in, float, or double for those of float64 and under weights.
template <class E, bool Weighted>
class VolumeStream {
  using V = Vec<double>;
  static constexpr int L = lanes<double>, R = rows_at_a_time, K = slices_at_a_time;
  static constexpr int fields = Weighted ? 3 : 2, moments_of = Weighted ? 5 : 4;
  typedef E Voxels __attribute__((vector_size(L * sizeof(E)), aligned(alignof(E)), may_alias));

  const VolumeProblem& p;
  const int64_t plane, n, c, piece, pieces;
  const Side d, h, w;
  const bool gradient, both, pixel_l1, one_voxel;
  const int maps;  // b_m, b_d, a of x's gradient and, where it is wanted, of y's
  const double inverse_range;
  // Elements between rows, of raw voxels, positions, own voxels and maps with a halo; odd numbers of lines of
  // the cache, or columns would share few of its sets.
  const int64_t raw_pitch, pitch, own_pitch, map_pitch;
  const int64_t raw_slices, map_slices;

  E *raw, *raw_zeros;
  double *blurred, *zeros, *moments, *map_row, *map_rows, *map_ring;
  double *incoming, *losses, *m_row, *d_row, *w_row, *map_sums;
  double *edge_w, *weights[3];  // the windows' relative to the centre's, see fir.h
  Mask<double>* own;            // all ones in the own columns of the positions
  V* work;
  const E **xs, **ys, **ws;
  const double** rows;
  double centre = 1, ssim_gain = 0, l1_gain = 0;
  double sum_ssim = 0, sum_l1 = 0;
  int64_t filled;

  static int64_t padded(int64_t count) { return (ceil_div(count, 8) + 1) / 2 * 16 + 8; }

 public:
  VolumeStream(const VolumeProblem& problem, const VolumeItems& items, int64_t item)
      : p(problem),
        plane(item / items.pieces()),
        n(plane / p.channels),
        c(plane % p.channels),
        piece(item % items.pieces()),
        pieces(items.pieces()),
        d(side_of(p, 0, piece / (items.parts[1] * items.parts[2]), items.parts[0])),
        h(side_of(p, 1, piece / items.parts[2] % items.parts[1], items.parts[1])),
        w(side_of(p, 2, piece % items.parts[2], items.parts[2])),
        gradient(p.gains != nullptr),
        both(p.grad_x.first.data && p.grad_y.first.data),
        pixel_l1(p.l1_weight != 0),
        one_voxel(d.r + h.r + w.r == 0),
        maps(both ? 4 : 3),
        inverse_range(p.inverse_ranges ? p.inverse_ranges[n] : p.inverse_range),
        raw_pitch(padded(w.positions() + 2 * w.r)),
        pitch(padded(w.positions())),
        own_pitch(padded(w.own())),
        map_pitch(padded(w.own() + 2 * w.r)),
        raw_slices(smaller(d.size, 2 * d.r + K)),
        map_slices(2 * d.r + K),
        filled(d.from) {}

  int64_t bytes() { return int64_t(layout(nullptr)); }

  void run() {
    layout(static_cast<char*>(scratch(size_t(bytes()))));
    start();
    int64_t done = d.begin;  // slices of the gradient
    const bool any = d.positions() && h.positions() && w.positions();
    for (int64_t slice = d.first, count; any && slice < d.last; slice += count) {
      count = smaller(K, d.last - slice);
      for (const int64_t end = smaller(d.size, slice + count + d.r); filled < end; ++filled)
        read_slice(filled);
      blur_depth_and_width(slice, count);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t row = h.first; row < h.last; row += R)
          positions(slice + i, i, row, smaller(R, h.last - row));
        if (gradient) blur_map_height(slice + i);
      }
      if (!gradient) continue;
      const int64_t ready = slice + count == d.last ? d.end : smaller(d.end, slice + count - d.r);
      for (int64_t step; done < ready; done += step) {
        step = smaller(K, ready - done);
        for (int64_t row = h.begin; row < h.end; ++row) write_gradients(done, step, row);
      }
    }
    for (int64_t slice = d.begin; pixel_l1 && !gradient && slice < d.end; ++slice) {
      for (int64_t row = h.begin; row < h.end; ++row) read_own(slice, row);
    }
    if (!p.plane_sums) return;
    double* const sums = p.plane_sums + 2 * (plane * pieces + piece);
    sums[0] = sum_ssim, sums[1] = sum_l1;
  }

 private:
  // Lay the buffers out from base; returns their size. Called first with null, to measure.
  size_t layout(char* base) {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += size_t(ceil_div(count * int64_t(sizeof *pointer), 64) * 64);
    };
    const int64_t most = larger(d.r, larger(h.r, w.r));
    const Side* const sides[3] = {&d, &h, &w};
    for (int i = 0; i < 3; ++i) take(weights[i], sides[i]->r + 1);
    take(work, 2 * (K + 2 * most));
    take(xs, K + 2 * d.r), take(ys, K + 2 * d.r), take(ws, K + 2 * d.r);
    take(rows, larger(R + 2 * h.r, K + 2 * d.r));
    take(raw, raw_slices * fields * h.voxels() * raw_pitch);
    take(raw_zeros, raw_pitch);
    take(blurred, K * h.voxels() * moments_of * pitch);
    take(moments, moments_of * larger(R * pitch, K * raw_pitch));
    take(zeros, 4 * larger(pitch, own_pitch));
    take(own, pitch / L);
    take(incoming, larger(pitch, own_pitch));
    take(losses, pitch);
    take(m_row, own_pitch), take(d_row, own_pitch), take(w_row, own_pitch);
    if (!gradient) return used;
    take(edge_w, own_pitch);
    take(map_row, maps * map_pitch);
    take(map_rows, h.positions() * maps * own_pitch);
    take(map_ring, map_slices * map_slice_size());
    take(map_sums, K * maps * own_pitch);
    return used;
  }

  void start() {
    for (int i = 0; i < 3; ++i) {
      const Window& window = p.windows[i];
      for (int t = 0; t <= window.radius; ++t) weights[i][t] = window.weights[t] / window.weights[0];
      centre *= window.weights[0];
    }
    for (int64_t k = 0; k < raw_pitch; ++k) raw_zeros[k] = 0;
    for (int64_t k = 0; k < 4 * larger(pitch, own_pitch); ++k) zeros[k] = 0;
    using Number = std::remove_reference_t<decltype(own[0][0])>;
    for (int64_t k = 0; k < pitch / L * L; ++k) {
      const int64_t col = w.first + k;
      own[k / L][k % L] = col >= w.begin && col < w.end && col < w.last ? ~Number(0) : 0;
    }
    if (!gradient) return;
    ssim_gain = p.gains[2 * plane], l1_gain = p.gains[2 * plane + 1];
    for (int64_t k = 0; k < own_pitch; ++k) edge_w[k] = w.edge(w.begin + k);
  }

  // ---- Raw voxels, rows of x and of y; Weighted: and of weights.
  static INLINE V voxels(const E* from) {
    return __builtin_convertvector(*reinterpret_cast<const Voxels*>(from), V);
  }
  E* raw_row(int64_t slice, int64_t row, int which) const {
    return raw + ((slice % raw_slices * h.voxels() + (row - h.from)) * fields + which) * raw_pitch;
  }

  void read_slice(int64_t slice) {
    const Images x = p.x.at(slice), y = p.y.at(slice);
    for (int64_t row = h.from; row < h.to; ++row) {
      read_padded(x, row, raw_row(slice, row, 0));
      read_padded(y, row, raw_row(slice, row, 1));
      if (Weighted) read_weights(slice, row);
    }
  }

  // `count` weights of a row, from column `first` on.
  template <class T>
  void read_mask(int64_t slice, int64_t row, int64_t first, int64_t count, T* out) const {
    if (p.mask.first.data) return read_row<T>(p.mask.at(slice), n, c, row, first, count, out);
    for (int64_t k = 0; k < count; ++k) out[k] = 1;
  }

  // A row of weights; and where they are 0, zeros in place of x and y.
  void read_weights(int64_t slice, int64_t row) const {
    const int64_t start = w.first - w.r, end = w.last + w.r;
    E *const x = raw_row(slice, row, 0), *const y = raw_row(slice, row, 1),
             *const out = raw_row(slice, row, 2);
    read_mask(slice, row, w.from, w.to - w.from, out + (w.from - start));
    const auto pad = [&](int64_t col) {
      const int64_t source = w.weight_source(col);
      out[col - start] = source < 0 ? E(0) : out[source - start];
    };
    for (int64_t col = start; col < w.from; ++col) pad(col);
    for (int64_t col = w.to; col < end; ++col) pad(col);
    for (int64_t k = 0; k < end - start; ++k) {
      if (out[k] == 0) x[k] = y[k] = 0;
    }
  }

  // With what padding adds to its left and right.
  void read_padded(const Images& images, int64_t row, E* out) const {
    const int64_t start = w.first - w.r, end = w.last + w.r;
    read_target<E>(images, p.x.first.dtype, inverse_range, n, c, row, w.from, w.to - w.from,
                   out + (w.from - start));
    const auto pad = [&](int64_t col) {
      const int64_t source = w.source(col);
      out[col - start] = source < 0 ? E(0) : out[source - start];
    };
    for (int64_t col = start; col < w.from; ++col) pad(col);
    for (int64_t col = w.to; col < end; ++col) pad(col);
  }

  // ---- Moments: m, m^2, d, d^2; Weighted: and the weights.
  double* blurred_row(int64_t i, int64_t row, int q) const {
    return blurred + ((i * h.voxels() + (row - h.from)) * moments_of + q) * pitch;
  }

  // Of positions in slices [slice, slice + count), in all rows that they see.
  void blur_depth_and_width(int64_t slice, int64_t count) {
    with_taps(weights[0], int(d.r), [&](const auto& along_depth) INLINE_LAMBDA {
      for (int64_t row = h.from; row < h.to; ++row) {
        for (int64_t i = 0; i < K + 2 * d.r; ++i) {  // those of slices past count are never used
          const int64_t from = d.source(smaller(slice - d.r + i, slice + count - 1 + d.r));
          xs[i] = from < 0 ? raw_zeros : raw_row(from, row, 0);
          ys[i] = from < 0 ? raw_zeros : raw_row(from, row, 1);
          if (!Weighted) continue;
          const int64_t weight = d.weight_source(smaller(slice - d.r + i, slice + count - 1 + d.r));
          ws[i] = weight < 0 ? raw_zeros : raw_row(weight, row, 2);
        }
        blur_depth(along_depth);
        for (int64_t i = 0; i < count; ++i) {
          for (int q = 0; q < moments_of; ++q)
            blur_width(moments + (i * moments_of + q) * raw_pitch, w.positions(), blurred_row(i, row, q));
        }
      }
    });
  }

  template <int Radius>
  INLINE void blur_depth(const Taps<double, Radius>& taps) {
    const double scale = inverse_range;
    for (int64_t k = 0; k < w.positions() + 2 * w.r; k += L) {
      const auto put = [&](int q) INLINE_LAMBDA {
        return [to = moments + q * raw_pitch + k, step = moments_of * raw_pitch](int i, V sum)
                   INLINE_LAMBDA { store<double>(to + i * step, sum); };
      };
      const auto m = [&](int i) INLINE_LAMBDA { return (voxels(xs[i] + k) + voxels(ys[i] + k)) * scale; };
      const auto d = [&](int i) INLINE_LAMBDA { return (voxels(xs[i] + k) - voxels(ys[i] + k)) * scale; };
      if constexpr (Weighted) {
        const auto weight = [&](int i) INLINE_LAMBDA { return voxels(ws[i] + k); };
        fir_weighted<K>(m, weight, taps, put(0), put(1), work);
        fir_weighted<K>(d, weight, taps, put(2), put(3), work);
        fir_computed<K>(weight, taps, put(4), work);
      } else {
        fir_squares<K>(m, taps, put(0), put(1), work);
        fir_squares<K>(d, taps, put(2), put(3), work);
      }
    }
  }

  // Along a row, whose first element lies a radius before the first result.
  void blur_width(const double* from, int64_t count, double* to) const {
    with_taps(weights[2], int(w.r), [&](const auto& taps) INLINE_LAMBDA {
      for (int64_t k = 0; k < count; k += L) {
        fir<1>([&](int t) INLINE_LAMBDA { return load(from + k + t); }, taps,
               [&](int, V sum) INLINE_LAMBDA { store<double>(to + k, sum); });
      }
    });
  }

  // R rows, of which rows[] has those around them, from a radius before the first on; each of so many
  // quantities, pitches apart.
  void blur_height(int quantities, int64_t count, int64_t pitch, double* to, int64_t to_step) const {
    with_taps(weights[1], int(h.r), [&](const auto& taps) INLINE_LAMBDA {
      for (int64_t k = 0; k < quantities * pitch; k += pitch) {
        for (int64_t at = k; at < k + count; at += L) {
          fir<R>([&](int t) INLINE_LAMBDA { return load(rows[t] + at); }, taps,
                 [&](int i, V sum) INLINE_LAMBDA { store<double>(to + i * to_step + at, sum); });
        }
      }
    });
  }

  // ---- Positions of `count` rows of slice `slice`, the i-th of K.
  void positions(int64_t slice, int64_t i, int64_t row, int64_t count) {
    const auto find_rows = [&](int q, auto source) {
      for (int64_t t = 0; t < R + 2 * h.r; ++t) {
        const int64_t from = source(smaller(row - h.r + t, row + count - 1 + h.r));
        rows[t] = from < 0 ? zeros : blurred_row(i, from, q);
      }
    };
    constexpr int step = moments_of;
    find_rows(0, [&](int64_t at) { return h.source(at); });
    blur_height(4, w.positions(), pitch, moments, step * pitch);
    if (Weighted) {
      find_rows(4, [&](int64_t at) { return h.weight_source(at); });
      blur_height(1, w.positions(), pitch, moments + 4 * pitch, step * pitch);
    }
    for (int64_t j = 0; j < count; ++j) {
      positions_of_row(slice, row + j, moments + j * step * pitch);
      if (!gradient) continue;
      pad_map_row();
      double* const to = map_rows + (row + j - h.first) * maps * own_pitch;
      for (int q = 0; q < maps; ++q) blur_width(map_row + q * map_pitch, w.own(), to + q * own_pitch);
    }
  }

  void positions_of_row(int64_t slice, int64_t row, const double* at) {
    const bool own_row = slice >= d.begin && slice < d.end && row >= h.begin && row < h.end;
    const bool write_map = p.loss_map.first.data && own_row, of_map = p.grad_map.first.data;
    const bool has_gains = of_map || h.reflect;
    if (gradient && has_gains) find_gains(slice, row);
    double* const maps_at = gradient ? map_row + (w.first - (w.begin - w.r)) : nullptr;
    const E* const weights = raw_row(slice, row, fields - 1) + w.r;
    const double c1 = p.c1, c2 = p.c2;
    V sum{};
    for (int64_t k = 0; k < w.positions(); k += L) {
      // Blurred are sums relative to the centre's weight: this makes them means.
      const V norm = Weighted ? 1 / load(at + 4 * pitch + k) : splat(centre);
      const V weight = Weighted ? voxels(weights + k) : splat(1.0);
      const Mask<double> kept = Weighted ? Mask<double>(weight != V{}) : ~Mask<double>{};
      const V mu_m = norm * load(at + k), mu_d = norm * load(at + 2 * pitch + k);
      const auto variance = [&](int q, V mu) INLINE_LAMBDA {
        if (one_voxel) return mu * V{};  // NaN where the value is NaN
        return not_negative(norm * load(at + q * pitch + k) - mu * mu);
      };
      const Moments<V> here{mu_m, mu_d, variance(1, mu_m), variance(3, mu_d)};
      const Dissimilarity<V> e = dissimilarity<true, double>(here, c1, c2);
      const V loss = not_negative(e.e_l + e.e_cs - e.e_l * e.e_cs);
      if (own_row) sum += masked<double>(weight * loss, own[k / L] & kept);
      if (write_map) store<double>(losses + k, loss);
      if (!gradient) continue;
      V gain = ssim_gain * norm;
      if (Weighted && !of_map) gain *= weight;
      if (has_gains) gain *= load(incoming + k);
      // One voxel has no variance, but large terms that would have to cancel.
      const V g_cs = one_voxel ? V{} : gain * e.l;
      const Coefficients<V> a = coefficients<true, double>(here, e, -mu_m, -mu_d, gain * e.cs, g_cs);
      const auto put = [&](int q, V map) INLINE_LAMBDA {
        store<double>(maps_at + q * map_pitch + k, Weighted ? masked<double>(map, kept) : map);
      };
      put(0, a.b_m), put(1, a.b_d), put(2, a.a_m + a.a_d);
      if (both) put(3, a.a_m - a.a_d);
    }
    sum_ssim += sum_lanes<double>(sum);
    if (write_map) write_losses(slice, row);
  }

  // What the gradient of a row's positions is multiplied by, into `incoming`: that of the map, and the
  // doubled edges of what is reflected.
  void find_gains(int64_t slice, int64_t row) {
    if (p.grad_map.first.data) {
      read_row<double>(p.grad_map.at(slice - d.crop), n, c, row - h.crop, w.first - w.crop, w.positions(),
                       incoming);
    } else {
      for (int64_t k = 0; k < w.positions(); ++k) incoming[k] = 1;
    }
    const double around = 1 / (d.edge(slice) * h.edge(row));
    for (int64_t k = 0; h.reflect && k < w.positions(); ++k) incoming[k] *= around / w.edge(w.first + k);
  }

  void write_losses(int64_t slice, int64_t row) {
    const int64_t begin = larger(w.begin, w.first), end = smaller(w.end, w.last);
    const E *const x = raw_row(slice, row, 0) + w.r, *const y = raw_row(slice, row, 1) + w.r;
    const E* const weights = raw_row(slice, row, fields - 1) + w.r;
    for (int64_t k = 0; k < w.positions(); ++k) {
      losses[k] *= p.ssim_weight;
      if (pixel_l1) losses[k] += p.l1_weight * absolute((double(x[k]) - double(y[k])) * inverse_range);
      if (Weighted && weights[k] == 0) losses[k] = 0;
    }
    if (begin < end)
      write_row<double>(p.loss_map.at(slice - d.crop), n, c, row - h.crop, begin - w.crop, end - begin,
                        losses + (begin - w.first));
  }

  // ---- Maps.
  // Where no position is worked out: what padding says.
  void pad_map_row() const {
    const int64_t start = w.begin - w.r;
    const auto pad = [&](int64_t col) {
      const int64_t source = w.map_source(col);
      for (int q = 0; q < maps; ++q)
        map_row[q * map_pitch + col - start] = source < 0 ? 0 : map_row[q * map_pitch + source - start];
    };
    for (int64_t col = start; col < w.first; ++col) pad(col);
    for (int64_t col = w.last; col < w.end + w.r; ++col) pad(col);
  }

  // Rows in groups of R, of which the last may have more than are own.
  int64_t map_slice_size() const { return ceil_div(h.own(), R) * R * maps * own_pitch; }
  double* map_slice(int64_t slice) const { return map_ring + slice % map_slices * map_slice_size(); }

  void blur_map_height(int64_t slice) {
    for (int64_t row = h.begin; row < h.end; row += R) {
      for (int64_t t = 0; t < R + 2 * h.r; ++t) {
        const int64_t from = h.map_source(smaller(row - h.r + t, h.end - 1 + h.r));
        rows[t] = from < 0 ? zeros : map_rows + (from - h.first) * maps * own_pitch;
      }
      double* const to = map_slice(slice) + (row - h.begin) * maps * own_pitch;
      blur_height(maps, w.own(), own_pitch, to, maps * own_pitch);
    }
  }

  // ---- The gradient of one row in slices [slice, slice + count).
  void write_gradients(int64_t slice, int64_t count, int64_t row) {
    for (int64_t t = 0; t < K + 2 * d.r; ++t) {
      const int64_t from = d.map_source(smaller(slice - d.r + t, slice + count - 1 + d.r));
      rows[t] = from < 0 ? zeros : map_slice(from) + (row - h.begin) * maps * own_pitch;
    }
    with_taps(weights[0], int(d.r), [&](const auto& taps) INLINE_LAMBDA {
      for (int64_t k = 0; k < maps * own_pitch; k += own_pitch) {
        for (int64_t at = k; at < k + w.own(); at += L) {
          fir<K>([&](int t) INLINE_LAMBDA { return load(rows[t] + at); }, taps,
                 [&](int i, V sum)
                     INLINE_LAMBDA { store<double>(map_sums + i * maps * own_pitch + at, sum); });
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      read_own(slice + i, row);
      write_gradient(slice + i, row, map_sums + i * maps * own_pitch);
    }
  }

  // m, d and weights of own voxels, and the sum of the l1 terms.
  void read_own(int64_t slice, int64_t row) {
    read_sum_difference<double>(p.x.at(slice), p.y.at(slice), inverse_range, 0, 0, n, c, row, w.begin,
                                w.own(), m_row, d_row);
    if (Weighted) {
      read_mask(slice, row, w.begin, w.own(), w_row);
      for (int64_t k = 0; k < w.own(); ++k) {
        if (w_row[k] == 0) m_row[k] = d_row[k] = 0;
      }
    }
    if (!pixel_l1) return;
    for (int64_t k = w.own(); k < w.own() + L; ++k) d_row[k] = w_row[k] = 0;
    V sum{};
    for (int64_t k = 0; k < w.own(); k += L)
      sum += Weighted ? load(w_row + k) * absolute(load(d_row + k)) : absolute(load(d_row + k));
    sum_l1 += sum_lanes<double>(sum);
  }

  void write_gradient(int64_t slice, int64_t row, double* at) {
    if (pixel_l1) l1_gains(slice, row);
    const double edge = d.edge(slice) * h.edge(row);
    for (int64_t k = 0; k < w.own(); k += L) {
      const V m = load(m_row + k), difference = load(d_row + k), own_weight = load(w_row + k);
      V weight = edge * load(edge_w + k);
      if (Weighted) weight *= own_weight;
      const V by_m = load(at + k) * m, by_d = load(at + own_pitch + k) * difference;
      V of_x = weight * ((load(at + 2 * own_pitch + k) - by_m) + by_d);
      V of_y = both ? weight * ((load(at + 3 * own_pitch + k) - by_m) - by_d) : V{};
      if (pixel_l1) {
        V gain = load(incoming + k);
        if (Weighted && !p.grad_map.first.data) gain *= own_weight;
        // sign(0) = 0, sign(NaN) = NaN
        const V by_l1 = difference > V{} ? gain : (difference < V{} ? -gain : difference * gain);
        of_x += by_l1, of_y -= by_l1;
      }
      if (Weighted) {
        const Mask<double> kept = Mask<double>(own_weight != V{});
        of_x = masked<double>(of_x, kept), of_y = masked<double>(of_y, kept);
      }
      store<double>(at + 2 * own_pitch + k, of_x);
      if (both) store<double>(at + 3 * own_pitch + k, of_y);
    }
    write_row<double>(p.grad_x.at(slice), n, c, row, w.begin, w.own(), at + 2 * own_pitch);
    if (both) write_row<double>(p.grad_y.at(slice), n, c, row, w.begin, w.own(), at + 3 * own_pitch);
  }

  // The gain of the l1 term of each own voxel of a row, into `incoming`.
  void l1_gains(int64_t slice, int64_t row) {
    const bool map = p.grad_map.first.data;
    for (int64_t k = 0; k < w.own(); ++k) incoming[k] = map ? 0 : l1_gain;
    if (!map || !d.has_position(slice) || !h.has_position(row)) return;
    const int64_t begin = larger(w.begin, w.crop), end = smaller(w.end, w.size - w.crop);
    if (begin >= end) return;
    double* const to = incoming + (begin - w.begin);
    read_row<double>(p.grad_map.at(slice - d.crop), n, c, row - h.crop, begin - w.crop, end - begin, to);
    for (int64_t k = 0; k < end - begin; ++k) to[k] *= l1_gain;
  }
};
