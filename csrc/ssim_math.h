// The formula at one position, for every back end. V is float, double or a vector of them.
//
// With m = x + y and d = x - y, mu their means under the window and s their variances,
//   A = mu_x^2 + mu_y^2 + c1   = (mu_m^2 + mu_d^2) / 2 + c1
//   B = s_xx + s_yy + c2       = (s_mm + s_dd) / 2 + c2
//   e_l  = 1 - l  = mu_d^2 / A     e_cs = 1 - cs = s_dd / B
//   1 + l = (mu_m^2 + 2 c1) / A    1 + cs = (s_mm + 2 c2) / B
// so that 1 - SSIM = e_l + e_cs - e_l e_cs never subtracts numbers near 1. Each function of the
// reference (ssimloss/reference.py) is one of these with 1 - e in the place of l and cs.
//
// Included inside a namespace of the includer's, under its compiler flags, and only by these two:
// cpu/variant.h and cuda/common/block.cuh.
#ifndef INLINE
#error "include cuda/common/block.cuh, or cpu/variant.h"
#endif

#ifdef __CUDACC__
#define SSIMLOSS_INLINE __host__ __device__ __forceinline__
#else
#define SSIMLOSS_INLINE inline __attribute__((always_inline))
#endif

// The means and variances of one position and scale.
template <class V>
struct Moments {
  V mu_m, mu_d, s_mm, s_dd;
};

// l and cs and, never from numbers that cancel, 1 - l, 1 - cs, 1 + l and 1 + cs; inverses for the gradient.
template <class V>
struct Dissimilarity {
  V l, cs, e_l, e_cs, one_plus_l, one_plus_cs, inverse_a, inverse_b;
};

// The coefficients of the gradient: with G the window,
//   dm(q) += G(q - p) (a_m - b_m (m(q) - m(p)))     dd(q) += G(q - p) (a_d + b_d (d(q) - d(p)))
// and dx = dm + dd, dy = dm - dd. Differences alone: what is far from zero but flat loses no digits
// (on the CPU they are taken to a value near by: cpu/moments.h).
template <class V>
struct Coefficients {
  V a_m, b_m, a_d, b_d;
};

template <class V>
SSIMLOSS_INLINE V reciprocal(V v) {
  return (V{} + 1) / v;
}
template <class V>
SSIMLOSS_INLINE V not_negative(V v) {  // NaN stays NaN
  return v < V{} ? V{} : v;
}
template <class T, class V>
SSIMLOSS_INLINE V quotient(T a, V b) {
  return a / b;
}
#ifdef __CUDA_ARCH__
__device__ __forceinline__ float reciprocal(float v) {  // one instruction, 1 ulp; v in [2^-126, 2^126]
  asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(v));
  return v;
}
__device__ __forceinline__ float quotient(float a, float b) { return a * reciprocal(b); }
__device__ __forceinline__ float not_negative(float v) {  // a GPU's NaN has no sign
  return __int_as_float(max(__float_as_int(v), 0));
}
#endif

template <bool Luminance, class T, class V>
SSIMLOSS_INLINE Dissimilarity<V> dissimilarity(const Moments<V>& at, T c1, T c2) {
  Dissimilarity<V> e;
  const V b = T(0.5) * (at.s_mm + at.s_dd) + c2;
  if (Luminance) {
    const V mu_mm = at.mu_m * at.mu_m, mu_dd = at.mu_d * at.mu_d;
    const V a = T(0.5) * (mu_mm + mu_dd) + c1;
    const V inverse = reciprocal(a * b);  // one division; a b < 1e37 for values up to 1e9 data ranges
    e.inverse_a = b * inverse;
    e.inverse_b = a * inverse;
    e.e_l = mu_dd * e.inverse_a;
    e.l = T(1) - e.e_l;
    e.one_plus_l = (mu_mm + T(2) * c1) * e.inverse_a;
  } else {
    e.inverse_b = reciprocal(b);
    e.inverse_a = e.e_l = e.one_plus_l = V{};
    e.l = V{} + T(1);
  }
  e.e_cs = at.s_dd * e.inverse_b;
  e.cs = T(1) - e.e_cs;
  e.one_plus_cs = (at.s_mm + T(2) * c2) * e.inverse_b;  // near 0 on negative images
  return e;
}

