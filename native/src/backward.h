// Backward: one worker walks the steps of one part from the last to the first, in chunks whose gradients of the
// pre-activations stay in cache; after each chunk they are multiplied with x, with h and with the weights.
#pragma once

#include "forward.h"
#include "gradient.h"

namespace carousel::CAROUSEL_NS {

template <class S, bool COUPLED>
class Backward {
  public:
    typedef typename Computed<S>::type T;
    typedef Vec<T> V;
    typedef Lstm<T, COUPLED> Cell;
    static constexpr int width = Cell::gates * static_cast<int>(VL<T>);

    Backward(const Layer& layer, const Gradients& gradients, const Part& part, const Packed<T>& packed,
             const TileWeights& tiles, const Back<T>& back, const BackDesk<T, S>& desk, const Sums<T>& sums,
             const Worker& team)
        : layer_(layer),
          to_(gradients),
          part_(part),
          packed_(packed),
          tiles_(tiles),
          back_(back),
          desk_(desk),
          sums_(sums),
          team_(team),
          z_(shape_of<T>(layer)),
          spec_(layer.spec),
          d_(part.direction),
          seed_(layer.seed + static_cast<uint64_t>(part.direction)),
          reserve_(Reserve<T>::of(layer, gradients.reserve, part.direction)),
          checkpoints_(Checkpoints<T>::of(layer, gradients.reserve, part.direction)),
          plain_(is_plain(layer) && sizeof(S) == sizeof(T)),
          units_(z_.U, team.index, team.count),
          columns_(blocks_of<T>(z_.P), team.index, team.count),
          inputs_(blocks_of<T>(z_.I), team.index, team.count),
          sequences_(part.count, team.index, team.count) {}

    void run() {
        begin();
        sync();
        pass_over(0, part_.steps);
        finish();
    }

    // Segment by segment, each after its gates have been worked out again into `reserve`.
    void run(Forward<S, COUPLED>& forward, const Reserve<T>& reserve) {
        reserve_ = reserve;
        begin();
        sync();
        const int64_t every = layer_.recompute;
        for (int64_t s = (part_.steps + every - 1) / every * every; (s -= every) >= 0;) {
            const int64_t end = s + every < part_.steps ? s + every : part_.steps;
            forward.replay(s, end, reserve, static_cast<const S*>(to_.y), checkpoints_);
            segment_ = s;
            pass_over(s, end);
        }
        finish();
    }

  private:
    void pass_over(int64_t from, int64_t end) {
        while (end > from) {
            const int64_t first = chunk_first(end, from);
            prepare(first, end);
            int64_t base = rows_;
            for (int64_t s = end; s-- > first;) step(s, base -= part_.active[s]);
            weights();
            sync();
            end = first;
        }
    }

    void sync() const {
        if (team_.count > 1) team_.barrier->wait();
    }

    int64_t chunk_first(int64_t end, int64_t from) const {
        int64_t first = end - 1, rows = part_.active[first];
        while (first > from && rows + part_.active[first - 1] <= back_.capacity) rows += part_.active[--first];
        return first;
    }

    const S* state(const void* all_of_it, int64_t p, int64_t size) const {
        return static_cast<const S*>(all_of_it) + (d_ * z_.B + part_.sequence[p]) * size;
    }

    void begin() {
        if (on_amx<S> && team_.index == 0) {
            const size_t bytes = static_cast<size_t>((back_.capacity + 16) * whole_tiles(z_.U * z_.W)) * sizeof(bf16);
            __builtin_memset(back_.x_tiles, 0, bytes);
            __builtin_memset(back_.h_tiles, 0, bytes);
        }
        if (team_.index == 0) __builtin_memset(sums_.small, 0, sizeof(T) * static_cast<size_t>(sums_.small_count));
        for (int64_t p = sequences_.first; p < sequences_.last; ++p) {
            const S *of_h = state(to_.of_h, p, z_.P), *of_c = state(to_.of_c, p, z_.H), *c0 = state(layer_.c0, p, z_.H);
            const RowKey key = row_key(seed_, stream_recurrent_dropout, part_.sequence[p], 0);
            for (int64_t k = 0; k < z_.Pp; k += VL<T>) {
                store(back_.h + p * z_.Pp + k, load_wide(of_h + k, z_.P - k));
                if (!back_.factor) continue;
                const V hit = hits<T>(threshold(spec_.recurrent_dropout), key, k);
                store(back_.factor + p * z_.Pp + k, (all(T(1)) - hit) / all(T(1 - spec_.recurrent_dropout)));
            }
            for (int64_t k = 0; k < z_.Hp; k += VL<T>) {
                store(back_.c + p * z_.Hp + k, load_wide(of_c + k, z_.H - k));
                store(back_.c0 + p * z_.Hp + k, load_wide(c0 + k, z_.H - k));
            }
        }
    }

