// The operators on CPU tensors: tensors become plain problems, items run on torch's threads, and the
// items' sums become losses. No loop over pixels here.
#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "../cpu/kernels.h"
#include "cpu_range.h"
#include "cpu_weights.h"
#include "gradient_memory.h"
#include "ops.h"

namespace ssimloss {
namespace {

double value_at(const Tensor& t, int64_t i) {  // of a tensor [] or [N]
  const int64_t offset = t.dim() == 0 ? 0 : i * t.stride(0);
  switch (t.scalar_type()) {
    case ScalarType::Double: return static_cast<const double*>(t.data_ptr())[offset];
    case ScalarType::Float: return static_cast<const float*>(t.data_ptr())[offset];
    default: check(false, "grad_loss: expected float32 or float64"); return 0;
  }
}

void set_value(const Tensor& t, int64_t i, double value) {
  if (t.scalar_type() == ScalarType::Double) {
    static_cast<double*>(t.data_ptr())[i] = value;
  } else {
    static_cast<float*>(t.data_ptr())[i] = float(value);
  }
}

template <class S>
size_t bytes_of(const S& sizes, ScalarType dtype) {
  size_t bytes = dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
  for (const int64_t size : sizes) bytes *= size_t(size);
  return bytes;
}

// A dense tensor without values that never leaves the call: torch cannot resize it.
Tensor fresh(const Tensor& like, const Sizes& sizes, const Sizes& strides, ScalarType dtype) {
  const size_t bytes = bytes_of(sizes, dtype);
  void* const memory = take_memory(bytes);
  if (!memory) throw std::runtime_error("ssimloss: no memory for " + std::to_string(bytes) + " bytes");
  return torch::stable::from_blob(memory, {sizes.data(), sizes.size()}, {strides.data(), strides.size()},
                                  like.device(), dtype, give_memory_back);
}

// Whether the elements lie without gaps in this order of dimensions.
bool dense_in(const Tensor& t, std::initializer_list<int> outermost_first) {
  int64_t stride = 1;
  for (auto i = std::rbegin(outermost_first); i != std::rend(outermost_first); ++i) {
    if (t.stride(*i) != stride) return false;
    stride *= t.size(*i);
  }
  return true;
}

// A gradient of `like`, with the strides of torch's empty_like, of which only the common ones are known here:
// those of dense images and volumes.
Tensor fresh_gradient(const Tensor& like) {
  const bool dense = like.dim() == 4 ? dense_in(like, {0, 1, 2, 3}) || dense_in(like, {0, 2, 3, 1})
                                     : dense_in(like, {0, 1, 2, 3, 4}) || dense_in(like, {0, 2, 3, 4, 1});
  const size_t bytes = bytes_of(std::array<int64_t, 1>{like.numel()}, like.scalar_type());
  if (!dense || bytes < least_held_gradient) return torch::stable::empty_like(like);
  std::array<StableIValue, 1> stack{torch::stable::detail::from(like)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(SSIMLOSS_OPERATOR("gradient_like"), "", stack.data(), TORCH_ABI_VERSION));
  const Tensor gradient = torch::stable::detail::to<Tensor>(stack[0]);
  prefer_huge_pages(gradient.data_ptr(), bytes);
  return gradient;
}

template <class F>
void parallel(int64_t count, int64_t grain, const F& run) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, run);
}

void scale_all(const Scaling& scaling) {
  parallel(scaling.batch * scaling.channels * scaling.height, 16,
           [&](int64_t begin, int64_t end) { cpu_kernels().scale(scaling, begin, end); });
}

// An op call on the CPU.
struct CpuCall : Call {
  static constexpr bool map_beside_gradient = true;  // out of one run
  const bool swapped;  // the losses are symmetric: y's gradient alone is computed as x's

  template <class... Args>
  explicit CpuCall(const Args&... args) : Call(args...), swapped(want_y && !want_x) {
    check(x.is_cpu() && y.is_cpu(), "x and y: expected tensors on the CPU");
    if (swapped) std::swap(x, y), std::swap(want_x, want_y);
  }

