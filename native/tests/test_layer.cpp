// The core against a plain loop in long double, in buffers of exactly the right size, so that sanitizers see every
// access. Each case has random weights, ragged lengths including 1, and states that are not zero.
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "carousel.h"

namespace {

using carousel::Layer;
using carousel::Outputs;
using carousel::Type;
using carousel::Weights;
typedef std::vector<int64_t> Numbers;

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "FAILED: %s\n", what);
}

std::mt19937 generator(7);

// A buffer that ends where it should and starts one element off any alignment.
template <class T>
struct Buffer {
    explicit Buffer(int64_t n, double scale = 0) : size(n), memory(new T[static_cast<size_t>(n) + 1]) {
        std::uniform_real_distribution<double> draw(-scale, scale);
        for (int64_t k = 0; k <= n; ++k) memory[static_cast<size_t>(k)] = static_cast<T>(draw(generator));
    }
    T* data() const { return memory.get() + 1; }
    T& operator[](int64_t k) const { return data()[k]; }
    int64_t size;
    std::unique_ptr<T[]> memory;
};

template <class T>
struct Case {
    int64_t I, H, P, B, T_steps, N = 0;
    carousel::Spec spec;
    Numbers lengths, first, ahead;
    int64_t G;
    Buffer<T> x, h0, c0, w_ih, w_hh, bias, w_hr, w_ch, norm, norm_h, norm_c, norm_b, rate, elapsed;
    Weights weights;
    Layer layer;

    static int64_t total(const Numbers& lengths) {
        int64_t sum = 0;
        for (const int64_t n : lengths) sum += n;
        return sum;
    }

    Case(int64_t i, int64_t h, int64_t p, Numbers of, carousel::Spec s)
        : I(i),
          H(h),
          P(s.projection ? p : h),
          B(static_cast<int64_t>(of.size())),
          T_steps(0),
          N(total(of)),
          spec(s),
          lengths(std::move(of)),
          G(s.coupled ? 3 : 4),
          x(N * I, 1),
          h0(B * P, 1),
          c0(B * H, 1),
          w_ih(G * H * I, .5),
          w_hh(G * H * P, .5),
          bias(G * H, .5),
          w_hr(P * H, .5),
          w_ch((G - 1) * H, .5),
          norm(G * H, 1),
          norm_h(G * H, 1),
          norm_c(H, 1),
          norm_b(H, 1),
          rate(H, 1),
          elapsed(N, 0) {
        for (int64_t k = 0; k < N; ++k) elapsed[k] = T(0.3 + 0.1 * static_cast<double>(k % 5));
        int64_t at = 0;
        for (const int64_t n : lengths) {
            first.push_back(at);
            at += n;
            if (n > T_steps) T_steps = n;
        }
        for (int64_t t = 0; t < T_steps; ++t) ahead.push_back(t);
        weights.weight_ih = w_ih.data();
        weights.weight_hh = w_hh.data();
        if (s.bias) weights.bias_ih = weights.bias_hh = bias.data();
        if (s.projection) weights.weight_hr = w_hr.data();
        if (s.peephole) weights.weight_ch = w_ch.data();
        if (s.layer_norm) {
            weights.norm_ih = norm.data();
            weights.norm_hh = norm_h.data();
            weights.norm_c = norm_c.data();
            if (s.bias) weights.norm_bias_c = norm_b.data();
        }
        if (s.decay) weights.decay_rate = rate.data();
        layer.type = sizeof(T) == 4 ? Type::f32 : Type::f64;
        layer.spec = spec;
        layer.sizes = {I, H, P, N, B, T_steps, 1};
        layer.rows = {first.data(), ahead.data(), lengths.data()};
        layer.x = x.data();
        layer.x_stride = I;
        layer.h0 = h0.data();
        layer.c0 = c0.data();
        layer.elapsed = s.decay ? elapsed.data() : nullptr;
        layer.weights = &weights;
        layer.threads = 2;
    }
};

typedef long double Real;

std::vector<Real> normalised(const std::vector<Real>& v) {
    Real mean = 0, square = 0;
    for (const Real a : v) mean += a;
    mean /= static_cast<Real>(v.size());
    for (const Real a : v) square += (a - mean) * (a - mean);
    std::vector<Real> out;
    for (const Real a : v) out.push_back((a - mean) / std::sqrt(square / static_cast<Real>(v.size()) + Real(1e-5)));
    return out;
}

