// An op call in torch's terms, and what is made of it for the kernels: shared by every back end.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../volume.h"
#include "../windows.h"

namespace ssimloss {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::array<int64_t, 4>;

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::Half: return DType::float16;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Byte: return DType::uint8;
    default: check(false, "dtype: expected float16, bfloat16, float32 or float64"); return DType::float32;
  }
}

inline ScalarType arithmetic(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Images images(const Tensor& t) {
  return {t.data_ptr(), dtype_of(t), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// Of five dimensions, [N, C, D, H, W]; or of four, of depth 1.
inline Volumes volumes(const Tensor& t) {
  if (t.dim() == 4) return {images(t), 0};
  return {{t.data_ptr(), dtype_of(t), t.stride(0), t.stride(1), t.stride(3), t.stride(4)}, t.stride(2)};
}

// A mask, which may be one for all images and channels.
inline Volumes weights(const Tensor& t) {
  Volumes all = volumes(t);
  if (t.size(0) == 1) all.first.stride_n = 0;
  if (t.size(1) == 1) all.first.stride_c = 0;
  return all;
}

template <class S>
Tensor empty(const Tensor& like, const S& sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, {sizes.data(), sizes.size()}, dtype);
}

inline Tensor nothing(const Tensor& like) {
  return empty(like, std::array<int64_t, 1>{0}, like.scalar_type());
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

// The options of each form, in the order of schema.cpp.
struct GaussianOptions {
  static constexpr int dimensions = 4;
  std::vector<double> sigmas;
  std::vector<int64_t> window_sizes;
  std::string padding;
  double data_range, k1, k2, ssim_weight, l1_weight;
  bool l1_windowed;
  std::string reduction;
  std::optional<Tensor> inverse_ranges, mask;
};
struct DyadicOptions {
  static constexpr int dimensions = 4;
  std::vector<double> weights;
  double sigma;
  int64_t window_size;
  std::string padding;
  double data_range, k1, k2, ssim_weight, l1_weight;
  std::string halving, negative;
  std::string reduction;
  std::optional<Tensor> inverse_ranges, mask;
};

struct VolumeOptions {  // one sigma and size along each of depth, height and width
  static constexpr int dimensions = 5;
  std::vector<double> sigmas;
  std::vector<int64_t> window_sizes;
  std::string padding;
  double data_range, k1, k2, ssim_weight, l1_weight;
  std::string reduction;
  std::optional<Tensor> inverse_ranges, mask;
};

// One op call: what every form and back end needs of its arguments.
struct Call {
  Tensor x, y;
  bool want_x, want_y;
  int64_t batch, channels, depth, height, width;
  Padding padding;
  Reduction reduction;
  double data_range, k1, k2, ssim_weight, l1_weight;
  std::optional<Tensor> inverse_ranges, mask;
  bool l1_windowed = true;
  Tensor grad_x, grad_y;
  std::optional<Tensor> terms, map;  // out, of a _detailed operator: see schema.cpp
  bool want_map = false;             // beside the loss

  template <class Options>
  Call(const Tensor& x_, const Tensor& y_, bool want_x_, bool want_y_, const Options& options)
      : x(x_),
        y(y_),
        want_x(want_x_),
        want_y(want_y_),
        padding(padding_of(options.padding)),
        reduction(reduction_of(options.reduction)),
        data_range(options.data_range),
        k1(options.k1),
        k2(options.k2),
        ssim_weight(options.ssim_weight),
        l1_weight(options.l1_weight),
        inverse_ranges(options.inverse_ranges),
        mask(options.mask),
        grad_x(nothing(x_)),
        grad_y(nothing(x_)) {
    constexpr int dims = Options::dimensions;
    check(x.dim() == dims && y.dim() == dims,
          std::string("x and y: expected ") + (dims == 4 ? "four" : "five") + " dimensions");
    for (int i = 0; i < dims; ++i) check(x.size(i) == y.size(i), "x and y: expected the same shape");
    check(dtype_of(x) != DType::uint8, "x: expected float16, bfloat16, float32 or float64");
    const int64_t size_x = element_size(dtype_of(x)), size_y = element_size(dtype_of(y));
    check(x.scalar_type() == y.scalar_type() || (size_y < size_x && size_y < 4 && !want_y),
          "x and y: expected the same dtype, or y of uint8 or fewer bits and without a gradient");
    check(data_range > 0, "data_range: expected a positive number");
    if (inverse_ranges) {
      const Tensor& t = *inverse_ranges;
      check(t.scalar_type() == ScalarType::Double && t.dim() == 1 && t.size(0) == x.size(0) &&
                t.is_contiguous() && same_device(t, x),
            "inverse_ranges: expected one float64 an image, on the device of x");
    }
    if (mask) {
      const bool bytes = mask->is_cpu() && mask->scalar_type() == ScalarType::Byte;
      bool fits = mask->dim() == dims && (bytes || mask->scalar_type() == arithmetic(x));
      fits = fits && same_device(*mask, x);
      for (int i = 0; fits && i < dims; ++i)
        fits = mask->size(i) == x.size(i) || (i < 2 && mask->size(i) == 1);
      check(
          fits,
          "mask: expected the sides of x, in the dtype of the loss or, on the CPU, uint8, and on its device");
    }
    batch = x.size(0), channels = x.size(1), height = x.size(dims - 2), width = x.size(dims - 1);
    depth = dims == 5 ? x.size(2) : 1;
  }

  int64_t planes() const { return batch * channels; }
  Tensor make_terms() const {
    return reduction == Reduction::mean ? empty(x, std::array<int64_t, 1>{2}, arithmetic(x))
                                        : empty(x, std::array<int64_t, 2>{2, batch}, arithmetic(x));
  }
  double averaged_planes() const { return double(reduction == Reduction::mean ? planes() : channels); }

  Problem problem(const Windows& windows) const {
    Problem p{};
    p.batch = batch, p.channels = channels, p.height = height, p.width = width;
    p.padding = padding;
    p.windows = windows.data(), p.scales = windows.count();
    p.luminance = true;
    p.l1_windowed = l1_windowed;
    p.ssim_weight = ssim_weight, p.l1_weight = l1_weight;
    p.c1 = k1 * k1, p.c2 = k2 * k2;
    p.inverse_range = 1 / data_range;
    if (inverse_ranges) p.inverse_ranges = static_cast<const double*>(inverse_ranges->data_ptr());
    p.x = images(x), p.y = images(y);
    if (mask) p.mask = weights(*mask).first;
    return p;
  }

  // For kernels that know no weights.
  void check_unweighted(const std::string& kernels) const {
    check(!mask, "mask: expected none for " + kernels);
    check(padding != Padding::normalized, "padding: expected another than normalized for " + kernels);
  }

  // The incoming gradient has the shape of the loss: [], [N] or that of the map.
  void check_incoming(const Tensor& grad_loss, const std::vector<int64_t>& map_size) const {
    std::vector<int64_t> expected;
    if (reduction == Reduction::none) expected = {batch};
    if (reduction == Reduction::map) expected = map_size;
    bool same = size_t(grad_loss.dim()) == expected.size() && same_device(grad_loss, x);
    for (size_t i = 0; same && i < expected.size(); ++i) same = grad_loss.size(int64_t(i)) == expected[i];
    same = same && (reduction != Reduction::map || grad_loss.scalar_type() == arithmetic(x));
    check(same, "grad_loss: expected the shape and device of the loss and, of a map, its dtype");
  }
};

struct OutputSize {
  int64_t height, width;
  double count() const { return double(height) * double(width); }
};

inline OutputSize output_size(const Problem& p) {
  const int64_t r = largest_radius(p), crop = p.padding == Padding::valid ? 2 * r : 0;
  check(p.height > crop && p.width > crop && (p.padding != Padding::reflect || (p.height > r && p.width > r)),
        "the window does not fit into the image");
  return {p.height - crop, p.width - crop};
}

// The windows of a volume, along its depth, height and width.
class VolumeWindows {
 public:
  VolumeWindows(const std::vector<double>& sigmas, const std::vector<int64_t>& sizes) {
    check(sigmas.size() == 3 && sizes.size() == 3, "sigmas and window_sizes: expected three of each");
    for (size_t i = 0; i < 3; ++i)
      windows_.push_back(
          std::make_unique<Windows>(std::vector<double>{sigmas[i]}, std::vector<int64_t>{sizes[i]}));
  }
  const Window& operator[](int i) const { return windows_[size_t(i)]->data()[0]; }

 private:
  std::vector<std::unique_ptr<Windows>> windows_;
};

inline VolumeProblem volume_problem(const Call& call, const VolumeWindows& windows) {
  VolumeProblem p{};
  p.batch = call.batch, p.channels = call.channels;
  p.size[0] = call.depth, p.size[1] = call.height, p.size[2] = call.width;
  p.padding = call.padding;
  for (int i = 0; i < 3; ++i) p.windows[i] = windows[i];
  p.ssim_weight = call.ssim_weight, p.l1_weight = call.l1_weight;
  p.c1 = call.k1 * call.k1, p.c2 = call.k2 * call.k2;
  p.inverse_range = 1 / call.data_range;
  if (call.inverse_ranges) p.inverse_ranges = static_cast<const double*>(call.inverse_ranges->data_ptr());
  p.x = volumes(call.x), p.y = volumes(call.y);
  if (call.mask) p.mask = weights(*call.mask);
  return p;
}

// Of a volume's plane, and the size of a loss map: [N, C, D', H', W'].
struct VolumeCounts {
  double positions = 1, voxels = 1;
  std::vector<int64_t> map_size;

  explicit VolumeCounts(const VolumeProblem& p) : map_size{p.batch, p.channels} {
    for (int i = 0; i < 3; ++i) {
      const int64_t r = p.windows[i].radius, crop = p.padding == Padding::valid ? 2 * r : 0;
      check(p.size[i] > crop && (p.padding != Padding::reflect || p.size[i] > r),
            "the window does not fit into the volume");
      map_size.push_back(p.size[i] - crop);
      positions *= double(map_size.back()), voxels *= double(p.size[i]);
    }
  }
};

// A tensor of images or volumes as images: all slices of a volume at once, one below the other, where they
// lie as densely as their rows, else one by one.
struct Slices {
  Images images;
  int64_t height;
};
inline std::vector<Slices> slices_of(const Tensor& t) {
  const Volumes all = volumes(t);
  const int64_t depth = t.dim() == 5 ? t.size(2) : 1, height = t.size(int(t.dim()) - 2);
  // The kernels take fewer than 2^31 rows.
  if (depth == 1 || (all.stride_d == height * all.first.stride_h && depth * height < int64_t(1) << 31))
    return {{all.first, depth * height}};
  std::vector<Slices> slices;
  for (int64_t i = 0; i < depth; ++i) slices.push_back({all.at(i), height});
  return slices;
}

}  // namespace ssimloss
