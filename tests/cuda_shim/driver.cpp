// Runs every kind of call of csrc/cuda/api.h on small images, without torch: under the shim for the
// sanitizers and planted bugs, and on a GPU (built by nvcc) for compute-sanitizer.
//
// driver [part of the cases' names]: prints each case's name and a hash of all that it wrote, and exits with
// 1 if anything was left unwritten or is not finite.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cuda/route.h"
#include "../../csrc/windows.h"

using namespace ssimloss;

namespace {

void check_call(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Device memory of an exact size, filled with NaN: what lies beyond is the sanitizers' to see.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    check_call(cudaMalloc(&data_, bytes_ ? bytes_ : 1));
    check_call(cudaMemset(data_, 0xff, bytes_));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }
  void* data() const { return data_; }
  void set(const void* from) { check_call(cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice)); }
  std::vector<unsigned char> get() const {
    std::vector<unsigned char> all(bytes_);
    check_call(cudaMemcpy(all.data(), data_, bytes_, cudaMemcpyDeviceToHost));
    return all;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

struct Shape {
  int64_t n, c, h, w;
  int64_t count() const { return n * c * h * w; }
};

enum class Layout { plain, channels_last };

Images images_in(const Buffer& buffer, DType dtype, const Shape& s, Layout layout) {
  if (layout == Layout::plain) return {buffer.data(), dtype, s.c * s.h * s.w, s.h * s.w, s.w, 1};
  return {buffer.data(), dtype, s.c * s.h * s.w, 1, s.w * s.c, s.c};
}

// Smooth noise in 0..1, in the bits of dtype: float16 and bfloat16 from truncated float32.
std::vector<unsigned char> noise(const Shape& s, DType dtype, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<unsigned char> bytes(size_t(s.count() * element_size(dtype)));
  for (int64_t i = 0; i < s.count(); ++i) {
    const double value = 0.25 + double(random() % 1024) / 2048;  // 0.25 to 0.75: no float16 is subnormal
    unsigned char* to = &bytes[size_t(int64_t(i) * element_size(dtype))];
    const float single = float(value);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    uint16_t half = uint16_t(bits >> 16);
    if (dtype == DType::float16) half = uint16_t(((bits >> 23 & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff));
    if (dtype == DType::float64) std::memcpy(to, &value, 8);
    if (dtype == DType::float32) std::memcpy(to, &single, 4);
    if (element_size(dtype) == 2) std::memcpy(to, &half, 2);
  }
  return bytes;
}

bool finite(const unsigned char* at, DType dtype) {
  uint64_t bits = 0;
  std::memcpy(&bits, at, size_t(element_size(dtype)));
  const uint64_t exponent = dtype == DType::float64   ? 0x7ff0000000000000u
                            : dtype == DType::float32 ? 0x7f800000u
                            : dtype == DType::float16 ? 0x7c00u
                                                      : 0x7f80u;
  return (bits & exponent) != exponent;
}

int failures = 0;
std::string filter;

class Case {
 public:
  Case(const std::string& name) : name_(name) {}
  void add(const Buffer& buffer, DType dtype) {
    const auto bytes = buffer.get();
    for (const unsigned char byte : bytes) hash_ = (hash_ ^ byte) * 1099511628211u;
    for (size_t i = 0; i < bytes.size(); i += size_t(element_size(dtype))) bad_ += !finite(&bytes[i], dtype);
  }
  ~Case() {
    std::printf("%-60s %016llx%s\n", name_.c_str(), static_cast<unsigned long long>(hash_),
                bad_ ? "  NOT FINITE" : "");
    failures += bad_ > 0;
  }

 private:
  std::string name_;
  uint64_t hash_ = 14695981039346656037u;
  size_t bad_ = 0;
};

struct Options {
  Shape shape;
  DType dtype = DType::float32;
  Padding padding = Padding::valid;
  std::vector<double> sigmas = {1.5};
  std::vector<int64_t> sizes = {11};
  std::string what = "x";  // gradients to "x", "y" or "xy"; none for ""; "map", "map x" and so on
  Layout layout = Layout::plain;
  bool per_image = false, l1_windowed = false;
  double l1_weight = 0;
  std::vector<double> weights;  // of the dyadic form, if any
  OddSide odd_side = OddSide::edge;
  bool clamp = false;
  bool masked = false;  // one mask for each image, which leaves some pixels out: those are NaN
};

// Weights of which some are 0, some 1 and others between.
std::vector<unsigned char> some_weights(const Shape& s, DType dtype) {
  std::mt19937 random(5);
  std::vector<unsigned char> bytes(size_t(s.count() * element_size(dtype)));
  for (int64_t i = 0; i < s.count(); ++i) {
    const bool hole = i / s.w % s.h / 8 % 3 == 1 && i % s.w / 8 % 2 == 1;
    const double value = hole ? 0 : std::min(1., double(random() % 1024) / 512);
    const float single = float(value);
    dtype == DType::float64 ? std::memcpy(&bytes[size_t(8 * i)], &value, 8)
                            : std::memcpy(&bytes[size_t(4 * i)], &single, 4);
  }
  return bytes;
}

// NaN in all channels where a weight is 0.
void spoil(std::vector<unsigned char>& pixels, const std::vector<unsigned char>& weights, const Shape& s,
           DType dtype, DType of_weights) {
  const size_t size = size_t(element_size(dtype)), weight = size_t(element_size(of_weights));
  for (int64_t i = 0; i < s.count(); ++i) {
    const size_t at = size_t(i / (s.c * s.h * s.w) * s.h * s.w + i % (s.h * s.w)) * weight;
    if (std::all_of(&weights[at], &weights[at] + weight, [](unsigned char byte) { return byte == 0; }))
      std::memset(&pixels[size_t(i) * size], 0xff, size);
  }
}

// TSan is shown the blocks of a launch one after the other, in order: those of a second plane race like the
// first's.
#ifdef __SANITIZE_THREAD__
constexpr bool one_plane = true;
#else
constexpr bool one_plane = false;
#endif

void run(const std::string& name, Options o) {
  if (name.find(filter) == std::string::npos) return;
  if (one_plane && !o.masked && o.weights.empty() && o.layout == Layout::plain) o.shape.n = o.shape.c = 1;
  const Windows windows(o.sigmas, o.sizes);
  const DType out = o.dtype == DType::float64 ? DType::float64 : DType::float32;
  const size_t bytes = size_t(o.shape.count() * element_size(o.dtype));
  const bool map = o.what.rfind("map", 0) == 0;
  const bool want_x = o.what.find('x') != std::string::npos, want_y = o.what.find('y') != std::string::npos;
  const int64_t crop = o.padding == Padding::valid ? 2 * windows.radius() : 0;
  const Shape positions{o.shape.n, o.shape.c, o.shape.h - crop, o.shape.w - crop};
  const int64_t losses = o.per_image ? o.shape.n : 1;
  Buffer x(bytes), y(bytes), grad_x(bytes), grad_y(bytes);
  Buffer grid(size_t(positions.count() * element_size(out))), loss(size_t(losses * element_size(out)));
  Buffer incoming(size_t(losses * element_size(out)));
  auto pixels_x = noise(o.shape, o.dtype, 1), pixels_y = noise(o.shape, o.dtype, 2);
  const Shape one_channel{o.shape.n, 1, o.shape.h, o.shape.w};
  Buffer mask(size_t(one_channel.count() * element_size(out)));
  if (o.masked) {
    const auto weights = some_weights(one_channel, out);
    mask.set(weights.data());
    spoil(pixels_x, weights, o.shape, o.dtype, out), spoil(pixels_y, weights, o.shape, o.dtype, out);
  }
  x.set(pixels_x.data());
  y.set(pixels_y.data());
  incoming.set(noise({1, 1, 1, losses}, out, 3).data());

  Problem p{};
  p.batch = o.shape.n, p.channels = o.shape.c, p.height = o.shape.h, p.width = o.shape.w;
  p.padding = o.padding, p.windows = windows.data(), p.scales = windows.count();
  p.luminance = true, p.l1_windowed = o.l1_windowed;
  p.ssim_weight = 0.8, p.l1_weight = o.l1_weight;
  p.c1 = 1e-4, p.c2 = 9e-4, p.inverse_range = 1, p.odd_side = o.odd_side;
  p.x = images_in(x, o.dtype, o.shape, o.layout), p.y = images_in(y, o.dtype, o.shape, o.layout);
  if (o.masked) {
    p.mask = images_in(mask, out, one_channel, Layout::plain);
    p.mask.stride_c = 0;
  }
  if (want_x) p.grad_x = images_in(grad_x, o.dtype, o.shape, o.layout);
  if (want_y) p.grad_y = images_in(grad_y, o.dtype, o.shape, o.layout);
  const Scalars scalars{incoming.data(), out, o.per_image ? 1 : 0, nullptr};

  Case result(name);
  if (!o.weights.empty()) {
    DyadicCall call{};
    call.finest = p, call.weights = o.weights.data(), call.levels = int(o.weights.size());
    call.loss = loss.data(), call.per_image = o.per_image;
    call.grad_scale = 64, call.incoming = scalars, call.clamp = o.clamp;
    Buffer workspace(dyadic_cuda(call, nullptr, nullptr));
    dyadic_cuda(call, workspace.data(), nullptr);
    check_call(cudaDeviceSynchronize());
  } else {
    if (map) {
      (want_x || want_y ? p.grad_map : p.loss_map) = images_in(grid, out, positions, Layout::plain);
      if (want_x || want_y) grid.set(noise(positions, out, 4).data());
    }
    GaussianCall call{};
    call.problem = p, call.per_image = o.per_image;
    call.loss = map ? nullptr : loss.data();
    const double count = double(positions.h * positions.w * o.shape.c * o.shape.n);
    call.ssim_mean = p.ssim_weight / count, call.l1_mean = p.l1_weight / count;
    call.ssim_gain = call.l1_gain = 64 / count;
    if (!map) call.incoming = scalars;
    Buffer workspace(gaussian_cuda(call, nullptr, nullptr));
    gaussian_cuda(call, workspace.data(), nullptr);
    check_call(cudaDeviceSynchronize());
  }
  if (!map) result.add(loss, out);
  if (map) result.add(grid, out);
  if (want_x) result.add(grad_x, o.dtype);
  if (want_y) result.add(grad_y, o.dtype);
}

void run_scale(DType dtype, Layout layout) {
  const std::string name = "scale dtype" + std::to_string(int(dtype));
  if (name.find(filter) == std::string::npos) return;
  const Shape shape{2, 3, 13, 37};
  Buffer unit(size_t(shape.count()) * element_size(dtype)), by(2 * 4);
  unit.set(noise(shape, dtype, 1).data());
  by.set(noise({1, 1, 1, 2}, DType::float32, 2).data());
  scale_cuda({images_in(unit, dtype, shape, layout),
              shape.n,
              shape.c,
              shape.h,
              shape.w,
              {by.data(), DType::float32, 1, nullptr},
              0.5},
             nullptr);
  check_call(cudaDeviceSynchronize());
  Case result(name);
  result.add(unit, dtype);
}

void run_volume(const std::string& name, Padding padding, const std::string& what, DType dtype) {
  if (name.find(filter) == std::string::npos) return;
  const Windows deep({0.8}, {3}), down({1.5}, {7}), across({1.2}, {5});
  const Windows* const windows[3] = {&deep, &down, &across};
  const int64_t size[3] = {6, 37, 35}, planes = one_plane ? 1 : 2;
  int64_t positions[3];
  for (int i = 0; i < 3; ++i)
    positions[i] = size[i] - (padding == Padding::valid ? 2 * windows[i]->radius() : 0);
  // Images whose rows are all rows of a volume.
  const Shape all{1, planes, size[0] * size[1], size[2]},
      grid_shape{1, planes, positions[0] * positions[1], positions[2]};
  const auto volumes_in = [](const Buffer& buffer, DType type, const Shape& shape, int64_t rows) {
    return Volumes{images_in(buffer, type, shape, Layout::plain), rows * shape.w};
  };
  const DType out = dtype == DType::float64 ? DType::float64 : DType::float32;
  const bool map = what.rfind("map", 0) == 0;
  const bool want_x = what.find('x') != std::string::npos, want_y = what.find('y') != std::string::npos;
  const size_t bytes = size_t(all.count() * element_size(dtype));
  Buffer x(bytes), y(bytes), grad_x(bytes), grad_y(bytes), loss(size_t(element_size(out)));
  Buffer grid(size_t(grid_shape.count() * element_size(out)));
  x.set(noise(all, dtype, 1).data()), y.set(noise(all, dtype, 2).data());

  VolumeCall call{};
  VolumeProblem& p = call.problem;
  p.batch = 1, p.channels = planes, p.padding = padding;
  for (int i = 0; i < 3; ++i) p.size[i] = size[i], p.windows[i] = windows[i]->data()[0];
  p.ssim_weight = 0.8, p.l1_weight = 0.2, p.c1 = 1e-4, p.c2 = 9e-4, p.inverse_range = 1;
  p.x = volumes_in(x, dtype, all, size[1]), p.y = volumes_in(y, dtype, all, size[1]);
  if (want_x) p.grad_x = volumes_in(grad_x, dtype, all, size[1]);
  if (want_y) p.grad_y = volumes_in(grad_y, dtype, all, size[1]);
  if (map) {
    (want_x || want_y ? p.grad_map : p.loss_map) = volumes_in(grid, out, grid_shape, positions[1]);
    if (want_x || want_y) grid.set(noise(grid_shape, out, 4).data());
  }
  call.loss = map ? nullptr : loss.data();
  const double count = double(grid_shape.count());
  call.ssim_mean = p.ssim_weight / count, call.l1_mean = p.l1_weight / double(all.count());
  call.ssim_gain = call.l1_gain = 64 / count;
  Buffer workspace(volume_cuda(call, nullptr, nullptr));
  volume_cuda(call, workspace.data(), nullptr);
  check_call(cudaDeviceSynchronize());
  Case result(name);
  map ? result.add(grid, out) : result.add(loss, out);
  if (want_x) result.add(grad_x, dtype);
  if (want_y) result.add(grad_y, dtype);
}

void run_in_portions(const std::string& name, Options o) {
  const int64_t bytes = std::exchange(scratch_bytes, 1);
  o.sigmas = {0.5, 1, 3}, o.sizes = {3, 7, 19}, o.shape = {1, 1, 75, 24};
  run(name, o);
  o.dtype = DType::float64, o.shape = {1, 1, 100, 24};
  run(name + " dtype1", o);
  scratch_bytes = bytes;
}

// Under a mask, and with padding "normalized".
void run_weighted() {
  const std::vector<std::pair<std::string, Padding>> paddings = {{"valid", Padding::valid},
                                                                 {"zeros", Padding::zeros},
                                                                 {"reflect", Padding::reflect},
                                                                 {"normalized", Padding::normalized}};
  for (const auto& [border, padding] : paddings) {
    if (one_plane && padding != Padding::zeros) continue;  // a minute less: borders race alike
    Options o;
    o.padding = padding, o.masked = true, o.shape = {1, 2, 35, 41}, o.l1_weight = 0.2;
    for (const std::string what : {"", "x", "y", "xy", "map", "map x"}) {
      o.what = what;
      run("masked l1_ssim " + border + " " + what, o);
    }
    o.what = "x", o.l1_weight = 0;
    o.dtype = DType::float64;
    run("masked ssim " + border + " dtype1", o);
    o.dtype = DType::float32, o.per_image = true, o.shape.n = 2;
    run("masked ssim " + border + " an image", o);
    o.shape.n = 1;
    for (const int64_t taps : {1, 5, 33}) {
      o.sigmas = {double(taps) / 6}, o.sizes = {taps};
      run("masked ssim " + border + " taps" + std::to_string(taps), o);
    }
    o.l1_windowed = true, o.l1_weight = 0.3;
    o.sigmas = {2}, o.sizes = {15};
    run("masked mix of one scale " + border, o);
    o.sigmas = {0.5, 1, 2}, o.sizes = {5, 9, 15};
    for (const std::string what : {"", "x", "map", "map x"}) {
      o.what = what;
      run("masked mix " + border + " " + what, o);
    }
    o.what = "x", o.dtype = DType::float64;
    run("masked mix " + border + " dtype1", o);
    o.dtype = DType::float32;
    if (padding == Padding::zeros) run_in_portions("masked mix in portions", o);
    o.shape = {1, 2, 47, 50}, o.sigmas = {1.5}, o.sizes = {11}, o.weights = {0.3, 0.3, 0.4};
    for (const std::string what : {"", "x", "xy"}) {
      o.what = what;
      run("masked mix_dyadic " + border + " " + what, o);
    }
    o.odd_side = OddSide::zeros;
    run("masked mix_dyadic " + border + " zero halves", o);
    if (padding == Padding::normalized) {  // which alone weighs
      o.masked = false, o.what = "x";
      run("normalized mix_dyadic", o);
      o.weights.clear(), o.sigmas = {0.5, 1, 2}, o.sizes = {5, 9, 15};
      run("normalized mix", o);
    }
    o.masked = true, o.weights.clear(), o.sigmas.clear(), o.sizes.clear(), o.l1_windowed = false;
    for (const std::string what : {"", "xy", "map"}) {
      o.what = what;
      run("masked l1 alone " + border + " " + what, o);
    }
  }
}

void run_all() {
  const std::vector<std::pair<std::string, Padding>> paddings = {
      {"valid", Padding::valid}, {"zeros", Padding::zeros}, {"reflect", Padding::reflect}};
  const std::vector<std::pair<std::string, OddSide>> halvings = {
      {"edge", OddSide::edge}, {"zeros", OddSide::zeros}, {"drop", OddSide::drop}};
  for (const auto& [border, padding] : paddings) {
    Options o;
    o.padding = padding;
    for (const std::string what : {"", "x", "y", "xy", "map", "map x", "map xy"}) {
      o.shape = {1, 2, 35, 41}, o.what = what;
      run("ssim " + border + " " + what, o);
      o.l1_weight = 0.2;
      run("l1_ssim " + border + " " + what, o);
      o.l1_weight = 0;
    }
    o.what = "x";
    for (const DType dtype : {DType::float64, DType::float16, DType::bfloat16}) {
      o.dtype = dtype;
      run("ssim " + border + " dtype" + std::to_string(int(dtype)), o);
      run_scale(dtype, Layout::plain);
    }
    o.dtype = DType::float32;
    o.layout = Layout::channels_last, o.shape = {2, 3, 33, 20}, o.per_image = true;
    run("ssim " + border + " channels_last", o);
    o.layout = Layout::plain;
    o.shape = {1, 1, 12, 260};
    run("ssim " + border + " wide", o);
    o.shape = {1, 1, 150, 12};
    run("ssim " + border + " tall", o);
    o.per_image = false, o.shape = {1, 1, 40, 75};
    for (const int64_t taps : {1, 3, 5, 9, 29, 65}) {
      o.sigmas = {double(taps) / 6}, o.sizes = {taps};
      if (taps == 65) o.shape = {1, 1, 66, 71};
      run("ssim " + border + " taps" + std::to_string(taps), o);
    }
    o.l1_windowed = true, o.l1_weight = 0.3, o.shape = {1, 2, 39, 45};
    o.sigmas = {2}, o.sizes = {15};
    for (const std::string what : {"", "x", "xy", "map", "map x"}) {
      o.what = what;
      run("mix of one scale " + border + " " + what, o);
    }
    o.sigmas = {0.5, 1, 2}, o.sizes = {5, 9, 15};
    for (const std::string what : {"", "x", "xy", "map", "map x"}) {
      o.what = what;
      run("mix " + border + " " + what, o);
    }
    o.shape = {1, 1, 59, 61}, o.what = "x";
    o.sigmas = {0.5, 1, 2, 4, 8}, o.sizes = {5, 9, 15, 29, 57};
    run("mix " + border + " default", o);
    if (padding == Padding::zeros) run_in_portions("mix in portions", o);
    o.sigmas = {1.5}, o.sizes = {11}, o.weights = {0.3, 0.3, 0.4}, o.shape = {1, 2, 47, 50};
    for (const std::string what : {"", "x", "xy"}) {
      o.what = what;
      run("mix_dyadic " + border + " " + what, o);
    }
    o.weights.clear(), o.sigmas.clear(), o.sizes.clear(), o.l1_windowed = false;
    for (const Layout layout : {Layout::plain, Layout::channels_last}) {
      o.layout = layout, o.shape = {2, 3, 35, 61};
      for (const std::string what : {"", "x", "xy", "map", "map xy"}) {
        o.what = what;
        run("l1 alone " + border + (layout == Layout::plain ? " " : " channels_last ") + what, o);
      }
    }
    o.layout = Layout::plain, o.l1_windowed = true, o.what = "xy";
    o.sigmas = {1.5}, o.sizes = {11}, o.weights = {0.3, 0.3, 0.4};
    o.l1_weight = 0, o.per_image = true, o.shape = {2, 1, 50, 47};
    run("ms_ssim " + border, o);
    o.sizes = {9}, o.clamp = true;  // by the pool kernel
    for (const auto& [name, odd_side] : halvings) {
      o.odd_side = odd_side;
      run("ms_ssim by pool " + border + " " + name, o);
    }
    o.sizes = {11}, o.clamp = false;
    for (const auto& [name, odd_side] : halvings) {
      o.odd_side = odd_side;
      run("ms_ssim " + border + " " + name, o);
    }
    o.odd_side = OddSide::edge;
    if (padding != Padding::zeros) continue;
    o.weights = std::vector<double>(6, 1.0 / 6),
    o.shape = {1, 1, 45, 187};  // more levels than one launch makes
    run("ms_ssim six levels", o);
    o.weights = {0.5, 0.5}, o.shape = {1, 65, 5, 6}, o.per_image = false;  // the mean of many planes
    run("ms_ssim many planes", o);
  }
  run_scale(DType::float32, Layout::channels_last);
  run_weighted();
  for (const auto& [border, padding] : paddings) {
    for (const std::string what : {"", "x", "y", "xy", "map", "map x", "map xy"})
      run_volume("volume " + border + " " + what, padding, what, DType::float32);
    for (const DType dtype : {DType::float64, DType::float16})
      run_volume("volume " + border + " dtype" + std::to_string(int(dtype)), padding, "x", dtype);
  }
}

}  // namespace

int main(int count, char** arguments) {
  filter = count > 1 ? arguments[1] : "";
  try {
    run_all();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return failures > 0;
}
