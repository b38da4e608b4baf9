// The operators on CUDA tensors: the same as cpu.cpp with kernels that are only queued. Nothing is
// read back and nothing waits, so every call can be captured in a CUDA graph.
#include "current_device.h"
#include "ops.h"

namespace ssimloss {
namespace {

void check_taps(int64_t radius) {
  check(radius <= cuda_max_radius, "window_sizes: the CUDA kernels take windows of at most " +
                                       std::to_string(2 * cuda_max_radius + 1) + " taps, got " +
                                       std::to_string(2 * radius + 1));
}

// An op call on a GPU.
struct CudaCall : Call {
  static constexpr bool map_beside_gradient = false;  // strip and ring write one of the two

  template <class... Args>
  explicit CudaCall(const Args&... args) : Call(args...) {
    check(x.is_cuda() && same_device(x, y), "x and y: expected tensors on one CUDA device");
    check(x.scalar_type() == y.scalar_type(), "x and y: expected the same dtype on CUDA");
    check(depth < (int64_t(1) << 30) && height < (int64_t(1) << 30) && width < (int64_t(1) << 30) &&
              channels < (int64_t(1) << 31),
          "x: expected sides below 2^30 and fewer than 2^31 channels");
    check(!mask || planes() < (int64_t(1) << 31),
          "mask: expected fewer than 2^31 channels of all images on CUDA");
  }

  void make_gradients() {
    if (want_x) grad_x = torch::stable::empty_like(x);
    if (want_y) grad_y = torch::stable::empty_like(y);
  }

  bool per_image() const { return reduction != Reduction::mean; }

  Tensor make_loss() const {
    return per_image() ? empty(x, std::array<int64_t, 1>{batch}, arithmetic(x))
                       : empty(x, std::array<int64_t, 0>{}, arithmetic(x));
  }

