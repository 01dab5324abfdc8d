// The weights of a convolutional layer as gradients read them.
#pragma once

#include "winograd.h"

namespace carousel::CAROUSEL_NS {

// Rows k of C columns each, as panels of their columns.
template <class T, class Row>
inline void pack_panels(const Row& row, int64_t K, int64_t C, T* to) {
    each_width<T>(0, blocks_of<T>(C), [&]<int NV>(int64_t group, int64_t blocks) {
        for (int64_t b = 0; b < blocks; ++b) {
            T* panel = to + (group + b * NV) * VL<T> * K;
            for (int64_t k = 0; k < K; ++k, panel += NV * VL<T>)
                for (int v = 0; v < NV; ++v) {
                    const int64_t column = (group + b * NV + v) * VL<T>;
                    store(panel + v * VL<T>, load_wide(row(k) + column, C - column));
                }
        }
    });
}

#if defined(__AMX_BF16__)
template <class Row>
inline void pack_panel_tiles(const Row& row, int64_t K, int64_t C, uint32_t* to) {
    const int64_t whole = whole_tiles(K);
    const auto numbers = [&](int64_t k, int64_t column) {
        return k < K ? widened(row(k) + column, C - column) : _mm512_setzero_si512();
    };
    each_width<float>(0, blocks_of<float>(C), [&]<int NB>(int64_t group, int64_t blocks) {
        uint32_t* tile = to + group * whole / tile_k * tile_words;
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t k = 0; k < whole; k += tile_k)
                for (int v = 0; v < NB; ++v, tile += tile_words)
                    for (int r = 0; r < 16; ++r) {
                        const int64_t column = (group + b * NB + v) * 16;
                        store_pairs(tile + r * 16, numbers(k + 2 * r, column), numbers(k + 2 * r + 1, column));
                    }
    });
}
#endif

// A weight [N, taps, C] as the gradient of its C inputs reads it, N = gates * H: k over [the kernel turned by 180
// degrees][N], or with Winograd's filtering over [N] in each of 16 parts.
template <class S>
struct Turned {
    typedef typename Computed<S>::type T;
    T *panels = nullptr, *rows = nullptr;
    uint32_t* tiles = nullptr;
    int64_t taps = 0, N = 0, C = 0, Cp = 0;
    bool in_parts = false;

    static Turned carve(Carver& carver, const ConvLayer& conv, const Shape& z, int64_t C) {
        Turned t;
        t.taps = conv.window.kernel[0] * conv.window.kernel[1];
        t.N = z.G * z.H;
        t.C = C;
        t.Cp = padded<T>(C);
        t.in_parts = by_winograd<S>(conv);
        if (on_amx<S>)
            t.tiles = carver.take<uint32_t>(whole_tiles(t.taps * t.N) / 2 * t.Cp);
        else
            t.panels = carver.take<T>((t.in_parts ? parts : t.taps) * t.N * t.Cp);
        if (t.in_parts) t.rows = carver.take<T>(parts * t.N * C);
        return t;
    }

    void pack(const S* weight) const {
        const int64_t K = taps * N;
        const auto row = [&](int64_t k) { return weight + (k % N * taps + (taps - 1 - k / N)) * C; };
        if constexpr (on_amx<S>) {
            pack_panel_tiles(row, K, C, tiles);
        } else if constexpr (__is_same(S, float)) {
            if (!in_parts) return pack_panels<T>(row, K, C, panels);
            see_weight(weight, N, C, true, rows, C, 0);
            for (int64_t p = 0; p < parts; ++p)
                pack_panels<T>([&](int64_t n) { return rows + (p * N + n) * C; }, N, C, panels + p * N * Cp);
        } else {
            pack_panels<T>(row, K, C, panels);
        }
    }

    // to [rows, Cp] of gathered rows.
    void multiply(const typename Operand<S>::type* left, int64_t count, T* to) const {
        const int64_t K = taps * N, stride = operand_stride<S>(K);
        if constexpr (on_amx<S>)
            tile_columns(left, stride, count, tiles, stride / tile_k, 0, blocks_of<T>(C), to, Cp);
        else
            product_columns(StridedRows<T>{left, K, K}, count, panels, K, 0, blocks_of<T>(C), false, to, Cp);
    }
};

// What the workers share: the weights, of U h and, where the gradient of x is wanted, of W x.
template <class S>
struct ConvBack {
    Turned<S> h, x;
    bool of_x = false;

    static ConvBack carve(Carver& carver, const ConvLayer& conv, const Shape& z, bool of_x) {
        ConvBack b;
        b.of_x = of_x;
        b.h = Turned<S>::carve(carver, conv, z, conv.hidden);
        if (of_x) b.x = Turned<S>::carve(carver, conv, z, conv.input);
        return b;
    }

    void pack(const ConvLayer& conv) const {
        h.pack(static_cast<const S*>(conv.weights.weight_hh));
        if (of_x) x.pack(static_cast<const S*>(conv.weights.weight_ih));
    }
};

}  // namespace carousel::CAROUSEL_NS
