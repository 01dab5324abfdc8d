// The pointwise update of the LSTM's state algebra, forward and backward, on one vector of units.
// It knows nothing of rows, steps or memory; another state algebra is another struct like this one.
// Restates src/carousel/cell.py; COUPLED means i = 1 - f and three stored gates f, g, o.
#pragma once

#include "activation.h"

namespace carousel::CAROUSEL_NS {

template <class T, bool COUPLED>
struct Lstm {
    typedef Vec<T> V;
    static constexpr int gates = COUPLED ? 3 : 4;
    static constexpr int F = COUPLED ? 0 : 1, C = F + 1, O = F + 2;  // stored order; the input gate, if any, is 0

    struct Peephole {
        V i{}, f{}, o{};
    };

    static V input_gate(const V (&gate)[gates]) {
        if constexpr (COUPLED)
            return all(T(1)) - gate[F];
        else
            return gate[0];
    }

    static V clip(V c, T bound) { return bound > 0 ? at_most(all(bound), at_least(all(-bound), c)) : c; }

    // Pre-activations become gates, but for the output gate where it waits for the new c; c is the one before the step.
    static void open(V (&z)[gates], V c, const Peephole& p) {
        z[F] = sigmoid<T>(fma(p.f, c, z[F]));
        if constexpr (COUPLED) {
            z[C] = tanh<T>(z[C]);
        } else {
            z[0] = fma(p.i, c, z[0]);
            sigmoid_and_tanh<T>(z[0], z[C]);
        }
    }

    static V close(V z, V new_c, const Peephole& p) { return sigmoid<T>(fma(p.o, new_c, z)); }

    // The same without peepholes: all gates at once.
    static void open(V (&z)[gates]) {
        if constexpr (COUPLED)
            z[C] = tanh<T>(z[C]);
        else
            sigmoid_and_tanh<T>(z[0], z[C]);
        two_sigmoids<T>(z[F], z[O]);
    }

    // The cell state after the clip.
    static V cell(const V (&gate)[gates], V c, T bound) {
        return clip(fma(gate[F], c, input_gate(gate) * gate[C]), bound);
    }

    struct Gradient {
        V z[gates];  // of the pre-activations
        V c;         // of the cell state before this step
        V i, f, o;   // of z's share that the peepholes see; i is zero with COUPLED
    };

    // Without peepholes and clip: z becomes the gradients of the pre-activations; returns that of c before the step.
    static V backward(V (&z)[gates], const V (&gate)[gates], V c, V of_o, V of_c) {
        const V one = all(T(1)), i = input_gate(gate);
        z[O] = of_o * gate[O] * (one - gate[O]);
        if constexpr (COUPLED) {
            z[F] = of_c * (c - gate[C]) * gate[F] * (one - gate[F]);
        } else {
            z[0] = of_c * gate[C] * i * (one - i);
            z[F] = of_c * c * gate[F] * (one - gate[F]);
        }
        z[C] = of_c * i * (one - gate[C] * gate[C]);
        return of_c * gate[F];
    }

    // of_o and of_c: gradients of the output gate and of the cell state after the clip.
    static Gradient backward(const V (&gate)[gates], V c, V of_o, V of_c, const Peephole& p, T bound) {
        const V one = all(T(1));
        Gradient d;
        d.o = of_o * gate[O] * (one - gate[O]);
        of_c = fma(d.o, p.o, of_c);
        if (bound > 0) {
            const V raw = cell(gate, c, T(0));
            of_c = (raw > all(bound)) | (raw < all(-bound)) ? zero<T>() : of_c;
        }
        const V i = input_gate(gate);
        const V of_f = COUPLED ? of_c * (c - gate[C]) : of_c * c;
        d.f = of_f * gate[F] * (one - gate[F]);
        d.i = COUPLED ? zero<T>() : of_c * gate[C] * i * (one - i);
        const V of_g = of_c * i * (one - gate[C] * gate[C]);
        d.c = fma(of_c, gate[F], fma(d.f, p.f, d.i * p.i));
        if constexpr (!COUPLED) d.z[0] = d.i;
        d.z[F] = d.f;
        d.z[C] = of_g;
        d.z[O] = d.o;
        return d;
    }
};

}  // namespace carousel::CAROUSEL_NS
