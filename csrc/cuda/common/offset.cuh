// The offset of d in a pyramid.
#pragma once

#include "pixels.cuh"

namespace ssimloss {

// What the dyadic form takes off d before it halves it, where the plane is nearly uniform: rounding a halved
// uniform difference to float32 would cost the digits of its variation. The middle of three values of d, if
// all three are nearly that; d in units of 1.
// difference(row, col): of the images.
template <class T, class Difference>
__device__ T offset_of(Difference difference, int height, int width, double inverse_range) {
  T v[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t row = int64_t(height) * (2 * i + 1) / 6, col = int64_t(width) * (2 * i + 1) / 6;
    v[i] = difference(row, col) * T(inverse_range);
  }
  T low = v[0], high = v[0], sum = 0;
  for (int i = 0; i < 3; ++i) {
    low = v[i] < low ? v[i] : low, high = v[i] > high ? v[i] : high;
    sum += v[i];
  }
  const T middle = sum - low - high;
  const T size = middle < 0 ? -middle : middle;
  return (high - low) * T(16) < size && size <= T(2) ? middle : T(0);
}

}  // namespace ssimloss
