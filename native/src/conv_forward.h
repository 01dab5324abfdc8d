// Forward of a convolutional layer: a sequence at a time, and within a step as many places at a time as stay in cache.
// W x, U h and the update of these follow each other there; h is read where the step before has left y.
#pragma once

#include "forward.h"
#include "winograd.h"

namespace carousel::CAROUSEL_NS {

// What each worker needs for itself, and the state.
template <class S>
struct ConvDesk {
    typedef typename Computed<S>::type T;
    typedef typename Operand<S>::type L;
    int64_t capacity = 0;             // places, or tiles, that are worked on together
    L *x = nullptr, *h = nullptr;     // [capacity (+ 16 on AMX)][K]
    T *z = nullptr, *r = nullptr;     // [U][capacity][W]; U h by itself with layer norm
    T *seen = nullptr, *m = nullptr;  // [parts][capacity][I + H] and [parts][capacity][W], with Winograd's filtering
    T* zeros = nullptr;               // [I or H, the larger]
    T* c = nullptr;                   // [places, Hp]
    T* shown = nullptr;               // [Hp] with layer norm: c of one place

    static ConvDesk carve(Carver& carver, const ConvLayer& conv, const Layer& layer) {
        const Shape z = shape_of<T>(layer);
        const int64_t places = conv.height * conv.width, slack = on_amx<S> ? 16 : 0;
        ConvDesk d;
        if (by_winograd<S>(conv)) {
            const int64_t K = conv.input + conv.hidden;
            d.capacity = tiles_together(K, TileGrid(conv).count());
            d.seen = carver.take<T>(parts * apart_of<T>(d.capacity, K));
            d.m = carver.take<T>(parts * apart_of<T>(d.capacity, z.W));
            d.zeros = carver.take<T>(K);
        } else {
            d.capacity = places_together<S>(z.I > z.P ? z.I : z.P, places);
            d.x = carver.take<L>((d.capacity + slack) * operand_stride<S>(z.I));
            d.h = carver.take<L>((d.capacity + slack) * operand_stride<S>(z.P));
            d.z = carver.take<T>(z.U * d.capacity * z.W);
            if (layer.spec.layer_norm) d.r = carver.take<T>(z.U * d.capacity * z.W);
        }
        d.shown = carver.take<T>(z.Hp);
        d.c = carver.take<T>(places * z.Hp);
        return d;
    }
};

// Both weights as Winograd's filtering sees them: [U][parts][I + H][W].
template <class T>
struct SeenWeights {
    T *rows = nullptr, *panels = nullptr;

    static SeenWeights carve(Carver& carver, const ConvLayer& conv, const Shape& z) {
        const int64_t K = conv.input + conv.hidden;
        SeenWeights w;
        w.rows = carver.take<T>(parts * z.G * z.H * K);
        w.panels = carver.take<T>(parts * z.U * z.W * K);
        return w;
    }

    void pack(const ConvLayer& conv, const Shape& z, const Worker& worker) const {
        const int64_t K = conv.input + conv.hidden, N = z.G * z.H;
        if (worker.index == 0) {
            see_weight(static_cast<const T*>(conv.weights.weight_ih), N, conv.input, false, rows, K, 0);
            see_weight(static_cast<const T*>(conv.weights.weight_hh), N, conv.hidden, false, rows, K, conv.input);
        }
        worker.barrier->wait();
        const Share mine(z.U, worker.index, worker.count);
        for (int64_t u = mine.first; u < mine.last; ++u)
            for (int64_t p = 0; p < parts; ++p)
                pack_gates(rows + p * N * K, z.G, z.H, K, u, panels + (u * parts + p) * K * z.W);
    }
};

template <class S, bool COUPLED>
class ConvForward {
  public:
    typedef typename Computed<S>::type T;
    typedef typename Operand<S>::type L;
    typedef Vec<T> V;
    typedef Lstm<T, COUPLED> Cell;

    ConvForward(const ConvLayer& conv, const Layer& layer, const ConvOutputs& out, const Packed<T>& packed,
                const TileWeights& tiles, const T* seen_weights, const ConvDesk<S>& desk, const Worker& team)
        : conv_(conv),
          out_(out),
          packed_(packed),
          tiles_(tiles),
          seen_weights_(seen_weights),
          desk_(desk),
          team_(team),
          z_(shape_of<T>(layer)),
          spec_(layer.spec),
          clip_(static_cast<T>(layer.spec.cell_clip)),
          places_(conv.height * conv.width),
          grid_(conv),
          mine_(places_of(conv, team)),
          of_x_(input_view(conv)),
          of_h_(state_view(conv, conv.hidden)),
          reserve_(Reserve<T>::of(layer, out.reserve, 0)) {}

