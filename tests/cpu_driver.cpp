// Runs every kind of call of csrc/cpu/kernels.h on small images, without torch: for the sanitizers, and on
// machines that have none.
//
// cpu_driver threads [part of the cases' names]: prints the kernels' name, and of each case its name, numbers
// that are about the same on every machine, and a hash of all that it wrote. Exits with 1 if anything was
// left unwritten or is not finite. All memory is of its exact size and full of NaN, scratch memory at every
// call.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../csrc/cpu/kernels.h"
#include "../csrc/windows.h"

namespace ssimloss {

// The PLANT_ are bugs for the sanitizers to see.
void* scratch(size_t bytes) {
#ifdef PLANT_SHARED_SCRATCH
  alignas(4096) static char shared[1 << 24];
  return bytes <= sizeof(shared) ? shared : nullptr;
#endif
#ifdef PLANT_SHORT_SCRATCH
  bytes -= bytes / 8;
#endif
  struct Memory {
    void* data = nullptr;
    ~Memory() { std::free(data); }
  };
  static thread_local Memory memory;
  std::free(memory.data);
  if (posix_memalign(&memory.data, 4096, bytes)) std::abort();
  std::memset(memory.data, 0xff, bytes);
  return memory.data;
}

}  // namespace ssimloss

using namespace ssimloss;

namespace {

int threads = 1, failures = 0;
std::string filter;
std::mt19937 generator;

float bfloat16(float value, uint16_t* bits) {  // truncated
  uint32_t all;
  std::memcpy(&all, &value, 4);
  *bits = uint16_t(all >> 16), all &= 0xffff0000;
  std::memcpy(&value, &all, 4);
  return value;
}

float from_float16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const float value =
      exponent ? std::ldexp(1024.f + float(bits & 1023), exponent - 25) : std::ldexp(float(bits & 1023), -24);
  return bits >> 15 ? -value : value;
}

// [n, c, h, w] in memory of its exact size, full of NaN (of ones, where bytes are kept).
struct Array {
  int64_t n, c, h, w;
  DType dtype;
  bool channels_last;
  std::vector<unsigned char> bytes;

  Array(int64_t n_, int64_t c_, int64_t h_, int64_t w_, DType dtype_, bool last = false)
      : n(n_), c(c_), h(h_), w(w_), dtype(dtype_), channels_last(last) {
    bytes.assign(size_t(count() * element_size(dtype)), 0xff);
    bytes.shrink_to_fit();
  }
  int64_t count() const { return n * c * h * w; }
  Images images() {
    if (channels_last) return {bytes.data(), dtype, c * h * w, 1, w * c, c};
    return {bytes.data(), dtype, c * h * w, h * w, w, 1};
  }
  Volumes volumes(int64_t depth) {  // whose slices lie one below the other
    Images first = images();
    return {first, h / depth * first.stride_h};
  }
  // low + (high - low) * noise that is a little smooth.
  void fill(double low, double high) {
    double value = 0.5;
    for (int64_t i = 0; i < count(); ++i) {
      value = 0.6 * value + 0.4 * double(generator() % 4096) / 4096;
      set(i, low + (high - low) * value);
    }
  }
  void set(int64_t i, double value) {
    unsigned char* const to = &bytes[size_t(i * element_size(dtype))];
    const float single = float(value);
    uint16_t half = 0;
    switch (dtype) {
      case DType::float64: std::memcpy(to, &value, 8); break;
      case DType::float32: std::memcpy(to, &single, 4); break;
      case DType::uint8: *to = static_cast<unsigned char>(255 * value); break;
      case DType::bfloat16: bfloat16(single, &half), std::memcpy(to, &half, 2); break;
      case DType::float16: {  // 1/4 to 1, in steps of 2^-12
        const int exponent = single < 0.5f ? 13 : 14;
        half = uint16_t(exponent << 10 | (int(std::ldexp(single, 25 - exponent)) & 1023));
        std::memcpy(to, &half, 2);
      }
    }
  }
  double get(int64_t i) const {
    const unsigned char* const at = &bytes[size_t(i * element_size(dtype))];
    double value;
    float single;
    uint16_t half;
    switch (dtype) {
      case DType::float64: return std::memcpy(&value, at, 8), value;
      case DType::float32: return std::memcpy(&single, at, 4), double(single);
      case DType::uint8: return *at;
      case DType::float16: return std::memcpy(&half, at, 2), double(from_float16(half));
      default: break;
    }
    std::memcpy(&half, at, 2);
    const uint32_t all = uint32_t(half) << 16;
    return std::memcpy(&single, &all, 4), double(single);
  }
};

