// A matrix times one vector, its weights in float, bfloat16 or int8: layout and product.
//
// Outputs are taken in vectors of VL lanes and vectors in groups that fill the registers, so that a product reads its
// weights from front to back, once.
#pragma once

#include <initializer_list>

#include "panel.h"
#include "plan.h"
#include "step.h"

namespace carousel::CAROUSEL_NS {

typedef Vec<float> V;
typedef IVec<float> IV;
inline constexpr int64_t L = VL<float>;

template <Storage S>
inline constexpr int64_t grain = S == Storage::f32    ? 1
                                 : S == Storage::bf16 ? 2
                                                      : 4;

#if defined(__AMX_INT8__)
inline constexpr bool on_tiles = true;  // bfloat16 and int8; see step_tiles.h
#else
inline constexpr bool on_tiles = false;
#endif

inline int64_t grain_of(Storage s) { return s == Storage::f32 ? 1 : s == Storage::bf16 ? 2 : 4; }
inline int64_t words_of(Storage s, int64_t K) {
    const int64_t words = (K + grain_of(s) - 1) / grain_of(s);
    return on_tiles && s != Storage::f32 ? (words + 15) / 16 * 16 : words;
}

// Where word w of vector v stands in a group of NV vectors, in vectors.
template <int NV>
inline int64_t word_place(Storage s, int64_t w, int v) {
    return on_tiles && s != Storage::f32 ? (w / 16 * NV + v) * 16 + w % 16 : w * NV + v;
}

// Accumulators that fit into the registers beside a broadcast; int8 keeps two for each vector.
template <Storage S>
inline constexpr int most_vectors =
    on_tiles && S != Storage::f32 ? 4 : (tile_vectors >= 24 ? 16 : 8) / (S == Storage::int8 ? 2 : 1);

// `vectors` in multiples of `unit` as groups: the widest first. visit<NV>(first vector).
template <Storage S, int UNIT, class Visit>
inline void each_group(int64_t vectors, const Visit& visit) {
    constexpr int four = 4 * UNIT, two = 2 * UNIT;
    int64_t at = 0;
    if constexpr (four <= most_vectors<S>)
        for (; at + four <= vectors; at += four) visit.template operator()<four>(at);
    if constexpr (two <= most_vectors<S>)
        for (; at + two <= vectors; at += two) visit.template operator()<two>(at);
    for (; at < vectors; at += UNIT) visit.template operator()<UNIT>(at);
}

inline float rounded(float x) {  // to bfloat16
    bf16 half{};
    narrow(x, half);
    return widen(half);
}

inline uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }

// Two weights in a word: the even one, rounded to bfloat16, in its lower half. Read as a float the whole word is the
// odd one: the lower half is then noise in its last bits, and the upper half is chosen so that the sum comes closest.
inline uint32_t pair_of(float even, float odd) {
    if (on_tiles) return bits_of(rounded(even)) >> 16 | bits_of(rounded(odd));
    const uint32_t low = bits_of(rounded(even)) >> 16, high = bits_of(odd) & 0xffff0000u;
    uint32_t best = high | low;
    for (const uint32_t change : {0x10000u, 0xffff0000u}) {  // a unit up or down
        const uint32_t word = (high + change) | low;
        const float distance = odd - __builtin_bit_cast(float, word), least = odd - __builtin_bit_cast(float, best);
        if (__builtin_fabsf(distance) < __builtin_fabsf(least)) best = word;
    }
    return best;
}

inline float even_of(uint32_t word) { return __builtin_bit_cast(float, word << 16); }
inline float odd_of(uint32_t word) { return __builtin_bit_cast(float, word); }

inline float scale_of(const float* row, int64_t K) {
    float most = 0;
    for (int64_t k = 0; k < K; ++k) most = __builtin_fabsf(row[k]) > most ? __builtin_fabsf(row[k]) : most;
    return most / 127;
}

inline int32_t quantised(float x, float scale) {
    return scale > 0 ? static_cast<int32_t>(__builtin_rintf(x / scale)) : 0;
}

// The words of one row.
inline uint32_t word_of(Storage storage, const float* row, int64_t word, int64_t K, float scale) {
    const auto at = [&](int64_t k) { return k < K ? row[k] : 0.0f; };
    if (storage == Storage::f32) return bits_of(row[word]);
    if (storage == Storage::bf16) return pair_of(at(2 * word), at(2 * word + 1));
    uint32_t found = 0;
    for (int64_t j = 0; j < 4; ++j)
        found |= (static_cast<uint32_t>(quantised(at(4 * word + j), scale)) & 0xff) << (8 * j);
    return found;
}

// row(vector, lane): a row of K weights, or null for a lane that is missing.
template <int UNIT, class Row>
inline StepMatrix lay_matrix(Carver& carver, Storage storage, int64_t vectors, int64_t K, bool measure,
                             const Row& row) {
    StepMatrix m;
    m.K = K;
    m.vectors = vectors;
    const int64_t words = words_of(storage, K);
    auto* data = carver.take<uint32_t>(words * vectors * L);
    float* scale = storage == Storage::int8 ? carver.take<float>(vectors * L) : nullptr;
    int32_t* sum = storage == Storage::int8 ? carver.take<int32_t>(vectors * L) : nullptr;
    m.words = reinterpret_cast<const float*>(data);
    m.scale = scale;
    m.sum = sum;
    if (measure) return m;
    const auto group = [&]<int NV>(int64_t first) {
        uint32_t* to = data + first * words * L;
        for (int v = 0; v < NV; ++v)
            for (int64_t l = 0; l < L; ++l) {
                const float* from = row(first + v, l);
                const float unit = scale && from ? scale_of(from, K) : 0;
                int32_t total = 0;
                for (int64_t w = 0; w < words; ++w)
                    to[word_place<NV>(storage, w, v) * L + l] = from ? word_of(storage, from, w, K, unit) : 0;
                if (!scale) continue;
                for (int64_t k = 0; from && k < K; ++k) total += quantised(from[k], unit);
                scale[(first + v) * L + l] = unit;
                sum[(first + v) * L + l] = 128 * total;
            }
    };
    if (storage == Storage::f32) each_group<Storage::f32, UNIT>(vectors, group);
    if (storage == Storage::bf16) each_group<Storage::bf16, UNIT>(vectors, group);
    if (storage == Storage::int8) each_group<Storage::int8, UNIT>(vectors, group);
    return m;
}

