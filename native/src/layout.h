// Sizes and memory that forward and backward share: the padded shapes, the packed weights, the reserve.
#pragma once

#include "panel.h"
#include "plan.h"
#include "tile.h"

namespace carousel::CAROUSEL_NS {

struct Shape {
    int64_t I, H, P, N, B, T, D;
    int G;       // stored gates
    int64_t U;   // unit blocks
    int64_t Hp;  // H, padded to whole vectors; likewise Pp, Ip
    int64_t Pp, Ip;
    int64_t W;  // a block's gates: G * VL
};

template <class T>
inline Shape shape_of(const Layer& layer) {
    const Sizes& s = layer.sizes;
    const int G = layer.spec.coupled ? 3 : 4;
    return {s.input,
            s.hidden,
            s.output,
            s.rows,
            s.sequences,
            s.steps,
            s.directions,
            G,
            blocks_of<T>(s.hidden),
            padded<T>(s.hidden),
            padded<T>(s.output),
            padded<T>(s.input),
            G * VL<T>};
}

// Whether a unit's update is the four gates and no more.
inline bool is_plain(const Layer& layer) {
    const Spec& spec = layer.spec;
    return !spec.peephole && !spec.decay && !spec.projection && !spec.layer_norm &&
           !(spec.zoneout_c > 0 || spec.zoneout_h > 0 || spec.cell_clip > 0) &&
           !(layer.training && spec.recurrent_dropout > 0);
}

// What forward leaves for backward: [D, N, width] in the computed type, each row one after the other
// gates [U, G, VL] activated; c [Hp] as carried on; with layer norm also W x and U h, normalised [U, G, VL] each,
// and their two factors 1 / standard deviation.
template <class T>
struct Reserve {
    T* data = nullptr;
    int64_t width = 0, gates_width = 0, c_width = 0;

    static Reserve of(const Layer& layer, const void* memory, int64_t direction) {
        const Shape z = shape_of<T>(layer);
        Reserve r;
        if (layer.recompute && memory) return r;
        r.gates_width = z.U * z.W;
        r.c_width = z.Hp;
        r.width = z.U * z.W + z.Hp + (layer.spec.layer_norm ? 2 * z.U * z.W + VL<T> : 0);
        if (memory) r.data = static_cast<T*>(const_cast<void*>(memory)) + direction * z.N * r.width;
        return r;
    }

    explicit operator bool() const { return data != nullptr; }
    T* gates(int64_t row) const { return data + row * width; }
    T* c(int64_t row) const { return gates(row) + gates_width; }
    T* norm_x(int64_t row) const { return c(row) + c_width; }
    T* norm_h(int64_t row) const { return norm_x(row) + gates_width; }
    T* scale(int64_t row) const { return norm_h(row) + gates_width; }
};

// What forward leaves instead with `recompute`: c before each segment but the first, [D, segments, B, Hp].
template <class T>
struct Checkpoints {
    T* data = nullptr;
    int64_t every = 0, B = 0, Hp = 0;

    static Checkpoints of(const Layer& layer, const void* memory, int64_t direction) {
        const Shape z = shape_of<T>(layer);
        if (!memory || !layer.recompute) return {};
        const int64_t segments = (z.T + layer.recompute - 1) / layer.recompute;
        return {static_cast<T*>(const_cast<void*>(memory)) + direction * segments * z.B * z.Hp, layer.recompute, z.B,
                z.Hp};
    }

    bool at(int64_t s) const { return data && s > 0 && s % every == 0; }
    T* c(int64_t s, int64_t sequence) const { return data + (s / every * B + sequence) * Hp; }
};

template <class T>
struct Packed {
    T *x = nullptr, *h = nullptr;                 // [U][I][G][VL], [U][P][G][VL]
    T* bias = nullptr;                            // [U][G][VL], zero without bias
    T* peephole = nullptr;                        // [U][i, f, o][VL]
    T* rate = nullptr;                            // [Hp] softplus of decay_rate
    T* project = nullptr;                         // columns of P, k over Hp
    T *norm_x = nullptr, *norm_h = nullptr;       // [U][G][VL]
    T *norm_c = nullptr, *norm_bias_c = nullptr;  // [Hp]
    T *back_x = nullptr, *back_h = nullptr;       // columns of I and P, k over [U][G][VL]
    T* back_project = nullptr;                    // columns of H, k over P

    static Packed carve(Carver& carver, const Layer& layer, bool forward, bool backward, bool input_gradient) {
        const Shape z = shape_of<T>(layer);
        const Spec& spec = layer.spec;
        Packed p;
        if (forward) {
            p.x = carver.take<T>(z.U * z.I * z.W);
            p.h = carver.take<T>(z.U * z.P * z.W);
        }
        p.bias = carver.take<T>(z.U * z.W);
        if (spec.peephole) p.peephole = carver.take<T>(z.U * 3 * VL<T>);
        if (spec.decay) p.rate = carver.take<T>(z.Hp);
        if (forward && spec.projection) p.project = carver.take<T>(z.H * z.Pp);
        if (spec.layer_norm) {
            p.norm_x = carver.take<T>(z.U * z.W);
            p.norm_h = carver.take<T>(z.U * z.W);
            p.norm_c = carver.take<T>(z.Hp);
            p.norm_bias_c = carver.take<T>(z.Hp);
        }
        if (backward) {
            if (input_gradient) p.back_x = carver.take<T>(z.U * z.W * z.Ip);
            p.back_h = carver.take<T>(z.U * z.W * z.Pp);
            if (spec.projection) p.back_project = carver.take<T>(z.P * z.Hp);
        }
        return p;
    }

