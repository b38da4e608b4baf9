// A row of the next level of the dyadic form under weights.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

// `count` pixels of pairs of columns in two rows, a and b: the means of weights, and of m and d under them,
// which are less their offsets. Not inlined: else the compiler does not know that the arrays are apart, and
// vectorises nothing.
template <class T, class To>
__attribute__((noinline)) void join_pairs(int64_t count, const T* __restrict w_a, const T* __restrict w_b,
                                          const T* __restrict m_a, const T* __restrict m_b,
                                          const T* __restrict d_a, const T* __restrict d_b,
                                          To* __restrict out_w, To* __restrict out_m,
                                          double* __restrict out_d, T offset_m, T offset_d) {
  for (int64_t k = 0; k < count; ++k) {
    const int64_t one = 2 * k, other = 2 * k + 1;
    const T sum_w = (w_a[one] + w_a[other]) + (w_b[one] + w_b[other]);
    // The inverse of the smallest weights, and their products, would leave float32.
    const T scale = select_bits<T>(is_below<T>(sum_w, T(0x1p-64)), T(0x1p64), 1), all = scale * sum_w;
    const T a0 = scale * w_a[one], a1 = scale * w_a[other], b0 = scale * w_b[one], b1 = scale * w_b[other];
    const T inverse = 1 / select<T>(all, all, 1);
    const T m = (a0 * m_a[one] + a1 * m_a[other]) + (b0 * m_b[one] + b1 * m_b[other]);
    // A uniform d varies by less than the rounding of a float: its mean is that of double.
    const double d = (double(a0) * double(d_a[one]) + double(a1) * double(d_a[other])) +
                     (double(b0) * double(d_b[one]) + double(b1) * double(d_b[other]));
    const double sum = (double(a0) + double(a1)) + (double(b0) + double(b1));
    const double exact = double(inverse) * (2 - sum * double(inverse));
    out_w[k] = To(T(0.25) * sum_w);
    out_m[k] = To(inverse * m + offset_m);
    out_d[k] = exact * d + double(offset_d);
  }
}
