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

    struct State {
        V gate[gates];  // activated
        V c;            // after the clip
    };

    static V input_gate(const V (&gate)[gates]) {
        if constexpr (COUPLED)
            return all(T(1)) - gate[F];
        else
            return gate[0];
    }

    static V clip(V c, T bound) { return bound > 0 ? at_most(all(bound), at_least(all(-bound), c)) : c; }

    // z are pre-activations, c the cell state before this step.
    static State forward(const V (&z)[gates], V c, const Peephole& p, T bound) {
        State s;
        s.gate[F] = sigmoid<T>(fma(p.f, c, z[F]));
        if constexpr (!COUPLED) s.gate[0] = sigmoid<T>(fma(p.i, c, z[0]));
        s.gate[C] = tanh<T>(z[C]);
        s.c = cell(s.gate, c, bound);
        s.gate[O] = sigmoid<T>(fma(p.o, s.c, z[O]));
        return s;
    }

    static V cell(const V (&gate)[gates], V c, T bound) {
        return clip(fma(gate[F], c, input_gate(gate) * gate[C]), bound);
    }

    struct Gradient {
        V z[gates];  // of the pre-activations
        V c;         // of the cell state before this step
        V i, f, o;   // of z's share that the peepholes see; i is zero with COUPLED
    };

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