  std::tuple<Tensor, Tensor, Tensor> results(const Tensor& loss) const {
    return swapped ? std::make_tuple(loss, grad_y, grad_x) : std::make_tuple(loss, grad_x, grad_y);
  }

  // The same call for channel c of image n alone.
  CpuCall plane(int64_t n, int64_t c) const {
    const auto view = [&](const Tensor& t) {
      using torch::stable::narrow;
      Tensor image = t;
      if (t.dim() != 4) return image;
      image = narrow(image, 0, n, 1);
      return narrow(image, 1, c, 1);
    };
    CpuCall one = *this;
    one.x = view(x), one.y = view(y), one.grad_x = view(grad_x), one.grad_y = view(grad_y);
    if (inverse_ranges) one.inverse_ranges = torch::stable::narrow(*one.inverse_ranges, 0, n, 1);
    if (mask && mask->size(0) > 1) one.mask = torch::stable::narrow(*one.mask, 0, n, 1);
    if (mask && mask->size(1) > 1) one.mask = torch::stable::narrow(*one.mask, 1, c, 1);
    one.batch = one.channels = 1;
    return one;
  }

  void make_gradients() {
    if (want_x) grad_x = fresh_gradient(x);
    if (want_y) grad_y = fresh_gradient(y);
  }

  // The losses of all planes -> [], [N]; the sum over the planes is in their order, on one thread.
  Tensor reduced(const std::vector<double>& plane_losses) const {
    const bool mean = reduction == Reduction::mean;
    const Tensor loss = mean ? empty(x, std::array<int64_t, 0>{}, arithmetic(x))
                             : empty(x, std::array<int64_t, 1>{batch}, arithmetic(x));
    reduce(plane_losses, loss, 0);
    return loss;
  }

  // The same into elements [first, ...) of a tensor.
  void reduce(const std::vector<double>& plane_losses, const Tensor& to, int64_t first) const {
    const bool mean = reduction == Reduction::mean;
    for (int64_t i = 0; i < (mean ? 1 : batch); ++i) {
      double sum = 0;
      const int64_t count = mean ? planes() : channels;
      for (int64_t j = 0; j < count; ++j) sum += plane_losses[size_t(i * count + j)];
      set_value(to, first + i, sum / double(count));
    }
  }

  // The gain of every plane: the incoming gradient of its loss, or 1 where none is given; by its own range.
  std::vector<double> incoming(const Tensor* grad_loss) const {
    std::vector<double> gains(size_t(planes()), 1.0);
    for (int64_t i = 0; grad_loss && i < planes(); ++i) {
      gains[size_t(i)] = value_at(*grad_loss, grad_loss->dim() == 0 ? 0 : i / channels);
    }
    for (int64_t i = 0; inverse_ranges && i < planes(); ++i)
      gains[size_t(i)] *= value_at(*inverse_ranges, i / channels);
    return gains;
  }

  // How many planes share a mean.
  size_t together() const { return size_t(reduction == Reduction::mean ? planes() : channels); }

  // What the means are over: the positions, less so many pixels on every side; l1's too, or all pixels.
  Counts counts(const Sides& crop, bool l1_of_positions) const {
    const Volumes counted = mask && reduction != Reduction::map ? weights(*mask) : Volumes{};
    return counts_of(counted, batch, channels, {depth, height, width}, crop, l1_of_positions, together());
  }

  // The gains of every plane's terms.
  std::vector<double> gains(const Tensor* grad_loss, double unit_scale, const Counts& counts) const {
    const bool map = reduction == Reduction::map;
    const double averaged = map ? 1 : averaged_planes(), scale = unit_scale / data_range;
    std::vector<double> gains;
    for (const double gain : incoming(map ? nullptr : grad_loss)) {
      const size_t i = gains.size() / 2;
      gains.push_back(gain * scale * ssim_weight / (map ? 1 : averaged * counts.ssim[i]));
      gains.push_back(gain * scale * l1_weight / (map ? 1 : averaged * counts.l1[i]));
    }
    return gains;
  }

