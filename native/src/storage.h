// Storage types and the type they are computed in: bfloat16 is computed in float.
#pragma once

#include "simd.h"

namespace carousel::CAROUSEL_NS {

struct bf16 {
    uint16_t bits;
};

template <class S>
struct Computed {
    typedef S type;
};
template <>
struct Computed<bf16> {
    typedef float type;
};

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }

// Round to nearest even; NaN stays NaN.
inline void narrow(float x, bf16& to) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    to.bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void narrow(float x, float& to) { to = x; }
inline void narrow(double x, double& to) { to = x; }

inline Vec<float> load_wide(const float* from, int64_t n) { return load_first(from, n); }
inline Vec<double> load_wide(const double* from, int64_t n) { return load_first(from, n); }
typedef uint16_t Half __attribute__((vector_size(vector_bytes / 2)));
typedef uint32_t Whole __attribute__((vector_size(vector_bytes)));

inline Vec<float> load_wide(const bf16* from, int64_t n) {
    Half bits{};
    if (n >= VL<float>)
        __builtin_memcpy(&bits, from, sizeof bits);
    else
        __builtin_memcpy(&bits, from, static_cast<size_t>(n) * sizeof(bf16));
    return (Vec<float>)(__builtin_convertvector(bits, Whole) << 16);
}

inline void store_narrow(float* to, Vec<float> v, int64_t n) { store_first(to, v, n); }
inline void store_narrow(double* to, Vec<double> v, int64_t n) { store_first(to, v, n); }
inline void store_narrow(bf16* to, Vec<float> v, int64_t n) {
    const Whole bits = (Whole)v, even = bits + 0x7fff + ((bits >> 16) & 1);
    const Whole kept = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : even >> 16;
    const Half half = __builtin_convertvector(kept, Half);
    __builtin_memcpy(to, &half, n >= VL<float> ? sizeof half : static_cast<size_t>(n) * sizeof(bf16));
}

}  // namespace carousel::CAROUSEL_NS
