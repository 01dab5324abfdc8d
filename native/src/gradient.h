// Where a part sums its gradients of the weights, in the packed layouts, and how these become the caller's.
#pragma once

#include "scratch.h"

namespace carousel::CAROUSEL_NS {

template <class T>
struct Sums {
    T *x = nullptr, *h = nullptr;                 // [U][I][W], [U][P][W]
    T* bias = nullptr;                            // [U][W]
    T* peephole = nullptr;                        // [U][i, f, o][VL]
    T* rate = nullptr;                            // [Hp]
    T *norm_x = nullptr, *norm_h = nullptr;       // [U][W]
    T *norm_c = nullptr, *norm_bias_c = nullptr;  // [Hp]
    T* project = nullptr;                         // [P][Hp]
    T* small = nullptr;                           // the vectors above, as one block
    int64_t small_count = 0;

    static Sums carve(Carver& carver, const Layer& layer) {
        const Shape z = shape_of<T>(layer);
        Sums s;
        s.x = carver.take<T>(z.U * z.I * z.W);
        s.h = carver.take<T>(z.U * z.P * z.W);
        s.project = carver.take<T>(layer.spec.projection ? z.P * z.Hp : 0);
        s.small_count = 3 * z.U * z.W + 6 * z.Hp;
        s.small = carver.take<T>(s.small_count);
        T* at = s.small;
        for (T** vector : {&s.bias, &s.norm_x, &s.norm_h}) {
            *vector = at;
            at += s.small ? z.U * z.W : 0;
        }
        for (T** vector : {&s.rate, &s.norm_c, &s.norm_bias_c}) {
            *vector = at;
            at += s.small ? z.Hp : 0;
        }
        s.peephole = at;
        return s;
    }
};

template <class T>
inline void add_to(T* to, Vec<T> v) {
    store(to, load(to) + v);
}

// A unit block's sums over the rows of a step, while they are in registers.
template <class T, int GATES>
struct Totals {
    Vec<T> bias[GATES] = {};
    Vec<T> i{}, f{}, o{}, rate{};
};

template <class T, int GATES>
inline void add_totals(const Spec& spec, const Sums<T>& sums, int64_t u, const Totals<T, GATES>& total) {
    for (int g = 0; g < GATES; ++g) add_to(sums.bias + (u * GATES + g) * VL<T>, total.bias[g]);
    if (spec.peephole) {
        add_to(sums.peephole + u * 3 * VL<T>, total.i);
        add_to(sums.peephole + (u * 3 + 1) * VL<T>, total.f);
        add_to(sums.peephole + (u * 3 + 2) * VL<T>, total.o);
    }
    if (spec.decay) add_to(sums.rate + u * VL<T>, total.rate);
}

// The gradients of W and U from a chunk's rows, on AMX: both operands are turned so that k runs over rows.
template <int GATES, class T, class S>
inline void sum_in_tiles(const BackDesk<T, S>& desk, const Back<T>& back, const Sums<T>& sums, const Shape& z,
                         const Share& units, int64_t rows, bool started) {
    if constexpr (on_amx<S>) {
        const int64_t across = whole_tiles(back.capacity), k_tiles = whole_tiles(rows) / tile_k;
        transpose_rows(desk.x, rows, z.I, desk.x_across, across);
        transpose_rows(desk.h, rows, z.P, desk.h_across, across);
        const auto sum = [&](const bf16* left, int64_t K, int64_t u, T* to) {
            const Place<T> place{to + u * K * z.W, 0, z.W};
            tile_product<GATES>(left, across, K, desk.z_across, 1, k_tiles, {started ? place.data : nullptr, 0, z.W},
                                place, Nothing{});
        };
        for (int64_t u = units.first; u < units.last; ++u) {
            pack_row_tiles(back.x_z + u * back.capacity * z.W, GATES, rows, desk.z_across);
            sum(desk.x_across, z.I, u, sums.x);
            if (back.h_z != back.x_z) pack_row_tiles(back.h_z + u * back.capacity * z.W, GATES, rows, desk.z_across);
            sum(desk.h_across, z.P, u, sums.h);
        }
    }
}

// Unit block u of one direction: the sum over `parts` buffers that lie `apart` from each other.
template <class S, class T>
void deliver_unit(const Layer& layer, const Sums<T>& sums, int64_t parts, int64_t apart, const Weights& to, int64_t u) {
    const Shape z = shape_of<T>(layer);
    const Spec& spec = layer.spec;
    const auto out = [](void* p) { return static_cast<S*>(p); };
    const int64_t first = u * VL<T>, n = z.H - first < VL<T> ? z.H - first : VL<T>;
    for (int g = 0; g < z.G; ++g) {
        unpack_lanes(sums.x + u * z.I * z.W + g * VL<T>, parts, apart, z.W, out(to.weight_ih) + (g * z.H + first) * z.I,
                     n, z.I, z.I);
        unpack_lanes(sums.h + u * z.P * z.W + g * VL<T>, parts, apart, z.W, out(to.weight_hh) + (g * z.H + first) * z.P,
                     n, z.P, z.P);
    }
    const auto vector = [&](const T* from, int G, void* p) { unpack_vector(from, parts, apart, G, z.H, u, out(p)); };
    if (spec.bias) {
        vector(sums.bias + u * z.W, z.G, to.bias_ih);
        vector(sums.bias + u * z.W, z.G, to.bias_hh);
    }
    if (spec.peephole) {
        const int given = spec.coupled ? 2 : 3;
        vector(sums.peephole + (u * 3 + 3 - given) * VL<T>, given, to.weight_ch);
    }
    if (spec.decay) vector(sums.rate + u * VL<T>, 1, to.decay_rate);
    if (spec.layer_norm) {
        vector(sums.norm_x + u * z.W, z.G, to.norm_ih);
        vector(sums.norm_h + u * z.W, z.G, to.norm_hh);
        vector(sums.norm_c + u * VL<T>, 1, to.norm_c);
        if (spec.bias) vector(sums.norm_bias_c + u * VL<T>, 1, to.norm_bias_c);
    }
}

template <class S, class T>
void deliver_projection(const Layer& layer, const Sums<T>& sums, int64_t parts, int64_t apart, const Weights& to) {
    const Shape z = shape_of<T>(layer);
    for (int64_t p = 0; p < z.P; ++p)
        for (int64_t u = 0; u < z.U; ++u)
            unpack_vector(sums.project + p * z.Hp + u * VL<T>, parts, apart, 1, z.H, u,
                          static_cast<S*>(to.weight_hr) + p * z.H);
}

}  // namespace carousel::CAROUSEL_NS