  // The loss, of every plane's sums; and the terms, where they are wanted.
  Tensor reduced(const std::vector<std::array<double, 2>>& sums, const Counts& counts) {
    if (terms) {
      terms = make_terms();
      for (size_t which = 0; which < 2; ++which) {
        std::vector<double> of_planes;
        for (size_t i = 0; i < sums.size(); ++i)
          of_planes.push_back(sums[i][which] / (which ? counts.l1 : counts.ssim)[i]);
        reduce(of_planes, *terms, reduction == Reduction::mean ? int64_t(which) : int64_t(which) * batch);
      }
    }
    std::vector<double> losses;
    for (size_t i = 0; i < sums.size(); ++i)
      losses.push_back(ssim_weight * (sums[i][0] / counts.ssim[i]) + l1_weight * (sums[i][1] / counts.l1[i]));
    return reduced(losses);
  }
};

// run(item) for all of them. A thread does its own items first, which lie near each other in memory; then
// what another, on a core that is busy with other work, has not begun, from the end of what it has to do.
template <class F>
void each_item(int64_t count, const F& run) {
  std::vector<std::atomic<bool>> begun(static_cast<size_t>(count));
  parallel(count, 1, [&](int64_t begin, int64_t end) {
    const auto take = [&](int64_t item) {
      std::atomic<bool>& taken = begun[size_t(item)];
      if (!taken.load(std::memory_order_relaxed) && !taken.exchange(true)) run(item);
    };
    for (int64_t item = begin; item < end; ++item) take(item);
    for (int64_t item = begin - 1; item >= 0; --item) take(item);
    for (int64_t item = count - 1; item >= end; --item) take(item);
  });
}

// The sums of each plane, of those of its pieces in their order.
std::vector<std::array<double, 2>> sums_of_planes(const std::vector<double>& sums, int64_t count) {
  std::vector<std::array<double, 2>> planes(size_t(count), {0, 0});
  const size_t pieces = count > 0 ? sums.size() / 2 / size_t(count) : 0;
  for (size_t i = 0; i < planes.size() * pieces; ++i) {
    planes[i / pieces][0] += sums[2 * i];
    planes[i / pieces][1] += sums[2 * i + 1];
  }
  return planes;
}

// Run all items of p; returns each plane's sums of the ssim and the l1 terms, in order of the items.
std::vector<std::array<double, 2>> run_items(Problem p) {
  const CpuKernels& kernels = cpu_kernels();
  const Items items = kernels.items(p, int64_t(torch::stable::get_num_threads()));
  std::vector<double> sums(size_t(2 * items.planes * items.pieces));
  p.plane_sums = sums.data();
  std::vector<unsigned char> beyond_float(static_cast<size_t>(items.planes * items.strips));
  p.beyond_float32 = beyond_float.data();
  const bool in_double = p.x.dtype == DType::float64;
  each_item(items.count(), [&](int64_t item) { kernels.similarity(p, items, item, in_double); });
  // What float32 cannot hold once more, in double, and no other plane.
  Items alone = items;
  alone.group = 1;
  const bool any_beyond =
      std::count(beyond_float.begin(), beyond_float.end(), 0) < int64_t(beyond_float.size());
  parallel(any_beyond ? alone.count() : 0, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const Place place(p, alone, item);
      if (beyond_float[size_t(place.group * items.strips + place.strip)])
        kernels.similarity(p, alone, item, true);
    }
  });
  return sums_of_planes(sums, items.planes);
}

// ---- Gaussian form: all scales at full resolution; one scale is SSIM.

