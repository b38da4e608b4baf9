// The items of a volume, and the kernel for one.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// How a volume is cut: the cheapest of a few ways, by the filters' taps at all that lies in and around the
// boxes; whose rings should stay in the L2 cache; and of which there should be some for several threads.
// Depends on shapes alone: same bits for any threads.
VolumeItems volume_items(const VolumeProblem& p) {
  constexpr double cache = 1500 << 10, threads = 8;
  VolumeItems best{{1, 1, 1}, p.batch * p.channels};
  if (best.planes == 0) return best;
  double least = -1;
  const auto more = [](int64_t parts) { return parts + larger(1, parts / 4); };
  const auto each = [&](int which, int64_t shortest, auto f) {
    for (int64_t parts = 1; parts == 1 || p.size[which] / parts >= shortest; parts = more(parts)) f(parts);
  };
  const auto consider = [&](const VolumeItems& items) {
    Side d = side_of(p, 0, items.parts[0] / 2, items.parts[0]),
         h = side_of(p, 1, items.parts[1] / 2, items.parts[1]),
         w = side_of(p, 2, items.parts[2] / 2, items.parts[2]);
    const double slices = double(d.positions()), rows = double(h.positions()), cols = double(w.positions());
    double cost = slices * double(h.voxels()) *
                  ((cols + 2 * double(w.r)) * 4 * double(d.r + 4) + cols * 6 * double(w.r + 1));
    cost += slices * rows * cols * (4 * double(h.r + 1) + 30);
    if (p.gains) {
      const double own = double(w.own());
      cost += 3 * own *
              (slices * (rows * 1.5 * double(w.r + 1) + double(h.own() * (h.r + 1))) +
               double(d.own() * h.own() * (d.r + 4)));
    }
    const double count = double(items.count()),
                 bytes = double(VolumeStream<float, false>(p, items, 0).bytes());
    cost *= count;
    if (count < threads) cost *= threads / count;
    if (bytes > cache) cost *= bytes / cache;
    if (least >= 0 && cost >= least) return;
    least = cost, best = items;
  };
  each(0, 16, [&](int64_t slabs) {
    each(1, 8, [&](int64_t bands) {
      each(2, 16, [&](int64_t strips) { consider({{slabs, bands, strips}, best.planes}); });
    });
  });
  return best;
}

// Under weights voxels are kept in double: one kernel is enough for what is seldom wanted.
void volume(const VolumeProblem& p, const VolumeItems& items, int64_t item) {
  if (p.mask.first.data || p.padding == Padding::normalized)
    return VolumeStream<double, true>(p, items, item).run();
  p.x.first.dtype == DType::float64 ? VolumeStream<double, false>(p, items, item).run()
                                    : VolumeStream<float, false>(p, items, item).run();
}
