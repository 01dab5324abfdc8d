#include <cmath>
#include <stdexcept>
#include <vector>

#include "carousel.h"

namespace carousel {
namespace {

template <class T>
void sequence(const Layer& layer, const Outputs& out, int64_t d, int64_t b) {
    const auto& [I, H, P, N, B, steps, D] = layer.sizes;
    const Weights& w = layer.weights[d];
    const auto at = [](const void* p, int64_t k) { return static_cast<const T*>(p)[k]; };
    T* h = static_cast<T*>(out.h) + (d * B + b) * P;
    T* c = static_cast<T*>(out.c) + (d * B + b) * H;
    for (int64_t k = 0; k < H; ++k) {
        h[k] = at(layer.h0, (d * B + b) * P + k);
        c[k] = at(layer.c0, (d * B + b) * H + k);
    }
    std::vector<T> z(static_cast<size_t>(4 * H));
    const int64_t length = layer.rows.lengths[b];
    for (int64_t s = 0; s < length; ++s) {
        const int64_t row = layer.rows.first[b] + layer.rows.ahead[d ? length - 1 - s : s];
        for (int64_t j = 0; j < 4 * H; ++j) {
            T sum = w.bias_ih ? at(w.bias_ih, j) + at(w.bias_hh, j) : T(0);
            for (int64_t k = 0; k < I; ++k) sum += at(w.weight_ih, j * I + k) * at(layer.x, row * layer.x_stride + k);
            for (int64_t k = 0; k < H; ++k) sum += at(w.weight_hh, j * H + k) * h[k];
            z[static_cast<size_t>(j)] = sum;
        }
        const auto gate = [&](int64_t g, int64_t k) {
            const T v = z[static_cast<size_t>(g * H + k)];
            return g == 2 ? std::tanh(v) : 1 / (1 + std::exp(-v));
        };
        for (int64_t k = 0; k < H; ++k) {
            c[k] = gate(1, k) * c[k] + gate(0, k) * gate(2, k);
            h[k] = gate(3, k) * std::tanh(c[k]);
            static_cast<T*>(out.y)[row * D * P + d * P + k] = h[k];
        }
    }
}

template <class T>
void run(const Layer& layer, const Outputs& out) {
    for (int64_t d = 0; d < layer.sizes.directions; ++d) {
#pragma omp parallel for num_threads(layer.threads)
        for (int64_t b = 0; b < layer.sizes.sequences; ++b) sequence<T>(layer, out, d, b);
    }
}

}  // namespace

int64_t reserve_bytes(const Layer&) { return 0; }

void forward(const Layer& layer, const Outputs& out) {
    if (layer.type == Type::f32) run<float>(layer, out);
    else if (layer.type == Type::f64) run<double>(layer, out);
    else throw std::invalid_argument("the native core computes float32 and float64");
}

}  // namespace carousel