Real sigmoid(Real z) { return 1 / (1 + std::exp(-z)); }

// One step as the equations say; `h` and `c` go in and come out.
template <class T>
void plain_step(const Case<T>& k, int64_t row, std::vector<Real>& h, std::vector<Real>& c) {
    const auto size = static_cast<size_t>(k.G * k.H);
    std::vector<Real> a(size), r(size), z(size);
    for (int64_t j = 0; j < k.G * k.H; ++j) {
        for (int64_t i = 0; i < k.I; ++i) a[static_cast<size_t>(j)] += Real(k.w_ih[j * k.I + i]) * k.x[row * k.I + i];
        for (int64_t p = 0; p < k.P; ++p)
            r[static_cast<size_t>(j)] += Real(k.w_hh[j * k.P + p]) * h[static_cast<size_t>(p)];
    }
    if (k.spec.layer_norm) {
        a = normalised(a);
        r = normalised(r);
    }
    for (int64_t j = 0; j < k.G * k.H; ++j) {
        const auto at = static_cast<size_t>(j);
        z[at] = k.spec.layer_norm ? a[at] * k.norm[j] + r[at] * k.norm_h[j] : a[at] + r[at];
        if (k.spec.bias) z[at] += 2 * Real(k.bias[j]);
    }
    const int64_t H = k.H, f0 = k.spec.coupled ? 0 : H;
    std::vector<Real> o(static_cast<size_t>(H)), m(static_cast<size_t>(H));
    for (int64_t u = 0; u < H; ++u) {
        const auto at = [&](int64_t j) { return z[static_cast<size_t>(j + u)]; };
        const auto peep = [&](int64_t gate) { return k.spec.peephole ? Real(k.w_ch[gate * H + u]) : Real(0); };
        Real& cell = c[static_cast<size_t>(u)];
        if (k.spec.decay) cell *= std::exp(-Real(k.elapsed[row]) * std::log1p(std::exp(Real(k.rate[u]))));
        const Real f = sigmoid(at(f0) + peep(k.spec.coupled ? 0 : 1) * cell);
        const Real i = k.spec.coupled ? 1 - f : sigmoid(at(0) + peep(0) * cell);
        cell = f * cell + i * std::tanh(at(f0 + H));
        if (k.spec.cell_clip > 0) cell = std::fmin(std::fmax(cell, -Real(k.spec.cell_clip)), Real(k.spec.cell_clip));
        o[static_cast<size_t>(u)] = sigmoid(at(f0 + 2 * H) + peep(k.G - 2) * cell);
    }
    std::vector<Real> exposed = c;
    if (k.spec.layer_norm) {
        exposed = normalised(c);
        for (int64_t u = 0; u < H; ++u)
            exposed[static_cast<size_t>(u)] =
                exposed[static_cast<size_t>(u)] * k.norm_c[u] + (k.spec.bias ? Real(k.norm_b[u]) : 0);
    }
    for (size_t u = 0; u < m.size(); ++u) m[u] = o[u] * std::tanh(exposed[u]);
    if (!k.spec.projection) {
        h = m;
        return;
    }
    for (int64_t p = 0; p < k.P; ++p) {
        h[static_cast<size_t>(p)] = 0;
        for (int64_t u = 0; u < H; ++u)
            h[static_cast<size_t>(p)] += Real(k.w_hr[p * H + u]) * m[static_cast<size_t>(u)];
    }
}

template <class T>
double forward_error(const Case<T>& k, const Buffer<T>& y, const Buffer<T>& h, const Buffer<T>& c) {
    double worst = 0;
    const auto compare = [&](Real wanted, T found) {
        const double error = static_cast<double>(std::fabs(wanted - found));
        worst = error > worst || std::isnan(error) ? (std::isnan(error) ? 1e9 : error) : worst;
    };
    for (int64_t b = 0; b < k.B; ++b) {
        std::vector<Real> state(k.h0.data() + b * k.P, k.h0.data() + (b + 1) * k.P);
        std::vector<Real> cell(k.c0.data() + b * k.H, k.c0.data() + (b + 1) * k.H);
        for (int64_t t = 0; t < k.lengths[static_cast<size_t>(b)]; ++t) {
            const int64_t row = k.first[static_cast<size_t>(b)] + t;
            plain_step(k, row, state, cell);
            for (int64_t p = 0; p < k.P; ++p) compare(state[static_cast<size_t>(p)], y[row * k.P + p]);
        }
        for (int64_t p = 0; p < k.P; ++p) compare(state[static_cast<size_t>(p)], h[b * k.P + p]);
        for (int64_t u = 0; u < k.H; ++u) compare(cell[static_cast<size_t>(u)], c[b * k.H + u]);
    }
    return worst;
}

