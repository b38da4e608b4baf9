// From a Similarity to the parameters of any of its kernels.
#pragma once

#include "../route.h"
#include "pixels.cuh"

namespace ssimloss {

// What differs from image to image, from image `first` on, into a kernel's parameters: those that hold
// `offsets`. An image has so many pieces.
template <class T, class Params>
void set_images(const Similarity& s, int64_t first, int64_t pieces, const T*& offsets, Params& params) {
  const Problem& p = s.problem;
  params.x = view(from_image(p.x, first)), params.y = view(from_image(p.y, first));
  params.grad_x = view(from_image(p.grad_x, first)), params.grad_y = view(from_image(p.grad_y, first));
  params.loss_map = view(from_image(p.loss_map, first));
  params.grad_map = view(from_image(p.grad_map, first));
  params.incoming = from_image(s.incoming, first).data;
  offsets = s.offsets ? static_cast<const T*>(s.offsets) + first * p.channels : nullptr;
  params.sums = s.sums ? s.sums + 2 * first * pieces : nullptr;
}

}  // namespace ssimloss
