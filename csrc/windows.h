// The ops' arguments as the kernels want them; shared by every back end.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "problem.h"

namespace ssimloss {

inline Padding padding_of(const std::string& name) {
  if (name == "valid") return Padding::valid;
  if (name == "zeros") return Padding::zeros;
  if (name == "reflect") return Padding::reflect;
  check(name == "normalized", "padding: expected valid, zeros, reflect or normalized, got " + name);
  return Padding::normalized;
}

inline OddSide odd_side_of(const std::string& name) {
  if (name == "edge") return OddSide::edge;
  if (name == "zeros") return OddSide::zeros;
  check(name == "drop", "halving: expected edge, zeros or drop, got " + name);
  return OddSide::drop;
}

// Whether a negative mean counts as 0.
inline bool clamps(const std::string& negative) {
  check(negative == "continue" || negative == "clamp",
        "negative: expected continue or clamp, got " + negative);
  return negative == "clamp";
}

enum class Reduction { mean, none, map };

inline Reduction reduction_of(const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "none") return Reduction::none;
  check(name == "map", "reduction: expected mean, none or map, got " + name);
  return Reduction::map;
}

// Gaussian windows, built in float64. All but the last leave out the far taps that add nothing even
// in float64 (below 1e-20 of the centre); the last one keeps all, it decides where NaN reaches.
class Windows {
 public:
  Windows(const std::vector<double>& sigmas, const std::vector<int64_t>& sizes) {
    check(sigmas.size() == sizes.size() && sigmas.size() <= size_t(max_scales),
          "sigmas and window_sizes: expected up to 16 of each, got " + std::to_string(sigmas.size()) +
              " and " + std::to_string(sizes.size()));
    for (size_t j = 0; j < sigmas.size(); ++j) {
      check(sigmas[j] > 0 && sizes[j] > 0 && sizes[j] % 2 == 1, "sigmas must be positive, window_sizes odd");
      check(j == 0 || (sizes[j] >= sizes[j - 1] && sigmas[j] >= sigmas[j - 1]),
            "sigmas and window_sizes must not decrease");
      std::vector<double> half;
      for (int64_t t = 0; t <= sizes[j] / 2; ++t) {
        const double tap = std::exp(-0.5 * (double(t) / sigmas[j]) * (double(t) / sigmas[j]));
        if (j + 1 < sigmas.size() && tap < 1e-20) break;
        half.push_back(tap);
      }
      double sum = half[0];
      for (size_t t = 1; t < half.size(); ++t) sum += 2 * half[t];
      for (double& tap : half) tap /= sum;
      halves_.push_back(half);
    }
    for (const auto& half : halves_) windows_.push_back({half.data(), int(half.size()) - 1});
  }
  Windows(const Windows&) = delete;

  const Window* data() const { return windows_.data(); }
  int count() const { return int(windows_.size()); }
  int64_t radius() const { return windows_.empty() ? 0 : windows_.back().radius; }

 private:
  std::vector<std::vector<double>> halves_;
  std::vector<Window> windows_;
};

// The dyadic form's product m^weight of its levels, in logarithms. Below 0.05 m goes on along the hyperbola
// of the same value and slope there, so that the value stays positive and the gradient alive where cs is
// negative; or, clamped, below 0 it is 0, and so is its gradient.
struct LogPower {
  double value, slope;  // of weight * log(m) in m, for m = 1 - e
};
SSIMLOSS_BOTH inline LogPower log_power(double e, double weight, bool clamp) {
  constexpr double knee = 0.05;
  const double m = 1 - e;
  if (clamp && m <= 0) return {weight > 0 ? -HUGE_VAL : 0, 0};  // 0^0 = 1
  if (clamp || m > knee) return {weight * std::log1p(-e), weight / m};
  const double slope = 1 / (2 * knee - m);
  return {weight * std::log(knee * knee * slope), weight * slope};
}

}  // namespace ssimloss
