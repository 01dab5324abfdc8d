// Backward of a convolutional layer through its states: a sequence at a time, from the last step to the first. It
// leaves the gradients of W x and U h; those of the weights and of x are convolutions over all frames, which the caller
// does.
#pragma once

#include "backward.h"
#include "conv_forward.h"
#include "conv_weights.h"

namespace carousel::CAROUSEL_NS {

// Sums over places, for the weights that are vectors.
template <class T, int GATES>
struct ConvTotals {
    Vec<T> bias[GATES], norm_x[GATES], norm_h[GATES], i, f, o, norm_c, norm_bias_c;
};

template <class S>
struct ConvBackDesk {
    typedef typename Computed<S>::type T;
    typedef typename Operand<S>::type L;
    int64_t capacity = 0;                     // places, or tiles, that are worked on together
    int64_t cells = 0;                        // places whose gates are worked on together
    L* z = nullptr;                           // [capacity (+ 16 on AMX)][K]
    T *seen = nullptr, *m = nullptr;          // [parts][capacity][N] and [parts][capacity][Hp or Ip]
    T* zeros = nullptr;                       // [N]
    T* x = nullptr;                           // [capacity, Ip]
    T *h = nullptr, *c = nullptr;             // [places, Hp] gradients of the state
    T* c0 = nullptr;                          // [places, Hp]
    T *of_x = nullptr, *of_h = nullptr;       // [U][W] of one place, with layer norm
    T *shown = nullptr, *of_shown = nullptr;  // [Hp] likewise
    T* of_c = nullptr;                        // [Hp]
    T* frame = nullptr;                       // [places, N] z of one frame, with Winograd's filtering; a team's own
    const T **seen_at = nullptr, **z_at = nullptr;  // [weight_tiles][parts] of x, then of h, and [weight_tiles][4]
    T *seen_part = nullptr, *z_part = nullptr;      // [weight_tiles][I + H], [weight_tiles][Np]
    T *step_sums = nullptr, *sums_of = nullptr;     // [parts][I + H][Np] of a frame, and of all
    T* totals = nullptr;                            // [U] ConvTotals of places that are worked on together
    Sums<T> sums;

    static ConvBackDesk carve(Carver& carver, const ConvLayer& conv, const Layer& layer) {
        const Shape z = shape_of<T>(layer);
        const int64_t places = conv.height * conv.width, slack = on_amx<S> ? 16 : 0, K = z.P * z.G, N = z.G * z.H;
        const int64_t Ip = padded<T>(conv.input);
        ConvBackDesk d;
        d.cells = places < 96 ? places : 96;
        if (by_winograd<S>(conv)) {
            d.capacity = tiles_together(N, TileGrid(conv).count());
            d.seen = carver.take<T>(parts * apart_of<T>(d.capacity, N));
            d.m = carver.take<T>(parts * apart_of<T>(d.capacity, z.Hp > Ip ? z.Hp : Ip));
            d.zeros = carver.take<T>(N > conv.input ? N : conv.input);
            d.frame = carver.take<T>(places * N);
            d.seen_at = carver.take<const T*>(2 * weight_tiles * parts);
            d.z_at = carver.take<const T*>(weight_tiles * 4);
            const int64_t rows = conv.input + conv.hidden, Np = padded<T>(N);
            d.seen_part = carver.take<T>(weight_tiles * rows);
            d.z_part = carver.take<T>(weight_tiles * Np);
            d.step_sums = carver.take<T>(parts * rows * Np);
            d.sums_of = carver.take<T>(parts * rows * Np);
        } else {
            d.capacity = places_together<S>(K, places);
            d.z = carver.take<L>((d.capacity + slack) * operand_stride<S>(K));
            d.x = carver.take<T>(d.capacity * Ip);
        }
        for (T** state : {&d.h, &d.c, &d.c0}) *state = carver.take<T>(places * z.Hp);
        for (T** gates : {&d.of_x, &d.of_h}) *gates = carver.take<T>(z.U * z.W);
        for (T** units : {&d.shown, &d.of_shown, &d.of_c}) *units = carver.take<T>(z.Hp);
        d.totals = carver.take<T>(z.U * (3 * z.W + 5 * VL<T>));
        Layer vectors = layer;
        vectors.sizes.input = 0;
        vectors.sizes.output = 0;
        d.sums = Sums<T>::carve(carver, vectors);
        return d;
    }
};

template <class S, bool COUPLED>
class ConvBackward {
  public:
    typedef typename Computed<S>::type T;
    typedef typename Operand<S>::type L;
    typedef Vec<T> V;
    typedef Lstm<T, COUPLED> Cell;
    typedef ConvTotals<T, Cell::gates> Totals;

