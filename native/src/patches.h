// The affine part of a convolution: what the kernel sees at each place of a frame becomes a row, so that the products
// of tile.h and amx.h apply. A row costs a few percent of its product, and borders, strides and dilations end here.
#pragma once

#include "scratch.h"

namespace carousel::CAROUSEL_NS {

// A frame [height, width, channels], and the window that moves over it.
struct View {
    int64_t height, width, channels;
    int64_t kernel[2], stride[2], dilation[2];
    int64_t across;  // places in a row of the result

    int64_t taps() const { return kernel[0] * kernel[1]; }
    int64_t columns() const { return taps() * channels; }
};

inline View input_view(const ConvLayer& c) {
    const Window& w = c.window;
    return {c.in_height,
            c.in_width,
            c.input,
            {w.kernel[0], w.kernel[1]},
            {w.stride[0], w.stride[1]},
            {w.dilation[0], w.dilation[1]},
            c.width};
}

// Of the recurrent convolution, forward over h and backward over the gradients of U h.
inline View state_view(const ConvLayer& c, int64_t channels) {
    return {c.height, c.width, channels, {c.window.kernel[0], c.window.kernel[1]}, {1, 1}, {1, 1}, c.width};
}

// n numbers; of null zeros. They become float where the product is one of floats.
template <class L, class S>
inline void copy_numbers(L* to, const S* from, int64_t n) {
    if constexpr (__is_same(L, bf16)) {
        if (from)
            __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(L));
        else
            __builtin_memset(to, 0, static_cast<size_t>(n) * sizeof(L));
    } else {
        for (int64_t k = 0; k < n; k += VL<L>)
            store_first(to + k, from ? load_wide(from + k, n - k) : zero<L>(), n - k);
    }
}

// What the kernel sees at the places [first, first + count): rows of `columns` numbers, `stride` apart.
template <class L, class S>
inline void gather(const View& v, const S* frame, int64_t first, int64_t count, L* to, int64_t stride) {
    const int64_t C = v.channels, span = v.kernel[1] * C;
    for (int64_t p = first; p < first + count; ++p, to += stride) {
        const int64_t y0 = p / v.across * v.stride[0] - v.dilation[0] * (v.kernel[0] / 2);
        const int64_t x0 = p % v.across * v.stride[1] - v.dilation[1] * (v.kernel[1] / 2);
        L* at = to;
        for (int64_t i = 0; i < v.kernel[0]; ++i, at += span) {
            const int64_t y = y0 + i * v.dilation[0];
            if (y < 0 || y >= v.height) {
                copy_numbers<L, S>(at, nullptr, span);
                continue;
            }
            const S* row = frame + y * v.width * C;
            if (v.dilation[1] == 1 && x0 >= 0 && x0 + v.kernel[1] <= v.width) {
                copy_numbers(at, row + x0 * C, span);
                continue;
            }
            for (int64_t j = 0; j < v.kernel[1]; ++j) {
                const int64_t x = x0 + j * v.dilation[1];
                copy_numbers<L, S>(at + j * C, x < 0 || x >= v.width ? nullptr : row + x * C, C);
            }
        }
        if (v.columns() < stride) copy_numbers<L, S>(to + v.columns(), nullptr, stride - v.columns());
    }
}

// Numbers from row to row of a left operand of K columns.
template <class S>
inline int64_t operand_stride(int64_t K) {
    return on_amx<S> ? whole_tiles(K) : K;
}

template <class S>
struct Operand {
    typedef typename Computed<S>::type type;
};
#if defined(__AMX_BF16__)
template <>
struct Operand<bf16> {
    typedef bf16 type;
};
#endif

// Places that are worked on together: their operand, the largest of the three, should leave room in a 2 MiB L2.
template <class S>
inline int64_t places_together(int64_t K, int64_t places) {
    typedef typename Operand<S>::type L;
    const int64_t most = (int64_t{1} << 18) / (operand_stride<S>(K) * static_cast<int64_t>(sizeof(L)));
    const int64_t rows = (most < 48 ? 48 : most > 192 ? 192 : most) / 48 * 48;
    return rows < places ? rows : places;
}

// The layer of rows that does the same arithmetic: a place is a row, and all that the kernel sees is its input.
inline Layer rows_of(const ConvLayer& c) {
    const int64_t taps = c.window.kernel[0] * c.window.kernel[1];
    Layer layer;
    layer.type = c.type;
    layer.spec = c.spec;
    layer.sizes.input = taps * c.input;
    layer.sizes.hidden = c.hidden;
    layer.sizes.output = taps * c.hidden;
    layer.sizes.rows = c.frames * c.height * c.width;
    layer.weights = &c.weights;
    layer.threads = c.threads;
    return layer;
}

inline int64_t frame_of(const ConvLayer& c, int64_t b, int64_t t) { return c.rows.first[b] + c.rows.ahead[t]; }

// A worker's places of a frame.
inline Share places_of(const ConvLayer& c, const Worker& team) { return {c.height * c.width, team.index, team.count}; }

}  // namespace carousel::CAROUSEL_NS
