// The vector of the instruction set that this translation unit is compiled for. Everything that is compiled more than
// once lives in a namespace of its own (CAROUSEL_NS) and uses no std:: function templates: the linker would keep one
// copy of those, perhaps one with instructions that the machine lacks.
#pragma once

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include <cstddef>
#include <cstdint>

namespace carousel::CAROUSEL_NS {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
inline constexpr int tile_vectors = 24;  // accumulators in registers; the other 8 hold weights and a broadcast
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
inline constexpr int tile_vectors = 12;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16;
inline constexpr int tile_vectors = 24;
#else
inline constexpr int vector_bytes = 16;
inline constexpr int tile_vectors = 12;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
    static constexpr int lanes = vector_bytes / 4;
    typedef float vec __attribute__((vector_size(vector_bytes)));
    typedef float loose __attribute__((vector_size(vector_bytes), aligned(4)));
    typedef int32_t ivec __attribute__((vector_size(vector_bytes)));
    typedef uint32_t draw __attribute__((vector_size(vector_bytes)));
};

template <>
struct Simd<double> {
    static constexpr int lanes = vector_bytes / 8;
    typedef double vec __attribute__((vector_size(vector_bytes)));
    typedef double loose __attribute__((vector_size(vector_bytes), aligned(8)));
    typedef int64_t ivec __attribute__((vector_size(vector_bytes)));
    typedef uint32_t draw __attribute__((vector_size(vector_bytes / 2)));
};

template <class T>
using Vec = typename Simd<T>::vec;
template <class T>
using IVec = typename Simd<T>::ivec;
template <class T>
inline constexpr int64_t VL = Simd<T>::lanes;

template <class T>
inline constexpr int64_t line = 64 / sizeof(T);  // of cache

// As vectors of any alignment, not as bytes: bytes could be anything, and every pointer would be read again after them.
template <class T>
inline Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename Simd<T>::loose*>(from);
}

template <class T>
inline void store(T* to, Vec<T> v) {
    *reinterpret_cast<typename Simd<T>::loose*>(to) = v;
}

template <class T>
inline Vec<T> zero() {
    return Vec<T>{};
}

#if defined(__AVX512F__)
inline Vec<float> all(float x) { return _mm512_set1_ps(x); }
inline Vec<double> all(double x) { return _mm512_set1_pd(x); }
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
// `bound` stands first because x86 returns the second operand where one is NaN: a NaN in x stays.
inline Vec<float> at_least(Vec<float> bound, Vec<float> x) { return _mm512_max_ps(bound, x); }
inline Vec<double> at_least(Vec<double> bound, Vec<double> x) { return _mm512_max_pd(bound, x); }
inline Vec<float> at_most(Vec<float> bound, Vec<float> x) { return _mm512_min_ps(bound, x); }
inline Vec<double> at_most(Vec<double> bound, Vec<double> x) { return _mm512_min_pd(bound, x); }
#elif defined(__AVX2__)
inline Vec<float> all(float x) { return _mm256_set1_ps(x); }
inline Vec<double> all(double x) { return _mm256_set1_pd(x); }
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
inline Vec<float> at_least(Vec<float> bound, Vec<float> x) { return _mm256_max_ps(bound, x); }
inline Vec<double> at_least(Vec<double> bound, Vec<double> x) { return _mm256_max_pd(bound, x); }
inline Vec<float> at_most(Vec<float> bound, Vec<float> x) { return _mm256_min_ps(bound, x); }
inline Vec<double> at_most(Vec<double> bound, Vec<double> x) { return _mm256_min_pd(bound, x); }
#else
template <class T>
inline Vec<T> all_of(T x) {
    return x - Vec<T>{};
}
inline Vec<float> all(float x) { return all_of(x); }
inline Vec<double> all(double x) { return all_of(x); }
#if defined(__aarch64__)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmaq_f64(c, a, b); }
#else
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return a * b + c; }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }
#endif
inline Vec<float> at_least(Vec<float> bound, Vec<float> x) { return x < bound ? bound : x; }
inline Vec<double> at_least(Vec<double> bound, Vec<double> x) { return x < bound ? bound : x; }
inline Vec<float> at_most(Vec<float> bound, Vec<float> x) { return x > bound ? bound : x; }
inline Vec<double> at_most(Vec<double> bound, Vec<double> x) { return x > bound ? bound : x; }
#endif

// The first n lanes only; the memory behind them is not touched, and the other lanes load as zero.
template <class T>
inline Vec<T> load_first(const T* from, int64_t n) {
    if (n >= VL<T>) return load(from);
    Vec<T> v{};
    __builtin_memcpy(&v, from, static_cast<size_t>(n) * sizeof(T));
    return v;
}

template <class T>
inline void store_first(T* to, Vec<T> v, int64_t n) {
    if (n >= VL<T>)
        store(to, v);
    else
        __builtin_memcpy(to, &v, static_cast<size_t>(n) * sizeof(T));
}

#if defined(__AVX512F__)
template <>
inline Vec<float> load_first(const float* from, int64_t n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << n) - 1), from);
}
template <>
inline void store_first(float* to, Vec<float> v, int64_t n) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << n) - 1), v);
}
#endif

// Lanes summed in one fixed order: the upper half onto the lower, again and again.
template <class T, int WIDTH = Simd<T>::lanes / 2>
inline T sum(Vec<T> v) {
    IVec<T> upper{};
    for (int k = 0; k < VL<T>; ++k) upper[k] = (k + WIDTH) % VL<T>;
    v += __builtin_shuffle(v, upper);
    if constexpr (WIDTH > 1)
        return sum<T, WIDTH / 2>(v);
    else
        return v[0];
}

// The first n lanes of v, the others zero.
template <class T>
inline Vec<T> first_lanes(Vec<T> v, int64_t n) {
    IVec<T> lane{};
    for (int k = 0; k < VL<T>; ++k) lane[k] = k;
    return lane < static_cast<decltype(lane[0] + 0)>(n) ? v : zero<T>();
}

}  // namespace carousel::CAROUSEL_NS