class Case {
 public:
  explicit Case(const std::string& name) { std::printf("%s:", name.c_str()); }
  void add(const Array& array) {
    double sum = 0, sizes = 0;
    for (int64_t i = 0; i < array.count(); ++i) {
      const double value = array.get(i);
      bad_ += !std::isfinite(value);
      sum += value * double(1 + i % 7), sizes += std::abs(value);
    }
    add(sum, sizes, array.bytes.data(), array.bytes.size());
  }
  void add(const std::vector<double>& sums) {
    double ssim = 0, l1 = 0;
    for (size_t i = 0; i < sums.size(); i += 2) ssim += sums[i], l1 += sums[i + 1];
    bad_ += !std::isfinite(ssim + l1);
    add(ssim, l1, reinterpret_cast<const unsigned char*>(sums.data()), sums.size() * sizeof(double));
  }
  ~Case() {
    std::printf(" %016llx%s\n", static_cast<unsigned long long>(hash_), bad_ ? " NOT FINITE" : "");
    failures += bad_ > 0;
  }

 private:
  uint64_t hash_ = 14695981039346656037u;
  size_t bad_ = 0;

  void add(double one, double other, const unsigned char* bytes, size_t count) {
    std::printf(" %.9g %.9g", one, other);
    for (size_t i = 0; i < count; ++i) hash_ = (hash_ ^ bytes[i]) * 1099511628211u;
  }
};

// run(item) for all of them, on several threads.
template <class F>
void in_parallel(int64_t count, const F& run) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t item = next++; item < count; item = next++) run(item);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
}

struct Options {
  int64_t n = 1, c = 1, h = 37, w = 43;
  DType dtype = DType::float32, dtype_y = DType::float32;
  Padding padding = Padding::zeros;
  std::vector<double> sigmas = {1.5};
  std::vector<int64_t> sizes = {11};
  std::string what = "x";  // as in cuda_shim/driver.cpp
  bool channels_last = false, mask = false, bytes = false, l1_windowed = false, next = false,
       luminance = true;
  OddSide odd_side = OddSide::edge;
  double l1_weight = 0.2, highest = 1;
};

void run(const std::string& name, const Options& o) {
  if (name.find(filter) == std::string::npos) return;
  generator.seed(1);
  const CpuKernels& kernels = cpu_kernels();
  const Windows windows(o.sigmas, o.sizes);
  const DType out = o.dtype == DType::float64 ? DType::float64 : DType::float32;
  const bool map = o.what.rfind("map", 0) == 0;
  const bool want_x = o.what.find('x') != std::string::npos, want_y = o.what.find('y') != std::string::npos;
  const int64_t crop = o.padding == Padding::valid ? 2 * windows.radius() : 0;
  Problem p{};
  p.batch = o.n, p.channels = o.c, p.height = o.h, p.width = o.w, p.padding = o.padding;
  p.windows = windows.data(), p.scales = windows.count();
  p.luminance = o.luminance, p.l1_windowed = o.l1_windowed;
  p.ssim_weight = 0.8, p.l1_weight = o.l1_weight, p.c1 = 1e-4, p.c2 = 9e-4;
  p.inverse_range = 1, p.odd_side = o.odd_side;

  Array x(o.n, o.c, o.h, o.w, o.dtype, o.channels_last), y(o.n, o.c, o.h, o.w, o.dtype_y, o.channels_last);
  x.fill(0.25, o.highest), y.fill(0.25, o.highest);
  p.x = x.images(), p.y = y.images();
  Array grad_x = x, grad_y(o.n, o.c, o.h, o.w, o.dtype, o.channels_last);
  grad_x.bytes.assign(grad_x.bytes.size(), 0xff);
#ifdef PLANT_SHORT_GRADIENT
  grad_x.bytes.pop_back(), grad_x.bytes.shrink_to_fit();
#endif
  if (want_x) p.grad_x = grad_x.images();
  if (want_y) p.grad_y = grad_y.images();
  Array mask(1, o.c, o.h, o.w, o.bytes ? DType::uint8 : out);
  if (o.mask) {
    for (int64_t i = 0; i < mask.count(); ++i) mask.set(i, double(generator() % 4) / 3);
    for (int64_t i = 0; o.bytes && i < mask.count(); ++i) mask.bytes[size_t(i)] = generator() % 4 > 0;
    p.mask = mask.images(), p.mask.stride_n = 0;
  }
  Array grid(o.n, o.c, o.h - crop, o.w - crop, out);
  if (map) (want_x || want_y ? p.grad_map : p.loss_map) = grid.images();
  if (p.grad_map.data) grid.fill(0.25, 1);
  std::vector<double> gains(size_t(2 * o.n * o.c), 0.5);
  if (want_x || want_y) p.gains = gains.data();
  const Halving down{o.h, o.odd_side}, across{o.w, o.odd_side};
  Array next_m(o.n, o.c, down.size(), across.size(), out);
  Array next_d(o.n, o.c, down.size(), across.size(), DType::float64), next_mask = next_m;
  if (o.next) p.next_m = next_m.images(), p.next_d = next_d.images();
  if (o.next && o.mask) p.next_mask = next_mask.images();

  const Items items = kernels.items(p, threads);
  std::vector<double> sums(size_t(2 * items.planes * items.pieces));
  std::vector<unsigned char> beyond(size_t(items.planes * items.strips));
  p.plane_sums = sums.data(), p.beyond_float32 = beyond.data();
  const bool in_double = o.dtype == DType::float64;
  in_parallel(items.count(), [&](int64_t item) { kernels.similarity(p, items, item, in_double); });
  Items alone = items;
  alone.group = 1;
  bool any = false;
  for (const unsigned char one : beyond) any = any || one;
  in_parallel(any ? alone.count() : 0, [&](int64_t item) {
    const Place place(p, alone, item);
    if (beyond[size_t(place.group * items.strips + place.strip)]) kernels.similarity(p, alone, item, true);
  });

  Case result(name + (any ? " beyond float32" : ""));
  if (!map) result.add(sums);
  if (map) result.add(grid);
  if (want_x) result.add(grad_x);
  if (want_y) result.add(grad_y);
  if (o.next) result.add(next_m), result.add(next_d);
  if (p.next_mask.data) result.add(next_mask);
}