// delta_m = m(p) - mu_m, delta_d likewise; g_l, g_cs: the gradient of the loss with respect to e_l and
// e_cs, times the gain of p.
template <bool Luminance, class T, class V>
SSIMLOSS_INLINE Coefficients<V> coefficients(const Moments<V>& at, const Dissimilarity<V>& e, V delta_m,
                                             V delta_d, V g_l, V g_cs) {
  Coefficients<V> c;
  const V g_b = g_cs * e.inverse_b;
  c.b_m = g_b * e.e_cs;
  c.b_d = g_b * e.one_plus_cs;
  c.a_m = V{} - c.b_m * delta_m;
  c.a_d = c.b_d * delta_d;
  if (Luminance) {
    const V g_a = g_l * e.inverse_a;
    c.a_m -= g_a * e.e_l * at.mu_m;
    c.a_d += g_a * e.one_plus_l * at.mu_d;
  }
  return c;
}

// Where one image's gradient is wanted, or none, of one scale without further options: loss and coefficients.
// dx alone needs a = a_m + a_d, whose part by luminance is
//   g_l ((1 + l) mu_d - e_l mu_m) / A = g_l mu_d (mu_m (mu_m - mu_d) + 2 c1) / A^2
// In few products: on Zen 4 they share their units with divisions (two slots each) and comparisons, additions
// have others. Variances and c2 may be in a unit of their own; g_cs is then divided by it.
template <class V>
struct OneGradient {
  V loss, b_m, b_d, a;
  V luminance_m, luminance_d;  // for two gradients, of which a is the sum
};

// m, d: the means relative to what the gradient's m and d are; g_l, g_cs: the gains of both terms; two: 2, or
// 0 where the luminance does not count.
template <bool Luminance, class T, class V>
SSIMLOSS_INLINE OneGradient<V> one_gradient(const Moments<V>& at, T c1, T c2, V m, V d, V g_l, V g_cs,
                                            T two = 2) {
  OneGradient<V> one;
  const V mm = at.s_mm + T(2) * c2, inverse_b = quotient(T(2), mm + at.s_dd);
  const V e_cs = at.s_dd * inverse_b;
  one.loss = e_cs;
  V luminance{};
  one.luminance_m = one.luminance_d = V{};
  if (Luminance) {
    const V inverse_a = quotient(two, at.mu_m * at.mu_m + T(2) * c1 + at.mu_d * at.mu_d);
    const V by_d = at.mu_d * inverse_a, e_l = at.mu_d * by_d;
    one.loss += e_l - e_l * e_cs;
    const V g_a = (g_l - g_l * e_cs) * inverse_a;
    luminance = g_a * (by_d * (at.mu_m * (at.mu_m - at.mu_d) + T(2) * c1));
    one.luminance_m = g_a * e_l * at.mu_m;
    one.luminance_d = g_a * by_d * (at.mu_m * at.mu_m + T(2) * c1);
    g_cs -= g_cs * e_l;
  }
  const V g_b = g_cs * inverse_b;
  one.b_m = g_b * e_cs;
  one.b_d = g_b * (mm * inverse_b);
  one.a = luminance + one.b_m * m - one.b_d * d;
  return one;
}

// For CUDA's kernels of one scale: the loss, and the maps for `Gradients` gradients, where `luminance` is 1
// or 0: b_m, b_d, a_m + a_d and a_m - a_d.
template <int Gradients, class T>
SSIMLOSS_INLINE T loss_and_maps(const Moments<T>& at, T c1, T c2, T luminance, T m, T d, T g_l, T g_cs,
                                T (&map)[4]) {
  if (Gradients < 2) {
    const OneGradient<T> one = one_gradient<true, T>(at, c1, c2, m, d, g_l, g_cs, T(2) * luminance);
    map[0] = one.b_m, map[1] = one.b_d, map[2] = one.a;
    return not_negative(one.loss);
  }
  Dissimilarity<T> e = dissimilarity<true>(at, c1, c2);
  e.e_l *= luminance, e.inverse_a *= luminance, e.l = T(1) - e.e_l;
  const Coefficients<T> c = coefficients<true, T>(at, e, -m, -d, g_l * e.cs, g_cs * e.l);
  map[0] = c.b_m, map[1] = c.b_d, map[2] = c.a_m + c.a_d, map[3] = c.a_m - c.a_d;
  return not_negative(e.e_cs * e.l + e.e_l);
}
