// What a mean is over under a mask, on the CPU: sums of weights.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstdint>
#include <vector>

#include "../cpu/kernels.h"

namespace ssimloss {

// For each plane, what the means of its two terms are over.
struct Counts {
  std::vector<double> ssim, l1;
  Counts(int64_t planes, double positions, double l1_positions)
      : ssim(size_t(planes), positions), l1(size_t(planes), l1_positions) {}
};

// Of each plane, the sum of a mask's weights, less so many on every side of its depth, height and width.
using Sides = std::array<int64_t, 3>;
inline std::vector<double> sums_of_weights(const Volumes& mask, int64_t all_batch, int64_t all_channels,
                                           const Sides& size, const Sides& crop) {
  const Images& t = mask.first;
  const int64_t batch = t.stride_n ? all_batch : 1, channels = t.stride_c ? all_channels : 1;
  const int64_t height = size[1] - 2 * crop[1], columns = size[2] - 2 * crop[2];
  const int64_t rows = (size[0] - 2 * crop[0]) * height;
  std::vector<double> of_rows(size_t(batch * channels * rows));
  const auto add_up = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / rows / channels, c = i / rows % channels;
      const int64_t slice = i % rows / height + crop[0], row = i % height + crop[1];
      of_rows[size_t(i)] = cpu_kernels().sum_of_row(mask.at(slice), n, c, row, crop[2], columns);
    }
  };
  if (!of_rows.empty()) torch::stable::parallel_for(0, int64_t(of_rows.size()), 256, add_up);
  std::vector<double> sums(size_t(all_batch * all_channels), 0.0);
  for (int64_t i = 0; i < int64_t(sums.size()); ++i) {
    const int64_t plane =
        (t.stride_n ? i / all_channels * channels : 0) + (t.stride_c ? i % all_channels : 0);
    for (int64_t row = 0; row < rows; ++row) sums[size_t(i)] += of_rows[size_t(plane * rows + row)];
  }
  return sums;
}

inline std::vector<double> sums_of_weights(const Problem& p, int64_t crop) {
  return sums_of_weights({p.mask, 0}, p.batch, p.channels, {1, p.height, p.width}, {0, crop, crop});
}

// A mean over `together` planes is one over all their weights, so each of them has the mean of these: 1 where
// nothing is left, as all terms are 0 then.
inline std::vector<double> mean_of_each(std::vector<double> sums, size_t together) {
  for (size_t i = 0; i < sums.size(); i += together) {
    double sum = 0;
    for (size_t j = i; j < i + together; ++j) sum += sums[j];
    for (size_t j = i; j < i + together; ++j) sums[j] = sum == 0 ? 1 : sum / double(together);
  }
  return sums;
}

// What the means over so many planes together are over, as CpuCall::counts says; the weights of a mask, if
// any.
inline Counts counts_of(const Volumes& mask, int64_t batch, int64_t channels, const Sides& size,
                        const Sides& crop, bool l1_of_positions, size_t together) {
  double pixels = 1, positions = 1;
  for (size_t i = 0; i < 3; ++i) pixels *= double(size[i]), positions *= double(size[i] - 2 * crop[i]);
  Counts counts(batch * channels, positions, l1_of_positions ? positions : pixels);
  if (!mask.first.data) return counts;
  const auto mean_over = [&](const Sides& crop) {
    return mean_of_each(sums_of_weights(mask, batch, channels, size, crop), together);
  };
  counts.ssim = counts.l1 = mean_over(crop);
  if (!l1_of_positions && positions < pixels) counts.l1 = mean_over({});
  return counts;
}

// Of a plane in the dyadic form: what its loss is multiplied by, for the mean over the planes that a mask
// leaves any position, and what its l1 is a mean over.
struct Share {
  double kept, l1;
};

inline std::vector<Share> shares_of(const std::vector<double>& sums, size_t together) {
  const std::vector<double> l1 = mean_of_each(sums, together);
  std::vector<Share> shares(sums.size());
  for (size_t i = 0; i < sums.size(); i += together) {
    size_t kept = 0;
    for (size_t j = i; j < i + together; ++j) kept += sums[j] != 0;
    for (size_t j = i; j < i + together; ++j)
      shares[j] = {sums[j] != 0 ? double(together) / double(kept) : 0, l1[j]};
  }
  return shares;
}

}  // namespace ssimloss
