// What stands before and behind the layers of a stream: scaling of numbers, dense maps of one row and of many.
#pragma once

#include "activation.h"
#include "matvec.h"
#include "tile.h"

namespace carousel::CAROUSEL_NS {

inline size_t lay_dense(const float* weight, const float* bias, int64_t N, int64_t K, void* memory, StepDense& to) {
    Carver carver(memory);
    const int64_t vectors = blocks_of<float>(N);
    to.N = N;
    to.matrix = lay_matrix<1>(carver, Storage::f32, vectors, K, memory == nullptr,
                              [&](int64_t v, int64_t l) { return v * L + l < N ? weight + (v * L + l) * K : nullptr; });
    float* own = carver.take<float>(vectors * L);
    to.bias = own;
    for (int64_t k = 0; memory && k < vectors * L; ++k) own[k] = bias && k < N ? bias[k] : 0;
    return carver.used();
}

inline void dense(const StepDense& d, const float* x, float* y) {
    Operand o;
    o.x = x;
    each_group<Storage::f32, 1>(d.matrix.vectors, [&]<int NV>(int64_t first) {
        V acc[NV];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) acc[v] = load(d.bias + (first + v) * L);
        multiply<Storage::f32, NV>(acc, d.matrix, first, o);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) store(y + (first + v) * L, acc[v]);
    });
}

inline void dense_rows(const StepDense& d, int64_t n, const float* const* x, float* y) {
    const int64_t K = d.matrix.K, wide = d.matrix.vectors * L;
    each_width<float>(0, d.matrix.vectors, [&]<int NV>(int64_t group, int64_t blocks) {
        const Panels<float> right{d.matrix.words + group * L * K, blocks, NV * L * K, NV * L};
        const Place<const float> from{d.bias + group * L, NV * L, 0};
        product<float, NV>(PointerRows<float, float>{x, K}, n, right, from, Place<float>{y + group * L, NV * L, wide},
                           Nothing{});
    });
}

// The quotient as the division rounds it (Markstein 1990): from two steps of Newton's method on x / s, where 1 / s is
// rounded to nearest and nothing leaves the range. Dividing takes longer than all the rest of a row's scaling.
inline Vec<double> quotient(Vec<double> x, Vec<double> s, Vec<double> inverse) {
#if defined(__FMA__) || defined(__aarch64__)
    const Vec<double> first = x * inverse, second = fma(fma(-first, s, x), inverse, first);
    return fma(fma(-second, s, x), inverse, second);
#else
    return (void)inverse, x / s;
#endif
}

inline bool scale(const double* x, const Scaling& by, int64_t n, float* y) {
    constexpr int64_t D = VL<double>;
    typedef float Half __attribute__((vector_size(vector_bytes / 2)));
    const Vec<double> low = all(-by.bound), high = all(by.bound), most = all(by.largest);
    IVec<double> inside = ~IVec<double>{};
    int64_t k = 0;
    for (; k + D <= n; k += D) {
        const Vec<double> given = load(x + k);
        inside &= (IVec<double>)((given <= most) & (given >= -most));
        const Vec<double> v = quotient(given - load(by.mean + k), load(by.scale + k), load(by.inverse + k));
        const Half found = __builtin_convertvector(at_most(high, at_least(low, v)), Half);
        __builtin_memcpy(y + k, &found, sizeof found);
    }
    bool good = true;
    for (int64_t l = 0; l < D; ++l) good = good && inside[l];
    for (; k < n; ++k) {
        const double v = (x[k] - by.mean[k]) / by.scale[k], above = v < -by.bound ? -by.bound : v;
        good = good && __builtin_fabs(x[k]) <= by.largest;
        y[k] = static_cast<float>(above > by.bound ? by.bound : above);
    }
    return good;
}

inline void silu(float* x, int64_t n) {
    for (int64_t k = 0; k < n; k += L) {
        const V v = load(x + k);
        store(x + k, v * sigmoid<float>(v));
    }
}

}  // namespace carousel::CAROUSEL_NS