    // Where the rows of the steps [s, end) lie, and the states before them.
    void prepare(int64_t s, int64_t end) {
        rows_ = 0;
        int64_t visited = 0;  // since the segment began
        for (int64_t t = segment_; t < s && segment_ >= 0; ++t) visited += part_.active[t];
        for (; s < end; ++s) {
            for (int64_t p = 0; p < part_.active[s]; ++p, ++rows_) {
                const int64_t row = row_of(layer_, part_, p, s);
                desk_.row[rows_] = row;
                desk_.slot[rows_] = segment_ >= 0 ? visited + p : row;
                desk_.x[rows_] = static_cast<const S*>(layer_.x) + row * layer_.x_stride;
                if (s == 0) {
                    desk_.h[rows_] = state(layer_.h0, p, z_.P);
                    desk_.c[rows_] = back_.c0 + p * z_.Hp;
                } else {
                    const int64_t before = row_of(layer_, part_, p, s - 1);
                    desk_.h[rows_] = static_cast<const S*>(to_.y) + before * z_.D * z_.P + d_ * z_.P;
                    if (s == segment_)
                        desk_.c[rows_] = checkpoints_.c(s, part_.sequence[p]);
                    else
                        desk_.c[rows_] = reserve_.c(segment_ >= 0 ? visited - part_.active[s - 1] + p : before);
                }
                if (!back_.factor) continue;
                T* masked = back_.masked + rows_ * z_.Pp;
                desk_.masked[rows_] = masked;
                for (int64_t g = columns_.first; g < columns_.last; ++g) {
                    const int64_t k = g * VL<T>;
                    const V h = load_wide(desk_.h[rows_] + k, z_.P - k) * load(back_.factor + p * z_.Pp + k);
                    store(masked + k, h);
                    if constexpr (on_amx<S>) store_rounded(back_.masked_tiles + rows_ * z_.Pp + k, h);
                }
                if constexpr (on_amx<S>) desk_.h[rows_] = back_.masked_tiles + rows_ * z_.Pp;
            }
            visited += part_.active[s];
        }
        if (back_.factor) sync();
    }

    // The gradient of h' of vector g, before zoneout took its share, which stays in Back::h.
    V of_output(int64_t g, int64_t p, int64_t s, int64_t row) const {
        const int64_t k = g * VL<T>;
        const S* of_y = static_cast<const S*>(to_.of_y) + row * to_.of_y_stride + d_ * z_.P + k;
        T* h = back_.h + p * z_.Pp + k;
        const V v = load(h) + load_wide(of_y, z_.P - k);
        if (!back_.through) return v;
        V keep = zero<T>();
        if (spec_.zoneout_h > 0) {
            const RowKey key = row_key(seed_, stream_zoneout_h, part_.sequence[p], time_of(layer_, part_, p, s));
            keep = kept<T>(layer_.training, spec_.zoneout_h, key, k);
        }
        store(h, keep * v);
        return (all(T(1)) - keep) * v;
    }

    void step(int64_t s, int64_t base) {
        const int64_t active = part_.active[s];
        if (spec_.projection) {
            for (int64_t p = 0; p < active; ++p)
                for (int64_t g = columns_.first; g < columns_.last; ++g)
                    store(back_.projected + (base + p) * z_.Pp + g * VL<T>, of_output(g, p, s, desk_.row[base + p]));
            sync();
            product_columns(StridedRows<T>{back_.projected + base * z_.Pp, z_.Pp, z_.P}, active, packed_.back_project,
                            z_.P, units_.first, units_.last, false, back_.of_m, z_.Hp);
        }
        if (spec_.layer_norm)
            normed_rows(active, s, base);
        else
            for (int64_t u = units_.first; u < units_.last; ++u) unit(u, active, s, base);
        if (to_.elapsed)
            for (int64_t at = base; at < base + active; ++at)
                narrow(back_.gap[at], static_cast<S*>(to_.elapsed)[d_ * z_.N + desk_.row[at]]);
        sync();
        T* to = back_.through ? back_.through : back_.h;
        const BlockedRows<T, width> z{back_.h_z + base * z_.W, z_.U, back_.capacity * z_.W};
        if constexpr (on_amx<S>) {
            const int64_t K = whole_tiles(z_.U * z_.W);
            tile_columns(back_.h_tiles + base * K, K, active, tiles_.back_h, K / tile_k, columns_.first, columns_.last,
                         to, z_.Pp);
        } else {
            gradient_columns(z, active, packed_.back_h, z_.U * z_.W, columns_.first, columns_.last, s % 2 == 1, to,
                             z_.Pp);
        }
        if (back_.through) add_through(active);
    }