std::tuple<Tensor, Tensor, Tensor> run(CpuCall& call, const GaussianOptions& options, const Tensor* grad_loss,
                                       double unit_scale) {
  const Windows windows(options.sigmas, options.window_sizes);
  if (windows.count() > 0) check_range(call);  // l1 alone knows no range
  call.l1_windowed = options.l1_windowed;
  Problem p = call.problem(windows);
  const OutputSize out = output_size(p);
  const bool map = call.reduction == Reduction::map;
  if (grad_loss) call.check_incoming(*grad_loss, {call.batch, call.channels, out.height, out.width});
  const int64_t crop = (call.height - out.height) / 2;
  const Counts counts = call.counts({0, crop, crop}, call.l1_windowed || map);
  std::vector<double> gains;
  Tensor loss = nothing(call.x);
  if (map && !grad_loss) {
    loss = empty(call.x, Sizes{call.batch, call.channels, out.height, out.width}, arithmetic(call.x));
    p.loss_map = images(loss);
  }
  if (call.want_map) {
    call.map = empty(call.x, Sizes{call.batch, call.channels, out.height, out.width}, arithmetic(call.x));
    p.loss_map = images(*call.map);
  }
  if ((grad_loss || !map) && (call.want_x || call.want_y)) {
    call.make_gradients();
    if (call.want_x) p.grad_x = images(call.grad_x);
    if (call.want_y) p.grad_y = images(call.grad_y);
    if (map) p.grad_map = images(*grad_loss);
    gains = call.gains(grad_loss, unit_scale, counts);
    p.gains = gains.data();
  }
  const auto sums = run_items(p);
  if (map || grad_loss) return call.results(loss);
  return call.results(call.reduced(sums, counts));
}

// ---- Volumes.

std::tuple<Tensor, Tensor, Tensor> run(CpuCall& call, const VolumeOptions& options, const Tensor* grad_loss,
                                       double unit_scale) {
  const VolumeWindows windows(options.sigmas, options.window_sizes);
  check_range(call);
  VolumeProblem p = volume_problem(call, windows);
  const VolumeCounts sizes(p);
  const bool map = call.reduction == Reduction::map;
  if (grad_loss) call.check_incoming(*grad_loss, sizes.map_size);
  const auto crop = [&](int i) { return p.padding == Padding::valid ? int64_t(windows[i].radius) : 0; };
  const Counts counts = call.counts({crop(0), crop(1), crop(2)}, map);
  std::vector<double> gains;
  Tensor loss = nothing(call.x);
  if (map && !grad_loss) {
    loss = empty(call.x, sizes.map_size, arithmetic(call.x));
    p.loss_map = volumes(loss);
  }
  if (call.want_map) {
    call.map = empty(call.x, sizes.map_size, arithmetic(call.x));
    p.loss_map = volumes(*call.map);
  }
  if ((grad_loss || !map) && (call.want_x || call.want_y)) {
    call.make_gradients();
    if (call.want_x) p.grad_x = volumes(call.grad_x);
    if (call.want_y) p.grad_y = volumes(call.grad_y);
    if (map) p.grad_map = volumes(*grad_loss);
    gains = call.gains(grad_loss, unit_scale, counts);
    p.gains = gains.data();
  }
  const CpuKernels& kernels = cpu_kernels();
  const VolumeItems items = kernels.volume_items(p);
  std::vector<double> sums(size_t(2 * items.count()));
  p.plane_sums = sums.data();
  each_item(items.count(), [&](int64_t item) { kernels.volume(p, items, item); });
  if (map || grad_loss) return call.results(loss);
  return call.results(call.reduced(sums_of_planes(sums, items.planes), counts));
}

// ---- Dyadic form: a pyramid of halved images, the mean of cs at each level.

struct Level {
  Problem problem;
  Tensor m, d, mask;      // the images of the coarser levels, in units of the data range, and their weights
  Tensor grad_x, grad_y;  // their gradients
  std::vector<double> log_slopes;
};

Tensor plane_tensor(const CpuCall& call, const Problem& p, ScalarType dtype) {
  const int64_t plane = p.height * p.width;
  return fresh(call.x, {call.batch, call.channels, p.height, p.width},
               {call.channels * plane, plane, p.width, 1}, dtype);
}

