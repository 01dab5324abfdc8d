// The memory that a part works in, carved out of one block that is kept from call to call.
#pragma once

#include "amx.h"
#include "layout.h"
#include "masks.h"

namespace carousel::CAROUSEL_NS {

// A part's state while it walks; shared by the workers of a team.
template <class T>
struct Walk {
    T* h[2] = {};       // [count, Pp], before and after a step by turns
    T* masked[2] = {};  // the same times `factor`; h itself without recurrent dropout
    T* factor = nullptr;
    T* c = nullptr;         // [count, Hp]
    T* m = nullptr;         // [count, Hp] what is projected
    T* z = nullptr;         // [U][capacity][W] pre-activations of a chunk
    T* r = nullptr;         // [U][count][W] with layer norm: U h of a step
    bf16* operand[2] = {};  // [count + 16, P to whole tiles] `masked` once more, on AMX
    int64_t capacity = 0;

    static Walk carve(Carver& carver, const Layer& layer, const Part& part, int64_t target, bool amx) {
        const Shape z = shape_of<T>(layer);
        Walk w;
        w.capacity = chunk_capacity(part, target);
        for (T*& h : w.h) h = carver.take<T>(part.count * z.Pp);
        w.masked[0] = w.h[0];
        w.masked[1] = w.h[1];
        if (layer.training && layer.spec.recurrent_dropout > 0) {
            for (T*& h : w.masked) h = carver.take<T>(part.count * z.Pp);
            w.factor = carver.take<T>(part.count * z.Pp);
        }
        w.c = carver.take<T>(part.count * z.Hp);
        for (bf16*& h : w.operand) h = carver.take<bf16>(amx ? (part.count + 16) * whole_tiles(z.P) : 0);
        if (layer.spec.projection) w.m = carver.take<T>(part.count * z.Hp);
        w.z = carver.take<T>(z.U * w.capacity * z.W);
        if (layer.spec.layer_norm) w.r = carver.take<T>(z.U * part.count * z.W);
        return w;
    }
};

// What each worker needs for itself.
template <class T, class S>
struct Desk {
    int64_t* row = nullptr;                       // [capacity] the chunk's rows, step by step
    int64_t* slot = nullptr;                      // [capacity] and their places in the reserve
    bf16* operand = nullptr;                      // [capacity + 16, I to whole tiles] x once more, on AMX
    const S** x = nullptr;                        // [capacity]
    const T** h[2] = {};                          // [count] rows of Walk::masked
    RowKey *keep_c = nullptr, *keep_h = nullptr;  // [count]

    static Desk carve(Carver& carver, const Layer& layer, int64_t count, int64_t capacity) {
        Desk d;
        if (on_amx<S>) d.operand = carver.take<bf16>((capacity + 16) * whole_tiles(layer.sizes.input));
        d.row = carver.take<int64_t>(capacity);
        d.slot = carver.take<int64_t>(capacity);
        d.x = carver.take<const S*>(capacity);
        for (auto& h : d.h) h = carver.take<const T*>(count);
        d.keep_c = carver.take<RowKey>(count);
        d.keep_h = carver.take<RowKey>(count);
        return d;
    }
};

// A part's state on the way back; shared by the workers of a team.
template <class T>
struct Back {
    T *h = nullptr, *c = nullptr;      // [count, Pp], [count, Hp] gradients of the state
    T* c0 = nullptr;                   // [count, Hp]
    T *x_z = nullptr, *h_z = nullptr;  // [U][capacity][W] gradients of W x and of U h: one buffer without layer norm
    T* x = nullptr;                    // [capacity, Ip]
    T* gap = nullptr;                  // [capacity] of the elapsed time, with decay
    T* through = nullptr;  // [count, Pp] gradient through U, before the mask or what zoneout kept is applied
    T *factor = nullptr, *masked = nullptr;                 // [count, Pp], [capacity, Pp] with recurrent dropout
    T *projected = nullptr, *m = nullptr, *of_m = nullptr;  // [capacity, Pp], [capacity, Hp], [count, Hp]
    bf16 *x_tiles = nullptr, *h_tiles = nullptr;  // [capacity + 16, U * W to whole tiles] x_z and h_z again, on AMX
    bf16* masked_tiles = nullptr;                 // [capacity, Pp]
    int64_t capacity = 0;

    static Back carve(Carver& carver, const Layer& layer, const Part& part, int64_t target, bool input_gradient,
                      bool amx) {
        const Shape z = shape_of<T>(layer);
        const Spec& spec = layer.spec;
        Back b;
        b.capacity = chunk_capacity(part, target);
        b.h = carver.take<T>(part.count * z.Pp);
        b.c = carver.take<T>(part.count * z.Hp);
        b.c0 = carver.take<T>(part.count * z.Hp);
        b.x_z = carver.take<T>(z.U * b.capacity * z.W);
        b.h_z = spec.layer_norm ? carver.take<T>(z.U * b.capacity * z.W) : b.x_z;
        if (input_gradient) b.x = carver.take<T>(b.capacity * z.Ip);
        if (spec.decay) b.gap = carver.take<T>(b.capacity);
        const bool dropped = layer.training && spec.recurrent_dropout > 0;
        if (dropped || spec.zoneout_h > 0) b.through = carver.take<T>(part.count * z.Pp);
        if (dropped) {
            b.factor = carver.take<T>(part.count * z.Pp);
            b.masked = carver.take<T>(b.capacity * z.Pp);
        }
        if (amx) {
            const int64_t K = whole_tiles(z.U * z.W);
            b.x_tiles = carver.take<bf16>((b.capacity + 16) * K);
            b.h_tiles = spec.layer_norm ? carver.take<bf16>((b.capacity + 16) * K) : b.x_tiles;
            if (dropped) b.masked_tiles = carver.take<bf16>(b.capacity * z.Pp);
        }
        if (spec.projection) {
            b.projected = carver.take<T>(b.capacity * z.Pp);
            b.m = carver.take<T>(b.capacity * z.Hp);
            b.of_m = carver.take<T>(part.count * z.Hp);
        }
        return b;
    }
};

template <class T, class S>
struct BackDesk {
    int64_t* slot = nullptr;               // [capacity] place in the reserve
    int64_t* row = nullptr;                // [capacity]
    const S **x = nullptr, **h = nullptr;  // [capacity] the row of x, and h before the step
    const T** c = nullptr;                 // [capacity] c before the step
    const T** masked = nullptr;            // [capacity] rows of Back::masked

    bf16 *x_across = nullptr, *h_across = nullptr;  // transposes of the chunk's x and h, on AMX
    uint32_t* z_across = nullptr;                   // a unit block's z, in tiles whose k runs over rows

    static BackDesk carve(Carver& carver, const Layer& layer, int64_t capacity) {
        BackDesk d;
        d.row = carver.take<int64_t>(capacity);
        d.slot = carver.take<int64_t>(capacity);
        d.x = carver.take<const S*>(capacity);
        d.h = carver.take<const S*>(capacity);
        d.c = carver.take<const T*>(capacity);
        d.masked = carver.take<const T*>(capacity);
        if (on_amx<S>) {
            const int64_t rows = whole_tiles(capacity);
            d.x_across = carver.take<bf16>((padded<T>(layer.sizes.input) + 16) * rows);
            d.h_across = carver.take<bf16>((padded<T>(layer.sizes.output) + 16) * rows);
            d.z_across = carver.take<uint32_t>(rows * 2 * VL<T>);
        }
        return d;
    }
};

}  // namespace carousel::CAROUSEL_NS