    void add_through(int64_t active) {
        for (int64_t p = 0; p < active; ++p)
            for (int64_t g = columns_.first; g < columns_.last; ++g) {
                const int64_t k = p * z_.Pp + g * VL<T>;
                const V through = load(back_.through + k);
                store(back_.h + k, load(back_.h + k) + (back_.factor ? through * load(back_.factor + k) : through));
            }
    }

    V of_m(int64_t u, int64_t p, int64_t s, int64_t at) const {
        return spec_.projection ? load(back_.of_m + p * z_.Hp + u * VL<T>) : of_output(u, p, s, desk_.row[at]);
    }

    typedef carousel::CAROUSEL_NS::Totals<T, Cell::gates> Totals;

    struct Saved {
        V gate[Cell::gates];
        V c, before, fade;  // c after the clip, before zoneout; before: what this step saw, after the decay `fade`
        T gap;
    };

    Saved saved(int64_t u, int64_t at) const {
        const int64_t row = desk_.row[at];
        Saved v;
        for (int g = 0; g < Cell::gates; ++g) v.gate[g] = load(reserve_.gates(desk_.slot[at]) + u * z_.W + g * VL<T>);
        v.before = load(desk_.c[at] + u * VL<T>);
        v.fade = all(T(1));
        v.gap = 0;
        if (spec_.decay) {
            v.gap = widen(static_cast<const S*>(layer_.elapsed)[d_ * z_.N + row]);
            v.fade = exponential<T>(all(-v.gap) * load(packed_.rate + u * VL<T>));
            v.before = v.before * v.fade;
        }
        v.c = Cell::cell(v.gate, v.before, T(spec_.cell_clip));
        return v;
    }

    typename Cell::Peephole peephole(int64_t u) const { return peephole_of<Cell>(packed_, u); }

    // From the gradients of the output gate and of c (through h alone) to those of z; returns the share of the gap.
    typename Cell::Gradient pass(int64_t u, int64_t p, int64_t s, const Saved& v, V of_o, V of_c, Totals& sum, V& gap) {
        T* state = back_.c + p * z_.Hp + u * VL<T>;
        V of_new = load(state), stays = zero<T>();
        if (spec_.zoneout_c > 0) {
            const RowKey key = row_key(seed_, stream_zoneout_c, part_.sequence[p], time_of(layer_, part_, p, s));
            const V keep = kept<T>(layer_.training, spec_.zoneout_c, key, u * VL<T>);
            stays = keep * of_new;
            of_new = (all(T(1)) - keep) * of_new;
        }
        const typename Cell::Gradient d =
            Cell::backward(v.gate, v.before, of_o, of_c + of_new, peephole(u), T(spec_.cell_clip));
        V of_before = d.c + stays;
        if (spec_.decay) {
            const V slope = of_before * v.before;
            gap -= slope * load(packed_.rate + u * VL<T>);
            sum.rate -= slope * all(v.gap);
            of_before = of_before * v.fade;
        }
        store(state, of_before);
        for (int g = 0; g < Cell::gates; ++g) sum.bias[g] += d.z[g];
        if (spec_.peephole) {
            sum.i = fma(d.i, v.before, sum.i);
            sum.f = fma(d.f, v.before, sum.f);
            sum.o = fma(d.o, v.c, sum.o);
        }
        return d;
    }

