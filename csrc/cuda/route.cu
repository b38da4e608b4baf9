// The choice between the kernels, and what each family has beside its kernels.
#include "route.h"

namespace ssimloss {

const Family& route(const Problem& p) {
  const Window& window = p.windows[p.scales - 1];
  const bool map = p.loss_map.data || p.grad_map.data, windowed_l1 = p.l1_weight != 0 && p.l1_windowed;
  // float64 is for tests and for the careful: it has the plain kernels alone.
  if (p.x.dtype == DType::float64) return tiles_family;
  // 11 taps, whose sums wait in registers. They are in units of the last tap, which may not be tiny.
  if (p.scales == 1 && window.radius == 5 && window.weights[5] > 1e-6 && !(map && windowed_l1))
    return strip_family;
  if (p.scales == 1 && window.radius <= 16 && ring_fits(p)) return ring_family;
  return scales_fit(p) ? scales_family : tiles_family;
}

int64_t all_maps_bytes(const Problem& p) {
  if (p.gradients == 0) return 0;
  const int64_t crop = crop_of(p), size = element_size(arithmetic(p.x.dtype));
  const int64_t maps = p.scales * (2 + p.gradients) + (p.l1_weight != 0 && p.l1_windowed ? 1 : 0);
  return p.batch * p.channels * maps * (p.height - 2 * crop) * (p.width - 2 * crop) * size;
}

}  // namespace ssimloss
