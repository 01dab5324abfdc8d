// Forward: one worker walks the steps of one part. W x is computed for a chunk of steps at once into a scratch that
// stays in cache; each step adds U h to it in place, and the update runs on each tile as soon as it is complete.
#pragma once

#include "lstm.h"
#include "normalise.h"
#include "scratch.h"

namespace carousel::CAROUSEL_NS {

// What a regulariser keeps of the old value: a drawn 0 or 1 in training, its expectation otherwise.
template <class T>
inline Vec<T> kept(bool training, double probability, RowKey key, int64_t unit) {
    return training ? hits<T>(threshold(probability), key, unit) : all(T(probability));
}

template <class Cell, class T>
inline typename Cell::Peephole peephole_of(const Packed<T>& packed, int64_t u) {
    if (!packed.peephole) return {};
    const T* p = packed.peephole + u * 3 * VL<T>;
    return {load(p), load(p + VL<T>), load(p + 2 * VL<T>)};
}

template <class S, bool COUPLED>
class Forward {
  public:
    typedef typename Computed<S>::type T;
    typedef Vec<T> V;
    typedef Lstm<T, COUPLED> Cell;

    Forward(const Layer& layer, const Outputs& out, const Part& part, const Packed<T>& packed, const Walk<T>& walk,
            const TileWeights& tiles, const Desk<T, S>& desk, const Worker& team)
        : layer_(layer),
          out_(out),
          part_(part),
          packed_(packed),
          walk_(walk),
          tiles_(tiles),
          desk_(desk),
          team_(team),
          z_(shape_of<T>(layer)),
          spec_(layer.spec),
          d_(part.direction),
          seed_(layer.seed + static_cast<uint64_t>(part.direction)),
          clip_(static_cast<T>(layer.spec.cell_clip)),
          plain_(is_plain(layer) && sizeof(S) == sizeof(T) && out.y && !out.trace),
          units_(z_.U, team.index, team.count),
          columns_(blocks_of<T>(z_.P), team.index, team.count),
          sequences_(part.count, team.index, team.count),
          reserve_(Reserve<T>::of(layer, out.reserve, d_)),
          checkpoints_(Checkpoints<T>::of(layer, out.reserve, d_)) {}

    void run() {
        begin(0);
        walk(0, part_.steps);
        finish();
    }

    // The steps [s, end) once more, from the checkpoint and forward's y, for their gates: the k-th row that it visits
    // fills the k-th row of `reserve`.
    void replay(int64_t s, int64_t end, const Reserve<T>& reserve, const S* y, const Checkpoints<T>& checkpoints) {
        reserve_ = reserve;
        past_ = y;
        checkpoints_ = checkpoints;
        slots_ = 0;
        begin(s);
        walk(s, end);
    }

  private:
    void sync() const {
        if (team_.count > 1) team_.barrier->wait();
    }

    void walk(int64_t s, int64_t last) {
        sync();
        while (s < last) {
            int64_t end = chunk_end(part_, s, walk_.capacity);
            if (end > last) end = last;
            inputs(s, end);
            for (int64_t base = 0; s < end; base += part_.active[s++]) {
                if (!past_ && checkpoints_.at(s)) checkpoint(s);
                step(s, base);
                sync();
            }
        }
    }

    void checkpoint(int64_t s) const {
        for (int64_t p = 0; p < part_.active[s]; ++p)
            for (int64_t k = units_.first * VL<T>; k < units_.last * VL<T>; k += VL<T>)
                store(checkpoints_.c(s, part_.sequence[p]) + k, load(walk_.c + p * z_.Hp + k));
    }

