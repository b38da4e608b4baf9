// The formula at one position, for every back end. V is float, double or a vector of them.
//
// With m = x + y and d = x - y (both shifted by a constant near their local mean, which keeps the
// digits), mu their blurred values and s their variances,
//   A = mu_x^2 + mu_y^2 + c1   = (mu_m^2 + mu_d^2) / 2 + c1
//   B = s_xx + s_yy + c2       = (s_mm + s_dd) / 2 + c2
//   e_l  = 1 - l  = mu_d^2 / A     e_cs = 1 - cs = s_dd / B
// so that 1 - SSIM = e_l + e_cs - e_l e_cs never subtracts numbers near 1. Each function of the
// reference (ssimloss/reference.py) is one of these with 1 - e in the place of l and cs.
//
// Included inside a namespace of the includer's, under its compiler flags: see cpu/variant.h.

#ifdef __CUDACC__
#define SSIMLOSS_INLINE __host__ __device__ __forceinline__
#else
#define SSIMLOSS_INLINE inline __attribute__((always_inline))
#endif

// The blurred moments of one position and scale: m, d are shifted, mm and dd their squares' means.
template <class V>
struct Moments {
  V m, d, mm, dd;
};

// 1 - l and 1 - cs, with what the gradient needs again.
template <class V>
struct Dissimilarity {
  V e_l, e_cs, mu_m, mu_d, inverse_a, inverse_b;
};

// The coefficients of the gradient: with g the gain of this position and G the window,
//   dm(q) += G(q - p) (a_m - b_m m(q))     dd(q) += G(q - p) (a_d + b_d d(q))
// and dx = dm + dd, dy = dm - dd.
template <class V>
struct Coefficients {
  V a_m, b_m, a_d, b_d;
};

template <class V>
SSIMLOSS_INLINE V not_negative(V v) {  // NaN stays NaN
  return v < V{} ? V{} : v;
}

template <bool Luminance, class V, class T>
SSIMLOSS_INLINE Dissimilarity<V> dissimilarity(const Moments<V>& mu, T shift_m, T shift_d, T c1, T c2) {
  Dissimilarity<V> e{};
  const V s_mm = not_negative(mu.mm - mu.m * mu.m);
  const V s_dd = not_negative(mu.dd - mu.d * mu.d);
  const V b = T(0.5) * (s_mm + s_dd) + c2;
  if (Luminance) {
    e.mu_m = mu.m + shift_m;
    e.mu_d = mu.d + shift_d;
    const V mu_dd = e.mu_d * e.mu_d;
    const V a = T(0.5) * (e.mu_m * e.mu_m + mu_dd) + c1;
    const V inverse = T(1) / (a * b);  // one division; a b < 1e37 for values up to 1e9 data ranges
    e.inverse_a = b * inverse;
    e.inverse_b = a * inverse;
    e.e_l = mu_dd * e.inverse_a;
  } else {
    e.inverse_b = T(1) / b;
  }
  e.e_cs = s_dd * e.inverse_b;
  return e;
}

// g_l, g_cs: the gradient of the loss with respect to e_l and e_cs, times the gain.
template <bool Luminance, class T, class V>
SSIMLOSS_INLINE Coefficients<V> coefficients(const Moments<V>& mu, const Dissimilarity<V>& e, V g_l, V g_cs) {
  Coefficients<V> c;
  const V g_b = g_cs * e.inverse_b;
  c.b_m = g_b * e.e_cs;
  c.b_d = T(2) * g_b - c.b_m;
  c.a_m = c.b_m * mu.m;
  c.a_d = V{} - c.b_d * mu.d;
  if (Luminance) {
    const V g_a = g_l * e.inverse_a, g_a_e = g_a * e.e_l;
    c.a_m -= g_a_e * e.mu_m;
    c.a_d += (T(2) * g_a - g_a_e) * e.mu_d;
  }
  return c;
}
