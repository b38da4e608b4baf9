// The launchers of csrc/cuda/api.h under the shim, as they are, for pytest: a Python module `kernels`,
// without torch's dispatcher and operators in between. Images are torch's CPU tensors; all else, and what is
// left out, as in api.h: gaussian(x, y, sigmas, window_sizes, padding, loss=, grad_x=, ssim_gain=, ...) and
// so on. Both give the bytes of their workspace.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "../../csrc/cuda/route.h"
#include "../../csrc/windows.h"

namespace py = pybind11;
using namespace ssimloss;

namespace {

void* data_of(const py::handle& tensor) {
  return reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
}

DType dtype_of(const py::handle& tensor) {
  const std::string name = py::str(tensor.attr("dtype"));
  if (name == "torch.float16") return DType::float16;
  if (name == "torch.bfloat16") return DType::bfloat16;
  return name == "torch.float64" ? DType::float64 : DType::float32;
}

template <class T>
T option(const py::kwargs& given, const char* name, T otherwise) {
  return given.contains(name) ? given[name].cast<T>() : otherwise;
}

Images images(const py::handle& t) {
  const auto stride = t.attr("stride")().cast<std::vector<int64_t>>();
  return {data_of(t), dtype_of(t), stride.at(0), stride.at(1), stride.at(2), stride.at(3)};
}
Images images(const py::kwargs& given, const char* name) {
  return given.contains(name) ? images(given[name]) : Images{};
}

Scalars scalars(const py::kwargs& given, const char* name) {  // [] or [batch]
  if (!given.contains(name)) return {};
  const py::object t = given[name];
  const bool one = t.attr("dim")().cast<int>() == 0;
  return {data_of(t), dtype_of(t), one ? 0 : t.attr("stride")(0).cast<int64_t>(), nullptr};
}

Problem problem(const py::object& x, const py::object& y, const Windows& windows, const std::string& padding,
                const py::kwargs& given) {
  const auto size = x.attr("shape").cast<std::vector<int64_t>>();
  Problem p{};
  p.batch = size.at(0), p.channels = size.at(1), p.height = size.at(2), p.width = size.at(3);
  p.padding = padding_of(padding), p.odd_side = odd_side_of(option<std::string>(given, "halving", "edge"));
  p.windows = windows.data(), p.scales = windows.count();
  p.luminance = true, p.l1_windowed = option(given, "l1_windowed", true);
  p.ssim_weight = option(given, "ssim_weight", 1.0), p.l1_weight = option(given, "l1_weight", 0.0);
  p.c1 = 0.01 * 0.01, p.c2 = 0.03 * 0.03, p.inverse_range = option(given, "inverse_range", 1.0);
  p.x = images(x), p.y = images(y);
  p.loss_map = images(given, "loss_map"), p.grad_map = images(given, "grad_map");
  p.grad_x = images(given, "grad_x"), p.grad_y = images(given, "grad_y");
  return p;
}

// In a workspace of exactly the size that was asked for, which is the answer, and full of NaN.
template <class Call>
size_t run(size_t (*queue)(const Call&, void*, void*), const Call& call) {
  const size_t size = queue(call, nullptr, nullptr), numbers = std::getenv("SHIM_DRY") ? 1 : size / 8 + 1;
  const std::unique_ptr<double[]> workspace(new double[numbers]);
  std::memset(workspace.get(), 0xff, 8 * numbers);
  queue(call, workspace.get(), nullptr);
  return size;
}

size_t gaussian(const py::object& x, const py::object& y, const std::vector<double>& sigmas,
                const std::vector<int64_t>& window_sizes, const std::string& padding,
                const py::kwargs& given) {
  const Windows windows(sigmas, window_sizes);
  GaussianCall call{};
  call.problem = problem(x, y, windows, padding, given);
  if (given.contains("loss")) call.loss = data_of(given["loss"]);
  call.per_image = option(given, "per_image", false);
  call.ssim_mean = option(given, "ssim_mean", 1.0), call.l1_mean = option(given, "l1_mean", 0.0);
  call.ssim_gain = option(given, "ssim_gain", 1.0), call.l1_gain = option(given, "l1_gain", 0.0);
  call.incoming = scalars(given, "incoming");
  return run(&gaussian_cuda, call);
}

size_t dyadic(const py::object& x, const py::object& y, const std::vector<double>& weights, double sigma,
              int64_t window_size, const std::string& padding, const py::kwargs& given) {
  const Windows windows({sigma}, {window_size});
  DyadicCall call{};
  call.finest = problem(x, y, windows, padding, given);
  call.weights = weights.data(), call.levels = int(weights.size());
  if (given.contains("loss")) call.loss = data_of(given["loss"]);
  call.per_image = option(given, "per_image", false);
  call.grad_scale = option(given, "grad_scale", 1.0);
  call.incoming = scalars(given, "incoming");
  call.clamp = option(given, "clamp", false);
  return run(&dyadic_cuda, call);
}

void scale(const py::object& unit, const py::kwargs& given) {
  const auto size = unit.attr("shape").cast<std::vector<int64_t>>();
  scale_cuda({images(unit), size.at(0), size.at(1), size.at(2), size.at(3), scalars(given, "by"),
              option(given, "factor", 1.0)},
             nullptr);
}

}  // namespace

PYBIND11_MODULE(kernels, module) {
  module.def("gaussian", &gaussian);
  module.def("dyadic", &dyadic);
  module.def("scale", &scale);
  module.def("set_scratch_bytes", [](int64_t bytes) { return std::exchange(scratch_bytes, bytes); });
}
