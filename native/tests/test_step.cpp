// Steps against the batch forward: with float weights the very same bits, one sequence at a time and many at once; with
// bfloat16 and int8 weights those of a forward whose weights are rounded alike, or close to them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "../src/step.h"
#include "carousel.h"

namespace {

using carousel::StepState;
using carousel::StepWeights;
using carousel::Storage;
typedef std::vector<float> Floats;

int failures = 0;

void expect(bool good, const char* what, int64_t I, int64_t H) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "FAILED: %s (I %lld, H %lld)\n", what, static_cast<long long>(I), static_cast<long long>(H));
}

std::mt19937 generator(11);

Floats drawn(int64_t n, float scale) {
    std::uniform_real_distribution<float> draw(-scale, scale);
    Floats v(static_cast<size_t>(n));
    for (float& x : v) x = draw(generator);
    return v;
}

struct Free {
    void operator()(void* p) const { std::free(p); }
};

std::unique_ptr<void, Free> memory_of(size_t bytes) {
    return std::unique_ptr<void, Free>(std::aligned_alloc(128, (bytes + 128) / 128 * 128));
}

// A layer, B sequences of T steps, and their batch forward.
struct Case {
    int64_t I, H, P, B = 5, T = 9, G;
    carousel::Spec spec;
    Floats x, h0, c0, elapsed, w_ih, w_hh, b_ih, b_hh, w_hr, w_ch, n_ih, n_hh, n_c, n_b, rate;
    carousel::Weights weights;
    carousel::Layer layer;
    std::vector<int64_t> first, ahead, lengths;
    Floats y, h, c;

    Case(int64_t i, int64_t hidden, int64_t p, carousel::Spec s)
        : I(i), H(hidden), P(s.projection ? p : hidden), G(s.coupled ? 3 : 4), spec(s) {
        const float scale = 1 / std::sqrt(static_cast<float>(H));
        x = drawn(B * T * I, 2), h0 = drawn(B * P, 1), c0 = drawn(B * H, 1.5f), elapsed = drawn(B * T, 1);
        for (float& e : elapsed) e = std::abs(e);
        w_ih = drawn(G * H * I, scale), w_hh = drawn(G * H * P, 2 * scale), b_ih = drawn(G * H, .5f);
        b_hh = drawn(G * H, .5f), w_hr = drawn(P * H, scale), w_ch = drawn((G - 1) * H, .5f);
        n_ih = drawn(G * H, 1), n_hh = drawn(G * H, 1), n_c = drawn(H, 1), n_b = drawn(H, 1), rate = drawn(H, 1);
        for (int64_t b = 0; b < B; ++b) first.push_back(b * T), lengths.push_back(T);
        for (int64_t t = 0; t < T; ++t) ahead.push_back(t);
        point(w_ih, w_hh, w_hr);
        layer.spec = spec;
        layer.sizes = {I, H, P, B * T, B, T, 1};
        layer.rows = {first.data(), ahead.data(), lengths.data()};
        layer.x = x.data();
        layer.x_stride = I;
        layer.h0 = h0.data();
        layer.c0 = c0.data();
        layer.elapsed = spec.decay ? elapsed.data() : nullptr;
        layer.weights = &weights;
        y.resize(static_cast<size_t>(B * T * P)), h.resize(static_cast<size_t>(B * P));
        c.resize(static_cast<size_t>(B * H));
    }
    Case(const Case&) = delete;

    void point(Floats& ih, Floats& hh, Floats& hr) {
        weights.weight_ih = ih.data(), weights.weight_hh = hh.data();
        if (spec.bias) weights.bias_ih = b_ih.data(), weights.bias_hh = b_hh.data();
        if (spec.projection) weights.weight_hr = hr.data();
        if (spec.peephole) weights.weight_ch = w_ch.data();
        if (spec.layer_norm) weights.norm_ih = n_ih.data(), weights.norm_hh = n_hh.data(), weights.norm_c = n_c.data();
        if (spec.layer_norm && spec.bias) weights.norm_bias_c = n_b.data();
        if (spec.decay) weights.decay_rate = rate.data();
    }

    void forward() {
        carousel::Outputs out;
        out.y = y.data(), out.h = h.data(), out.c = c.data();
        carousel::forward(layer, out);
    }
};

// The weights of a case laid out, and the states of its sequences.
struct Steps {
    const carousel::StepKernels& kernels = carousel::step_kernels();
    Case& of;
    StepWeights w;
    std::unique_ptr<void, Free> laid, scratch;
    std::vector<Floats> h, c;
    std::vector<StepState> states;

    Steps(Case& k, Storage storage) : of(k) {
        laid = memory_of(kernels.lay(k.layer, k.weights, storage, true, nullptr, w));
        kernels.lay(k.layer, k.weights, storage, true, laid.get(), w);
        scratch = memory_of(kernels.scratch(w, true));
        for (int64_t b = 0; b < k.B; ++b) {
            h.emplace_back(static_cast<size_t>(w.Pp)), c.emplace_back(static_cast<size_t>(w.Hp));
            std::copy_n(k.h0.data() + b * k.P, k.P, h.back().data());
            std::copy_n(k.c0.data() + b * k.H, k.H, c.back().data());
        }
        for (size_t b = 0; b < h.size(); ++b) states.push_back({h[b].data(), c[b].data()});
    }