    // The state before step s.
    void begin(int64_t s) {
        for (int64_t p = 0; p < part_.count; ++p)
            for (int k = 0; k < 2; ++k) desk_.h[k][p] = walk_.masked[k] + p * z_.Pp;
        for (int64_t p = sequences_.first; p < sequences_.last; ++p) {
            if (s > 0 && p >= part_.active[s]) continue;
            const int64_t at = d_ * z_.B + part_.sequence[p];
            const S* h0 = s ? past_ + row_of(layer_, part_, p, s - 1) * z_.D * z_.P + d_ * z_.P
                            : static_cast<const S*>(layer_.h0) + at * z_.P;
            const S* c0 = static_cast<const S*>(layer_.c0) + at * z_.H;
            const RowKey key = row_key(seed_, stream_recurrent_dropout, part_.sequence[p], 0);
            for (int64_t k = 0; k < z_.Pp; k += VL<T>) {
                const V h = k < z_.P ? load_wide(h0 + k, z_.P - k) : zero<T>();
                store(walk_.h[s & 1] + p * z_.Pp + k, h);
                if (!walk_.factor) remember(s & 1, p, k, h);
                if (!walk_.factor) continue;
                const V hit = hits<T>(threshold(spec_.recurrent_dropout), key, k);
                const V factor = (all(T(1)) - hit) / all(T(1 - spec_.recurrent_dropout));
                store(walk_.factor + p * z_.Pp + k, factor);
                store(walk_.masked[s & 1] + p * z_.Pp + k, h * factor);
                remember(s & 1, p, k, h * factor);
            }
            for (int64_t k = 0; k < z_.Hp; k += VL<T>)
                store(walk_.c + p * z_.Hp + k,
                      s ? load(checkpoints_.c(s, part_.sequence[p]) + k) : load_wide(c0 + k, z_.H - k));
        }
    }

    // The recurrent product's own copy of h; what lies between P and whole tiles is zero.
    void remember(int64_t which, int64_t p, int64_t k, V h) const {
        if constexpr (on_amx<S>) {
            bf16* row = walk_.operand[which] + p * whole_tiles(z_.P);
            store_rounded(row + k, h);
            if (k + VL<T> == z_.Pp && z_.Pp < whole_tiles(z_.P)) store_rounded(row + z_.Pp, zero<T>());
        } else {
            (void)which, (void)p, (void)k, (void)h;
        }
    }

    void finish() const {
        for (int64_t p = sequences_.first; p < sequences_.last; ++p) {
            const int64_t b = part_.sequence[p], at = d_ * z_.B + b;
            const T* h = walk_.h[layer_.rows.lengths[b] & 1] + p * z_.Pp;
            for (int64_t k = 0; k < z_.P; k += VL<T>)
                store_narrow(static_cast<S*>(out_.h) + at * z_.P + k, load(h + k), z_.P - k);
            for (int64_t k = 0; k < z_.H; k += VL<T>)
                store_narrow(static_cast<S*>(out_.c) + at * z_.H + k, load(walk_.c + p * z_.Hp + k), z_.H - k);
        }
    }

    T* z_at(int64_t u, int64_t row) const { return walk_.z + (u * walk_.capacity + row) * z_.W; }

    // W x of the steps [s, end), from the bias; with layer norm, normalised first.
    void inputs(int64_t s, int64_t end) {
        int64_t rows = 0;
        for (; s < end; ++s)
            for (int64_t p = 0; p < part_.active[s]; ++p, ++rows) {
                desk_.row[rows] = row_of(layer_, part_, p, s);
                desk_.slot[rows] = past_ ? slots_++ : desk_.row[rows];
                desk_.x[rows] = static_cast<const S*>(layer_.x) + desk_.row[rows] * layer_.x_stride;
            }
        const Panels<T> right{packed_.x + units_.first * z_.I * z_.W, units_.last - units_.first, z_.I * z_.W, z_.W};
        const Place<T> to{z_at(units_.first, 0), walk_.capacity * z_.W, z_.W};
        const bool norm = spec_.layer_norm;
        const Place<const T> from{norm ? nullptr : packed_.bias + units_.first * z_.W, z_.W, 0};
        if constexpr (on_amx<S>) {
            const int64_t K = whole_tiles(z_.I);
            for (int64_t r = 0; r < rows; ++r) copy_row(desk_.operand + r * K, desk_.x[r], z_.I);
            tile_product<Cell::gates>(desk_.operand, K, rows, tiles_.x + units_.first * K * z_.W / 2, right.blocks,
                                      K / tile_k, from, to, Nothing{});
        } else {
            product<T, Cell::gates>(PointerRows<T, S>{desk_.x, z_.I}, rows, right, from, to, Nothing{});
        }
        if (!norm) return;
        for (int64_t r = 0; r < rows; ++r) {
            T* kept = reserve_ ? reserve_.norm_x(desk_.slot[r]) : nullptr;
            const T scale = normalise(z_at(0, r), walk_.capacity * z_.W, kept);
            if (reserve_) {
                store(reserve_.scale(desk_.slot[r]), zero<T>());
                reserve_.scale(desk_.slot[r])[0] = scale;
            }
            for (int64_t u = 0; u < z_.U; ++u)
                for (int64_t k = 0; k < z_.W; k += VL<T>) {
                    T* at = z_at(u, r) + k;
                    store(at, fma(load(at), load(packed_.norm_x + u * z_.W + k), load(packed_.bias + u * z_.W + k)));
                }
        }
    }

