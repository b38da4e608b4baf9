// The kernels of weighted.cuh.
#include "tiles.cuh"

namespace ssimloss {

WeightedTiles weighted_tiles() {
  return {&positions_kernel<double, true>, &weighted_gradient_kernel<double>};
}

}  // namespace ssimloss