    Floats run(bool together) {
        Floats y(static_cast<size_t>(of.B * of.T * of.P));
        for (int64_t t = 0; t < of.T; ++t) {
            std::vector<const float*> x;
            Floats gaps;
            for (int64_t b = 0; b < of.B; ++b) {
                x.push_back(of.x.data() + (b * of.T + t) * of.I);
                gaps.push_back(of.elapsed[static_cast<size_t>(b * of.T + t)]);
            }
            if (together) kernels.steps(w, of.B, x.data(), gaps.data(), states.data(), scratch.get());
            for (size_t b = 0; b < h.size() && !together; ++b) kernels.step(w, x[b], gaps[b], states[b], scratch.get());
            for (int64_t b = 0; b < of.B; ++b)
                std::copy_n(h[static_cast<size_t>(b)].data(), of.P, y.data() + (b * of.T + t) * of.P);
        }
        return y;
    }

    bool ends_with(const Floats& c_of_all) const {
        for (size_t b = 0; b < c.size(); ++b)
            if (std::memcmp(c[b].data(), c_of_all.data() + static_cast<int64_t>(b) * of.H,
                            static_cast<size_t>(of.H) * sizeof(float)) != 0)
                return false;
        return true;
    }
};

bool same(const Floats& a, const Floats& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

float distance(const Floats& a, const Floats& b) {
    float most = 0;
    for (size_t k = 0; k < a.size(); ++k) most = std::max(most, std::abs(a[k] - b[k]));
    return most;
}

void try_case(int64_t I, int64_t H, int64_t P, const carousel::Spec& spec) {
    Case k(I, H, P, spec);
    k.forward();
    Steps one(k, Storage::f32), many(k, Storage::f32);
    expect(same(one.run(false), k.y) && one.ends_with(k.c), "a step gives the bits of forward", I, H);
    expect(same(many.run(true), k.y) && many.ends_with(k.c), "steps of many give the bits of forward", I, H);

    Steps bf16(k, Storage::bf16), bf16_many(k, Storage::bf16), int8(k, Storage::int8), int8_many(k, Storage::int8);
    const Floats coarse = bf16.run(false), small = int8.run(false);
    expect(same(coarse, bf16_many.run(true)), "bfloat16: many give the bits of one", I, H);
    expect(same(small, int8_many.run(true)), "int8: many give the bits of one", I, H);
    // Layer norm divides by small deviations, so rounding shows more.
    const float slack = spec.layer_norm ? 12 : 1;
    expect(distance(coarse, k.y) < 0.03f * slack, "bfloat16 weights stay close", I, H);
    expect(distance(small, k.y) < 0.06f * slack, "int8 weights stay close", I, H);
    expect(distance(coarse, k.y) > 0 && distance(small, k.y) > 0, "rounded weights differ", I, H);
}

void try_dense() {
    const auto& kernels = carousel::step_kernels();
    for (const int64_t n : {1, 3, 17, 40}) {
        const int64_t K = 23;
        const Floats weight = drawn(n * K, 1), bias = drawn(n, 1), x = drawn(K, 1);
        carousel::StepDense d;
        const auto memory = memory_of(kernels.lay_dense(weight.data(), bias.data(), n, K, nullptr, d));
        kernels.lay_dense(weight.data(), bias.data(), n, K, memory.get(), d);
        Floats y(static_cast<size_t>(d.matrix.vectors * kernels.lanes));
        kernels.dense(d, x.data(), y.data());
        bool good = true;
        for (int64_t j = 0; j < n; ++j) {
            double sum = bias[static_cast<size_t>(j)];
            for (int64_t i = 0; i < K; ++i)
                sum += static_cast<double>(weight[static_cast<size_t>(j * K + i)]) * x[static_cast<size_t>(i)];
            good = good && std::abs(sum - y[static_cast<size_t>(j)]) < 1e-5;
        }
        expect(good, "a dense map", K, n);
    }
}

}  // namespace

int main() {
    try {
        std::printf("instruction set: %s\n", carousel::instruction_set());
    } catch (const std::invalid_argument& error) {
        std::printf("skipped: %s\n", error.what());
        return 77;
    }
    carousel::Spec plain, no_bias, peephole, coupled, norm, decay, projection, clip, zoneout, all;
    no_bias.bias = false;
    peephole.peephole = coupled.coupled = norm.layer_norm = decay.decay = projection.projection = true;
    clip.cell_clip = 0.6;
    zoneout.zoneout_c = 0.2, zoneout.zoneout_h = 0.1;
    all.peephole = all.coupled = all.layer_norm = all.decay = all.projection = true;
    all.cell_clip = 0.9, all.zoneout_c = 0.3, all.zoneout_h = 0.2;
    for (const auto& spec : {plain, no_bias, peephole, coupled, norm, decay, projection, clip, zoneout, all})
        for (const int64_t H : {1, 5, 16, 33, 64})
            for (const int64_t I : {1, 7, 20}) {
                if (spec.projection && H == 1) continue;
                if (spec.layer_norm && H == 1) continue;  // a row of one number has no deviation
                try_case(I, H, H / 2 + 1, spec);
            }
    try_case(200, 200, 100, plain);  // large enough for tiles
    try_case(130, 170, 90, all);
    try_case(31, 150, 100, plain);
    try_case(64, 150, 90, all);
    try_dense();
    if (failures) std::fprintf(stderr, "%d checks failed\n", failures);
    return failures ? 1 : 0;
}