    // The rows of [U][G][VL] with mean 0 and variance 1 over the real units, in place; returns 1 / deviation.
    T normalise(T* row, int64_t apart, T* kept) const {
        const Statistics<T> s = statistics(row, apart, z_.U, z_.G, z_.H);
        for (int64_t u = 0; u < z_.U; ++u)
            for (int64_t k = 0; k < z_.W; k += VL<T>) {
                const V v = (load(row + u * apart + k) - all(s.mean)) * all(s.scale);
                store(row + u * apart + k, v);
                if (kept) store(kept + u * z_.W + k, v);
            }
        return s.scale;
    }

    struct Update {
        Forward& self;
        int64_t base;
        void operator()(int64_t block, int64_t p0, int rows) const {
            self.block(self.units_.first + block, p0, rows, base);
        }
    };

    // to = from + U h for this worker's units.
    template <class Done>
    void recurrent(const PointerRows<T, T>& h, int64_t active, const Panels<T>& right, const Place<const T>& from,
                   const Place<T>& to, const Done& done) const {
        if constexpr (on_amx<S>) {
            const int64_t K = whole_tiles(z_.P);
            tile_product<Cell::gates>(walk_.operand[now_], K, active, tiles_.h + units_.first * K * z_.W / 2,
                                      right.blocks, K / tile_k, from, to, done);
        } else {
            product<T, Cell::gates>(h, active, right, from, to, done);
        }
    }

    void step(int64_t s, int64_t base) {
        const int64_t active = part_.active[s];
        now_ = s & 1;
        if (layer_.training && (spec_.zoneout_c > 0 || spec_.zoneout_h > 0))
            for (int64_t p = 0; p < active; ++p) {
                const int64_t t = time_of(layer_, part_, p, s);
                desk_.keep_c[p] = row_key(seed_, stream_zoneout_c, part_.sequence[p], t);
                desk_.keep_h[p] = row_key(seed_, stream_zoneout_h, part_.sequence[p], t);
            }
        const PointerRows<T, T> h{desk_.h[now_], z_.P};
        const Panels<T> right{packed_.h + units_.first * z_.P * z_.W, units_.last - units_.first, z_.P * z_.W, z_.W,
                              now_ == 1};
        if (spec_.layer_norm) {
            const Place<T> to{walk_.r + units_.first * part_.count * z_.W, part_.count * z_.W, z_.W};
            recurrent(h, active, right, {}, to, Nothing{});
            sync();
            normed_rows(active, base);
        } else {
            const Place<T> z{z_at(units_.first, base), walk_.capacity * z_.W, z_.W};
            recurrent(h, active, right, {z.data, z.block, z.row}, z, Update{*this, base});
        }
        if (spec_.projection) project(active, base);
    }

    void project(int64_t active, int64_t base) {
        sync();
        T* to = walk_.h[1 - now_];
        product_columns(StridedRows<T>{walk_.m, z_.Hp, z_.H}, active, packed_.project, z_.H, columns_.first,
                        columns_.last, false, to, z_.Pp);
        for (int64_t p = 0; p < active; ++p)
            for (int64_t g = columns_.first; g < columns_.last; ++g)
                emit(g, p, desk_.row[base + p], load(to + p * z_.Pp + g * VL<T>));
    }

    typename Cell::Peephole peephole(int64_t u) const { return peephole_of<Cell>(packed_, u); }

    // c of sequence p as this step sees it.
    V faded(int64_t u, int64_t p, int64_t row) const {
        const V c = load(walk_.c + p * z_.Hp + u * VL<T>);
        if (!spec_.decay) return c;
        const T gap = widen(static_cast<const S*>(layer_.elapsed)[d_ * z_.N + row]);
        return c * exponential<T>(all(-gap) * load(packed_.rate + u * VL<T>));
    }

    void open(int64_t u, int64_t p, int64_t row, V (&z)[Cell::gates], const typename Cell::Peephole& peephole) const {
        if (spec_.peephole)
            Cell::open(z, faded(u, p, row), peephole);
        else
            Cell::open(z);
    }

