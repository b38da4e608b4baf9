// Values that do not fit the data range, on the CPU: images in 0..255 with data_range 1, say.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <atomic>
#include <cmath>
#include <cstdio>

#include "call.h"
#include "namespace.h"

namespace ssimloss {

inline double magnitude_at(const Images& t, int64_t offset) {
  using torch::headeronly::BFloat16, torch::headeronly::Half;
  switch (t.dtype) {
    case DType::float64: return std::abs(static_cast<const double*>(t.data)[offset]);
    case DType::float16: return std::abs(float(static_cast<const Half*>(t.data)[offset]));
    case DType::bfloat16: return std::abs(float(static_cast<const BFloat16*>(t.data)[offset]));
    case DType::uint8: return static_cast<const unsigned char*>(t.data)[offset];
    default: return std::abs(static_cast<const float*>(t.data)[offset]);
  }
}

// Warns once a process where most of 16 pixels, spread over the images, lie beyond twice the data range in
// both (a uint8 y is in range anyway), and none of those behind a mask: neither highlights nor a network that
// has not learned yet are meant.
// It stops where that is decided, after 8 pixels as a rule, which is not measurable; all pixels would be
// another pass over them.
inline void check_range(const Call& call) {
  static std::atomic<bool> warned{false};
  if (warned.load(std::memory_order_relaxed)) return;
  if (call.planes() == 0 || call.depth == 0 || call.height == 0 || call.width == 0) return;
  const Volumes x = volumes(call.x), y = volumes(call.y);
  constexpr int pixels = 16;
  double range = call.data_range;
  for (int i = 0, beyond = 0; i < pixels; ++i) {
    // The powers of the root of z^5 = z + 1: points that are evenly spread, and in no pattern of rows.
    const auto at = [i](double step, int64_t size) {
      const double turns = (i + 0.5) * step;
      return int64_t((turns - double(int(turns))) * double(size));
    };
    const int64_t depth = at(0.4614027427, call.depth);
    const int64_t n = at(0.5385972572, call.batch), c = at(0.6287067210, call.channels);
    const int64_t row = at(0.7338918566, call.height), col = at(0.8566748839, call.width);
    const auto magnitude = [&](const Volumes& volumes) {
      const Images& t = volumes.first;
      return magnitude_at(t, n * t.stride_n + c * t.stride_c + depth * volumes.stride_d + row * t.stride_h +
                                 col * t.stride_w);
    };
    if (call.inverse_ranges) range = 1 / static_cast<const double*>(call.inverse_ranges->data_ptr())[n];
    const double least = 2 * range;
    const bool seen = !call.mask || magnitude(weights(*call.mask)) > 0;
    // Of what range bytes are, x alone tells.
    const bool y_beyond = y.first.dtype == DType::uint8 || magnitude(y) > least;
    beyond += seen && magnitude(x) > least && y_beyond;
    if (2 * (i + 1 - beyond) >= pixels) return;
  }
  if (warned.exchange(true)) return;
  char got[32];
  std::snprintf(got, sizeof(got), "%g", range);
  const std::string message =
      "data_range: expected the difference between the largest and the smallest possible value, got " +
      std::string(got) + ", and most values of " + (y.first.dtype == DType::uint8 ? "x" : "x and y") +
      " lie beyond twice that (255 is for images in 0..255)";
  std::array<StableIValue, 2> stack{torch::stable::detail::from(call.x),
                                    torch::stable::detail::from(message)};
  const auto failed =
      torch_call_dispatcher(SSIMLOSS_OPERATOR("warn_once"), "", stack.data(), TORCH_ABI_VERSION);
  check(!failed, message);  // warnings may be errors
}

}  // namespace ssimloss