    // `unit` for the plain cell. It asks nothing twice, and fetches what the next rows have kept.
    void plain_unit(int64_t u, int64_t active, int64_t base) {
        const int64_t k = u * VL<T>, n = z_.H - k, W = z_.W, apart = z_.Hp;
        const int64_t kept = reserve_.width, far = to_.of_y_stride;
        const int64_t *const row = desk_.row + base, *const slot = desk_.slot + base;
        const T *const *const before = desk_.c + base, *const of_y = static_cast<const T*>(to_.of_y) + d_ * z_.P + k;
        const T* const gates = reserve_.data + u * W;
        T *const h = back_.h + k, *const c = back_.c + k, *const z = back_.x_z + (u * back_.capacity + base) * W;
        V bias[Cell::gates] = {}, one = all(T(1));
        for (int64_t p = 0; p < active; ++p) {
            const int64_t next = p + 6 < active ? p + 6 : active - 1;
            for (int64_t g = 0; g < W; g += line<T>) __builtin_prefetch(gates + slot[next] * kept + g, 0, 3);
            __builtin_prefetch(before[next] + k, 0, 3);
            V gate[Cell::gates], of_z[Cell::gates];
#pragma GCC unroll 4
            for (int g = 0; g < Cell::gates; ++g) gate[g] = load(gates + slot[p] * kept + g * VL<T>);
            const V old = load(before[p] + k), shown = tanh<T>(Cell::cell(gate, old, T(0)));
            const V of = load(h + p * apart) + load_first(of_y + row[p] * far, n);
            const V of_c = fma(of * gate[Cell::O], one - shown * shown, load(c + p * apart));
            store(c + p * apart, Cell::backward(of_z, gate, old, of * shown, of_c));
#pragma GCC unroll 4
            for (int g = 0; g < Cell::gates; ++g) {
                bias[g] += of_z[g];
                store(z + p * W + g * VL<T>, of_z[g]);
            }
        }
        for (int g = 0; g < Cell::gates; ++g) add_to(sums_.bias + u * W + g * VL<T>, bias[g]);
    }

    void unit(int64_t u, int64_t active, int64_t s, int64_t base) {
        if (plain_) return plain_unit(u, active, base);
        Totals total;
        for (int64_t p = 0; p < active; ++p) {
            const int64_t at = base + p;
            const Saved v = saved(u, at);
            const V shown = tanh<T>(v.c), of = of_m(u, p, s, at), one = all(T(1));
            if (spec_.projection) store(back_.m + at * z_.Hp + u * VL<T>, v.gate[Cell::O] * shown);
            V gap = zero<T>();
            const auto d = pass(u, p, s, v, of * shown, of * v.gate[Cell::O] * (one - shown * shown), total, gap);
            T* z = back_.x_z + (u * back_.capacity + at) * z_.W;
            for (int g = 0; g < Cell::gates; ++g) store(z + g * VL<T>, d.z[g]);
            into_tiles(back_.x_tiles, u, at, z);
            if (spec_.decay) back_.gap[at] = sum<T>(gap) + (u ? back_.gap[at] : 0);
        }
        add_totals(spec_, sums_, u, total);
    }

    void into_tiles(bf16* tiles, int64_t u, int64_t at, const T* z) const {
        if constexpr (on_amx<S>)
            for (int64_t k = 0; k < z_.W; k += VL<T>)
                store_rounded(tiles + at * whole_tiles(z_.U * z_.W) + u * z_.W + k, load(z + k));
        else
            (void)tiles, (void)u, (void)at, (void)z;
    }

    // In three sweeps over the rows, as forward's.
    void normed_rows(int64_t active, int64_t s, int64_t base) {
        for (int64_t p = 0; p < active; ++p) through_norm_of_c(p, s, base + p);
        for (int64_t u = 0; u < z_.U; ++u) normed_unit(u, active, s, base);
        const int64_t apart = back_.capacity * z_.W;
        for (int64_t at = base; at < base + active; ++at) {
            const int64_t slot = desk_.slot[at];
            T *const x = back_.x_z + at * z_.W, *const h = back_.h_z + at * z_.W;
            normalise_backward(x, reserve_.norm_x(slot), apart, z_.W, reserve_.scale(slot)[0], z_.U, z_.G, z_.H);
            normalise_backward(h, reserve_.norm_h(slot), apart, z_.W, reserve_.scale(slot)[1], z_.U, z_.G, z_.H);
            for (int64_t u = 0; u < z_.U; ++u) {
                into_tiles(back_.x_tiles, u, at, x + u * apart);
                into_tiles(back_.h_tiles, u, at, h + u * apart);
            }
        }
    }

