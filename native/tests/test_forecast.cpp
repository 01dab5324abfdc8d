// The loss of a forecaster's head: its gradients against differences of the loss, for sizes that fill no vector, one
// thread and two, memory of exactly the sizes that the header says.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "../src/forecast_loss.h"
#include "carousel.h"

namespace {

typedef std::vector<float> Floats;

int failures = 0;

void expect(bool good, const char* what, int part) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "FAILED: %s (%d)\n", what, part);
}

std::mt19937 generator(5);

Floats drawn(int64_t n, float scale) {
    std::normal_distribution<float> draw(0, scale);
    Floats v(static_cast<size_t>(n));
    for (float& x : v) x = draw(generator);
    return v;
}

struct Case {
    int64_t n, H, K, Q, G, W, A;
    std::vector<Floats> in, out;  // weights, then state, rows, linear; and their gradients
    Floats levels, base, truth, share;

    Case(int64_t windows, int64_t steps, int64_t targets, int64_t quantiles, int64_t bases, int64_t width,
         int64_t ahead)
        : n(windows), H(steps), K(targets), Q(quantiles), G(bases), W(width), A(ahead) {
        const int64_t sizes[] = {H * W,     W * A, W * W,     W,     K * Q * W, K * Q,
                                 K * G * W, K * G, H * K * G, n * W, n * H * A, n * K * H};
        for (const int64_t size : sizes) {
            in.push_back(drawn(size, 0.4f));
            out.push_back(Floats(static_cast<size_t>(size), 9.0f));
        }
        for (int64_t q = 0; q < Q; ++q) levels.push_back(static_cast<float>(q + 1) / static_cast<float>(Q + 1));
        base = drawn(n * H * K * G, 1);
        truth = drawn(n * H * K, 1);
        truth[0] = std::numeric_limits<float>::quiet_NaN();
        share = Floats(static_cast<size_t>(n * K), 0.7f);
    }

    template <class F>
    static carousel::ForecastWeights<F> weights(std::vector<Floats>& v) {
        return {v[0].data(), v[1].data(), v[2].data(), v[3].data(), v[4].data(),
                v[5].data(), v[6].data(), v[7].data(), v[8].data()};
    }

    double loss(int threads) {
        carousel::ForecastLoss g;
        g.windows = n;
        g.steps = H;
        g.targets = K;
        g.quantiles = Q;
        g.median = Q / 2;
        g.bases = G;
        g.width = W;
        g.ahead = A;
        g.weights = weights<const float>(in);
        g.of_weights = weights<float>(out);
        g.levels = levels.data();
        g.state = in[9].data();
        g.rows = in[10].data();
        g.linear = in[11].data();
        g.base = base.data();
        g.truth = truth.data();
        g.share = share.data();
        g.of_state = out[9].data();
        g.of_rows = A ? out[10].data() : nullptr;
        g.of_linear = out[11].data();
        return carousel::forecast_loss(g, threads);
    }

    // A step along a direction changes the loss by the gradient's share in it.
    void differences() {
        loss(1);
        const std::vector<Floats> gradient = out;
        for (size_t part = 0; part < in.size(); ++part) {
            const Floats way = drawn(static_cast<int64_t>(in[part].size()), 1), start = in[part];
            double expected = 0;
            for (size_t k = 0; k < way.size(); ++k)
                expected += static_cast<double>(gradient[part][k]) * static_cast<double>(way[k]);
            const float far = 2e-3f;
            double found = 0;
            for (const float side : {far, -far}) {
                for (size_t k = 0; k < way.size(); ++k) in[part][k] = start[k] + side * way[k];
                found += (side > 0 ? 1 : -1) * loss(1);
            }
            in[part] = start;
            found /= 2 * static_cast<double>(far);
            expect(std::abs(found - expected) < 0.05 * std::abs(expected) + 5e-3, "gradient", static_cast<int>(part));
        }
    }

    void threads() {
        const double one = loss(1);
        const std::vector<Floats> gradient = out;
        expect(std::abs(loss(2) - one) < 1e-5 * std::abs(one), "loss of two threads", 0);
        for (size_t part = 0; part < out.size(); ++part)
            for (size_t k = 0; k < out[part].size(); ++k)
                if (!(std::abs(out[part][k] - gradient[part][k]) < 1e-5f)) {
                    expect(false, "gradient of two threads", static_cast<int>(part));
                    break;
                }
    }
};

void refuses() {
    bool refused = false;
    try {
        carousel::forecast_loss({}, 1);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    expect(refused, "sizes of zero", 0);
}

}  // namespace

int main() {
    try {
        std::printf("instruction set: %s\n", carousel::instruction_set());
    } catch (const std::invalid_argument&) {
        return 77;
    }
    Case(3, 5, 2, 5, 4, 7, 3).differences();
    Case(2, 67, 1, 1, 2, 33, 0).differences();
    Case(1, 1, 3, 2, 1, 1, 1).differences();
    Case(9, 70, 1, 7, 6, 64, 8).threads();
    refuses();
    if (!failures) std::printf("ok\n");
    return failures != 0;
}
