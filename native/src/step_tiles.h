// The product of a matrix and one vector on AMX, for weights in bfloat16 and int8: a tile holds 16 words of 16 outputs,
// and what one number of the vector is made of (three bfloat16 that add up to it, or the two bytes of an integer) lies
// in rows of the left tile, so that its full precision costs nothing.
//
// Weights lie as [groups][words / 16][vectors of the group][16 words][16 lanes].
#pragma once

#include "matvec.h"

namespace carousel::CAROUSEL_NS {

inline constexpr int tile_parts = 3;  // rows of the left tile: bfloat16; int8 has two and leaves the third zero

// The tile registers of a thread, for as long as this lives: 0 to 3 sums, 4 left, 5 to 7 right.
class StepTiles {
  public:
    StepTiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {tile_parts, tile_parts, tile_parts, tile_parts, tile_parts, 16, 16, 16};
        } shape;
        _tile_loadconfig(&shape);
    }
    ~StepTiles() { _tile_release(); }
    StepTiles(const StepTiles&) = delete;
    StepTiles& operator=(const StepTiles&) = delete;
};

// x as three rows of bfloat16 that add up to it.
inline void split_rows(const float* x, int64_t K, bf16* rows, int64_t stride) {
    for (int64_t k = 0; k < stride; k += L) {
        V rest = load_first(x + k, K - k < 0 ? 0 : K - k);
        for (int part = 0; part < tile_parts; ++part) {
            const __m256i half = (__m256i)_mm512_cvtneps_pbh((__m512)rest);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + part * stride + k), half);
            rest -= (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
        }
    }
}

template <Storage S, int NV>
inline __attribute__((always_inline)) void tile_sums(const StepMatrix& m, int64_t first, const void* left,
                                                     int64_t stride, void* sums) {
    const int64_t words = words_of(S, m.K);
    const float* right = m.words + first * words * L;
    const auto* a = static_cast<const uint8_t*>(left);
    _tile_zero(0);
    if constexpr (NV > 1) _tile_zero(1);
    if constexpr (NV > 2) _tile_zero(2);
    if constexpr (NV > 3) _tile_zero(3);
    for (int64_t w = 0; w < words; w += 16, a += 64, right += NV * 256) {
        _tile_loadd(4, a, stride);
        _tile_loadd(5, right, 64);
        if constexpr (NV > 1) _tile_loadd(6, right + 256, 64);
        if constexpr (NV > 2) _tile_loadd(7, right + 512, 64);
        if constexpr (S == Storage::bf16) {
            _tile_dpbf16ps(0, 4, 5);
            if constexpr (NV > 1) _tile_dpbf16ps(1, 4, 6);
            if constexpr (NV > 2) _tile_dpbf16ps(2, 4, 7);
        } else {
            _tile_dpbusd(0, 4, 5);
            if constexpr (NV > 1) _tile_dpbusd(1, 4, 6);
            if constexpr (NV > 2) _tile_dpbusd(2, 4, 7);
        }
        if constexpr (NV > 3) {
            _tile_loadd(5, right + 768, 64);
            if constexpr (S == Storage::bf16)
                _tile_dpbf16ps(3, 4, 5);
            else
                _tile_dpbusd(3, 4, 5);
        }
    }
    auto* to = static_cast<float*>(sums);
    constexpr int64_t apart = tile_parts * 16;
    _tile_stored(0, to, 64);
    if constexpr (NV > 1) _tile_stored(1, to + apart, 64);
    if constexpr (NV > 2) _tile_stored(2, to + 2 * apart, 64);
    if constexpr (NV > 3) _tile_stored(3, to + 3 * apart, 64);
}

template <Storage S, int NV>
inline void multiply_tiles(V (&acc)[NV], const StepMatrix& m, int64_t first, const Operand& o) {
    alignas(64) float sums[NV * tile_parts * 16];
    tile_sums<S, NV>(m, first, o.tiles, o.stride, sums);
    for (int v = 0; v < NV; ++v) {
        const float* at = sums + v * tile_parts * 16;
        if constexpr (S == Storage::bf16) {
            acc[v] += load(at) + (load(at + 16) + load(at + 32));
        } else {
            IV high, low, sum;
            __builtin_memcpy(&high, at, sizeof high);
            __builtin_memcpy(&low, at + 16, sizeof low);
            __builtin_memcpy(&sum, m.sum + (first + v) * L, sizeof sum);
            acc[v] = from_integers(acc[v], high, low, sum, load(m.scale + (first + v) * L) * all(o.unit));
        }
    }
}

}  // namespace carousel::CAROUSEL_NS