// Forward with its reserve; the loss is the sum of everything that comes out, each times its own weight.
template <class T>
struct Run {
    Buffer<T> y, h, c, reserve;

    static int64_t reserve_size(const Case<T>& k) {
        const int64_t lanes = carousel::lanes(k.layer.type), Hp = (k.H + lanes - 1) / lanes * lanes;
        if (k.layer.recompute) return (k.T_steps + k.layer.recompute - 1) / k.layer.recompute * k.B * Hp;
        return k.N * carousel::reserve_width(k.layer);
    }

    explicit Run(const Case<T>& k) : y(k.N * k.P), h(k.B * k.P), c(k.B * k.H), reserve(reserve_size(k)) {
        Outputs out;
        out.y = y.data();
        out.h = h.data();
        out.c = c.data();
        out.reserve = reserve.data();
        carousel::forward(k.layer, out);
    }
};

// Gradients along one random direction of every input, against the difference of the loss.
void backward_case(int64_t I, int64_t H, int64_t P, const Numbers& lengths, carousel::Spec spec, int64_t recompute) {
    Case<double> k(I, H, P, lengths, spec);
    k.layer.recompute = recompute;
    const Run<double> run(k);
    const Buffer<double> of_y(k.N * k.P, 1), of_h(k.B * k.P, 1), of_c(k.B * k.H, 1);
    Buffer<double> dx(k.N * I), dh(k.B * k.P), dc(k.B * k.H), dgap(k.N);
    Buffer<double> dw_ih(k.w_ih.size), dw_hh(k.w_hh.size), db(k.bias.size), db2(k.bias.size), dw_hr(k.w_hr.size);
    Buffer<double> dw_ch(k.w_ch.size), dn(k.norm.size), dnh(k.norm.size), dnc(k.H), dnb(k.H), drate(k.H);
    Weights to;
    to.weight_ih = dw_ih.data();
    to.weight_hh = dw_hh.data();
    to.bias_ih = db.data();
    to.bias_hh = db2.data();
    to.weight_hr = dw_hr.data();
    to.weight_ch = dw_ch.data();
    to.norm_ih = dn.data();
    to.norm_hh = dnh.data();
    to.norm_c = dnc.data();
    to.norm_bias_c = dnb.data();
    to.decay_rate = drate.data();
    carousel::Gradients g;
    g.reserve = run.reserve.data();
    g.y = run.y.data();
    g.of_y = of_y.data();
    g.of_y_stride = k.P;
    g.of_h = of_h.data();
    g.of_c = of_c.data();
    g.x = dx.data();
    g.h0 = dh.data();
    g.c0 = dc.data();
    g.elapsed = spec.decay ? dgap.data() : nullptr;
    g.weights = &to;
    carousel::backward(k.layer, g);

    const auto loss = [&] {
        const Run<double> r(k);
        double sum = 0;
        for (int64_t j = 0; j < r.y.size; ++j) sum += r.y[j] * of_y[j];
        for (int64_t j = 0; j < r.h.size; ++j) sum += r.h[j] * of_h[j];
        for (int64_t j = 0; j < r.c.size; ++j) sum += r.c[j] * of_c[j];
        return sum;
    };
    const auto along = [&](const char* what, const Buffer<double>& value, const Buffer<double>& gradient,
                           double twice = 1) {
        const Buffer<double> direction(value.size, 1);
        const double step = 1e-6;
        double slope = 0;
        const auto move = [&](double by) {
            for (int64_t j = 0; j < value.size; ++j) value[j] += by * direction[j];
        };
        for (int64_t j = 0; j < value.size; ++j) slope += twice * gradient[j] * direction[j];
        move(step);
        const double up = loss();
        move(-2 * step);
        const double down = loss();
        move(step);
        const double measured = (up - down) / (2 * step);
        if (std::fabs(measured - slope) > 1e-5 * (1 + std::fabs(measured))) {
            std::fprintf(stderr, "%s: measured %g, computed %g\n", what, measured, slope);
            expect(false, "a gradient");
        }
    };
    along("x", k.x, dx);
    along("h0", k.h0, dh);
    along("c0", k.c0, dc);
    along("weight_ih", k.w_ih, dw_ih);
    along("weight_hh", k.w_hh, dw_hh);
    if (spec.bias) along("bias", k.bias, db, 2);
    if (spec.projection) along("weight_hr", k.w_hr, dw_hr);
    if (spec.peephole) along("weight_ch", k.w_ch, dw_ch);
    if (spec.layer_norm) {
        along("norm_ih", k.norm, dn);
        along("norm_hh", k.norm_h, dnh);
        along("norm_c", k.norm_c, dnc);
        if (spec.bias) along("norm_bias_c", k.norm_b, dnb);
    }
    if (spec.decay) {
        along("decay_rate", k.rate, drate);
        along("elapsed", k.elapsed, dgap);
    }
}