    // What x_z and h_z hold between the sweeps: c normalised, the gradients of c (through h alone), of o, and of c
    // shown.
    struct Between {
        T *c, *of_c, *of_o, *of_shown;
    };

    Between between(int64_t u, int64_t at) const {
        T *const x = back_.x_z + (u * back_.capacity + at) * z_.W, *const h =
                                                                       back_.h_z + (u * back_.capacity + at) * z_.W;
        return {x, x + VL<T>, x + 2 * VL<T>, h};
    }

    void through_norm_of_c(int64_t p, int64_t s, int64_t at) {
        const int64_t apart = back_.capacity * z_.W;
        const V one = all(T(1));
        const Between row = between(0, at);
        for (int64_t u = 0; u < z_.U; ++u) store(row.c + u * apart, saved(u, at).c);
        const Statistics<T> n = statistics(row.c, apart, z_.U, 1, z_.H);
        for (int64_t u = 0; u < z_.U; ++u) {
            const int64_t k = u * VL<T>;
            const Between b = between(u, at);
            const V c = (load(b.c) - all(n.mean)) * all(n.scale), weight = load(packed_.norm_c + k);
            const V shown = tanh<T>(fma(c, weight, load(packed_.norm_bias_c + k)));
            const V o = load(reserve_.gates(desk_.slot[at]) + u * z_.W + Cell::O * VL<T>), of = of_m(u, p, s, at);
            if (spec_.projection) store(back_.m + at * z_.Hp + k, o * shown);
            const V of_shown = of * o * (one - shown * shown);
            store(b.c, c);
            store(b.of_c, of_shown * weight);
            store(b.of_o, of * shown);
            store(b.of_shown, of_shown);
        }
        normalise_backward(row.of_c, row.c, apart, apart, n.scale, z_.U, 1, z_.H);
    }

    void normed_unit(int64_t u, int64_t active, int64_t s, int64_t base) {
        Totals total;
        V gain_x[Cell::gates], gain_h[Cell::gates], of_x[Cell::gates] = {}, of_h[Cell::gates] = {}, of_c{}, of_bias{};
        for (int g = 0; g < Cell::gates; ++g) {
            gain_x[g] = load(packed_.norm_x + u * z_.W + g * VL<T>);
            gain_h[g] = load(packed_.norm_h + u * z_.W + g * VL<T>);
        }
        for (int64_t p = 0; p < active; ++p) {
            const int64_t at = base + p;
            const Between b = between(u, at);
            const T* const norm_x = reserve_.norm_x(desk_.slot[at]) + u * z_.W;
            const T* const norm_h = reserve_.norm_h(desk_.slot[at]) + u * z_.W;
            const V of_shown = load(b.of_shown);
            of_c = fma(of_shown, load(b.c), of_c);
            of_bias += of_shown;
            V gap = zero<T>();
            const auto d = pass(u, p, s, saved(u, at), load(b.of_o), load(b.of_c), total, gap);
            for (int g = 0; g < Cell::gates; ++g) {
                const int64_t k = g * VL<T>;
                of_x[g] = fma(d.z[g], load(norm_x + k), of_x[g]);
                of_h[g] = fma(d.z[g], load(norm_h + k), of_h[g]);
                store(b.c + k, d.z[g] * gain_x[g]);  // the block's first: what was between is used up
                store(b.of_shown + k, d.z[g] * gain_h[g]);
            }
            if (spec_.decay) back_.gap[at] = sum<T>(gap) + (u ? back_.gap[at] : 0);
        }
        for (int g = 0; g < Cell::gates; ++g) {
            add_to(sums_.norm_x + u * z_.W + g * VL<T>, of_x[g]);
            add_to(sums_.norm_h + u * z_.W + g * VL<T>, of_h[g]);
        }
        add_to(sums_.norm_c + u * VL<T>, of_c);
        add_to(sums_.norm_bias_c + u * VL<T>, of_bias);
        add_totals(spec_, sums_, u, total);
    }

