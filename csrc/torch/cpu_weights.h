// What a mean is over under a mask, on the CPU: sums of weights.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <vector>

#include "../problem.h"

namespace ssimloss {

// For each plane, what the means of its two terms are over.
struct Counts {
  std::vector<double> ssim, l1;
  Counts(int64_t planes, double positions, double l1_positions)
      : ssim(size_t(planes), positions), l1(size_t(planes), l1_positions) {}
};

template <class T>
double sum_of_row(const T* row, int64_t stride, int64_t count) {
  double parts[8] = {};  // additions that do not wait for each other
  int64_t i = 0;
  if (stride == 1) {
    for (; i + 8 <= count; i += 8) {
      for (int64_t j = 0; j < 8; ++j) parts[j] += double(row[i + j]);
    }
  }
  for (; i < count; ++i) parts[i % 8] += double(row[i * stride]);
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

// Of each plane of p, the sum of its mask's weights, less `crop` pixels on every side.
inline std::vector<double> sums_of_weights(const Problem& p, int64_t crop) {
  const Images& t = p.mask;
  const int64_t batch = t.stride_n ? p.batch : 1, channels = t.stride_c ? p.channels : 1;
  const int64_t rows = p.height - 2 * crop, columns = p.width - 2 * crop;
  std::vector<double> of_rows(size_t(batch * channels * rows));
  const auto add_up = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / rows / channels, c = i / rows % channels, row = i % rows + crop;
      const int64_t at = n * t.stride_n + c * t.stride_c + row * t.stride_h + crop * t.stride_w;
      of_rows[size_t(i)] = t.dtype == DType::float64
                               ? sum_of_row(static_cast<const double*>(t.data) + at, t.stride_w, columns)
                               : sum_of_row(static_cast<const float*>(t.data) + at, t.stride_w, columns);
    }
  };
  if (!of_rows.empty()) torch::stable::parallel_for(0, int64_t(of_rows.size()), 256, add_up);
  std::vector<double> sums(size_t(p.batch * p.channels), 0.0);
  for (int64_t i = 0; i < int64_t(sums.size()); ++i) {
    const int64_t plane = (t.stride_n ? i / p.channels * channels : 0) + (t.stride_c ? i % p.channels : 0);
    for (int64_t row = 0; row < rows; ++row) sums[size_t(i)] += of_rows[size_t(plane * rows + row)];
  }
  return sums;
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