template <class T>
void forward_case(int64_t I, int64_t H, int64_t P, const Numbers& lengths, carousel::Spec spec, double tolerance) {
    const Case<T> k(I, H, P, lengths, spec);
    const Run<T> run(k);
    const double error = forward_error(k, run.y, run.h, run.c);
    if (error > tolerance) std::fprintf(stderr, "I %ld H %ld P %ld: %g\n", long(I), long(H), long(P), error);
    expect(error <= tolerance, "forward");
}

std::vector<carousel::Spec> specs() {
    std::vector<carousel::Spec> found(9);
    found[1].peephole = true;
    found[2].coupled = true;
    found[3].layer_norm = true;
    found[4].decay = true;
    found[5].projection = true;
    found[6].cell_clip = 0.3;
    found[7].bias = false;
    found[8].peephole = found[8].coupled = found[8].layer_norm = found[8].decay = found[8].projection = true;
    return found;
}

// Every tail, to twice the widest vector and one more.
void tails() {
    for (const auto& spec : specs())
        for (int64_t n = 1; n <= 33; n += 1 + n / 8) {
            forward_case<double>(n, 34 - n, 1 + n / 2, {7, 1, 3}, spec, 1e-12);
            forward_case<float>(34 - n, n, 1 + n / 3, {7, 1, 3}, spec, 2e-4);
        }
}

void gradients() {
    for (const auto& spec : specs())
        for (const int64_t recompute : {0, 2}) {
            backward_case(3, 5, 2, {7, 1, 3}, spec, recompute);
            backward_case(17, 9, 4, {7, 1, 4, 4, 2, 7, 5}, spec, recompute);
        }
    backward_case(20, 70, 33, Numbers(12, 7), specs()[0], 0);  // enough work for two threads
    backward_case(3, 170, 33, {9}, specs()[0], 3);             // and for a team
}

