// What an l1 term weighs at each pixel, where it is blurred by the window before it is summed.
#pragma once

#include "pixels.cuh"

namespace ssimloss {

// The sum of the window's taps at the positions whose window holds pixel i: 1 but near a border.
template <class T>
__device__ inline T cover(int i, int size, Padding padding, const T* taps, int radius) {
  const int crop = padding == Padding::valid ? radius : 0;
  if (i > radius + crop && i < size - 1 - radius - crop) return T(1);
  T sum = 0;
  for (int t = -radius; t <= radius; ++t) {
    int at = i + t;
    if (padding == Padding::reflect) at = mirrored(at, size);
    if (at < crop || at >= size - crop) continue;
    sum += taps[t < 0 ? -t : t] * (is_edge(at, size, padding) ? T(2) : T(1));
  }
  return is_edge(i, size, padding) ? T(0.5) * sum : sum;
}

}  // namespace ssimloss
