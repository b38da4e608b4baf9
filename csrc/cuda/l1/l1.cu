// |x - y| alone, and its gradient: a problem without windows.
//
// A block owns some rows of one plane, or a part of one; a thread takes four pixels at a time where they lie
// in fours. Reads 8 bytes an element, writes 4 a gradient (float32).
#include "../../l1.h"

#include "../common/block.cuh"
#include "../plan/machine.h"

namespace ssimloss {

constexpr int l1_threads = 256;

template <class T>
__global__ void __launch_bounds__(l1_threads) l1_kernel(const __grid_constant__ KernelParams<T> p) {
  const Piece own = piece_of(p, int(blockIdx.x), p.bands, p.band_rows);
  const Plane<T> plane{p, own.image, own.channel};
  const int rows = min(p.band_rows, p.height - own.row), cols = min(p.own, p.width - own.col);
  const int step = p.in_fours ? 4 : 1, across = (cols + step - 1) / step;
  const T gain = p.l1_gain * plane.incoming(), weight = p.l1_weight * plane.inverse_range();
  double sum = 0;
  with_type<T>(p.x.dtype, [&](auto* tag) {
    using E = std::remove_pointer_t<decltype(tag)>;
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * across; i += l1_threads) {
      const int row = own.row + i / across, col = own.col + i % across * step;
      const int count = min(step, p.width - col);
      const E* x = static_cast<const E*>(p.x.data) + p.x.at(plane.image, plane.channel, row, col);
      const E* y = static_cast<const E*>(p.y.data) + p.y.at(plane.image, plane.channel, row, col);
      T d[4] = {};
      if (count == 4) {
        const Some<4, T> a = wide(some<4>(x)), b = wide(some<4>(y));
#pragma unroll
        for (int u = 0; u < 4; ++u) d[u] = a[u] - b[u];
      } else {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          if (u < count) d[u] = wide(x[u * p.x.w]) - wide(y[u * p.y.w]);
        }
      }
      Some<4, E> of_x, of_y;
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        sum += double(magnitude(d[u]));
        T by = gain;
        if (u < count && p.loss_map.data) plane.write_loss(row, col + u, weight * magnitude(d[u]));
        if (u < count && p.grad_map.data)
          by *= p.grad_map.template element<T>(p.grad_map.at(plane.image, plane.channel, row, col + u));
        by = gradient_of_l1(d[u], by);
        narrow(by, of_x[u]), narrow(-by, of_y[u]);
      }
      const auto write = [&](const View& to, const Some<4, E>& gradient) {
        if (!to.data) return;
        E* at = static_cast<E*>(to.data) + to.at(plane.image, plane.channel, row, col);
        if (count == 4) return put(gradient, at);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          if (u < count) at[u * to.w] = gradient[u];
        }
      };
      write(p.grad_x, of_x), write(p.grad_y, of_y);
    }
  });
  plane.write_sums(own.row, own.col, 0., sum * double(plane.inverse_range()), ssimloss_shared);
}

// The same under a mask, of float32, a pixel a thread at a time.
__global__ void __launch_bounds__(l1_threads)
    weighted_l1_kernel(const __grid_constant__ KernelParams<float> p) {
  using T = float;
  const Piece own = piece_of(p, int(blockIdx.x), p.bands, p.band_rows);
  const Plane<T> plane{p, own.image, own.channel};
  const int rows = min(p.band_rows, p.height - own.row), cols = min(p.own, p.width - own.col);
  const T gain = p.l1_gain * plane.incoming() * T(plane.weights().l1);
  const T of_map = p.l1_weight * plane.inverse_range();
  double sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * cols; i += l1_threads) {
    const int row = own.row + i / cols, col = own.col + i % cols;
    const T weight = plane.weight(row, col), d = weight == 0 ? T(0) : plane.difference<true>(row, col);
    sum += double(weight * magnitude(d));
    if (p.loss_map.data) plane.write_loss(row, col, of_map * magnitude(d));
    if (!p.grad_x.data && !p.grad_y.data) continue;
    const T incoming = p.grad_map.data ? plane.incoming_at(row, col) : weight;
    const T by = weight == 0 ? T(0) : gradient_of_l1(d, gain * incoming);
    if (p.grad_x.data) p.grad_x.element<T>(p.grad_x.at(plane.image, plane.channel, row, col)) = by;
    if (p.grad_y.data) p.grad_y.element<T>(p.grad_y.at(plane.image, plane.channel, row, col)) = -by;
  }
  plane.write_sums<false, true>(own.row, own.col, 0., sum * double(plane.inverse_range()), ssimloss_shared);
}

namespace {

// As many blocks as run at once, twice, but of no fewer than 2048 pixels: every one has a sum to be added up.
Cut plan_of(const Problem& p) {
  const int64_t blocks = 2 * resident_threads / l1_threads * current_device().multiprocessors;
  const int64_t share = divided(p.batch * p.channels * p.height * p.width, blocks);
  const int64_t pixels = std::max<int64_t>(2048, rounded(share, 1024));
  const int64_t own = std::min(pixels, rounded(p.width, 8));
  return cut_into(p.height, p.width, own, std::min(p.height, std::max<int64_t>(1, pixels / own)));
}

template <class T>
void run(const Similarity& given, void* stream) {
  Similarity s = given;
  const Problem& p = s.problem = as_rows(given.problem);
  KernelParams<T> params{};
  set_problem(s, s.cut, params);
  params.in_fours = in_fours(p.x) && in_fours(p.y) && in_fours(p.grad_x) && in_fours(p.grad_y);
  auto kernel = &l1_kernel<T>;
  if constexpr (sizeof(T) == 4) {
    if (p.mask.data) kernel = &weighted_l1_kernel;
  }
  launch_images("l1_kernel", kernel, s, l1_threads, 2 * (l1_threads / 32) * sizeof(double), stream, params);
}

void similarity(const Similarity& s, void* stream) {
  s.problem.x.dtype == DType::float64 ? run<double>(s, stream) : run<float>(s, stream);
}

}  // namespace

const Family l1_family = {"l1", [](const Problem& p) { return plan_of(as_rows(p)); }, &similarity};

}  // namespace ssimloss