// What is done to gradients afterwards.
void run_scaling(const std::string& name, const Options& o) {
  if (name.find(filter) == std::string::npos) return;
  generator.seed(1);
  const Halving down{o.h, o.odd_side}, across{o.w, o.odd_side};
  Array fine(o.n, o.c, o.h, o.w, o.dtype, o.channels_last);
  Array coarse(o.n, o.c, down.size(), across.size(), o.dtype), mask = fine, coarse_mask = coarse;
  fine.fill(0.25, 1), coarse.fill(0.25, 1), mask.fill(0.25, 1), coarse_mask.fill(0.25, 1);
  const std::vector<double> gains(size_t(o.n * o.c), 0.75);
  const Scaling scaling{o.n, o.c, o.h, o.w, fine.images(), gains.data()};
  Unpooling unpooling{scaling, coarse.images(), o.odd_side, {}, {}};
  if (o.mask) unpooling.mask = mask.images(), unpooling.coarse_mask = coarse_mask.images();
  const int64_t rows = o.n * o.c * o.h, part = 7;
  const auto each_part = [&](const auto& run) {
    in_parallel((rows + part - 1) / part,
                [&](int64_t i) { run(i * part, i * part + part < rows ? i * part + part : rows); });
  };
  each_part([&](int64_t begin, int64_t end) { cpu_kernels().scale(scaling, begin, end); });
  each_part([&](int64_t begin, int64_t end) { cpu_kernels().unpool(unpooling, begin, end); });
  Case(name).add(fine);
}

void run_volume(const std::string& name, const Options& o) {
  if (name.find(filter) == std::string::npos) return;
  generator.seed(1);
  const Windows deep({0.8}, {3}), down({1.5}, {7}), across({1.2}, {5});
  const Windows* const windows[3] = {&deep, &down, &across};
  VolumeProblem p{};
  p.batch = o.n, p.channels = o.c, p.padding = o.padding;
  p.size[0] = 6, p.size[1] = o.h, p.size[2] = o.w;
  int64_t positions[3];
  for (int i = 0; i < 3; ++i) {
    p.windows[i] = windows[i]->data()[0];
    positions[i] = p.size[i] - (o.padding == Padding::valid ? 2 * windows[i]->radius() : 0);
  }
  p.ssim_weight = 0.8, p.l1_weight = o.l1_weight, p.c1 = 1e-4, p.c2 = 9e-4, p.inverse_range = 1;
  const DType out = o.dtype == DType::float64 ? DType::float64 : DType::float32;
  const bool map = o.what.rfind("map", 0) == 0;
  const bool want_x = o.what.find('x') != std::string::npos, want_y = o.what.find('y') != std::string::npos;
  Array x(o.n, o.c, 6 * o.h, o.w, o.dtype), y = x, grad_x = x, grad_y = x;
  Array grid(o.n, o.c, positions[0] * positions[1], positions[2], out);
  x.fill(0.25, 1), y.fill(0.25, 1);
  p.x = x.volumes(6), p.y = y.volumes(6);
  if (want_x) p.grad_x = grad_x.volumes(6);
  if (want_y) p.grad_y = grad_y.volumes(6);
  if (map) (want_x || want_y ? p.grad_map : p.loss_map) = grid.volumes(positions[0]);
  if (p.grad_map.first.data) grid.fill(0.25, 1);
  const std::vector<double> gains(size_t(2 * o.n * o.c), 0.5);
  if (want_x || want_y) p.gains = gains.data();
  const VolumeItems items = cpu_kernels().volume_items(p);
  std::vector<double> sums(size_t(2 * items.count()));
  p.plane_sums = sums.data();
  in_parallel(items.count(), [&](int64_t item) { cpu_kernels().volume(p, items, item); });
  Case result(name);
  map ? result.add(grid) : result.add(sums);
  if (want_x) result.add(grad_x);
  if (want_y) result.add(grad_y);
}