  Tensor scratch(size_t bytes) const {
    return empty(x, std::array<int64_t, 1>{int64_t(bytes)}, ScalarType::Byte);
  }
};

Scalars scalars(const Tensor& t) {  // of a tensor [] or [N]
  check(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double,
        "grad_loss: expected float32 or float64");
  return {t.data_ptr(), dtype_of(t), t.dim() == 0 ? 0 : t.stride(0), nullptr};
}

// `levels`, or 0: the Gaussian form. What run(call, grad_loss) gives on images of the dtype that the kernels
// of weights take, if it is another.
template <class Run>
std::optional<std::tuple<Tensor, Tensor, Tensor>> converted(const CudaCall& call, const Problem& p,
                                                            int levels, const Tensor* grad_loss, Run run) {
  if (!is_weighted(p)) return {};
  const DType dtype = weighted_dtype(p, std::max(levels, 1));
  check(
      dtype == DType::float32 || (p.scales > 0 && levels == 0),
      "mask: expected none for float64 images on CUDA, or windows that do not fit into its shared memory, in "
      "the dyadic form and for l1 alone; nor padding normalized");
  if (dtype == dtype_of(call.x)) return {};
  const ScalarType wide = dtype == DType::float64 ? ScalarType::Double : ScalarType::Float;
  CudaCall other = call;
  using torch::stable::to;
  other.x = to(call.x, wide), other.y = to(call.y, wide);
  if (call.mask) other.mask = to(*call.mask, wide);
  const std::optional<Tensor> incoming =
      grad_loss ? std::optional<Tensor>(to(*grad_loss, wide)) : std::nullopt;
  const auto [loss, grad_x, grad_y] = run(other, incoming ? &*incoming : nullptr);
  const ScalarType given = call.x.scalar_type();
  return std::make_tuple(to(loss, arithmetic(call.x)), to(grad_x, given), to(grad_y, given));
}

// ---- Gaussian form: all scales at full resolution; one scale is SSIM.

std::tuple<Tensor, Tensor, Tensor> run(CudaCall& call, const GaussianOptions& options,
                                       const Tensor* grad_loss, double unit_scale) {
  const Windows windows(options.sigmas, options.window_sizes);
  call.l1_windowed = options.l1_windowed;
  check_taps(windows.radius());
  GaussianCall todo{};
  Problem& p = todo.problem = call.problem(windows);
  const OutputSize out = output_size(p);
  const bool map = call.reduction == Reduction::map;
  if (grad_loss) call.check_incoming(*grad_loss, {call.batch, call.channels, out.height, out.width});
  const CurrentDevice guard(call.x.get_device_index());
  const auto again = [&](CudaCall& other, const Tensor* grad) {
    return run(other, options, grad, unit_scale);
  };
  Problem asked = p;
  if (map) (grad_loss ? asked.grad_map : asked.loss_map) = p.x;
  if ((call.want_x || call.want_y) && (grad_loss || !map)) asked.grad_x = p.x;
  if (const auto results = converted(call, asked, 0, grad_loss, again)) return *results;
  const double l1_positions =
      call.l1_windowed || map ? out.count() : double(call.height) * double(call.width);
  const double averaged = call.averaged_planes();
  // Under a mask sums and gains are divided on the device, by sums of weights.
  const bool divided = call.mask && call.planes() > 0;
  const double ssim_count = divided ? 1 : averaged * out.count();
  const double l1_count = divided ? 1 : averaged * l1_positions;
  todo.per_image = call.per_image();
  Tensor loss = nothing(call.x);
  if (map && !grad_loss) {
    loss = empty(call.x, Sizes{call.batch, call.channels, out.height, out.width}, arithmetic(call.x));
    p.loss_map = images(loss);
  } else {
    call.make_gradients();
    if (call.want_x) p.grad_x = images(call.grad_x);
    if (call.want_y) p.grad_y = images(call.grad_y);
    if (map) p.grad_map = images(*grad_loss);
    if (grad_loss && !map) todo.incoming = scalars(*grad_loss);
    todo.incoming.times = p.inverse_ranges;
    const double scale = unit_scale / call.data_range;
    todo.ssim_gain = scale * call.ssim_weight / (map ? 1 : ssim_count);
    todo.l1_gain = scale * call.l1_weight / (map ? 1 : l1_count);
    todo.ssim_mean = call.ssim_weight / ssim_count;
    todo.l1_mean = call.l1_weight / l1_count;
    if (!grad_loss) {
      loss = call.make_loss();
      todo.loss = loss.data_ptr();
    }
    if (call.terms) {
      call.terms = call.make_terms();
      todo.terms = call.terms->data_ptr();
      todo.ssim_count = ssim_count, todo.l1_count = l1_count;
    }
  }
  const Tensor workspace = call.scratch(gaussian_cuda(todo, nullptr, nullptr));
  gaussian_cuda(todo, workspace.data_ptr(), current_stream(call.x.get_device_index()));
  return {loss, call.grad_x, call.grad_y};
}

// ---- Volumes.

std::tuple<Tensor, Tensor, Tensor> run(CudaCall& call, const VolumeOptions& options, const Tensor* grad_loss,
                                       double unit_scale) {
  const VolumeWindows windows(options.sigmas, options.window_sizes);
  for (int i = 0; i < 3; ++i) check_taps(windows[i].radius);
  VolumeCall todo{};
  VolumeProblem& p = todo.problem = volume_problem(call, windows);
  call.check_unweighted("volumes");
  const VolumeCounts counts(p);
  const bool map = call.reduction == Reduction::map;
  if (grad_loss) call.check_incoming(*grad_loss, counts.map_size);
  const CurrentDevice guard(call.x.get_device_index());
  const double l1_positions = map ? counts.positions : counts.voxels, averaged = call.averaged_planes();
  todo.per_image = call.per_image();
  Tensor loss = nothing(call.x);
  if (map && !grad_loss) {
    loss = empty(call.x, counts.map_size, arithmetic(call.x));
    p.loss_map = volumes(loss);
  } else {
    call.make_gradients();
    if (call.want_x) p.grad_x = volumes(call.grad_x);
    if (call.want_y) p.grad_y = volumes(call.grad_y);
    if (map) p.grad_map = volumes(*grad_loss);
    if (grad_loss && !map) todo.incoming = scalars(*grad_loss);
    todo.incoming.times = p.inverse_ranges;
    const double scale = unit_scale / call.data_range;
    todo.ssim_gain = scale * call.ssim_weight / (map ? 1 : averaged * counts.positions);
    todo.l1_gain = scale * call.l1_weight / (map ? 1 : averaged * l1_positions);
    todo.ssim_mean = call.ssim_weight / (averaged * counts.positions);
    todo.l1_mean = call.l1_weight / (averaged * l1_positions);
    if (!grad_loss) {
      loss = call.make_loss();
      todo.loss = loss.data_ptr();
    }
    if (call.terms) {
      call.terms = call.make_terms();
      todo.terms = call.terms->data_ptr();
      todo.ssim_count = averaged * counts.positions, todo.l1_count = averaged * l1_positions;
    }
  }
  const Tensor workspace = call.scratch(volume_cuda(todo, nullptr, nullptr));
  volume_cuda(todo, workspace.data_ptr(), current_stream(call.x.get_device_index()));
  return {loss, call.grad_x, call.grad_y};
}

// ---- Dyadic form: a pyramid of halved images, the mean of cs at each level.

std::tuple<Tensor, Tensor, Tensor> run(CudaCall& call, const DyadicOptions& options, const Tensor* grad_loss,
                                       double unit_scale) {
  const std::vector<double>& weights = options.weights;
  const Windows windows({options.sigma}, {options.window_size});
  check_taps(windows.radius());
  check(!weights.empty() && weights.size() <= size_t(cuda_max_levels),
        "weights: expected 1 to " + std::to_string(cuda_max_levels) + " on CUDA, got " +
            std::to_string(weights.size()));
  check(call.reduction != Reduction::map, "reduction: the dyadic form has no map");
  if (grad_loss) call.check_incoming(*grad_loss, {});
  DyadicCall todo{};
  todo.finest = call.problem(windows);
  todo.finest.odd_side = odd_side_of(options.halving);
  todo.clamp = clamps(options.negative);
  Problem coarsest = todo.finest;
  for (size_t j = 1; j < weights.size(); ++j)
    coarsest.height = Halving{coarsest.height, coarsest.odd_side}.size(),
    coarsest.width = Halving{coarsest.width, coarsest.odd_side}.size();
  output_size(coarsest);
  const CurrentDevice guard(call.x.get_device_index());
  const auto again = [&](CudaCall& other, const Tensor* grad) {
    return run(other, options, grad, unit_scale);
  };
  Problem asked = todo.finest;
  if (call.want_x || call.want_y) asked.grad_x = asked.x;
  if (const auto results = converted(call, asked, int(weights.size()), grad_loss, again)) return *results;
  call.make_gradients();
  if (call.want_x) todo.finest.grad_x = images(call.grad_x);
  if (call.want_y) todo.finest.grad_y = images(call.grad_y);
  todo.weights = weights.data(), todo.levels = int(weights.size());
  todo.per_image = call.per_image();
  todo.grad_scale = unit_scale / call.data_range / call.averaged_planes();
  Tensor loss = nothing(call.x);
  if (grad_loss) {
    todo.incoming = scalars(*grad_loss);
  } else {
    loss = call.make_loss();
    todo.loss = loss.data_ptr();
  }
  todo.incoming.times = todo.finest.inverse_ranges;
  const Tensor workspace = call.scratch(dyadic_cuda(todo, nullptr, nullptr));
  dyadic_cuda(todo, workspace.data_ptr(), current_stream(call.x.get_device_index()));
  return {loss, call.grad_x, call.grad_y};
}

void scale_(Tensor unit, Tensor grad_loss, double factor) {
  check((unit.dim() == 4 || unit.dim() == 5) && unit.is_cuda(),
        "unit: expected four or five dimensions, on a CUDA device");
  check(same_device(unit, grad_loss) &&
            (grad_loss.dim() == 0 || (grad_loss.dim() == 1 && grad_loss.size(0) == unit.size(0))),
        "grad_loss: expected a scalar or one value an image, on the device of unit");
  const CurrentDevice guard(unit.get_device_index());
  for (const Slices& slices : slices_of(unit)) {
    scale_cuda({slices.images, unit.size(0), unit.size(1), slices.height, unit.size(int(unit.dim()) - 1),
                scalars(grad_loss), factor},
               current_stream(unit.get_device_index()));
  }
}

}  // namespace
}  // namespace ssimloss

STABLE_TORCH_LIBRARY_IMPL(SSIMLOSS_NAMESPACE, CUDA, library) {
  ssimloss::implement<ssimloss::CudaCall>(library);
  library.impl("scale_", TORCH_BOX(&ssimloss::scale_));
}
