// The operators' signatures (schema.cpp), once for every back end.
#pragma once

#include <tuple>

#include "call.h"

namespace ssimloss {

// BackendCall: a Call, and beside it
//   gaussian_run(BackendCall&, const Windows&, padding, k1, k2, grad_loss or null, unit_scale)
//   dyadic_run(BackendCall&, const DyadicOptions&, grad_loss or null, unit_scale)
// both give the loss and the gradients, or empty tensors.
template <class BackendCall>
struct Operators {
  static std::tuple<Tensor, Tensor, Tensor> gaussian(Tensor x, Tensor y, std::vector<double> sigmas,
                                                     std::vector<int64_t> window_sizes, std::string padding,
                                                     double data_range, double k1, double k2,
                                                     double ssim_weight, double l1_weight, bool l1_windowed,
                                                     std::string reduction, double unit_scale, bool want_x,
                                                     bool want_y) {
    BackendCall call(x, y, data_range, ssim_weight, l1_weight, reduction, want_x, want_y);
    call.l1_windowed = l1_windowed;
    return gaussian_run(call, Windows(sigmas, window_sizes), padding, k1, k2, nullptr, unit_scale);
  }

  static std::tuple<Tensor, Tensor> gaussian_backward(Tensor grad_loss, Tensor x, Tensor y,
                                                      std::vector<double> sigmas,
                                                      std::vector<int64_t> window_sizes, std::string padding,
                                                      double data_range, double k1, double k2,
                                                      double ssim_weight, double l1_weight, bool l1_windowed,
                                                      std::string reduction, bool want_x, bool want_y) {
    BackendCall call(x, y, data_range, ssim_weight, l1_weight, reduction, want_x, want_y);
    call.l1_windowed = l1_windowed;
    auto [loss, grad_x, grad_y] =
        gaussian_run(call, Windows(sigmas, window_sizes), padding, k1, k2, &grad_loss, 1);
    return {grad_x, grad_y};
  }

  static std::tuple<Tensor, Tensor, Tensor> dyadic(Tensor x, Tensor y, std::vector<double> weights,
                                                   double sigma, int64_t window_size, std::string padding,
                                                   double data_range, double k1, double k2,
                                                   double ssim_weight, double l1_weight,
                                                   std::string reduction, double unit_scale, bool want_x,
                                                   bool want_y) {
    BackendCall call(x, y, data_range, ssim_weight, l1_weight, reduction, want_x, want_y);
    const Windows windows({sigma}, {window_size});
    return dyadic_run(call, {weights, windows, padding, k1, k2}, nullptr, unit_scale);
  }

  static std::tuple<Tensor, Tensor> dyadic_backward(Tensor grad_loss, Tensor x, Tensor y,
                                                    std::vector<double> weights, double sigma,
                                                    int64_t window_size, std::string padding,
                                                    double data_range, double k1, double k2,
                                                    double ssim_weight, double l1_weight,
                                                    std::string reduction, bool want_x, bool want_y) {
    BackendCall call(x, y, data_range, ssim_weight, l1_weight, reduction, want_x, want_y);
    const Windows windows({sigma}, {window_size});
    auto [loss, grad_x, grad_y] = dyadic_run(call, {weights, windows, padding, k1, k2}, &grad_loss, 1);
    return {grad_x, grad_y};
  }

  template <class Library>
  static void implement(Library& library) {
    library.impl("gaussian", TORCH_BOX(&Operators::gaussian));
    library.impl("gaussian_backward", TORCH_BOX(&Operators::gaussian_backward));
    library.impl("dyadic", TORCH_BOX(&Operators::dyadic));
    library.impl("dyadic_backward", TORCH_BOX(&Operators::dyadic_backward));
  }
};

}  // namespace ssimloss
