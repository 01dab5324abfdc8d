// The calls of carousel.h for convolutional layers.
#include <omp.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "carousel.h"
#include "dispatch.h"

namespace carousel {
namespace {

void check(const ConvLayer& c) {
    const Window& w = c.window;
    if (c.input < 1 || c.hidden < 1 || c.frames < 0 || c.sequences < 0 || c.steps < 0 || c.height < 1 || c.width < 1)
        throw std::invalid_argument("the sizes of a convolutional layer must be positive");
    const int64_t in[2] = {c.in_height, c.in_width}, out[2] = {c.height, c.width};
    for (int k = 0; k < 2; ++k) {
        if (w.kernel[k] < 1 || w.kernel[k] % 2 == 0) throw std::invalid_argument("kernels must be odd");
        if (w.stride[k] < 1 || w.dilation[k] < 1) throw std::invalid_argument("strides and dilations must be positive");
        if ((in[k] + w.stride[k] - 1) / w.stride[k] != out[k])
            throw std::invalid_argument("states must be as large as frames divided by the stride");
    }
    const Spec& s = c.spec;
    if (s.projection || s.decay || s.recurrent_dropout > 0 || s.zoneout_c > 0 || s.zoneout_h > 0)
        throw std::invalid_argument("a convolutional layer has no projection, no decay and no masks");
    int64_t total = 0;
    for (int64_t b = 0; b < c.sequences; ++b) {
        const int64_t length = c.rows.lengths[b];
        if (length < 0 || length > c.steps)
            throw std::invalid_argument("rows.lengths must lie between 0 and the number of steps");
        total += length;
        for (int64_t t = 0; t < length; ++t) {
            const int64_t frame = c.rows.first[b] + c.rows.ahead[t];
            if (frame < 0 || frame >= c.frames)
                throw std::invalid_argument("rows.first and rows.ahead name a frame outside x");
        }
    }
    if (total != c.frames) throw std::invalid_argument("rows.lengths must add up to the number of frames of x");
}

// Sequences for each worker, where that leaves none of them idle for long; else all work on every frame.
struct Shares {
    std::vector<int64_t> order, owner;
    bool team = false;

    Shares(const ConvLayer& c, int threads) : order(static_cast<size_t>(c.sequences)), owner(order.size()) {
        std::iota(order.begin(), order.end(), int64_t{0});
        const int64_t* lengths = c.rows.lengths;
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        std::vector<int64_t> load(static_cast<size_t>(threads));
        for (size_t k = 0; k < order.size(); ++k) {
            const auto least = std::min_element(load.begin(), load.end());
            owner[k] = least - load.begin();
            *least += lengths[order[k]];
        }
        const int64_t most = *std::max_element(load.begin(), load.end());
        team = threads > 1 && 8 * most * threads > 9 * c.frames;
    }
};

void run(const ConvLayer& layer, const ConvOutputs* out, const ConvGradients* gradients) {
    check(layer);
    const double taps = static_cast<double>(layer.window.kernel[0] * layer.window.kernel[1]);
    const double work = static_cast<double>(layer.frames * layer.height * layer.width) * taps *
                        static_cast<double>(4 * layer.hidden * (layer.input + layer.hidden));
    const int threads = threads_for(work, layer.threads);
    const Shares shares(layer, threads);
    const ConvJob job{&layer, out, gradients, shares.order.data(), shares.owner.data(), shares.team};
    const Kernels& kernels = kernels_for(layer.type);
    const auto walk = gradients ? kernels.conv_backward : kernels.conv_forward;
    Barrier one(1);
    void* memory = scratch_of(walk(job, nullptr, {0, threads, &one}));
    if (threads == 1) {
        walk(job, memory, {0, 1, &one});
        return;
    }
    std::unique_ptr<Barrier> barrier;
    std::unique_ptr<Shares> fewer;  // where OpenMP gave fewer threads than were asked for
    ConvJob given = job;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        {
            const int found = omp_get_num_threads();
            barrier = std::make_unique<Barrier>(found);
            if (found < threads) {
                fewer = std::make_unique<Shares>(layer, found);
                given.owner = fewer->owner.data();
                given.team = fewer->team;
            }
        }
        walk(given, memory, {omp_get_thread_num(), omp_get_num_threads(), barrier.get()});
    }
}

Layer rows_of(const ConvLayer& layer) {
    Layer rows;
    rows.type = layer.type;
    rows.spec = layer.spec;
    rows.sizes.hidden = rows.sizes.output = layer.hidden;
    return rows;
}

}  // namespace

int64_t reserve_width(const ConvLayer& layer) { return reserve_width(rows_of(layer)); }

bool gives_matrices(const ConvLayer& c) {
    const Window& w = c.window;
    bool fits = c.type == Type::f32 && !c.spec.layer_norm && c.height * c.width >= 256;
    for (int k = 0; k < 2; ++k) fits = fits && w.kernel[k] == 3 && w.stride[k] == 1 && w.dilation[k] == 1;
    return fits;
}

void forward(const ConvLayer& layer, const ConvOutputs& out) {
    if (out.reserve) {
        const int64_t numbers = layer.frames * layer.height * layer.width * reserve_width(layer);
        prefer_large_pages(out.reserve, static_cast<size_t>(numbers) * (layer.type == Type::f64 ? 8 : 4));
    }
    run(layer, &out, nullptr);
}

void backward(const ConvLayer& layer, const ConvGradients& gradients) {
    if (gives_matrices(layer) && !(gradients.y && gradients.weights.weight_ih && gradients.weights.weight_hh))
        throw std::invalid_argument("the gradients of the matrices need y and places of their own");
    const size_t size = layer.type == Type::f64 ? 8 : layer.type == Type::f32 ? 4 : 2;
    const int64_t numbers = layer.frames * layer.height * layer.width * (layer.spec.coupled ? 3 : 4) * layer.hidden;
    if (!gives_matrices(layer)) prefer_large_pages(gradients.of_x_z, static_cast<size_t>(numbers) * size);
    if (gradients.of_h_z != gradients.of_x_z) prefer_large_pages(gradients.of_h_z, static_cast<size_t>(numbers) * size);
    const Window& w = layer.window;
    const bool plain = !layer.spec.layer_norm && w.stride[0] * w.stride[1] * w.dilation[0] * w.dilation[1] == 1;
    if (gradients.x && !plain)
        throw std::invalid_argument(
            "the gradient of x is worked out only with stride and dilation 1, without layer norm");
    run(layer, nullptr, &gradients);
}

}  // namespace carousel