    // From open gates to the new cell state, which is stored; closes the output gate.
    V advance(int64_t u, int64_t p, int64_t at, V (&gate)[Cell::gates], const typename Cell::Peephole& peephole) {
        const int64_t row = desk_.row[at], slot = desk_.slot[at];
        const V old = faded(u, p, row), c = Cell::cell(gate, old, clip_);
        if (spec_.peephole) gate[Cell::O] = Cell::close(gate[Cell::O], c, peephole);
        V carried = c;
        if (spec_.zoneout_c > 0) {
            const V keep = kept<T>(layer_.training, spec_.zoneout_c, desk_.keep_c[p], u * VL<T>);
            carried = fma(keep, old, (all(T(1)) - keep) * c);
        }
        store(walk_.c + p * z_.Hp + u * VL<T>, carried);
        if (reserve_) {
            T* gates = reserve_.gates(slot) + u * z_.W;
            for (int g = 0; g < Cell::gates; ++g) store(gates + g * VL<T>, gate[g]);
            store(reserve_.c(slot) + u * VL<T>, carried);
        }
        if (out_.trace) trace(u, row, gate, carried);
        return c;
    }

    void trace(int64_t u, int64_t row, const V (&gate)[Cell::gates], V carried) const {
        const V shown[] = {Cell::input_gate(gate), gate[Cell::F], gate[Cell::C], gate[Cell::O], carried};
        for (int64_t k = 0; k < 5; ++k)
            store_narrow(static_cast<S*>(out_.trace) + ((k * z_.D + d_) * z_.N + row) * z_.H + u * VL<T>, shown[k],
                         z_.H - u * VL<T>);
    }

    // `block` for the plain cell. It asks nothing twice: at small H this is where the time goes.
    void plain_block(int64_t u, int64_t p0, int rows, int64_t base) {
        const int64_t at = u * VL<T>, n = z_.H - at, W = z_.W, apart = z_.Hp, wide = z_.D * z_.P, kept = reserve_.width;
        const int64_t *const row = desk_.row + base + p0, *const slot = desk_.slot + base + p0;
        T *const z = z_at(u, base + p0), *const c = walk_.c + p0 * apart + at;
        T *const h = walk_.h[1 - now_] + p0 * apart + at, *const y = static_cast<T*>(out_.y) + d_ * z_.P + at;
        T* const gates = reserve_.data;
        const int64_t cells = reserve_.gates_width + at;  // behind a row's gates
        for (int r = 0; gates && r < rows; ++r) {         // its lines come while the gates are at work
            const T* const keep = gates + slot[r] * kept;
            for (int64_t g = 0; g < W; g += line<T>) __builtin_prefetch(keep + u * W + g, 1, 3);
            __builtin_prefetch(keep + cells, 1, 3);
        }
        for (int r = 0; r < rows; ++r) {
            V gate[Cell::gates];
#pragma GCC unroll 4
            for (int g = 0; g < Cell::gates; ++g) gate[g] = load(z + r * W + g * VL<T>);
            Cell::open(gate);
            store(c + r * apart, Cell::cell(gate, load(c + r * apart), T(0)));
            store(z + r * W + Cell::O * VL<T>, gate[Cell::O]);
            if (!gates) continue;
            for (int g = 0; g < Cell::O; ++g) store(z + r * W + g * VL<T>, gate[g]);
        }
        for (int r = 0; r < rows; ++r) {
            const V now = load(c + r * apart), o = load(z + r * W + Cell::O * VL<T>), shown = o * tanh<T>(now);
            store(h + r * apart, shown);
            store_first(y + row[r] * wide, shown, n);
            if (!gates) continue;
            T* const keep = gates + slot[r] * kept + u * W;
            for (int g = 0; g < Cell::O; ++g) store(keep + g * VL<T>, load(z + r * W + g * VL<T>));
            store(keep + Cell::O * VL<T>, o);
            store(gates + slot[r] * kept + cells, now);
        }
    }

    // The update of a tile, in two sweeps over its rows, so that the activations of several rows overlap.
    void block(int64_t u, int64_t p0, int rows, int64_t base) {
        if (plain_) return plain_block(u, p0, rows, base);
        const typename Cell::Peephole peephole = this->peephole(u);
        T* const z = z_at(u, base + p0);
        for (int r = 0; r < rows; ++r) {
            V gate[Cell::gates];
            for (int g = 0; g < Cell::gates; ++g) gate[g] = load(z + r * z_.W + g * VL<T>);
            open(u, p0 + r, desk_.row[base + p0 + r], gate, peephole);
            for (int g = 0; g < Cell::gates; ++g) store(z + r * z_.W + g * VL<T>, gate[g]);
        }
        for (int r = 0; r < rows; ++r) {
            const int64_t p = p0 + r, row = desk_.row[base + p];
            V gate[Cell::gates];
            for (int g = 0; g < Cell::gates; ++g) gate[g] = load(z + r * z_.W + g * VL<T>);
            const V c = advance(u, p, base + p, gate, peephole);
            deliver(u, p, row, gate[Cell::O] * tanh<T>(c));
        }
    }