    void sequence(int64_t b) {
        const int64_t length = conv_.rows.lengths[b];
        const S *h = static_cast<const S*>(conv_.h0) + b * places_ * z_.H, *c0 = static_cast<const S*>(conv_.c0);
        for (int64_t p = mine_.first; p < mine_.last; ++p)
            for (int64_t k = 0; k < z_.Hp; k += VL<T>)
                store(desk_.c + p * z_.Hp + k, load_wide(c0 + (b * places_ + p) * z_.H + k, z_.H - k));
        sync();
        for (int64_t t = 0; t < length; ++t) {
            frame_ = frame_of(conv_, b, t);
            const S* x = static_cast<const S*>(conv_.x) + frame_ * conv_.in_height * conv_.in_width * conv_.input;
            if (seen_weights_)
                step_in_tiles(x, h);
            else
                step(x, h);
            h = y_at(0);
            sync();
        }
        for (int64_t p = mine_.first; p < mine_.last; ++p) {
            const int64_t at = (b * places_ + p) * z_.H;
            __builtin_memcpy(static_cast<S*>(out_.h) + at, h + p * z_.H, static_cast<size_t>(z_.H) * sizeof(S));
            for (int64_t k = 0; k < z_.H; k += VL<T>)
                store_narrow(static_cast<S*>(out_.c) + at + k, load(desk_.c + p * z_.Hp + k), z_.H - k);
        }
    }

  private:
    void sync() const {
        if (team_.count > 1) team_.barrier->wait();
    }

    S* y_at(int64_t place) const { return static_cast<S*>(out_.y) + (frame_ * places_ + place) * z_.H; }
    T* z_at(T* z, int64_t u, int64_t row) const { return z + (u * desk_.capacity + row) * z_.W; }

    void step(const S* x, const S* before) {
        for (int64_t first = mine_.first; first < mine_.last; first += desk_.capacity) {
            const int64_t rows = mine_.last - first < desk_.capacity ? mine_.last - first : desk_.capacity;
            gather(of_x_, x, first, rows, desk_.x, operand_stride<S>(z_.I));
            gather(of_h_, before, first, rows, desk_.h, operand_stride<S>(z_.P));
            const int64_t apart = desk_.capacity * z_.W;
            const Place<T> z{desk_.z, apart, z_.W};
            first_ = first;
            if (spec_.layer_norm) {
                affine(desk_.x, z_.I, rows, packed_.x, tiles_.x, {}, z, Nothing{});
                affine(desk_.h, z_.P, rows, packed_.h, tiles_.h, {}, {desk_.r, apart, z_.W}, Nothing{});
                for (int64_t r = 0; r < rows; ++r) normed(r);
            } else {
                affine(desk_.x, z_.I, rows, packed_.x, tiles_.x, {packed_.bias, z_.W, 0}, z, Nothing{});
                affine(desk_.h, z_.P, rows, packed_.h, tiles_.h, {z.data, z.block, z.row}, z, Update{*this});
            }
        }
    }

    template <class Done>
    void affine(const L* left, int64_t K, int64_t rows, const T* right, const uint32_t* tiles,
                const Place<const T>& from, const Place<T>& to, const Done& done) const {
        if constexpr (on_amx<S>) {
            const int64_t whole = whole_tiles(K);
            tile_product<Cell::gates>(left, whole, rows, tiles, z_.U, whole / tile_k, from, to, done);
        } else {
            product<T, Cell::gates>(StridedRows<T>{left, K, K}, rows, Panels<T>{right, z_.U, K * z_.W, z_.W}, from, to,
                                    done);
        }
    }

    // The same by Winograd's filtering; the units of a block go all the way before the next block's weights come.
    void step_in_tiles(const S* x, const S* before) {
        if constexpr (__is_same(S, float)) {
            const Share mine(grid_.count(), team_.index, team_.count);
            const int64_t I = conv_.input, K = I + conv_.hidden, apart = apart_of<T>(desk_.capacity, K),
                          wide = apart_of<T>(desk_.capacity, z_.W);
            __builtin_memset(desk_.zeros, 0, sizeof(T) * static_cast<size_t>(K));
            for (int64_t first = mine.first; first < mine.last; first += desk_.capacity) {
                const int64_t n = mine.last - first < desk_.capacity ? mine.last - first : desk_.capacity;
                see_tiles(grid_, x, I, desk_.zeros, first, n, desk_.seen, K, apart);
                see_tiles(grid_, before, conv_.hidden, desk_.zeros, first, n, desk_.seen + I, K, apart);
                for (int64_t u = 0; u < z_.U; ++u) {
                    for (int64_t p = 0; p < parts; ++p) {
                        const Panels<T> right{seen_weights_ + (u * parts + p) * K * z_.W, 1, K * z_.W, z_.W};
                        product<T, Cell::gates>(StridedRows<T>{desk_.seen + p * apart, K, K}, n, right, {},
                                                Place<T>{desk_.m + p * wide, 0, z_.W}, Nothing{});
                    }
                    for (int64_t i = 0; i < n; ++i) update_tile(u, first + i, desk_.m + i * z_.W, wide);
                }
            }
        } else {
            (void)x, (void)before;
        }
    }