    ConvBackward(const ConvLayer& conv, const Layer& layer, const ConvGradients& to, const Packed<T>& packed,
                 const ConvBack<S>& back, const ConvBackDesk<S>& desk, const Worker& team)
        : conv_(conv),
          to_(to),
          packed_(packed),
          back_(back),
          desk_(desk),
          team_(team),
          z_(shape_of<T>(layer)),
          spec_(layer.spec),
          clip_(static_cast<T>(layer.spec.cell_clip)),
          places_(conv.height * conv.width),
          N_(z_.G * z_.H),
          in_parts_(by_winograd<S>(conv)),
          grid_(conv),
          mine_(places_of(conv, team)),
          of_z_(state_view(conv, N_)),
          reserve_(Reserve<T>::of(layer, to.reserve, 0)),
          totals_(reinterpret_cast<Totals*>(desk.totals)) {}

    void sequence(int64_t b) {
        const int64_t length = conv_.rows.lengths[b];
        begin(b);
        for (int64_t t = length; t-- > 0;) {
            frame_ = frame_of(conv_, b, t);
            before_ = t ? frame_of(conv_, b, t - 1) : -1;
            z_frame_ =
                in_parts_ ? reinterpret_cast<S*>(desk_.frame) : static_cast<S*>(to_.of_x_z) + frame_ * places_ * N_;
            step(b);
        }
        for (int64_t p = mine_.first; p < mine_.last; ++p)
            for (int64_t k = 0; k < z_.H; k += VL<T>) {
                const int64_t at = (b * places_ + p) * z_.H + k;
                store_narrow(static_cast<S*>(to_.h0) + at, load(desk_.h + p * z_.Hp + k), z_.H - k);
                store_narrow(static_cast<S*>(to_.c0) + at, load(desk_.c + p * z_.Hp + k), z_.H - k);
            }
    }

  private:
    void begin(int64_t b) {
        const auto fill = [&](T* to, const void* from, int64_t p, int64_t k) {
            store(to + p * z_.Hp + k, load_wide(static_cast<const S*>(from) + (b * places_ + p) * z_.H + k, z_.H - k));
        };
        for (int64_t p = mine_.first; p < mine_.last; ++p)
            for (int64_t k = 0; k < z_.Hp; k += VL<T>) {
                fill(desk_.h, to_.of_h, p, k);
                fill(desk_.c, to_.of_c, p, k);
                fill(desk_.c0, conv_.c0, p, k);
            }
    }

    // The gradient of h at a place asks for those of z around it. One worker alone works them out as they are needed,
    // while they are in cache; several wait for each other.
    void step(int64_t b) {
        ready_ = mine_.first;
        if (team_.count > 1) {
            until(mine_.last);
            team_.barrier->wait();
        }
        if (in_parts_) {
            through_tiles();
            weights(b);
        } else {
            through_places(static_cast<const S*>(to_.of_h_z) + frame_ * places_ * N_);
        }
        if (team_.count > 1) team_.barrier->wait();  // tiles are shared out in another way than places
    }

    void until(int64_t end) {
        while (ready_ < (end < mine_.last ? end : mine_.last)) {
            const int64_t next = mine_.last - ready_ < desk_.cells ? mine_.last : ready_ + desk_.cells;
            cells(ready_, next);
            ready_ = next;
        }
    }

    void through_places(const S* z) {
        const int64_t around = conv_.window.kernel[0] / 2 * conv_.width + conv_.window.kernel[1] / 2;
        for (int64_t first = mine_.first; first < mine_.last; first += desk_.capacity) {
            const int64_t rows = mine_.last - first < desk_.capacity ? mine_.last - first : desk_.capacity;
            until(first + rows + around);
            gather(of_z_, z, first, rows, desk_.z, operand_stride<S>(of_z_.columns()));
            back_.h.multiply(desk_.z, rows, desk_.h + first * z_.Hp);
            if (!back_.of_x) continue;
            back_.x.multiply(desk_.z, rows, desk_.x);
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t k = 0; k < conv_.input; k += VL<T>)
                    deliver_x(first + r, k, load(desk_.x + r * back_.x.Cp + k));
        }
    }