    void deliver(int64_t u, int64_t p, int64_t row, V m) {
        if (spec_.projection)
            store(walk_.m + p * z_.Hp + u * VL<T>, m);
        else
            emit(u, p, row, m);
    }

    // With layer norm the whole row of U h must stand before any gate does, and the whole of c before any h. Each of
    // the three goes over all rows, so that the sums of several rows are under way at once.
    void normed_rows(int64_t active, int64_t base) {
        const int64_t apart = part_.count * z_.W, o = Cell::O * VL<T>;
        for (int64_t p = 0; p < active; ++p) {
            const int64_t slot = desk_.slot[base + p];
            const T scale = normalise(walk_.r + p * z_.W, apart, reserve_ ? reserve_.norm_h(slot) : nullptr);
            if (reserve_) reserve_.scale(slot)[1] = scale;
        }
        for (int64_t u = 0; u < z_.U; ++u) {
            const typename Cell::Peephole peephole = this->peephole(u);
            V norm[Cell::gates];
            for (int g = 0; g < Cell::gates; ++g) norm[g] = load(packed_.norm_h + u * z_.W + g * VL<T>);
            for (int64_t p = 0; p < active; ++p) {
                const T* const r = walk_.r + u * apart + p * z_.W;
                T* const z = z_at(u, base + p);
                V gate[Cell::gates];
                for (int g = 0; g < Cell::gates; ++g) gate[g] = fma(load(r + g * VL<T>), norm[g], load(z + g * VL<T>));
                open(u, p, desk_.row[base + p], gate, peephole);
                store(z, advance(u, p, base + p, gate, peephole));
                store(z + o, gate[Cell::O]);
            }
        }
        for (int64_t p = 0; p < active; ++p) {
            T* const row = z_at(0, base + p);
            const Statistics<T> n = statistics(row, walk_.capacity * z_.W, z_.U, 1, z_.H);
            for (int64_t u = 0; u < z_.U; ++u) {
                const T* const z = row + u * walk_.capacity * z_.W;
                const V c = (load(z) - all(n.mean)) * all(n.scale);
                const V e = fma(c, load(packed_.norm_c + u * VL<T>), load(packed_.norm_bias_c + u * VL<T>));
                deliver(u, p, desk_.row[base + p], load(z + o) * tanh<T>(e));
            }
        }
    }

    // h' of vector g: zoneout, the state for the next step, and y.
    void emit(int64_t g, int64_t p, int64_t row, V h) {
        const int64_t k = g * VL<T>;
        if (spec_.zoneout_h > 0) {
            const V keep = kept<T>(layer_.training, spec_.zoneout_h, desk_.keep_h[p], k);
            h = fma(keep, load(walk_.h[now_] + p * z_.Pp + k), (all(T(1)) - keep) * h);
        }
        if constexpr (sizeof(S) < sizeof(T)) {  // what the next step sees is what y holds
            S rounded[VL<T>];
            store_narrow(rounded, h, VL<T>);
            h = load_wide(rounded, VL<T>);
        }
        if (out_.y) store_narrow(static_cast<S*>(out_.y) + row * z_.D * z_.P + d_ * z_.P + k, h, z_.P - k);
        store(walk_.h[1 - now_] + p * z_.Pp + k, h);
        if (!walk_.factor) remember(1 - now_, p, k, h);
        if (walk_.factor) {
            h = h * load(walk_.factor + p * z_.Pp + k);
            store(walk_.masked[1 - now_] + p * z_.Pp + k, h);
            remember(1 - now_, p, k, h);
        }
    }

    const Layer& layer_;
    const Outputs& out_;
    const Part& part_;
    const Packed<T>& packed_;
    const Walk<T>& walk_;
    const TileWeights& tiles_;
    const Desk<T, S>& desk_;
    const Worker& team_;
    const Shape z_;
    const Spec spec_;
    const int64_t d_;
    const uint64_t seed_;
    const T clip_;
    const bool plain_;
    const Share units_, columns_, sequences_;
    Reserve<T> reserve_;
    Checkpoints<T> checkpoints_;
    const S* past_ = nullptr;  // y of an earlier run, when this one is a replay
    int64_t slots_ = 0;
    int64_t now_ = 0;
};

}  // namespace carousel::CAROUSEL_NS
