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
inline Vec<float> load_wide(const bf16* from, int64_t n) {
    float wide[VL<float>] = {};
    for (int64_t k = 0; k < (n < VL<float> ? n : VL<float>); ++k) wide[k] = widen(from[k]);
    return load(wide);
}

inline void store_narrow(float* to, Vec<float> v, int64_t n) { store_first(to, v, n); }
inline void store_narrow(double* to, Vec<double> v, int64_t n) { store_first(to, v, n); }
inline void store_narrow(bf16* to, Vec<float> v, int64_t n) {
    float wide[VL<float>];
    store(wide, v);
    for (int64_t k = 0; k < (n < VL<float> ? n : VL<float>); ++k) narrow(wide[k], to[k]);
}

}  // namespace carousel::CAROUSEL_NS