    // The chunk's share of the gradients of the weights and of x.
    void weights() {
        const int64_t blocks = units_.last - units_.first, size = back_.capacity * z_.W;
        [[maybe_unused]] const auto sum = [&](const auto& left, int64_t K, const T* z, T* to) {
            const Place<T> place{to + units_.first * K * z_.W, K * z_.W, z_.W};
            product<T, Cell::gates>(left, K, Panels<T>{z + units_.first * size, blocks, size, z_.W},
                                    {started_ ? place.data : nullptr, place.block, place.row}, place, Nothing{});
        };
        if constexpr (on_amx<S>) {
            sum_in_tiles<Cell::gates>(desk_, back_, sums_, z_, units_, rows_, started_);
        } else {
            sum(Columns<T, S>{desk_.x, rows_}, z_.I, back_.x_z, sums_.x);
            if (back_.factor)
                sum(Columns<T, T>{desk_.masked, rows_}, z_.P, back_.h_z, sums_.h);
            else
                sum(Columns<T, S>{desk_.h, rows_}, z_.P, back_.h_z, sums_.h);
        }
        if (spec_.projection) project_weights();
        if (back_.x) input_gradient();
        started_ = true;
    }

    void project_weights() {
        each_width<T>(units_.first, units_.last, [&]<int NV>(int64_t group, int64_t blocks) {
            const Panels<T> m{back_.m + group * VL<T>, blocks, NV * VL<T>, z_.Hp};
            const Place<T> to{sums_.project + group * VL<T>, NV * VL<T>, z_.Hp};
            product<T, NV>(StridedColumns<T>{back_.projected, z_.Pp, rows_}, z_.P, m,
                           {started_ ? to.data : nullptr, to.block, to.row}, to, Nothing{});
        });
    }

    void input_gradient() {
        const BlockedRows<T, width> z{back_.x_z, z_.U, back_.capacity * z_.W};
        if constexpr (on_amx<S>) {
            const int64_t K = whole_tiles(z_.U * z_.W);
            tile_columns(back_.x_tiles, K, rows_, tiles_.back_x, K / tile_k, inputs_.first, inputs_.last, back_.x,
                         z_.Ip);
        } else {
            product_columns(z, rows_, packed_.back_x, z_.U * z_.W, inputs_.first, inputs_.last, false, back_.x, z_.Ip);
        }
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t g = inputs_.first; g < inputs_.last; ++g) {
                const int64_t k = g * VL<T>;
                store_narrow(static_cast<S*>(to_.x) + (d_ * z_.N + desk_.row[r]) * z_.I + k,
                             load(back_.x + r * z_.Ip + k), z_.I - k);
            }
    }

    void finish() {
        sync();
        if (spec_.decay && team_.index == 0)
            for (int64_t k = 0; k < z_.Hp; k += VL<T>) {
                const V slope = -exponential_minus_one<T>(-load(packed_.rate + k));  // of softplus
                store(sums_.rate + k, load(sums_.rate + k) * slope);
            }
        if (!started_ && team_.index == 0) {
            const auto clear = [](T* to, int64_t n) { __builtin_memset(to, 0, sizeof(T) * static_cast<size_t>(n)); };
            clear(sums_.x, z_.U * z_.I * z_.W);
            clear(sums_.h, z_.U * z_.P * z_.W);
            if (spec_.projection) clear(sums_.project, z_.P * z_.Hp);
        }
        for (int64_t p = sequences_.first; p < sequences_.last; ++p) {
            const int64_t at = d_ * z_.B + part_.sequence[p];
            for (int64_t k = 0; k < z_.P; k += VL<T>)
                store_narrow(static_cast<S*>(to_.h0) + at * z_.P + k, load(back_.h + p * z_.Pp + k), z_.P - k);
            for (int64_t k = 0; k < z_.H; k += VL<T>)
                store_narrow(static_cast<S*>(to_.c0) + at * z_.H + k, load(back_.c + p * z_.Hp + k), z_.H - k);
        }
    }

    const Layer& layer_;
    const Gradients& to_;
    const Part& part_;
    const Packed<T>& packed_;
    const TileWeights& tiles_;
    const Back<T>& back_;
    const BackDesk<T, S>& desk_;
    const Sums<T>& sums_;
    const Worker& team_;
    const Shape z_;
    const Spec spec_;
    const int64_t d_;
    const uint64_t seed_;
    Reserve<T> reserve_;
    const Checkpoints<T> checkpoints_;
    const bool plain_;
    const Share units_, columns_, inputs_, sequences_;
    int64_t segment_ = -1;  // the first step of the segment being worked on; -1 without recompute
    int64_t rows_ = 0;
    bool started_ = false;
};

}  // namespace carousel::CAROUSEL_NS
