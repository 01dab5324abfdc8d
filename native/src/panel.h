// Private layouts of the weights. Units are taken VL at a time (a unit block, `u`); a block's gates lie together, so
// that one tile yields whole cells: [u][k][gate][VL]. Missing lanes are zero and stay zero.
#pragma once

#include "storage.h"

namespace carousel::CAROUSEL_NS {

template <class T>
inline int64_t blocks_of(int64_t n) {
    return (n + VL<T> - 1) / VL<T>;
}

template <class T>
inline int64_t padded(int64_t n) {
    return blocks_of<T>(n) * VL<T>;
}

template <class T, int W>
inline void transpose_stage(Vec<T> (&v)[VL<T>]) {
    IVec<T> low{}, high{};
    for (int l = 0; l < VL<T>; ++l) {
        low[l] = l & W ? VL<T> + l - W : l;
        high[l] = l & W ? VL<T> + l : l + W;
    }
#pragma GCC unroll 16
    for (int i = 0; i < VL<T>; ++i) {
        if (i & W) continue;
        const Vec<T> a = v[i], b = v[i + W];
        v[i] = __builtin_shuffle(a, b, low);
        v[i + W] = __builtin_shuffle(a, b, high);
    }
}

template <class T>
inline void transpose(Vec<T> (&v)[VL<T>]) {
    transpose_stage<T, 1>(v);
    if constexpr (VL<T> > 2) transpose_stage<T, 2>(v);
    if constexpr (VL<T> > 4) transpose_stage<T, 4>(v);
    if constexpr (VL<T> > 8) transpose_stage<T, 8>(v);
}

// n <= VL rows of `from` [n, K], `ld` apart, become lanes: to[k * stride + lane].
template <class T, class S>
inline void pack_lanes(const S* from, int64_t n, int64_t ld, int64_t K, T* to, int64_t stride) {
    for (int64_t k = 0; k < K; k += VL<T>) {
        Vec<T> v[VL<T>];
        for (int64_t l = 0; l < VL<T>; ++l) v[l] = l < n ? load_wide(from + l * ld + k, K - k) : zero<T>();
        transpose<T>(v);
        for (int64_t j = 0; j < VL<T> && k + j < K; ++j) store(to + (k + j) * stride, v[j]);
    }
}

// The way back, summing `parts` buffers that lie `apart` from each other in their order.
template <class T, class S>
inline void unpack_lanes(const T* from, int64_t parts, int64_t apart, int64_t stride, S* to, int64_t n, int64_t ld,
                         int64_t K) {
    for (int64_t k = 0; k < K; k += VL<T>) {
        Vec<T> v[VL<T>];
        for (int64_t j = 0; j < VL<T>; ++j) {
            v[j] = zero<T>();
            for (int64_t p = 0; p < parts && k + j < K; ++p) v[j] += load(from + p * apart + (k + j) * stride);
        }
        transpose<T>(v);
        for (int64_t l = 0; l < n; ++l) store_narrow(to + l * ld + k, v[l], K - k);
    }
}

// weight [G * H, K] -> the panel of unit block u: [K][G][VL].
template <class T, class S>
inline void pack_gates(const S* weight, int G, int64_t H, int64_t K, int64_t u, T* to) {
    for (int g = 0; g < G; ++g) {
        const int64_t first = u * VL<T>, n = H - first;
        pack_lanes(weight + (g * H + first) * K, n < VL<T> ? n : VL<T>, K, K, to + g * VL<T>, G * VL<T>);
    }
}

// A vector [G * H], or the sum of two: [G][VL] of unit block u.
template <class T, class S>
inline void pack_vector(const S* first, const S* second, int G, int64_t H, int64_t u, T* to) {
    for (int g = 0; g < G; ++g) {
        const int64_t at = g * H + u * VL<T>, n = H - u * VL<T>;
        Vec<T> v = first ? load_wide(first + at, n) : zero<T>();
        if (second) v += load_wide(second + at, n);
        store(to + g * VL<T>, v);
    }
}

template <class T, class S>
inline void unpack_vector(const T* from, int64_t parts, int64_t apart, int G, int64_t H, int64_t u, S* to) {
    for (int g = 0; g < G; ++g) {
        Vec<T> v = zero<T>();
        for (int64_t p = 0; p < parts; ++p) v += load(from + p * apart + g * VL<T>);
        store_narrow(to + g * H + u * VL<T>, v, H - u * VL<T>);
    }
}

// Columns [g0, g1) of a product, counted in vectors, as panels of 4, then 2, then 1 vectors.
template <class T, class Visit>
inline void each_width(int64_t g0, int64_t g1, const Visit& visit) {
    const int64_t fours = (g1 - g0) / 4, two = g0 + 4 * fours, one = two + ((g1 - two) & 2);
    if (fours) visit.template operator()<4>(g0, fours);
    if (one > two) visit.template operator()<2>(two, int64_t{1});
    if (g1 > one) visit.template operator()<1>(one, int64_t{1});
}

// The gates' weight [G * H, C] the other way round, for gradients: columns of C, k over [u][gate][lane].
template <class T, class S>
inline void pack_back_gates(const S* weight, int G, int64_t H, int64_t C, int64_t g0, int64_t g1, T* to) {
    const int64_t U = blocks_of<T>(H), K = U * G * VL<T>;
    each_width<T>(g0, g1, [&]<int NV>(int64_t group, int64_t blocks) {
        for (int64_t b = 0; b < blocks; ++b) {
            T* panel = to + (group + b * NV) * VL<T> * K;
            for (int64_t u = 0; u < U; ++u)
                for (int g = 0; g < G; ++g)
                    for (int64_t l = 0; l < VL<T>; ++l, panel += NV * VL<T>)
                        for (int v = 0; v < NV; ++v) {
                            const int64_t unit = u * VL<T> + l, column = (group + b * NV + v) * VL<T>;
                            const bool real = unit < H && column < C;
                            store(panel + v * VL<T>,
                                  real ? load_wide(weight + (g * H + unit) * C + column, C - column) : zero<T>());
                        }
        }
    });
}

// matrix [K, C] as panels of its columns, [g0, g1) of them counted in vectors: for dm = dh' Wr.
template <class T, class S>
inline void pack_columns(const S* matrix, int64_t K, int64_t C, int64_t g0, int64_t g1, T* to) {
    each_width<T>(g0, g1, [&]<int NV>(int64_t group, int64_t blocks) {
        for (int64_t b = 0; b < blocks; ++b) {
            T* panel = to + (group + b * NV) * VL<T> * K;
            for (int64_t k = 0; k < K; ++k, panel += NV * VL<T>)
                for (int v = 0; v < NV; ++v) {
                    const int64_t column = (group + b * NV + v) * VL<T>;
                    store(panel + v * VL<T>, load_wide(matrix + k * C + column, C - column));
                }
        }
    });
}

// matrix [C, K], its rows becoming columns: for h' = m Wr^T.
template <class T, class S>
inline void pack_rows(const S* matrix, int64_t C, int64_t K, int64_t g0, int64_t g1, T* to) {
    each_width<T>(g0, g1, [&]<int NV>(int64_t group, int64_t blocks) {
        for (int64_t b = 0; b < blocks; ++b)
            for (int v = 0; v < NV; ++v) {
                const int64_t first = (group + b * NV + v) * VL<T>, n = C - first < VL<T> ? C - first : VL<T>;
                pack_lanes(matrix + first * K, n, K, K, to + (group + b * NV) * VL<T> * K + v * VL<T>, NV * VL<T>);
            }
    });
}

}  // namespace carousel::CAROUSEL_NS