    void through_tiles() {
        if constexpr (__is_same(S, float)) {
            const Share mine(grid_.count(), team_.index, team_.count);
            const int64_t apart = apart_of<T>(desk_.capacity, N_);
            for (int64_t first = mine.first; first < mine.last; first += desk_.capacity) {
                const int64_t n = mine.last - first < desk_.capacity ? mine.last - first : desk_.capacity;
                until(((first + n - 1) / grid_.across * 2 + 3) * conv_.width);
                see_tiles(grid_, z_frame_, N_, desk_.zeros, first, n, desk_.seen, N_, apart);
                each_place(back_.h, first, n, apart,
                           [&](int64_t place, int64_t k, V v) { store(desk_.h + place * z_.Hp + k, v); });
                if (!back_.of_x) continue;
                each_place(back_.x, first, n, apart, [&](int64_t place, int64_t k, V v) { deliver_x(place, k, v); });
            }
        }
    }

    // The frame's share of the gradients of both matrices: sums over its tiles first, then over frames, which keeps
    // more digits than one long sum.
    void weights(int64_t b) {
        if constexpr (__is_same(S, float)) {
            const Share mine(grid_.count(), team_.index, team_.count);
            const int64_t I = conv_.input, H = conv_.hidden, K = I + H, Np = padded<T>(N_);
            const S* x = static_cast<const S*>(conv_.x) + frame_ * places_ * I;
            const S* h = before_ < 0 ? static_cast<const S*>(conv_.h0) + b * places_ * H
                                     : static_cast<const S*>(to_.y) + before_ * places_ * H;
            const T** const h_at = desk_.seen_at + weight_tiles * parts;
            for (int64_t first = mine.first; first < mine.last; first += weight_tiles) {
                const int64_t n = mine.last - first < weight_tiles ? mine.last - first : weight_tiles;
                find_tiles(grid_, x, I, desk_.zeros, first, n, 4, 1, desk_.seen_at);
                find_tiles(grid_, h, H, desk_.zeros, first, n, 4, 1, h_at);
                find_tiles(grid_, z_frame_, N_, desk_.zeros, first, n, 2, 0, desk_.z_at);
                for (int p = 0; p < parts; ++p) {
                    see_part(desk_.seen_at, n, 4, I, input_rows[p / 4], input_rows[p % 4], desk_.seen_part, K);
                    see_part(h_at, n, 4, H, input_rows[p / 4], input_rows[p % 4], desk_.seen_part + I, K);
                    see_part(desk_.z_at, n, 2, N_, output_rows[p / 4], output_rows[p % 4], desk_.z_part, Np);
                    add_part(desk_.step_sums + p * K * Np, K, Np, n, first > mine.first);
                }
            }
            for (int64_t k = 0; mine.last > mine.first && k < parts * K * Np; k += VL<T>)
                add_to(desk_.sums_of + k, load(desk_.step_sums + k));
        }
    }

    void add_part(T* sums, int64_t K, int64_t Np, int64_t n, bool more) const {
        each_width<T>(0, Np / VL<T>, [&]<int NV>(int64_t group, int64_t blocks) {
            const Panels<T> right{desk_.z_part + group * VL<T>, blocks, NV * VL<T>, Np};
            const Place<T> to{sums + group * VL<T>, NV * VL<T>, Np};
            product<T, NV>(StridedColumns<T>{desk_.seen_part, K, n}, K, right,
                           {more ? to.data : nullptr, to.block, to.row}, to, Nothing{});
        });
    }

    template <class Put>
    void each_place(const Turned<S>& weight, int64_t first, int64_t n, int64_t apart, const Put& put) const {
        const int64_t Cp = weight.Cp, wide = apart_of<T>(desk_.capacity, Cp);
        for (int64_t p = 0; p < parts; ++p)
            product_columns(StridedRows<T>{desk_.seen + p * apart, N_, N_}, n, weight.panels + p * N_ * Cp, N_, 0,
                            Cp / VL<T>, false, desk_.m + p * wide, Cp);
        for (int64_t i = 0; i < n; ++i)
            for (int64_t c = 0; c < Cp; c += VL<T>) {
                V v[4];
                tile_places(desk_.m + i * Cp + c, wide, v);
                for (int k = 0; k < 4; ++k) {
                    const int64_t place = grid_.place(first + i, k);
                    if (place >= 0) put(place, c, v[k]);
                }
            }
    }

