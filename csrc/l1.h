// A problem without windows: l1 alone, which the kernels of every back end take as rows of pixels.
#pragma once

#include "problem.h"

namespace ssimloss {

// The same pixels in rows as long as they lie in memory. Which channel, row and column a pixel belongs to
// makes no difference here, as long as all images agree on it: where the channels lie side by side, their
// rows are taken as those of planes.
inline Problem as_rows(Problem p) {
  Images* const all[] = {&p.x, &p.y, &p.mask, &p.loss_map, &p.grad_x, &p.grad_y, &p.grad_map};
  const int64_t c = p.channels, h = p.height, w = p.width;
  const auto every = [&](auto holds) {
    for (const Images* images : all) {
      if (images->data && !holds(*images)) return false;
    }
    return true;
  };
  if (every([&](const Images& t) { return t.stride_c == 1 && t.stride_w == c && t.stride_h == w * c; })) {
    for (Images* images : all) images->stride_c = h * w, images->stride_h = w, images->stride_w = 1;
  }
  const int64_t most = int64_t(1) << 30;  // what CUDA's kernels count in an int
  if (h * w < most && every([&](const Images& t) { return t.stride_h == w * t.stride_w; })) {
    p.height = h > 0 ? 1 : 0, p.width = h * w;
    for (Images* images : all) images->stride_h = 0;
  }
  return p;
}

}  // namespace ssimloss
