// The operators' signatures (schema.cpp), once for every back end.
#pragma once

#include <optional>
#include <tuple>
#include <utility>

#include "call.h"
#include "namespace.h"

namespace ssimloss {

// All operators of one form. Fields: the types of Options' members. `run`, of a back end, is found by the
// type of the options and gives the loss and the gradients, or empty tensors:
//   run(BackendCall&, const Options&, grad_loss or null, unit_scale)
template <class BackendCall, class Options, class... Fields>
struct Form {
  static std::tuple<Tensor, Tensor, Tensor> forward(Tensor x, Tensor y, double unit_scale, bool want_x,
                                                    bool want_y, Fields... fields) {
    const Options options{std::move(fields)...};
    BackendCall call(x, y, want_x, want_y, options);
    return run(call, options, nullptr, unit_scale);
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> detailed(Tensor x, Tensor y, double unit_scale,
                                                                     bool want_x, bool want_y, bool want_map,
                                                                     Fields... fields) {
    Options options{std::move(fields)...};
    BackendCall call(x, y, want_x, want_y, options);
    check(call.reduction != Reduction::map, "reduction: expected mean or none beside details");
    call.check_unweighted("details");
    call.terms = call.map = nothing(x);
    call.want_map = want_map && BackendCall::map_beside_gradient;
    auto [loss, unit_x, unit_y] = run(call, options, nullptr, unit_scale);
    if (want_map && !call.want_map) {
      options.reduction = "map";
      BackendCall of_map(x, y, false, false, options);
      call.map = std::get<0>(run(of_map, options, nullptr, 1.0));
    }
    return {loss, unit_x, unit_y, *call.terms, *call.map};
  }

  static std::tuple<Tensor, Tensor> backward(Tensor grad_loss, Tensor x, Tensor y, bool want_x, bool want_y,
                                             Fields... fields) {
    const Options options{std::move(fields)...};
    BackendCall call(x, y, want_x, want_y, options);
    auto [loss, grad_x, grad_y] = run(call, options, &grad_loss, 1.0);
    return {grad_x, grad_y};
  }
};

template <class BackendCall>
using GaussianForm =
    Form<BackendCall, GaussianOptions, std::vector<double>, std::vector<int64_t>, std::string, double, double,
         double, double, double, bool, std::string, std::optional<Tensor>, std::optional<Tensor>>;
template <class BackendCall>
using DyadicForm = Form<BackendCall, DyadicOptions, std::vector<double>, double, int64_t, std::string, double,
                        double, double, double, double, std::string, std::string, std::string,
                        std::optional<Tensor>, std::optional<Tensor>>;
template <class BackendCall>
using VolumeForm =
    Form<BackendCall, VolumeOptions, std::vector<double>, std::vector<int64_t>, std::string, double, double,
         double, double, double, std::string, std::optional<Tensor>, std::optional<Tensor>>;

template <class BackendCall, class Library>
void implement(Library& library) {
  library.impl("gaussian", TORCH_BOX(&GaussianForm<BackendCall>::forward));
  library.impl("gaussian_detailed", TORCH_BOX(&GaussianForm<BackendCall>::detailed));
  library.impl("gaussian_backward", TORCH_BOX(&GaussianForm<BackendCall>::backward));
  library.impl("dyadic", TORCH_BOX(&DyadicForm<BackendCall>::forward));
  library.impl("dyadic_backward", TORCH_BOX(&DyadicForm<BackendCall>::backward));
  library.impl("volume", TORCH_BOX(&VolumeForm<BackendCall>::forward));
  library.impl("volume_detailed", TORCH_BOX(&VolumeForm<BackendCall>::detailed));
  library.impl("volume_backward", TORCH_BOX(&VolumeForm<BackendCall>::backward));
}

}  // namespace ssimloss