    template <class S>
    void pack_vectors(const Layer& layer, const Weights& w, int64_t u) const {
        const Shape z = shape_of<T>(layer);
        const Spec& spec = layer.spec;
        const auto in = [](const void* p) { return static_cast<const S*>(p); };
        pack_vector(in(w.bias_ih), in(w.bias_hh), z.G, z.H, u, bias + u * z.W);
        if (spec.peephole) {
            T* to = peephole + u * 3 * VL<T>;
            if (spec.coupled) store(to, zero<T>());
            const int given = spec.coupled ? 2 : 3;
            pack_vector(in(w.weight_ch), in(nullptr), given, z.H, u, to + (3 - given) * VL<T>);
        }
        if (spec.decay) {
            pack_vector(in(w.decay_rate), in(nullptr), 1, z.H, u, rate + u * VL<T>);
            for (int64_t k = 0; k < VL<T>; ++k) softplus(rate[u * VL<T> + k]);
        }
        if (spec.layer_norm) {
            pack_vector(in(w.norm_ih), in(nullptr), z.G, z.H, u, norm_x + u * z.W);
            pack_vector(in(w.norm_hh), in(nullptr), z.G, z.H, u, norm_h + u * z.W);
            pack_vector(in(w.norm_c), in(nullptr), 1, z.H, u, norm_c + u * VL<T>);
            pack_vector(in(w.norm_bias_c), in(nullptr), 1, z.H, u, norm_bias_c + u * VL<T>);
        }
    }

    static void softplus(float& x) { x = (x > 0 ? x : 0) + __builtin_log1pf(__builtin_expf(x > 0 ? -x : x)); }
    static void softplus(double& x) { x = (x > 0 ? x : 0) + __builtin_log1p(__builtin_exp(x > 0 ? -x : x)); }
};

// Columns [g0, g1), in vectors, of a product with a matrix that pack_columns, pack_rows or pack_back_gates laid out.
template <class T, class A>
inline void product_columns(const A& a, int64_t rows, const T* panels, int64_t K, int64_t g0, int64_t g1, bool add,
                            T* to, int64_t row) {
    each_width<T>(g0, g1, [&]<int NV>(int64_t group, int64_t blocks) {
        const Panels<T> right{panels + group * VL<T> * K, blocks, NV * VL<T> * K, NV * VL<T>};
        const Place<T> place{to + group * VL<T>, NV * VL<T>, row};
        product<T, NV>(a, rows, right, {add ? place.data : nullptr, place.block, row}, place, Nothing{});
    });
}

// The same for gradients: a single row may be summed in another order, and steps turn round by turns.
template <class T, class A>
inline void gradient_columns(const A& a, int64_t rows, const T* panels, int64_t K, int64_t g0, int64_t g1,
                             bool reversed, T* to, int64_t row) {
    each_width<T>(g0, g1, [&]<int NV>(int64_t group, int64_t blocks) {
        const Panels<T> right{panels + group * VL<T> * K, blocks, NV * VL<T> * K, NV * VL<T>, reversed};
        const Place<T> place{to + group * VL<T>, NV * VL<T>, row};
        if (rows == 1 && blocks == 1)
            tile_split<T, NV>(a, right, 0, place);
        else
            product<T, NV>(a, rows, right, {}, place, Nothing{});
    });
}

// n things over `count` workers: [first, last) is worker `index`'s.
struct Share {
    int64_t first, last;
    Share(int64_t n, int index, int count) : first(n * index / count), last(n * (index + 1) / count) {}
};

// Where step s of a part's p-th sequence lies.
inline int64_t row_of(const Layer& layer, const Part& part, int64_t p, int64_t s) {
    const int64_t b = part.sequence[p], t = part.direction ? layer.rows.lengths[b] - 1 - s : s;
    return layer.rows.first[b] + layer.rows.ahead[t];
}

inline int64_t time_of(const Layer& layer, const Part& part, int64_t p, int64_t s) {
    return part.direction ? layer.rows.lengths[part.sequence[p]] - 1 - s : s;
}

// Steps [s, end) whose rows fit into `capacity`; at least one step.
inline int64_t chunk_end(const Part& part, int64_t s, int64_t capacity) {
    int64_t rows = part.active[s], end = s + 1;
    while (end < part.steps && rows + part.active[end] <= capacity) rows += part.active[end++];
    return end;
}

inline int64_t chunk_capacity(const Part& part, int64_t target) {
    int64_t most = part.count > target ? part.count : target;
    return most < part.rows ? most : (part.rows > 0 ? part.rows : 1);
}

}  // namespace carousel::CAROUSEL_NS
