// The launches of scales.cuh's and adjoint.cuh's kernels.
#include "scales.cuh"

#include "../plan/plan.h"
#include "adjoint.cuh"

namespace ssimloss {
namespace {

// ---- The first launch: positions of all scales.

bool has_parts(const Problem& p) { return p.scales > 1 || is_weighted(p); }  // of the gradient

RingSizes scales_sizes(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius;
  RingSizes s{};
  s.reach = int(rounded(radius, 4)), s.columns = own + 2 * radius;
  int taps = 0;
  for (int j = 0; j < p.scales; ++j) {
    s.cells = std::max(s.cells, (own + 2 * p.windows[j].radius + 3) / 4);
    taps += int(rounded(2 * p.windows[j].radius + 4, 4));
  }
  // So many that the next rows come while all of a chunk's are used, and the middle ones of the chunk before.
  s.capacity = 2 * radius + 16 + (radius < 8 ? 8 : 0), s.repeated = 3;
  s.raw_pitch = int(rounded(s.columns + s.reach - radius, 4));
  s.moment_pitch = RingSizes::odd_fours(s.columns), s.map_pitch = RingSizes::odd_fours(own);
  s.moments = 4 + has_windowed_l1(p) + is_weighted(p), s.maps = p.gradients ? 3 + p.gradients : 0;
  s.each_raw = (s.capacity + s.repeated) * s.raw_pitch, s.each_moment = 8 * s.moment_pitch,
  s.each_map = 8 * s.map_pitch;
  s.lay_out((is_weighted(p) ? 3 : 2) * s.each_raw, 2 * s.moments * s.each_moment,
            p.scales * s.maps * s.each_map, 3 * s.each_map, 8 * s.cells, taps, 4 * 32 * warps_of(own),
            2 * int(sizeof(Interval) / sizeof(float)));
  return s;
}

Work scales_work(const Problem& p, int own) {
  Work work{scales_threads(p.gradients, is_weighted(p)) / 32, 8, scales_pace};
  work.extra = 0.2 + 0.5 / p.scales;
  const double weights = is_weighted(p) ? scales_weights : 1;
  const auto along = [&](int j) {
    return weights *
           (26 * (2 * p.windows[j].radius + 1) + 500 + (j == p.scales - 1 ? 60 + 35.0 * p.scales : 0));
  };
  const auto columns = [&](int r) {  // that need a window
    return int(p.padding == Padding::zeros ? std::min<int64_t>(own + 2 * r, p.width) : own + 2 * r);
  };
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius;
    const double down = weights * (26 * (2 * r + 1) + 370), beside = along(j > 0 ? j - 1 : p.scales - 1);
    work.shared_phase(2 * (warps_of(columns(r)) * down + warps_of(own) * beside), std::max(down, beside));
  }
  return work;
}

// For so many planes and rows of positions at a time.
Cut scales_cut(const Problem& p, int64_t planes, int64_t rows) {
  return cut_for_blocks(planes, rows, p.width - 2 * crop_of(p), ring_max_own, [&](int own) {
    return EqualBlocks{scales_sizes(p, own).bytes(), 1, scales_work(p, own)};
  });
}

// ---- The second launch: each block has one scale.

RingSizes adjoint_sizes(const Problem& p, int own) {
  const int radius = p.windows[p.scales - 1].radius;
  RingSizes s{};
  s.capacity = (adjoint_late(radius) + 2) * adjoint_rows;
  s.chunks = (adjoint_late(radius) + 4) * adjoint_rows / 4;
  s.cells = (own + 2 * radius + 3) / 4 + 2;
  s.map_pitch = RingSizes::odd_fours(own + 2 * radius), s.ring_pitch = RingSizes::odd_fours(own);
  s.maps = 2 + p.gradients + has_windowed_l1(p);
  s.each_map = adjoint_rows * s.map_pitch, s.each_ring = s.capacity * s.ring_pitch;
  s.lay_out(0, 0, 2 * s.maps * s.each_map, s.maps * s.each_ring, 2 * s.chunks * s.cells, 2 * radius + 4, 0,
            int(sizeof(AdjointPlane) / sizeof(float)));
  return s;
}

// Two blocks share a multiprocessor where their memory allows it.
int adjoint_threads_of(const Problem& p, const RingSizes& sizes) {
  const int most = adjoint_threads(p.gradients, is_weighted(p));
  const int threads = has_parts(p) || p.gradients == 2 ? most : most / 2;  // one scale alone: as it was timed
  return resident_of(current_device(), 2, sizes.bytes()) == 2 ? threads / 2 : threads;
}

struct AdjointBlocks {
  int64_t shared;
  int64_t height;
  int scales, most_resident = 2;
  Work of_scale[max_scales] = {};

