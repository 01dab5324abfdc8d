// bfloat16 on AMX: the affine part in tiles of 16 rows x 16 columns x 32 k, summed in float.
//
// Both operands are private copies, padded with zeros to whole tiles: left [rows + 16][K to 32], right in tiles of 16
// pairs of k x 16 columns, [k / 32][NB][16][16] words of two numbers each.
#pragma once

#include "layout.h"

namespace carousel::CAROUSEL_NS {

#if defined(__AMX_BF16__)
template <class S>
inline constexpr bool on_amx = __is_same(S, bf16);
#else
template <class S>
inline constexpr bool on_amx = false;
#endif

inline constexpr int64_t tile_k = 32, tile_words = 256;

inline int64_t whole_tiles(int64_t k) { return (k + tile_k - 1) / tile_k * tile_k; }

#if defined(__AMX_BF16__)

static_assert(vector_bytes == 64);

// The tile registers of a thread, for as long as this lives: 0 to 3 sums, 4 left, 5 to 7 right.
class Tiles {
  public:
    Tiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shape;
        _tile_loadconfig(&shape);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

template <int NB>
inline __attribute__((always_inline)) void tile_products(const bf16* left, int64_t stride, const uint32_t* right,
                                                         int64_t k_tiles, const float* from, int64_t from_row,
                                                         float* to, int64_t to_row) {
    const int64_t f = from_row * 4, t = to_row * 4;
    if (from) {
        _tile_loadd(0, from, f);
        if constexpr (NB > 1) _tile_loadd(1, from + 16, f);
        if constexpr (NB > 2) _tile_loadd(2, from + 32, f);
        if constexpr (NB > 3) _tile_loadd(3, from + 48, f);
    } else {
        _tile_zero(0);
        if constexpr (NB > 1) _tile_zero(1);
        if constexpr (NB > 2) _tile_zero(2);
        if constexpr (NB > 3) _tile_zero(3);
    }
    for (int64_t k = 0; k < k_tiles; ++k, left += tile_k, right += NB * tile_words) {
        _tile_loadd(4, left, stride * 2);
        _tile_loadd(5, right, 64);
        _tile_dpbf16ps(0, 4, 5);
        if constexpr (NB > 1) {
            _tile_loadd(6, right + tile_words, 64);
            _tile_dpbf16ps(1, 4, 6);
        }
        if constexpr (NB > 2) {
            _tile_loadd(7, right + 2 * tile_words, 64);
            _tile_dpbf16ps(2, 4, 7);
        }
        if constexpr (NB > 3) {
            _tile_loadd(5, right + 3 * tile_words, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_stored(0, to, t);
    if constexpr (NB > 1) _tile_stored(1, to + 16, t);
    if constexpr (NB > 2) _tile_stored(2, to + 32, t);
    if constexpr (NB > 3) _tile_stored(3, to + 48, t);
}

// to[b][r] = from[b][r] + left[r] right[b] for blocks of NB * 16 columns; done(b, r, rows) after each tile.
template <int NB, class Done>
inline void tile_product(const bf16* left, int64_t stride, int64_t rows, const uint32_t* right, int64_t blocks,
                         int64_t k_tiles, const Place<const float>& from, const Place<float>& to, const Done& done) {
    alignas(64) float spare[16 * NB * 16];
    for (int64_t b = 0; b < blocks; ++b, right += k_tiles * NB * tile_words)
        for (int64_t r = 0; r < rows; r += 16) {
            const int64_t n = rows - r < 16 ? rows - r : 16;
            const float* start = from.data ? from.at(b, r) : nullptr;
            if (n == 16) {
                tile_products<NB>(left + r * stride, stride, right, k_tiles, start, from.row, to.at(b, r), to.row);
            } else {  // what lies behind the last row belongs to somebody else
                for (int64_t j = 0; start && j < n * NB; ++j)
                    store(spare + j * 16, load(from.at(b, r + j / NB) + j % NB * 16));
                tile_products<NB>(left + r * stride, stride, right, k_tiles, start ? spare : nullptr, NB * 16, spare,
                                  NB * 16);
                for (int64_t j = 0; j < n * NB; ++j) store(to.at(b, r + j / NB) + j % NB * 16, load(spare + j * 16));
            }
            done(b, r, static_cast<int>(n));
        }
}

inline void tile_columns(const bf16* left, int64_t stride, int64_t rows, const uint32_t* right, int64_t k_tiles,
                         int64_t g0, int64_t g1, float* to, int64_t row) {
    each_width<float>(g0, g1, [&]<int NB>(int64_t group, int64_t blocks) {
        tile_product<NB>(left, stride, rows, right + group * k_tiles * tile_words, blocks, k_tiles, {},
                         {to + group * 16, NB * 16, row}, [](int64_t, int64_t, int) {});
    });
}

inline Vec<float> words(const bf16* from, int64_t n) {  // n numbers, two to a lane, zeros behind them
    const __mmask32 mask = n >= 32 ? 0xffffffffu : n <= 0 ? 0u : (1u << n) - 1;
    return (Vec<float>)_mm512_maskz_loadu_epi16(mask, from);
}

inline __m512i widened(const bf16* from, int64_t n) {  // 16 numbers, one to a lane
    const __mmask16 mask = static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

inline void store_pairs(uint32_t* to, __m512i even, __m512i odd) {
    _mm512_storeu_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
}

inline __m512i rounded(Vec<float> v) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v)); }

// weight [G * H, K] -> the tiles of unit block u.
inline void pack_gate_tiles(const bf16* weight, int G, int64_t H, int64_t K, int64_t u, uint32_t* to) {
    const int64_t first = u * 16, n = H - first < 16 ? H - first : 16;
    for (int64_t k = 0; k < K; k += tile_k)
        for (int g = 0; g < G; ++g, to += tile_words) {
            Vec<float> v[16];
            for (int64_t l = 0; l < 16; ++l)
                v[l] = l < n ? words(weight + (g * H + first + l) * K + k, K - k) : zero<float>();
            transpose<float>(v);
            for (int r = 0; r < 16; ++r) store(reinterpret_cast<float*>(to) + r * 16, v[r]);
        }
}

// The same weight the other way round: columns [g0, g1) of C in groups of 16, k over [u][gate][lane].
inline void pack_back_tiles(const bf16* weight, int G, int64_t H, int64_t C, int64_t g0, int64_t g1, uint32_t* to) {
    const int64_t K = blocks_of<float>(H) * G * 16, k_tiles = whole_tiles(K) / tile_k;
    const auto row = [&](int64_t k, int64_t column) {
        const int64_t u = k / (G * 16), g = k / 16 % G, unit = u * 16 + k % 16;
        return k < K && unit < H ? widened(weight + (g * H + unit) * C + column, C - column) : _mm512_setzero_si512();
    };
    each_width<float>(g0, g1, [&]<int NB>(int64_t group, int64_t blocks) {
        uint32_t* tile = to + group * k_tiles * tile_words;
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t k = 0; k < k_tiles * tile_k; k += tile_k)
                for (int v = 0; v < NB; ++v, tile += tile_words)
                    for (int r = 0; r < 16; ++r) {
                        const int64_t column = (group + b * NB + v) * 16;
                        store_pairs(tile + r * 16, row(k + 2 * r, column), row(k + 2 * r + 1, column));
                    }
    });
}

// Rows anywhere in memory -> their transpose as a left operand: to [columns to 16][stride], stride >= rows to 32.
inline void transpose_rows(const bf16* const* rows, int64_t count, int64_t columns, bf16* to, int64_t stride) {
    for (int64_t n = 0; n < columns; n += 16)
        for (int64_t k = 0; k < count; k += tile_k) {
            Vec<float> v[16];
            for (int64_t r = 0; r < 16; ++r) {
                const int64_t even = k + 2 * r;
                alignas(64) uint32_t pair[16];
                store_pairs(pair, even < count ? widened(rows[even] + n, columns - n) : _mm512_setzero_si512(),
                            even + 1 < count ? widened(rows[even + 1] + n, columns - n) : _mm512_setzero_si512());
                v[r] = load(reinterpret_cast<const float*>(pair));
            }
            transpose<float>(v);
            for (int64_t l = 0; l < 16; ++l) store(reinterpret_cast<float*>(to + (n + l) * stride + k), v[l]);
        }
}

// z [rows][G][16] of one unit block -> tiles whose k runs over rows.
inline void pack_row_tiles(const float* z, int G, int64_t rows, uint32_t* to) {
    for (int64_t k = 0; k < rows; k += tile_k)
        for (int g = 0; g < G; ++g, to += tile_words)
            for (int r = 0; r < 16; ++r) {
                const auto at = [&](int64_t row) {
                    return row < rows ? rounded(load(z + (row * G + g) * 16)) : _mm512_setzero_si512();
                };
                store_pairs(to + r * 16, at(k + 2 * r), at(k + 2 * r + 1));
            }
}

inline void store_rounded(bf16* to, Vec<float> v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v));
}