    void update_tile(int64_t u, int64_t tile, const T* m, int64_t wide) const {
        V z[Cell::gates][4];
#pragma GCC unroll 4
        for (int g = 0; g < Cell::gates; ++g) tile_places(m + g * VL<T>, wide, z[g]);
        for (int k = 0; k < 4; ++k) {
            const int64_t place = grid_.place(tile, k);
            if (place < 0) continue;
            V gate[Cell::gates];
            for (int g = 0; g < Cell::gates; ++g) gate[g] = z[g][k] + load(packed_.bias + u * z_.W + g * VL<T>);
            const V c = advance(u, place, gate);
            deliver(u, place, gate[Cell::O] * tanh<T>(c));
        }
    }

    struct Update {
        ConvForward& self;
        void operator()(int64_t u, int64_t row, int rows) const {
            for (int64_t r = row; r < row + rows; ++r) {
                V gate[Cell::gates];
                for (int g = 0; g < Cell::gates; ++g) gate[g] = load(self.z_at(self.desk_.z, u, r) + g * VL<T>);
                const int64_t place = self.first_ + r;
                const V c = self.advance(u, place, gate);
                self.deliver(u, place, gate[Cell::O] * tanh<T>(c));
            }
        }
    };

    // From pre-activations to the new cell state, which is kept; leaves the gates.
    V advance(int64_t u, int64_t place, V (&gate)[Cell::gates]) const {
        T* const state = desk_.c + place * z_.Hp + u * VL<T>;
        const V old = load(state);
        V c;
        if (spec_.peephole) {
            const typename Cell::Peephole peephole = peephole_of<Cell>(packed_, u);
            Cell::open(gate, old, peephole);
            c = Cell::cell(gate, old, clip_);
            gate[Cell::O] = Cell::close(gate[Cell::O], c, peephole);
        } else {
            Cell::open(gate);
            c = Cell::cell(gate, old, clip_);
        }
        store(state, c);
        if (reserve_) {
            const int64_t row = frame_ * places_ + place;
            T* gates = reserve_.gates(row) + u * z_.W;
            for (int g = 0; g < Cell::gates; ++g) store(gates + g * VL<T>, gate[g]);
            store(reserve_.c(row) + u * VL<T>, c);
        }
        return c;
    }

    void deliver(int64_t u, int64_t place, V h) const { store_narrow(y_at(place) + u * VL<T>, h, z_.H - u * VL<T>); }

    // A place with layer norm: all of W x and of U h must stand before any gate does, and all of c before any h.
    void normed(int64_t r) const {
        const int64_t apart = desk_.capacity * z_.W, row = frame_ * places_ + first_ + r;
        T *const a = z_at(desk_.z, 0, r), *const b = z_at(desk_.r, 0, r);
        const Statistics<T> of_a = statistics(a, apart, z_.U, z_.G, z_.H),
                            of_b = statistics(b, apart, z_.U, z_.G, z_.H);
        if (reserve_) {
            store(reserve_.scale(row), zero<T>());
            reserve_.scale(row)[0] = of_a.scale;
            reserve_.scale(row)[1] = of_b.scale;
        }
        for (int64_t u = 0; u < z_.U; ++u) {
            V gate[Cell::gates];
            for (int g = 0; g < Cell::gates; ++g) {
                const int64_t k = u * z_.W + g * VL<T>;
                const V x = (load(a + u * apart + g * VL<T>) - all(of_a.mean)) * all(of_a.scale);
                const V h = (load(b + u * apart + g * VL<T>) - all(of_b.mean)) * all(of_b.scale);
                if (reserve_) {
                    store(reserve_.norm_x(row) + k, x);
                    store(reserve_.norm_h(row) + k, h);
                }
                gate[g] = fma(x, load(packed_.norm_x + k), fma(h, load(packed_.norm_h + k), load(packed_.bias + k)));
            }
            store(desk_.shown + u * VL<T>, advance(u, first_ + r, gate));
            store(a + u * apart, gate[Cell::O]);
        }
        const Statistics<T> n = statistics(desk_.shown, VL<T>, z_.U, 1, z_.H);
        for (int64_t u = 0; u < z_.U; ++u) {
            const int64_t k = u * VL<T>;
            const V c = (load(desk_.shown + k) - all(n.mean)) * all(n.scale);
            const V e = fma(c, load(packed_.norm_c + k), load(packed_.norm_bias_c + k));
            deliver(u, first_ + r, load(a + u * apart) * tanh<T>(e));
        }
    }

    const ConvLayer& conv_;
    const ConvOutputs& out_;
    const Packed<T>& packed_;
    const TileWeights& tiles_;
    const T* const seen_weights_;  // null where Winograd's filtering is not used
    const ConvDesk<S>& desk_;
    const Worker& team_;
    const Shape z_;
    const Spec spec_;
    const T clip_;
    const int64_t places_;
    const TileGrid grid_;
    const Share mine_;
    const View of_x_, of_h_;
    const Reserve<T> reserve_;
    int64_t frame_ = 0, first_ = 0;
};

}  // namespace carousel::CAROUSEL_NS
