// Convolutional layers against a plain loop in long double, backward against differences of that loop, and float, which
// filters large frames by Winograd's tiles, against double. Buffers have exactly the right size, so that sanitizers see
// every access.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>

#include "carousel.h"

namespace {

using carousel::ConvGradients;
using carousel::ConvLayer;
using carousel::ConvOutputs;
using carousel::Type;
typedef std::vector<int64_t> Numbers;
typedef std::vector<double> Values;

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "FAILED: %s\n", what);
}

std::mt19937 generator(11);

Values drawn(int64_t n, double scale) {
    std::uniform_real_distribution<double> draw(-scale, scale);
    Values values(static_cast<size_t>(n));
    for (double& v : values) v = draw(generator);
    return values;
}

// The arguments of a layer, each one block of numbers: x, h0, c0, then the weights.
enum { X, H0, C0, W_IH, W_HH, BIAS, W_CH, ARGUMENTS };

struct Case {
    int64_t I, H, height, width, in_height, in_width;
    carousel::Window window;
    carousel::Spec spec;
    Numbers lengths, first, ahead;
    int64_t B, N = 0, G;
    Values values[ARGUMENTS];

    Case(int64_t i, int64_t h, int64_t down, int64_t across, Numbers of, carousel::Spec s, carousel::Window w)
        : I(i),
          H(h),
          height((down + w.stride[0] - 1) / w.stride[0]),
          width((across + w.stride[1] - 1) / w.stride[1]),
          in_height(down),
          in_width(across),
          window(w),
          spec(s),
          lengths(std::move(of)),
          B(static_cast<int64_t>(lengths.size())),
          G(s.coupled ? 3 : 4) {
        int64_t longest = 0;
        for (const int64_t n : lengths) {
            first.push_back(N);
            N += n;
            longest = n > longest ? n : longest;
        }
        for (int64_t t = 0; t < longest; ++t) ahead.push_back(t);
        const int64_t taps = w.kernel[0] * w.kernel[1], places = height * width;
        values[X] = drawn(N * down * across * I, 1);
        values[H0] = drawn(B * places * H, 1);
        values[C0] = drawn(B * places * H, 1);
        values[W_IH] = drawn(G * H * taps * I, 1.5 / std::sqrt(static_cast<double>(taps * I)));
        values[W_HH] = drawn(G * H * taps * H, 1.5 / std::sqrt(static_cast<double>(taps * H)));
        values[BIAS] = drawn(G * H, .5);
        values[W_CH] = drawn((G - 1) * H, .5);
    }

    int64_t places() const { return height * width; }
};

template <class T>
std::vector<T> rounded(const Values& values) {
    return std::vector<T>(values.begin(), values.end());
}

// What a run of the core reads and writes, in T.
template <class T>
struct Run {
    const Case& c;
    std::vector<T> in[ARGUMENTS], y, h, c_last, reserve;
    ConvLayer layer;

    Run(const Case& of, int threads)
        : c(of),
          y(static_cast<size_t>(c.N * c.places() * c.H)),
          h(static_cast<size_t>(c.B * c.places() * c.H)),
          c_last(h.size()) {
        for (int k = 0; k < ARGUMENTS; ++k) in[k] = rounded<T>(c.values[k]);
        layer.type = sizeof(T) == 8 ? Type::f64 : Type::f32;
        layer.spec = c.spec;
        layer.input = c.I;
        layer.hidden = c.H;
        layer.frames = c.N;
        layer.sequences = c.B;
        layer.steps = static_cast<int64_t>(c.ahead.size());
        layer.in_height = c.in_height;
        layer.in_width = c.in_width;
        layer.height = c.height;
        layer.width = c.width;
        layer.window = c.window;
        layer.rows = {c.first.data(), c.ahead.data(), c.lengths.data()};
        layer.x = in[X].data();
        layer.h0 = in[H0].data();
        layer.c0 = in[C0].data();
        layer.weights.weight_ih = in[W_IH].data();
        layer.weights.weight_hh = in[W_HH].data();
        layer.weights.bias_ih = in[BIAS].data();
        if (c.spec.peephole) layer.weights.weight_ch = in[W_CH].data();
        layer.threads = threads;
        reserve.resize(static_cast<size_t>(c.N * c.places() * carousel::reserve_width(layer)));
    }