void run_all() {
  const std::vector<std::pair<std::string, Padding>> paddings = {{"valid ", Padding::valid},
                                                                 {"zeros ", Padding::zeros},
                                                                 {"reflect ", Padding::reflect},
                                                                 {"normalized ", Padding::normalized}};
  struct Form {
    std::string name;
    std::vector<double> sigmas;
    std::vector<int64_t> sizes;
    bool l1_windowed;
  };
  const double uniform = std::numeric_limits<double>::infinity();
  const std::vector<Form> forms = {
      {"l1 ", {}, {}, false},         {"ssim ", {1.5}, {11}, false},
      {"narrow ", {0.3}, {3}, false}, {"uniform ", {uniform}, {7}, true},
      {"wide ", {4}, {25}, true},     {"mix ", {0.5, 1, 2, 4}, {5, 9, 15, 25}, true}};
  for (const auto& [border, padding] : paddings) {
    for (const Form& form : forms) {
      Options o;
      o.padding = padding, o.sigmas = form.sigmas, o.sizes = form.sizes, o.l1_windowed = form.l1_windowed;
      const std::string start = border + form.name;
      for (const std::string what : {"", "x", "xy", "map", "map x"}) {
        o.what = what;
        run(start + what, o);
      }
      o.what = "x";
      for (const DType dtype : {DType::float64, DType::float16, DType::bfloat16}) {
        o.dtype = o.dtype_y = dtype;
        run(start + "dtype" + std::to_string(int(dtype)), o);
      }
      o.dtype = DType::float32, o.dtype_y = DType::uint8;
      run(start + "uint8", o);
      o.dtype_y = DType::float32, o.highest = 1000;
      run(start + "contrast", o);
      o.highest = 1, o.n = 2, o.c = 3, o.h = 33, o.w = 26, o.channels_last = true, o.what = "xy";
      run(start + "channels last", o);
      o.mask = !form.sigmas.empty();
      if (o.mask) run(start + "mask", o);
      o.dtype = o.dtype_y = DType::float64;
      if (o.mask) run(start + "mask dtype0", o);
      o.dtype = o.dtype_y = DType::float32, o.channels_last = o.mask = false;
      o.n = o.c = 1, o.h = 27, o.w = 1500, o.what = "x";
      run(start + "broad", o);
      o.mask = o.bytes = true;
      run(start + "broad bytes", o);
      o.mask = o.bytes = false;
      if (form.name != "ssim ") continue;
      o.w = 43, o.l1_weight = 0;
      for (const OddSide side : {OddSide::edge, OddSide::zeros, OddSide::drop}) {
        o.odd_side = side, o.next = true;
        const std::string odd = " odd" + std::to_string(int(side));
        run(start + "halved" + odd, o);
        o.mask = true;
        run(start + "halved mask" + odd, o);
        o.next = false;
        run_scaling("scaling " + border + "mask" + odd, o);
        o.mask = false;
        run_scaling("scaling " + border + odd, o);
        o.channels_last = true, o.c = 2, o.dtype = DType::float64;
        run_scaling("scaling " + border + "dtype0" + odd, o);
        o.channels_last = false, o.c = 1, o.dtype = DType::float32;
      }
    }
    if (padding == Padding::normalized) continue;
    Options o;
    o.padding = padding, o.c = 2, o.h = 17, o.w = 21;
    for (const std::string what : {"", "x", "xy", "map", "map x"}) {
      o.what = what;
      run_volume(border + "volume " + what, o);
    }
    for (const DType dtype : {DType::float64, DType::float16}) {
      o.dtype = dtype, o.what = "x";
      run_volume(border + "volume dtype" + std::to_string(int(dtype)), o);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  threads = count > 1 ? std::atoi(arguments[1]) : 1;
  filter = count > 2 ? arguments[2] : "";
  std::printf("%s\n", cpu_kernels().name);
  run_all();
  return failures > 0;
}