    void deliver_x(int64_t place, int64_t k, V v) const {
        store_narrow(static_cast<S*>(to_.x) + (frame_ * places_ + place) * conv_.input + k, v, conv_.input - k);
    }

    // The gradients of the pre-activations at places [first, end).
    void cells(int64_t first, int64_t end) {
        __builtin_memset(desk_.totals, 0, sizeof(Totals) * static_cast<size_t>(z_.U));
        for (int64_t p = first; p < end; ++p)
            if (spec_.layer_norm)
                normed(p);
            else
                plain(p);
        const Sums<T>& sums = desk_.sums;
        for (int64_t u = 0; u < z_.U; ++u) {
            const Totals& total = totals_[u];
            for (int g = 0; g < Cell::gates; ++g) {
                add_to(sums.bias + u * z_.W + g * VL<T>, total.bias[g]);
                add_to(sums.norm_x + u * z_.W + g * VL<T>, total.norm_x[g]);
                add_to(sums.norm_h + u * z_.W + g * VL<T>, total.norm_h[g]);
            }
            add_to(sums.peephole + u * 3 * VL<T>, total.i);
            add_to(sums.peephole + (u * 3 + 1) * VL<T>, total.f);
            add_to(sums.peephole + (u * 3 + 2) * VL<T>, total.o);
            add_to(sums.norm_c + u * VL<T>, total.norm_c);
            add_to(sums.norm_bias_c + u * VL<T>, total.norm_bias_c);
        }
    }

    struct Saved {
        V gate[Cell::gates];
        V c, before;  // c after the clip
    };

    Saved saved(int64_t p, int64_t u) const {
        Saved v;
        const T* gates = reserve_.gates(frame_ * places_ + p) + u * z_.W;
        for (int g = 0; g < Cell::gates; ++g) v.gate[g] = load(gates + g * VL<T>);
        const T* before = before_ < 0 ? desk_.c0 + p * z_.Hp : reserve_.c(before_ * places_ + p);
        v.before = load(before + u * VL<T>);
        v.c = Cell::cell(v.gate, v.before, clip_);
        return v;
    }

    V of_output(int64_t p, int64_t u) const {
        const S* of_y = static_cast<const S*>(to_.of_y) + (frame_ * places_ + p) * z_.H;
        return load(desk_.h + p * z_.Hp + u * VL<T>) + load_wide(of_y + u * VL<T>, z_.H - u * VL<T>);
    }

    // From the gradients of the output gate and of c (through h alone) to those of the pre-activations.
    typename Cell::Gradient pass(int64_t p, int64_t u, const Saved& v, V of_o, V of_c) {
        T* state = desk_.c + p * z_.Hp + u * VL<T>;
        const typename Cell::Peephole peephole = peephole_of<Cell>(packed_, u);
        const auto d = Cell::backward(v.gate, v.before, of_o, of_c + load(state), peephole, clip_);
        store(state, d.c);
        Totals& total = totals_[u];
        for (int g = 0; g < Cell::gates; ++g) total.bias[g] += d.z[g];
        if (spec_.peephole) {
            total.i = fma(d.i, v.before, total.i);
            total.f = fma(d.f, v.before, total.f);
            total.o = fma(d.o, v.c, total.o);
        }
        return d;
    }

    // To a frame of gradients of W x or of U h.
    void deliver(S* to, int64_t p, int64_t u, int g, V v) const {
        const int64_t k = u * VL<T>;
        store_narrow(to + p * N_ + g * z_.H + k, v, z_.H - k);
    }

    void plain(int64_t p) {
        const V one = all(T(1));
        for (int64_t u = 0; u < z_.U; ++u) {
            const Saved v = saved(p, u);
            const V shown = tanh<T>(v.c), of = of_output(p, u);
            const auto d = pass(p, u, v, of * shown, of * v.gate[Cell::O] * (one - shown * shown));
            for (int g = 0; g < Cell::gates; ++g) deliver(z_frame_, p, u, g, d.z[g]);
        }
    }