// The levels of the call's images; the coarser ones are filled in by the run of the one before. Their tensors
// are those of the call before, if `all` has it: fresh memory costs more than it takes to fill it.
void pyramid(const CpuCall& call, const Problem& finest, size_t levels, std::vector<Level>& all) {
  const bool first = all.empty();
  all.resize(levels, Level{finest, call.x, call.x, call.x, call.grad_x, call.grad_y, {}});
  all[0] = Level{finest, call.x, call.x, call.x, call.grad_x, call.grad_y, {}};
  for (size_t j = 0; j < levels; ++j) {
    Problem& p = all[j].problem;
    p = finest;
    all[j].log_slopes.clear();
    if (j > 0) {
      Problem& above = all[j - 1].problem;
      p.height = Halving{above.height, p.odd_side}.size();
      p.width = Halving{above.width, p.odd_side}.size();
      p.l1_weight = 0;
      p.sum_difference = true;
      if (first) {
        all[j].m = plane_tensor(call, p, arithmetic(call.x));
        all[j].d = plane_tensor(call, p, ScalarType::Double);
        if (call.mask) all[j].mask = plane_tensor(call, p, arithmetic(call.x));
        if (call.want_x) all[j].grad_x = plane_tensor(call, p, arithmetic(call.x));
        if (call.want_y) all[j].grad_y = plane_tensor(call, p, arithmetic(call.x));
      }
      p.x = above.next_m = images(all[j].m), p.y = above.next_d = images(all[j].d);
      if (call.mask) p.mask = above.next_mask = images(all[j].mask);
    }
    p.luminance = j + 1 == levels;
    output_size(p);
  }
}

// The losses of the call's planes; their gradients times incoming[plane] * scale in its tensors.
std::vector<double> dyadic_planes(const CpuCall& call, const DyadicOptions& options, const Windows& windows,
                                  const double* incoming, const Share* shares, double scale,
                                  std::vector<Level>& levels) {
  const std::vector<double>& weights = options.weights;
  const bool clamp = clamps(options.negative);
  Problem finest = call.problem(windows);
  finest.odd_side = odd_side_of(options.halving);
  pyramid(call, finest, weights.size(), levels);
  const bool gradient = call.want_x || call.want_y, with_l1 = call.l1_weight != 0;
  const size_t planes = size_t(call.planes());
  std::vector<double> logs(planes, 0.0), losses(planes, 0.0), gains(2 * planes), factors(planes);

  const auto counts_of = [&](const Problem& p) {
    const OutputSize out = output_size(p);
    if (!call.mask) return std::vector<double>(planes, out.count());
    std::vector<double> sums = sums_of_weights(p, (p.height - out.height) / 2);
    for (double& sum : sums) sum = sum == 0 ? 1 : sum;  // of a level that keeps no position the loss is 0
    return sums;
  };
  const auto run_level = [&](Level& level, bool with_gradient) {
    Problem p = level.problem;
    if (with_gradient) {
      if (call.want_x) p.grad_x = images(level.grad_x);
      if (call.want_y) p.grad_y = images(level.grad_y);
      p.gains = gains.data();
    }
    return run_items(p);
  };
  // Every level's gradient is that of its own mean; the product's factors are only known at the end.
  for (size_t j = 0; j < levels.size(); ++j) {
    const std::vector<double> counts = counts_of(levels[j].problem);
    for (size_t i = 0; i < 2 * planes; ++i) gains[i] = scale * call.ssim_weight / counts[i / 2];
    const auto sums = run_level(levels[j], gradient && !(with_l1 && j == 0));
    for (size_t i = 0; i < planes; ++i) {
      const LogPower log = log_power(sums[i][0] / counts[i], weights[j], clamp);
      logs[i] += log.value;
      levels[j].log_slopes.push_back(log.slope);
      if (j == 0) losses[i] = call.l1_weight * (sums[i][1] / shares[i].l1);
    }
  }
  for (size_t i = 0; i < planes; ++i) losses[i] += shares[i].kept * call.ssim_weight * -std::expm1(logs[i]);
  if (!gradient) return losses;

  for (size_t j = levels.size(); j-- > 0;) {
    for (size_t i = 0; i < planes; ++i)
      factors[i] = shares[i].kept * incoming[i] * std::exp(logs[i]) * levels[j].log_slopes[i];
    if (with_l1 && j == 0) {  // l1's gradient shares this level's pass, but not the product's factor
      Problem& p = levels[0].problem;
      p.next_m = p.next_d = p.next_mask = Images{};  // the coarser level is there
      const std::vector<double> counts = counts_of(p);
      for (size_t i = 0; i < planes; ++i) {
        gains[2 * i] = scale * call.ssim_weight / counts[i] * factors[i];
        gains[2 * i + 1] = scale * call.l1_weight / shares[i].l1 * incoming[i];
        factors[i] = 1;
      }
      run_level(levels[0], true);
    }
    const auto add_coarser = [&](Tensor Level::* grad) {
      const Problem& p = levels[j].problem;
      const Scaling scaling{p.batch, p.channels, p.height, p.width, images(levels[j].*grad), factors.data()};
      if (j + 1 == levels.size()) return scale_all(scaling);
      const Unpooling unpooling{scaling, images(levels[j + 1].*grad), p.odd_side, p.mask,
                                levels[j + 1].problem.mask};
      parallel(call.planes() * p.height, 16,
               [&](int64_t begin, int64_t end) { cpu_kernels().unpool(unpooling, begin, end); });
    };
    if (call.want_x) add_coarser(&Level::grad_x);
    if (call.want_y) add_coarser(&Level::grad_y);
  }
  return losses;
}