    void forward() { carousel::forward(layer, {y.data(), h.data(), c_last.data(), reserve.data()}); }

    // Of the sum of y, h and c times `of`: gradients of x (where the core gives it), h0, c0, bias and peepholes; and of
    // the matrices where it gives these.
    std::vector<std::vector<T>> backward(const Values (&of)[3]) {
        std::vector<T> of_y = rounded<T>(of[0]), of_h = rounded<T>(of[1]), of_c = rounded<T>(of[2]);
        std::vector<std::vector<T>> found;
        for (const auto& values : in) found.emplace_back(values.size());
        const carousel::Window& w = c.window;
        const bool of_x = w.stride[0] * w.stride[1] * w.dilation[0] * w.dilation[1] == 1;
        const bool matrices = carousel::gives_matrices(layer);
        std::vector<T> of_z(matrices ? 0 : static_cast<size_t>(c.N * c.places() * c.G * c.H));
        ConvGradients to;
        to.reserve = reserve.data();
        to.y = y.data();
        to.of_y = of_y.data();
        to.of_h = of_h.data();
        to.of_c = of_c.data();
        to.of_x_z = to.of_h_z = matrices ? nullptr : of_z.data();
        to.x = of_x ? found[X].data() : nullptr;
        to.h0 = found[H0].data();
        to.c0 = found[C0].data();
        to.weights.weight_ih = found[W_IH].data();
        to.weights.weight_hh = found[W_HH].data();
        to.weights.bias_ih = found[BIAS].data();
        if (c.spec.peephole) to.weights.weight_ch = found[W_CH].data();
        carousel::backward(layer, to);
        if (!of_x) found[X].clear();
        if (!matrices) found[W_IH].clear();
        if (!matrices) found[W_HH].clear();
        if (!c.spec.peephole) found[W_CH].clear();
        return found;
    }
};

typedef long double Real;

Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }

// The sum over the kernel at place (y, x) of `weight`, row n, times a frame [height, width, C].
Real seen(const double* weight, const Real* frame, int64_t height, int64_t width, int64_t C, const int64_t (&kernel)[2],
          const int64_t (&stride)[2], const int64_t (&dilation)[2], int64_t y, int64_t x) {
    Real total = 0;
    for (int64_t i = 0; i < kernel[0]; ++i)
        for (int64_t j = 0; j < kernel[1]; ++j) {
            const int64_t at_y = y * stride[0] + (i - kernel[0] / 2) * dilation[0];
            const int64_t at_x = x * stride[1] + (j - kernel[1] / 2) * dilation[1];
            if (at_y < 0 || at_y >= height || at_x < 0 || at_x >= width) continue;
            for (int64_t k = 0; k < C; ++k)
                total += weight[(i * kernel[1] + j) * C + k] * frame[(at_y * width + at_x) * C + k];
        }
    return total;
}

struct Found {
    std::vector<Real> y, h, c;
};