    void normed(int64_t p) {
        const int64_t row = frame_ * places_ + p;
        const V one = all(T(1));
        for (int64_t u = 0; u < z_.U; ++u) store(desk_.shown + u * VL<T>, saved(p, u).c);
        const Statistics<T> n = statistics(desk_.shown, VL<T>, z_.U, 1, z_.H);
        for (int64_t u = 0; u < z_.U; ++u) {
            const int64_t k = u * VL<T>;
            const V c = (load(desk_.shown + k) - all(n.mean)) * all(n.scale), weight = load(packed_.norm_c + k);
            const V shown = tanh<T>(fma(c, weight, load(packed_.norm_bias_c + k))), of = of_output(p, u);
            const V o = load(reserve_.gates(row) + u * z_.W + Cell::O * VL<T>),
                    of_shown = of * o * (one - shown * shown);
            totals_[u].norm_c = fma(of_shown, c, totals_[u].norm_c);
            totals_[u].norm_bias_c += of_shown;
            store(desk_.shown + k, c);
            store(desk_.of_c + k, of_shown * weight);
            store(desk_.of_shown + k, of * shown);  // of the output gate
        }
        normalise_backward(desk_.of_c, desk_.shown, VL<T>, VL<T>, n.scale, z_.U, 1, z_.H);
        const T *const x = reserve_.norm_x(row), *const h = reserve_.norm_h(row);
        for (int64_t u = 0; u < z_.U; ++u) {
            const auto d = pass(p, u, saved(p, u), load(desk_.of_shown + u * VL<T>), load(desk_.of_c + u * VL<T>));
            for (int g = 0; g < Cell::gates; ++g) {
                const int64_t k = u * z_.W + g * VL<T>;
                totals_[u].norm_x[g] = fma(d.z[g], load(x + k), totals_[u].norm_x[g]);
                totals_[u].norm_h[g] = fma(d.z[g], load(h + k), totals_[u].norm_h[g]);
                store(desk_.of_x + k, d.z[g] * load(packed_.norm_x + k));
                store(desk_.of_h + k, d.z[g] * load(packed_.norm_h + k));
            }
        }
        S* const h_frame = static_cast<S*>(to_.of_h_z) + frame_ * places_ * N_;
        normalise_backward(desk_.of_x, x, z_.W, z_.W, reserve_.scale(row)[0], z_.U, z_.G, z_.H);
        normalise_backward(desk_.of_h, h, z_.W, z_.W, reserve_.scale(row)[1], z_.U, z_.G, z_.H);
        for (int64_t u = 0; u < z_.U; ++u)
            for (int g = 0; g < Cell::gates; ++g) {
                deliver(z_frame_, p, u, g, load(desk_.of_x + u * z_.W + g * VL<T>));
                deliver(h_frame, p, u, g, load(desk_.of_h + u * z_.W + g * VL<T>));
            }
    }

    const ConvLayer& conv_;
    const ConvGradients& to_;
    const Packed<T>& packed_;
    const ConvBack<S>& back_;
    const ConvBackDesk<S>& desk_;
    const Worker& team_;
    const Shape z_;
    const Spec spec_;
    const T clip_;
    const int64_t places_, N_;
    const bool in_parts_;
    const TileGrid grid_;
    const Share mine_;
    const View of_z_;
    const Reserve<T> reserve_;
    Totals* const totals_;
    int64_t frame_ = 0, before_ = 0;
    S* z_frame_ = nullptr;
    int64_t ready_ = 0;  // places of this frame, before which all have their gradients of z
};

// The vectors' gradients: the sum over the workers' buffers, `apart` from each other.
template <class S, class T>
void deliver_vectors(const Layer& layer, const Sums<T>& sums, int64_t parts, int64_t apart, const Weights& to) {
    const Shape z = shape_of<T>(layer);
    const auto put = [&](const T* from, int G, int64_t u, void* p) {
        if (p) unpack_vector(from, parts, apart, G, z.H, u, static_cast<S*>(p));
    };
    const int peeping = layer.spec.coupled ? 2 : 3;
    for (int64_t u = 0; u < z.U; ++u) {
        put(sums.bias + u * z.W, z.G, u, to.bias_ih);
        put(sums.bias + u * z.W, z.G, u, to.bias_hh);
        put(sums.peephole + (u * 3 + 3 - peeping) * VL<T>, peeping, u, to.weight_ch);
        put(sums.norm_x + u * z.W, z.G, u, to.norm_ih);
        put(sums.norm_h + u * z.W, z.G, u, to.norm_hh);
        put(sums.norm_c + u * VL<T>, 1, u, to.norm_c);
        put(sums.norm_bias_c + u * VL<T>, 1, u, to.norm_bias_c);
    }
}

}  // namespace carousel::CAROUSEL_NS
