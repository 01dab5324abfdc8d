// src/carousel/masks.py in C++, bit for bit: which units a regulariser hits, from (seed, stream, sequence, step, unit).
#pragma once

#include "simd.h"

namespace carousel::CAROUSEL_NS {

inline constexpr uint64_t stream_recurrent_dropout = 1, stream_zoneout_c = 2, stream_zoneout_h = 3;

inline uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

struct RowKey {
    uint32_t low, high;
};

inline RowKey row_key(uint64_t seed, uint64_t stream, int64_t sequence, int64_t step) {
    const uint64_t key = mix64(seed + 0x9E3779B97F4A7C15u * stream);
    const uint64_t row = mix64(key ^ (static_cast<uint64_t>(sequence) << 32 | static_cast<uint64_t>(step)));
    return {static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32)};
}

inline uint32_t threshold(double probability) {
    const double scaled = probability * 4294967296.0;
    return scaled >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(scaled);
}

// 1 where the unit is hit, else 0, for the units from `first` on.
template <class T>
inline Vec<T> hits(uint32_t limit, RowKey key, int64_t first) {
    typedef typename Simd<T>::draw Draw;
    Draw x{};
    for (int k = 0; k < VL<T>; ++k) x[k] = static_cast<uint32_t>(first + k);
    const auto mix = [](Draw v) {
        v = (v ^ (v >> 16)) * 0x7FEB352Du;
        v = (v ^ (v >> 15)) * 0x846CA68Bu;
        return v ^ (v >> 16);
    };
    const Draw bits = mix(mix(x * 0x9E3779B1u + key.low) ^ key.high);
    const auto hit = bits < limit;  // -1 or 0 in each lane
    return -__builtin_convertvector(hit, Vec<T>);
}

}  // namespace carousel::CAROUSEL_NS