Found plain(const Case& c, const Values (&v)[ARGUMENTS]) {
    const int64_t places = c.places(), taps = c.window.kernel[0] * c.window.kernel[1], one[2] = {1, 1};
    Found found;
    found.y.resize(static_cast<size_t>(c.N * places * c.H));
    found.h.assign(v[H0].begin(), v[H0].end());
    found.c.assign(v[C0].begin(), v[C0].end());
    const std::vector<Real> x(v[X].begin(), v[X].end());
    for (int64_t b = 0; b < c.B; ++b)
        for (int64_t t = 0; t < c.lengths[static_cast<size_t>(b)]; ++t) {
            const int64_t frame = c.first[static_cast<size_t>(b)] + t;
            Real *const h = found.h.data() + b * places * c.H, *const state = found.c.data() + b * places * c.H;
            Real* const y = found.y.data() + frame * places * c.H;
            for (int64_t p = 0; p < places; ++p)
                for (int64_t u = 0; u < c.H; ++u) {
                    Real z[4] = {};
                    for (int64_t g = 0; g < c.G; ++g) {
                        const int64_t n = g * c.H + u;
                        z[g] = v[BIAS][static_cast<size_t>(n)] +
                               seen(v[W_IH].data() + n * taps * c.I, x.data() + frame * c.in_height * c.in_width * c.I,
                                    c.in_height, c.in_width, c.I, c.window.kernel, c.window.stride, c.window.dilation,
                                    p / c.width, p % c.width) +
                               seen(v[W_HH].data() + n * taps * c.H, h, c.height, c.width, c.H, c.window.kernel, one,
                                    one, p / c.width, p % c.width);
                    }
                    const auto peep = [&](int64_t k) {
                        return c.spec.peephole ? static_cast<Real>(v[W_CH][static_cast<size_t>(k * c.H + u)]) : 0;
                    };
                    Real& cell = state[p * c.H + u];
                    const int64_t f = c.G - 3;
                    const Real forget = sigmoid(z[f] + peep(f) * cell);
                    const Real in = c.spec.coupled ? 1 - forget : sigmoid(z[0] + peep(0) * cell);
                    cell = forget * cell + in * std::tanh(z[f + 1]);
                    y[p * c.H + u] = sigmoid(z[f + 2] + peep(f + 1) * cell) * std::tanh(cell);
                }
            for (int64_t k = 0; k < places * c.H; ++k) h[k] = y[k];
        }
    return found;
}

template <class A, class B>
double apart(const A& a, const B& b) {
    double most = 0, scale = 1e-3;
    for (size_t k = 0; k < a.size(); ++k) {
        const double e = std::fabs(static_cast<double>(a[k]) - static_cast<double>(b[k]));
        most = e > most || std::isnan(e) ? e : most;
        scale = std::fabs(static_cast<double>(b[k])) > scale ? std::fabs(static_cast<double>(b[k])) : scale;
    }
    return most / scale;
}

double product(const Values& of, const std::vector<Real>& values) {
    Real total = 0;
    for (size_t k = 0; k < values.size(); ++k) total += of[k] * values[k];
    return static_cast<double>(total);
}

