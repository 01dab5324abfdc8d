// exp, sigmoid and tanh on vectors: about 1 ulp in float and in double, NaN in, NaN out.
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

template <class T>
inline Vec<T> sigmoid(Vec<T> x) {
    const Vec<T> one = all(T(1));
    return one / (one + exponential<T>(-x));
}

// expm1(2 x) / (expm1(2 x) + 2), which keeps its relative accuracy near zero.
template <class T>
inline Vec<T> tanh(Vec<T> x) {
    const Vec<T> bound = all(T(sizeof(T) == 4 ? 10 : 20));  // tanh is 1 from here on
    const Vec<T> y = at_most(bound, at_least(-bound, x));
    const Vec<T> m = exponential_minus_one<T>(y + y);
    return m / (m + all(T(2)));
}

}  // namespace carousel::CAROUSEL_NS