// The operand of a product as its storage wants it.
struct Operand {
    const float* x = nullptr;
    uint8_t *high = nullptr, *low = nullptr;  // [K padded] of x / unit + 2^15
    float unit = 0;
    const void* tiles = nullptr;  // the same, or three rows of bfloat16, `stride` bytes apart
    int64_t stride = 0;

    static int64_t apart(int64_t K) { return (K + 63) / 64 * 64; }
    static int64_t bytes(Storage s, int64_t K) { return (s == Storage::bf16 ? 6 : 3) * apart(K); }

    // x as 16-bit integers.
    static Operand quantise(const float* x, int64_t K, void* memory) {
        Operand o;
        o.x = x;
        o.high = static_cast<uint8_t*>(memory);
        o.low = o.high + apart(K);
        o.tiles = memory;
        o.stride = apart(K);
        V most = zero<float>();
        for (int64_t k = 0; k < K; k += L) {
            const V v = load_first(x + k, K - k);
            most = at_least(most, at_least(v, -v));
        }
        float top = 0;
        for (int l = 0; l < L; ++l) top = most[l] > top ? most[l] : top;
        o.unit = top / 32767;
        if (on_tiles) __builtin_memset(memory, 0, static_cast<size_t>(3 * apart(K)));
        const V factor = all(top > 0 ? 32767 / top : 0), magic = all(12582912.0f);
        typedef uint8_t Bytes __attribute__((vector_size(vector_bytes / 4)));
        for (int64_t k = 0; k < K; k += L) {
            const IV q = (IV)(load_first(x + k, K - k) * factor + magic) - (IV)magic + 32768;
            const Bytes high = __builtin_convertvector(q >> 8, Bytes), low = __builtin_convertvector(q & 255, Bytes);
            __builtin_memcpy(o.high + k, &high, sizeof high);
            __builtin_memcpy(o.low + k, &low, sizeof low);
        }
        return o;
    }
};

#if defined(__AVX512VNNI__)
inline IV dot4(IV sum, uint32_t operand, IV words) {
    return (IV)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(static_cast<int>(operand)), (__m512i)words);
}
#else
// Four products of unsigned and signed bytes in each lane.
inline IV dot4(IV sum, uint32_t operand, IV words) {
    sum += ((words << 24) >> 24) * static_cast<int32_t>(operand & 255);
    sum += ((words << 16) >> 24) * static_cast<int32_t>(operand >> 8 & 255);
    sum += ((words << 8) >> 24) * static_cast<int32_t>(operand >> 16 & 255);
    return sum + (words >> 24) * static_cast<int32_t>(operand >> 24);
}
#endif

inline uint32_t word_at(const uint8_t* from) {
    uint32_t word;
    __builtin_memcpy(&word, from, 4);
    return word;
}

// acc + unit * sum of w (256 high + low - 2^15), `sum` being 128 times that of w.
inline V from_integers(V acc, IV high, IV low, IV sum, V unit) {
    const V whole = fma(__builtin_convertvector(high - sum, V), all(256.0f), __builtin_convertvector(low, V));
    return fma(whole, unit, acc);
}

// acc += the group's weights times x.
template <Storage S, int NV>
inline __attribute__((always_inline)) void multiply(V (&acc)[NV], const StepMatrix& m, int64_t first,
                                                    const Operand& o) {
    const int64_t words = words_of(S, m.K);
    const float* panel = m.words + first * words * L;
    if constexpr (S == Storage::f32) {
        for (int64_t k = 0; k < m.K; ++k, panel += NV * L) {
            const V x = all(o.x[k]);
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) acc[v] = fma(x, load(panel + v * L), acc[v]);
        }
    } else if constexpr (S == Storage::bf16) {
        for (int64_t w = 0; w < m.K / 2; ++w, panel += NV * L) {
            const V even = all(o.x[2 * w]), odd = all(o.x[2 * w + 1]);
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) {
                const V word = load(panel + v * L);
                acc[v] = fma(odd, word, fma(even, (V)((IV)word << 16), acc[v]));
            }
        }
        for (int v = 0; (m.K & 1) && v < NV; ++v)
            acc[v] = fma(all(o.x[m.K - 1]), (V)((IV)load(panel + v * L) << 16), acc[v]);
    } else {
        IV high[NV], low[NV];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) high[v] = low[v] = IV{};
        for (int64_t w = 0; w < words; ++w, panel += NV * L) {
            const uint32_t a = word_at(o.high + 4 * w), b = word_at(o.low + 4 * w);
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) {
                const IV word = (IV)load(panel + v * L);
                high[v] = dot4(high[v], a, word);
                low[v] = dot4(low[v], b, word);
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) {
            IV sum;
            __builtin_memcpy(&sum, m.sum + (first + v) * L, sizeof sum);
            acc[v] = from_integers(acc[v], high[v], low[v], sum, load(m.scale + (first + v) * L) * all(o.unit));
        }
    }
}

}  // namespace carousel::CAROUSEL_NS