void check(const Case& c, int threads) {
    const Found want = plain(c, c.values);
    const Values of[3] = {drawn(static_cast<int64_t>(want.y.size()), 1), drawn(static_cast<int64_t>(want.h.size()), 1),
                          drawn(static_cast<int64_t>(want.c.size()), 1)};
    Run<double> exact(c, threads);
    exact.forward();
    expect(apart(exact.y, want.y) < 1e-12, "y in double");
    expect(apart(exact.h, want.h) < 1e-12 && apart(exact.c_last, want.c) < 1e-12, "states in double");
    const auto gradients = exact.backward(of);
    for (int k = 0; k < ARGUMENTS; ++k) {
        const auto& gradient = gradients[static_cast<size_t>(k)];
        if (gradient.empty()) continue;
        const Values direction = drawn(static_cast<int64_t>(gradient.size()), 1);
        const auto moved = [&](double step) {
            Values v[ARGUMENTS];
            for (int j = 0; j < ARGUMENTS; ++j) v[j] = c.values[j];
            for (size_t j = 0; j < direction.size(); ++j) v[k][j] += step * direction[j];
            const Found found = plain(c, v);
            return product(of[0], found.y) + product(of[1], found.h) + product(of[2], found.c);
        };
        double along = 0, size = 0;
        for (size_t j = 0; j < direction.size(); ++j)
            along += gradient[j] * direction[j], size += std::fabs(gradient[j]);
        const double slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        expect(std::fabs(slope - along) < 1e-6 * (size + 1), "a gradient in double");
    }
    Run<float> fast(c, threads);
    fast.forward();
    expect(apart(fast.y, want.y) < 1e-5 && apart(fast.c_last, want.c) < 1e-5, "y and c in float");
    const auto of_fast = fast.backward(of);
    for (int k = 0; k < ARGUMENTS; ++k) {
        const std::vector<float>& a = of_fast[static_cast<size_t>(k)];
        const std::vector<double>& b = gradients[static_cast<size_t>(k)];
        if (!a.empty() && !b.empty()) expect(apart(a, b) < 1e-5, "a gradient in float");
        if (a.empty() || !b.empty()) continue;  // a matrix, which double leaves to the caller: along one direction
        const Values direction = drawn(static_cast<int64_t>(a.size()), 1);
        double along = 0, size = 0;
        Values v[2][ARGUMENTS];
        for (int s = 0; s < 2; ++s)
            for (int j = 0; j < ARGUMENTS; ++j) v[s][j] = c.values[j];
        for (size_t j = 0; j < direction.size(); ++j) {
            along += static_cast<double>(a[j]) * direction[j];
            size += std::fabs(static_cast<double>(a[j]));
            v[0][k][j] += 1e-5 * direction[j];
            v[1][k][j] -= 1e-5 * direction[j];
        }
        double value[2];
        for (int s = 0; s < 2; ++s) {
            const Found found = plain(c, v[s]);
            value[s] = product(of[0], found.y) + product(of[1], found.h) + product(of[2], found.c);
        }
        expect(std::fabs((value[0] - value[1]) / 2e-5 - along) < 1e-5 * (size + 1), "a gradient of a matrix in float");
    }
}

void refuses(const std::function<void(ConvLayer&)>& spoil, const char* what) {
    const Case c(2, 3, 4, 5, {2, 1}, {}, {});
    Run<float> run(c, 1);
    spoil(run.layer);
    try {
        run.forward();
        expect(false, what);
    } catch (const std::invalid_argument&) {
    }
}

}  // namespace

int main() {
    const char* wanted = std::getenv("CAROUSEL_ISA");
    try {
        carousel::instruction_set();
    } catch (const std::invalid_argument&) {
        std::printf("%s: not an instruction set of this machine\n", wanted ? wanted : "");
        return 77;
    }
    carousel::Spec peephole, coupled;
    peephole.peephole = coupled.coupled = coupled.peephole = true;
    const carousel::Window three{{3, 3}, {1, 1}, {1, 1}}, wide{{5, 1}, {2, 1}, {1, 3}}, far{{3, 3}, {1, 2}, {2, 1}};
    for (const int threads : {1, 2, 3}) {
        check(Case(3, 5, 4, 5, {4, 1, 2}, {}, three), threads);
        check(Case(2, 3, 7, 4, {3, 1}, peephole, wide), threads);
        check(Case(1, 17, 3, 3, {1, 2, 0}, coupled, far), threads);
        check(Case(2, 3, 17, 18, {2, 1}, peephole, three), threads);
        check(Case(1, 4, 16, 17, {2}, coupled, three), threads);
    }
    refuses([](ConvLayer& layer) { layer.window.kernel[0] = 2; }, "an even kernel");
    refuses([](ConvLayer& layer) { layer.height = 5; }, "states larger than frames");
    refuses([](ConvLayer& layer) { layer.frames = 4; }, "frames that no sequence has");
    refuses([](ConvLayer& layer) { layer.spec.zoneout_c = .1; }, "zoneout");
    if (failures) return 1;
    std::printf("convolutional layers: all good on %s\n", carousel::instruction_set());
    return 0;
}