// A row of n numbers, followed by zeros up to whole tiles.
inline void copy_row(bf16* to, const bf16* from, int64_t n) {
    for (int64_t k = 0; k < n; k += tile_k) store(reinterpret_cast<float*>(to + k), words(from + k, n - k));
}

#endif

template <bool ON>
struct TileGuard {};
#if defined(__AMX_BF16__)
template <>
struct TileGuard<true> {
    Tiles tiles;
};
#endif

// The weights in their tiles.
struct TileWeights {
    uint32_t *x = nullptr, *h = nullptr, *back_x = nullptr, *back_h = nullptr;

    static TileWeights carve(Carver& carver, const Layer& layer, bool forward, bool backward, bool input_gradient) {
        const Shape z = shape_of<float>(layer);
        const int64_t K = whole_tiles(z.U * z.W) / 2;
        TileWeights w;
        if (forward) {
            w.x = carver.take<uint32_t>(z.U * z.W * whole_tiles(z.I) / 2);
            w.h = carver.take<uint32_t>(z.U * z.W * whole_tiles(z.P) / 2);
        }
        if (backward && input_gradient) w.back_x = carver.take<uint32_t>(K * z.Ip);
        if (backward) w.back_h = carver.take<uint32_t>(K * z.Pp);
        return w;
    }
};

}  // namespace carousel::CAROUSEL_NS