std::tuple<Tensor, Tensor, Tensor> run(CpuCall& call, const DyadicOptions& options, const Tensor* grad_loss,
                                       double unit_scale) {
  check(!options.weights.empty(), "weights: expected at least one");
  const Windows windows({options.sigma}, {options.window_size});
  check_range(call);
  check(call.reduction != Reduction::map, "reduction: the dyadic form has no map");
  if (grad_loss) call.check_incoming(*grad_loss, {});
  call.make_gradients();
  const std::vector<double> incoming = call.incoming(grad_loss);
  const double scale = unit_scale / call.data_range / call.averaged_planes();
  const Problem p = call.problem(windows);
  const OutputSize out = output_size(p);
  std::vector<Share> shares(incoming.size(), Share{1, out.count()});
  if (call.mask) shares = shares_of(sums_of_weights(p, (p.height - out.height) / 2), call.together());
  std::vector<Level> levels;
  // A large plane goes through all levels while it is in the cache.
  if (call.height * call.width < int64_t(1) << 19) {
    const auto losses = dyadic_planes(call, options, windows, incoming.data(), shares.data(), scale, levels);
    return call.results(call.reduced(losses));
  }
  std::vector<double> losses;
  for (int64_t i = 0; i < call.planes(); ++i) {
    const CpuCall plane = call.plane(i / call.channels, i % call.channels);
    losses.push_back(
        dyadic_planes(plane, options, windows, &incoming[size_t(i)], &shares[size_t(i)], scale, levels)[0]);
  }
  return call.results(call.reduced(losses));
}

void scale_(Tensor unit, Tensor grad_loss, double factor) {
  check((unit.dim() == 4 || unit.dim() == 5) && unit.is_cpu(),
        "unit: expected four or five dimensions, on the CPU");
  check(grad_loss.is_cpu() &&
            (grad_loss.dim() == 0 || (grad_loss.dim() == 1 && grad_loss.size(0) == unit.size(0))),
        "grad_loss: expected a scalar or one value an image, on the CPU");
  const int64_t batch = unit.size(0), channels = unit.size(1);
  std::vector<double> gains(size_t(batch * channels));
  bool ones = true;
  for (int64_t i = 0; i < batch * channels; ++i) {
    gains[size_t(i)] = factor * value_at(grad_loss, grad_loss.dim() == 0 ? 0 : i / channels);
    ones = ones && gains[size_t(i)] == 1;
  }
  if (ones) return;
  for (const Slices& slices : slices_of(unit)) {
    scale_all({batch, channels, slices.height, unit.size(int(unit.dim()) - 1), slices.images, gains.data()});
  }
}

}  // namespace
}  // namespace ssimloss

STABLE_TORCH_LIBRARY_IMPL(SSIMLOSS_NAMESPACE, CPU, library) {
  ssimloss::implement<ssimloss::CpuCall>(library);
  library.impl("scale_", TORCH_BOX(&ssimloss::scale_));
}