  // Sets each scale's rows of a band: the cut's bands, or one more where that ends sooner. A few long blocks
  // that start last would have most multiprocessors wait for them. Not tried far above `least`, to save time.
  double cycles(Cut& cut, int64_t strips, int64_t resident, int64_t at_once, double least) const {
    cut.threads = 32 * of_scale[0].warps;
    int64_t bands[max_scales], blocks[max_scales];
    double each[max_scales];
    const auto time = [&] {
      for (int j = 0; j < scales; ++j) {
        const int64_t rows = cut.scale_rows[j] = int(divided(height, bands[j]));
        blocks[j] = strips / scales * divided(height, rows), each[j] = of_scale[j].block(rows, resident);
      }
      return makespan(at_once, blocks, each, scales);
    };
    std::fill_n(bands, scales, cut.bands);
    double best = time();
    for (int j = scales - 1; j >= 0 && best < 1.25 * least; --j) {
      ++bands[j];
      const double now = time();
      if (now >= best) --bands[j];
      best = std::min(best, now);
    }
    time();
    return best;
  }
};

AdjointBlocks adjoint_blocks(const Problem& p, int own, int64_t rows) {
  const RingSizes s = adjoint_sizes(p, own);
  AdjointBlocks all{s.bytes(), rows, p.scales};
  const int warps = adjoint_threads_of(p, s) / 32, tasks = adjoint_rows / 4 * warps_of(own);
  for (int j = 0; j < p.scales; ++j) {
    const int r = p.windows[j].radius;
    const double weights = is_weighted(p) ? adjoint_weights : 1;
    const double each = weights * (2.0 + p.gradients) / 3 * (21 * (2 * r + 1) + 390);
    const double work = 2 * tasks * each + adjoint_rows * (140 + 45 * warps_of(own + 2 * r));
    Work& one = all.of_scale[j] = Work{warps, adjoint_rows, adjoint_pace};
    one.shared_phase(work, each);
    one.extra = start_chunks + (work - tasks * each) * adjoint_late(r) / work;  // before the first row
  }
  return all;
}

// For so many planes and rows of the gradient at a time.
Cut adjoint_cut(const Problem& p, int64_t planes, int64_t rows) {
  return cut_for_blocks(planes * p.scales, rows, p.width, ring_max_own,
                        [&](int own) { return adjoint_blocks(p, own, rows); });
}

// ---- Both, and the third, which adds the scales' parts of the gradient up, portion by portion.

Kept kept_of(const Problem& p) {
  if (p.gradients == 0) return {0, 0, 8};
  return {p.scales * (2 + p.gradients) + has_windowed_l1(p), has_parts(p) ? p.scales * p.gradients : 0, 8};
}
Problem upright(const Problem& p) { return upright(p, kept_of(p)); }

// In portions, bands begin at cells (ring_block.cuh): the bits of maps and gradients do not depend on the
// cut.
int cells_of(int rows) { return int(rounded(rows, 8)); }

// The portions that take the least time, and the first launch's cut of one.
Cut scales_plan(const Problem& p) {
  return plan_for(scales_family, "scales_kernel", p, 1, [&] {
    Cut best;
    double least = HUGE_VAL;
    each_of_planes(p, kept_of(p), [&](const Portions& at) {
      const int64_t planes = at.images * at.channels;
      const double count = double(count_of(p, at));
      Cut cut = scales_cut(p, planes, at.rows < p.height ? at.rows : positions_down(p));
      double cycles = count * (cut.cycles + portion_cycles);
      if (p.gradients) cycles += count * adjoint_cut(p, planes, at.rows).cycles;
      if (cycles >= least) return;
      least = cycles, cut.cycles *= count, cut.portions = at;
      best = cut;
    });
    if (best.own == 0 || count_of(p, best.portions) <= 1) return best;
    best.band_rows = cells_of(best.band_rows), best.bands = 0;
    each_of_rows(p, kept_of(p), best.portions, best.band_rows,
                 [&](const LaunchRows& rows, const LaunchRows&) { best.bands += rows.bands; });
    return best;
  });
}

Cut adjoint_plan(const Problem& p) {
  return plan_for(scales_family, "adjoint_kernel", p, 1, [&] {
    const Portions at = scales_plan(p).portions;
    const int64_t count = count_of(p, at);
    Cut cut = adjoint_cut(p, at.images * at.channels, at.rows);
    cut.cycles *= double(count), cut.portions = at;
    for (int j = 0; count > 1 && j < p.scales; ++j) cut.scale_rows[j] = cells_of(cut.scale_rows[j]);
    return cut;
  });
}

// One of the launches. A cut may have bands for each scale.
void queue(const Similarity& s, const char* name, const Cut& cut, const LaunchRows& rows,
           const RingSizes& sizes, int threads, void (*kernel)(ScalesParams), void* stream) {
  const Problem& p = s.problem;
  ScalesParams params{};
  set_problem(s, cut, params);
  params.sizes = sizes;
  params.rows = rows;
  params.map_size = params.map_width * rows.ring_rows;
  params.in_fours = params.in_fours && (params.crop - sizes.reach) % 4 == 0;
  params.scales = p.scales;
  const bool each_scale = cut.scale_rows[0] > 0;
  int64_t bands = each_scale ? 0 : rows.bands;
  Layout taps;
  for (int j = 0; j < p.scales; ++j) {
    params.radii[j] = p.windows[j].radius;
    params.taps_at[j] = int(taps.take(2 * params.radii[j] + 4, 4));
    for (int t = 0; t <= params.radii[j]; ++t) params.scale_taps[j][t] = float(p.windows[j].weights[t]);
    if (!each_scale) continue;
    params.cut[j].band_rows = cut.scale_rows[j];
    bands += params.cut[j].bands = int(divided(rows.end - rows.first, params.cut[j].band_rows));
  }
  const int64_t of_band = cut.strips * p.channels;
  for_batches(p.batch, of_band * bands, [&](int64_t first, int64_t images) {
    set_images(s, first, params);
    int64_t before = 0;
    for (int j = p.scales - 1; j >= 0; --j) {
      params.cut[j].first_block = int(before);
      before += images * of_band * params.cut[j].bands;
    }
    const Kept kept = kept_of(p);
    const int64_t planes = p.batch * p.channels, plane = first * p.channels;
    params.maps = kept.maps ? static_cast<float*>(s.maps) + plane * kept.maps * params.map_size : nullptr;
    params.parts = static_cast<float*>(s.maps) + planes * kept.maps * params.map_size +
                   plane * kept.parts * rows.part_rows * p.width;
    launch(name, kernel, images * of_band * bands, threads, size_t(sizes.bytes()), stream, params);
  });
}

void run_portion(const Similarity& s, const Cut& gradient, void* stream) {
  const Problem& p = s.problem;
  const bool both = p.gradients == 2, weighted = is_weighted(p);
  const auto scales = for_gradients(p.gradients, [](auto n) { return &scales_kernel<n.value, false>; });
  const auto adjoint = both ? &adjoint_kernel<2, false> : &adjoint_kernel<1, false>;
  const auto gather = both ? &gather_kernel<2, false> : &gather_kernel<1, false>;
  const auto run = [&](const LaunchRows& rows, const LaunchRows& pixels) {
    queue(s, "scales_kernel", s.cut, rows, scales_sizes(p, s.cut.own), s.cut.threads,
          weighted ? &scales_kernel<1, true> : scales, stream);
    if (p.gradients == 0) return;
    queue(s, "adjoint_kernel", gradient, pixels, adjoint_sizes(p, gradient.own), gradient.threads,
          weighted ? &adjoint_kernel<1, true> : adjoint, stream);
    if (!has_parts(p)) return;
    queue(s, "gather_kernel", cut_into(p.height, p.width, p.width, gather_rows),
          in_bands(pixels, gather_rows), RingSizes{}, gather_threads,
          weighted ? &gather_kernel<1, true> : gather, stream);
  };
  each_of_rows(p, kept_of(p), s.cut.portions, s.cut.band_rows, run);
}

void similarity(const Similarity& whole, void* stream) {
  Similarity s = whole;
  s.problem = upright(s.problem);
  const Cut gradient = s.problem.gradients ? adjoint_plan(s.problem) : Cut{};
  each_portion(s, [&](const Similarity& part) { run_portion(part, gradient, stream); });
}

}  // namespace

const Family scales_family = {"scales", [](const Problem& p) { return scales_plan(upright(p)); },
                              &similarity};

}  // namespace ssimloss
