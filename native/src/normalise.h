// Layer norm over one row that lies in blocks: [U][G][VL], blocks `apart`, of which H units are real.
#pragma once

#include "panel.h"

namespace carousel::CAROUSEL_NS {

inline constexpr double layer_norm_eps = 1e-5;  // LAYER_NORM_EPS in cell.py

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class T>
struct Statistics {
    T mean, scale;  // scale is 1 / sqrt(variance + eps)
};

template <class T>
inline Statistics<T> statistics(const T* row, int64_t apart, int64_t U, int G, int64_t H) {
    Vec<T> total = zero<T>();
    for (int64_t u = 0; u < U; ++u)
        for (int g = 0; g < G; ++g) total += load(row + u * apart + g * VL<T>);
    const T count = static_cast<T>(G * H), mean = sum<T>(total) / count;
    Vec<T> squares = zero<T>();
    for (int64_t u = 0; u < U; ++u)
        for (int g = 0; g < G; ++g) {
            Vec<T> centred = load(row + u * apart + g * VL<T>) - all(mean);
            if ((u + 1) * VL<T> > H) centred = first_lanes<T>(centred, H - u * VL<T>);
            squares = fma(centred, centred, squares);
        }
    return {mean, 1 / root(sum<T>(squares) / count + T(layer_norm_eps))};
}

// of_norm, the gradient of the normalised row, becomes the gradient of the row before. Its missing lanes are zero.
template <class T>
inline void normalise_backward(T* of_norm, const T* norm, int64_t apart, int64_t norm_apart, T scale, int64_t U, int G,
                               int64_t H) {
    Vec<T> total = zero<T>(), along = zero<T>();
    for (int64_t u = 0; u < U; ++u)
        for (int g = 0; g < G; ++g) {
            const Vec<T> d = load(of_norm + u * apart + g * VL<T>);
            total += d;
            along = fma(d, load(norm + u * norm_apart + g * VL<T>), along);
        }
    const T count = static_cast<T>(G * H), mean = sum<T>(total) / count, slope = sum<T>(along) / count;
    for (int64_t u = 0; u < U; ++u)
        for (int g = 0; g < G; ++g) {
            T* at = of_norm + u * apart + g * VL<T>;
            const Vec<T> n = load(norm + u * norm_apart + g * VL<T>);
            Vec<T> d = (load(at) - all(mean) - n * all(slope)) * all(scale);
            if ((u + 1) * VL<T> > H) d = first_lanes<T>(d, H - u * VL<T>);
            store(at, d);
        }
}

}  // namespace carousel::CAROUSEL_NS
