// exp, sigmoid and tanh on vectors: 1 to 3 ulp in float and in double, NaN in, NaN out.
#pragma once

#include "simd.h"

namespace carousel::CAROUSEL_NS {

// exp(x) = 2^n (1 + p): n a whole number, p = expm1(r), |r| <= ln(2) / 2.
template <class T>
struct Split {
    Vec<T> power, p;
};

// Adding 1.5 * 2^mantissa rounds to a whole number and leaves it in the low bits, ready to become an exponent.
inline Split<float> split(Vec<float> x) {
    const Vec<float> magic = all(12582912.0f);
    x = at_most(all(88.0f), at_least(all(-87.0f), x));
    const Vec<float> shifted = fma(x, all(1.44269504f), magic);
    const Vec<float> n = shifted - magic;
    const Vec<float> r = fma(n, all(-1.42860677e-6f), fma(n, all(-0.693145752f), x));
    const Vec<float> r2 = r * r;
    const Vec<float> high = fma(r, all(1.9875691500e-4f), all(1.3981999507e-3f));
    const Vec<float> mid = fma(r, all(8.3334519073e-3f), all(4.1665795894e-2f));
    const Vec<float> low = fma(r, all(1.6666665459e-1f), all(5.0000001201e-1f));
    const Vec<float> q = fma(r2, fma(r2, high, mid), low);
    return {(Vec<float>)(((IVec<float>)shifted << 23) + 0x3f800000), fma(r2, q, r)};
}

inline Split<double> split(Vec<double> x) {
    const Vec<double> magic = all(6755399441055744.0);
    x = at_most(all(709.0), at_least(all(-708.0), x));
    const Vec<double> shifted = fma(x, all(1.4426950408889634074), magic);
    const Vec<double> n = shifted - magic;
    const Vec<double> r = fma(n, all(-1.9082149292705877000e-10), fma(n, all(-6.93147180369123816490e-01), x));
    Vec<double> q = all(1.0 / 87178291200);  // 1 / 14!
    constexpr double inverse[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                  1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                  1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2};
    for (const double coefficient : inverse) q = fma(q, r, all(coefficient));
    return {(Vec<double>)(((IVec<double>)shifted << 52) + 0x3ff0000000000000), fma(r * r, q, r)};
}

template <class T>
inline Vec<T> exponential(Vec<T> x) {
    const Split<T> s = split(x);
    return fma(s.power, s.p, s.power);
}

template <class T>
inline Vec<T> exponential_minus_one(Vec<T> x) {
    const Split<T> s = split(x);
    return fma(s.power, s.p, s.power - all(T(1)));
}

// Gates are quotients: sigmoid(x) = 1 / sigmoid_below(x) and tanh(x) = m / (m + 2) with m = tanh_above(x), so that
// two of them can share one division, which takes as long as half of the rest. Both are bounded so that the product of
// two denominators is a number: sigmoid stays above 2e-19 in float, and tanh is 1 from the bound on.
//
// In float both work with few terms: |p - expm1(r)| <= 1.4e-8 |expm1(r)|, and the rounded ln(2) is off by 2e-9 only.

inline Vec<float> sigmoid_below(Vec<float> x) {  // 1 + exp(-x)
    const Vec<float> magic = all(12582912.0f);
    x = at_most(all(87.0f), at_least(all(-43.0f), x));
    const Vec<float> shifted = fma(x, all(-1.44269504f), magic);
    const Vec<float> s = fma(shifted - magic, all(0.693147181f), x);  // -r
    const Vec<float> s2 = s * s;
    const Vec<float> low = fma(s, all(-1.6666543189e-1f), all(4.9999998146e-1f));
    const Vec<float> mid = fma(s, all(-8.3665787950e-3f), all(4.1667200804e-2f));
    const Vec<float> p = fma(s2, fma(s2, fma(s2, all(1.3882591373e-3f), mid), low), -s);
    const Vec<float> power = (Vec<float>)(((IVec<float>)shifted << 23) + 0x3f800000);
    return fma(power, p, power) + all(1.0f);
}

inline Vec<float> tanh_above(Vec<float> x) {  // expm1(2 x), which keeps the relative accuracy near zero
    const Vec<float> magic = all(12582912.0f), bound = all(10.0f);
    x = at_most(bound, at_least(-bound, x));
    const Vec<float> shifted = fma(x, all(2.88539008f), magic);
    const Vec<float> s = fma(shifted - magic, all(-0.34657359f), x);  // r / 2
    const Vec<float> s2 = s * s;
    const Vec<float> low = fma(s, all(8 * 1.6666543189e-1f), all(4 * 4.9999998146e-1f));
    const Vec<float> mid = fma(s, all(32 * 8.3665787950e-3f), all(16 * 4.1667200804e-2f));
    const Vec<float> p = fma(s2, fma(s2, fma(s2, all(64 * 1.3882591373e-3f), mid), low), s + s);
    const Vec<float> power = (Vec<float>)(((IVec<float>)shifted << 23) + 0x3f800000);
    return fma(power, p, power - all(1.0f));
}

inline Vec<double> sigmoid_below(Vec<double> x) { return all(1.0) + exponential<double>(-at_least(all(-350.0), x)); }

inline Vec<double> tanh_above(Vec<double> x) {
    const Vec<double> bound = all(20.0), y = at_most(bound, at_least(-bound, x));
    return exponential_minus_one<double>(y + y);
}

template <class T>
inline Vec<T> sigmoid(Vec<T> x) {
    return all(T(1)) / sigmoid_below(x);
}

template <class T>
inline Vec<T> tanh(Vec<T> x) {
    const Vec<T> m = tanh_above(x);
    return m / (m + all(T(2)));
}

// a = sigmoid(a), b = sigmoid(b)
template <class T>
inline void two_sigmoids(Vec<T>& a, Vec<T>& b) {
    const Vec<T> below_a = sigmoid_below(a), below_b = sigmoid_below(b), r = all(T(1)) / (below_a * below_b);
    a = r * below_b;
    b = r * below_a;
}

// a = sigmoid(a), b = tanh(b)
template <class T>
inline void sigmoid_and_tanh(Vec<T>& a, Vec<T>& b) {
    const Vec<T> below_a = sigmoid_below(a), above = tanh_above(b), below_b = above + all(T(2));
    const Vec<T> r = all(T(1)) / (below_a * below_b);
    a = r * below_b;
    b = above * (r * below_a);
}

}  // namespace carousel::CAROUSEL_NS
