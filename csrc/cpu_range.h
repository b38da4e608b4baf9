// Values that do not fit the data range, on the CPU: images in 0..255 with data_range 1, say.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <atomic>
#include <cmath>
#include <cstdio>

#include "call.h"

namespace ssimloss {

inline double element(const Tensor& t, int64_t offset) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return static_cast<const double*>(t.data_ptr())[offset];
    case ScalarType::Half: return float(static_cast<const torch::headeronly::Half*>(t.data_ptr())[offset]);
    case ScalarType::BFloat16:
      return float(static_cast<const torch::headeronly::BFloat16*>(t.data_ptr())[offset]);
    default: return static_cast<const float*>(t.data_ptr())[offset];
  }
}

// Warns once a process where most of 16 pixels, spread over the images, lie beyond twice the data range in
// both: highlights and a network that has not learned yet do not. All pixels would be another pass over them.
inline void check_range(const Call& call) {
  static std::atomic<bool> warned{false};
  if (warned.load(std::memory_order_relaxed) || call.planes() == 0) return;
  constexpr int pixels = 16;
  int beyond = 0;
  for (int i = 0; i < pixels; ++i) {
    // Powers of the root of z^5 = z + 1: no two of the points share a row or column by a pattern.
    const auto at = [i](double step, int64_t size) {
      const double turn = (i + 0.5) * step;
      return int64_t((turn - std::floor(turn)) * double(size));
    };
    const int64_t where[4] = {at(0.5436890126920763, call.batch), at(0.6294, call.channels),
                              at(0.8566748838545029, call.height), at(0.7338918566271260, call.width)};
    int64_t of_x = 0, of_y = 0;
    for (int k = 0; k < 4; ++k) of_x += where[k] * call.x.stride(k), of_y += where[k] * call.y.stride(k);
    const double least = 2 * call.data_range;
    beyond += std::abs(element(call.x, of_x)) > least && std::abs(element(call.y, of_y)) > least;
  }
  if (2 * beyond <= pixels || warned.exchange(true)) return;
  char range[32];
  std::snprintf(range, sizeof(range), "%g", call.data_range);
  const std::string message =
      std::string(
          "data_range: expected the difference between the largest and the smallest possible value, "
          "got ") +
      range + ", and most values of x and y lie beyond twice that (255 is for images in 0..255)";
  std::array<StableIValue, 2> stack{torch::stable::detail::from(call.x),
                                    torch::stable::detail::from(message)};
  const auto failed = torch_call_dispatcher("ssimloss::warn_once", "", stack.data(), TORCH_ABI_VERSION);
  check(!failed, message);  // warnings may be errors
}

}  // namespace ssimloss