// A copy in bfloat16, and the same numbers in float.
struct Halves {
    Buffer<uint16_t> bits;
    explicit Halves(const Buffer<float>& from) : bits(from.size) {
        for (int64_t j = 0; j < from.size; ++j) {
            bits[j] = static_cast<uint16_t>(std::bit_cast<uint32_t>(from[j]) >> 16);
            from[j] = wide(bits[j]);
        }
    }
    static float wide(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
};

// bfloat16 against float on the same numbers: outputs have eight bits of mantissa.
void bf16_case(int64_t I, int64_t H, const Numbers& lengths) {
    Case<float> k(I, H, H, lengths, {});
    for (const auto* buffer : {&k.w_ih, &k.w_hh})
        for (int64_t j = 0; j < buffer->size; ++j) (*buffer)[j] *= 0.3f;
    const Halves x(k.x), h0(k.h0), c0(k.c0), w_ih(k.w_ih), w_hh(k.w_hh), bias(k.bias);
    const Run<float> wide(k);
    Layer layer = k.layer;
    Weights weights;
    weights.weight_ih = w_ih.bits.data();
    weights.weight_hh = w_hh.bits.data();
    weights.bias_ih = weights.bias_hh = bias.bits.data();
    layer.type = Type::bf16;
    layer.x = x.bits.data();
    layer.h0 = h0.bits.data();
    layer.c0 = c0.bits.data();
    layer.weights = &weights;
    const Buffer<uint16_t> y(k.N * H), h(k.B * H), c(k.B * H);
    const Buffer<float> reserve(k.N * carousel::reserve_width(layer));
    Outputs out;
    out.y = y.data();
    out.h = h.data();
    out.c = c.data();
    out.reserve = reserve.data();
    carousel::forward(layer, out);
    float worst = 0;
    for (int64_t j = 0; j < y.size; ++j) worst = std::fmax(worst, std::fabs(Halves::wide(y[j]) - wide.y[j]));
    expect(worst < 0.03f, "bfloat16 forward");

    const Buffer<uint16_t> dx(k.N * I), dh(k.B * H), dc(k.B * H), dw_ih(k.w_ih.size), dw_hh(k.w_hh.size),
        db(k.bias.size), db2(k.bias.size);
    Weights to;
    to.weight_ih = dw_ih.data();
    to.weight_hh = dw_hh.data();
    to.bias_ih = db.data();
    to.bias_hh = db2.data();
    carousel::Gradients g;
    g.reserve = reserve.data();
    g.y = g.of_y = y.data();
    g.of_y_stride = H;
    g.of_h = h.data();
    g.of_c = c.data();
    g.x = dx.data();
    g.h0 = dh.data();
    g.c0 = dc.data();
    g.weights = &to;
    carousel::backward(layer, g);
    for (int64_t j = 0; j < dw_hh.size; ++j) expect(std::isfinite(Halves::wide(dw_hh[j])), "bfloat16 backward");
}

// Bit for bit, whether the weights are laid out in the call or before it.
void packed_weights_change_nothing() {
    for (const auto& spec : specs())
        for (const int64_t hidden : {19, 150}) {
            Case<float> k(7, hidden, 11, {7, 1, 3}, spec);
            const Run<float> once(k);
            const carousel::Packed packed(k.layer);
            k.layer.packed = &packed;
            k.layer.weights = nullptr;
            const Run<float> again(k);
            bool same = true;
            for (int64_t j = 0; j < once.y.size; ++j) same = same && once.y[j] == again.y[j];
            expect(same, "packed weights");
        }
}

void one_bad_row_stays_alone() {
    Case<float> k(5, 18, 18, {7, 7, 7}, {});
    const Run<float> clean(k);
    k.x[9 * k.I] = std::numeric_limits<float>::quiet_NaN();  // step 2 of sequence 1
    const Run<float> run(k);
    bool same = true, spoilt = true;
    for (int64_t row = 0; row < k.N; ++row)
        for (int64_t p = 0; p < k.P; ++p) {
            const bool bad = row >= 9 && row < 14;
            if (bad)
                spoilt = spoilt && std::isnan(run.y[row * k.P + p]);
            else
                same = same && run.y[row * k.P + p] == clean.y[row * k.P + p];
        }
    expect(same, "a NaN leaked into another row");
    expect(spoilt, "a NaN was swallowed");
}

void nothing_to_do() {
    for (const Numbers& lengths : {Numbers{}, Numbers{0, 0}}) {
        const Case<float> k(3, 4, 4, lengths, {});
        const Run<float> run(k);
        for (int64_t j = 0; j < run.h.size; ++j) expect(run.h[j] == k.h0[j], "an empty sequence keeps its state");
    }
}

void bad_rows_are_refused() {
    const auto refuses = [](auto spoil) {
        Case<float> k(3, 4, 4, {2, 3}, {});
        spoil(k);
        try {
            const Run<float> run(k);
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    expect(refuses([](auto& k) { k.first[1] = 4; }), "a row outside x");
    expect(refuses([](auto& k) { k.lengths[1] = 2; }), "lengths that do not add up");
    expect(refuses([](auto& k) { k.ahead[2] = 0; }), "steps that go back");
    expect(refuses([](auto& k) { k.layer.sizes.output = 3; }), "an output size without a projection");
}

}  // namespace

int main() {
    try {
        std::printf("instruction set: %s\n", carousel::instruction_set());
    } catch (const std::invalid_argument& reason) {
        std::printf("skipped: %s\n", reason.what());
        return 77;
    }
    tails();
    gradients();
    for (const int64_t n : {1, 15, 16, 31, 33, 70}) bf16_case(71 - n, n, {7, 1, 3, 18, 17});
    packed_weights_change_nothing();
    one_bad_row_stays_alone();
    nothing_to_do();
    bad_rows_are_refused();
    std::printf("%d failures\n", failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
