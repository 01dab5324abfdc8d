// The loss of a forecaster's head with all of its gradients, in one pass over the windows of a batch.
//
// Letters: n windows, H steps ahead, R = n * H rows, K targets, Q quantiles, G naive forecasts, W width of the decoder,
// A channels of a step ahead. What is computed stands in src/carousel/heads/forecast_net.py: two layers of SiLU from
// the state, a row of their own for each step and its channels; quantiles around a median that is a gated mean of naive
// forecasts plus a linear map; the pinball loss. A worker takes whole windows and keeps their activations in cache, so
// that nothing is written to memory but gradients.
#pragma once

#include <cstddef>
#include <cstdint>

namespace carousel {

// Weights, or their gradients; all contiguous.
template <class F>
struct ForecastWeights {
    F* step = nullptr;    // [H, W]
    F* ahead = nullptr;   // [W, A], null where A is 0
    F* hidden = nullptr;  // [W, W]
    F* hidden_bias = nullptr;
    F* out = nullptr;  // [K * Q, W]
    F* out_bias = nullptr;
    F* gate = nullptr;  // [K * G, W]
    F* gate_bias = nullptr;
    F* gate_step = nullptr;  // [H, K * G]
};

struct ForecastLoss {
    int64_t windows = 0, steps = 0, targets = 0, quantiles = 0, median = 0, bases = 0, width = 0, ahead = 0;
    ForecastWeights<const float> weights;
    const float* levels = nullptr;  // [Q]
    const float* state = nullptr;   // [n, W] what the decoder makes of the stack's state
    const float* rows = nullptr;    // [n, H, A]
    const float* linear = nullptr;  // [n, K, H] the linear map's share of the median
    const float* base = nullptr;    // [n, H, K, G]
    const float* truth = nullptr;   // [n, H, K], NaN where nothing was observed
    const float* share = nullptr;   // [n, K] how much a window counts

    ForecastWeights<float> of_weights;
    float* of_state = nullptr;   // [n, W]
    float* of_rows = nullptr;    // [n, H, A], null where it is not wanted
    float* of_linear = nullptr;  // [n, K, H]
};

// The mean over windows and targets of share * (mean over the observed steps and the quantiles of the pinball loss).
// Sums depend on how many threads there are, and on nothing else. Throws std::invalid_argument for sizes below 1.
double forecast_loss(const ForecastLoss& given, int threads);

// One instruction set's kernel. It adds up the gradients of the weights of the windows [first, last) in `sums`, see
// forecast_sums(); `scratch` of null measures and does nothing else.
struct ForecastKernel {
    size_t (*run)(const ForecastLoss&, int64_t first, int64_t last, const float* packed, float* sums, double* loss,
                  void* scratch);
    void (*pack)(const ForecastLoss&, float* packed);
    int64_t lanes;
};

// Sizes padded to whole vectors, and where each part of the packed weights and of the sums begins.
struct ForecastPlaces {
    int64_t Wp, O, Op;                                   // O = K * (Q + G)
    int64_t ahead, hidden, back, out, back_out, biases;  // packed: [A][Wp], [W][Wp] twice, [W][Op], [O][Wp], [Wp + Op]
    int64_t packed;                                      // numbers in all
    int64_t of_ahead, of_hidden, of_out, of_biases, of_step, of_gate_step, sums;

    ForecastPlaces(const ForecastLoss& given, int64_t lanes) {
        const auto pad = [&](int64_t n) { return (n + lanes - 1) / lanes * lanes; };
        const int64_t W = given.width, A = given.ahead;
        O = given.targets * (given.quantiles + given.bases);
        Wp = pad(W);
        Op = pad(O);
        ahead = 0;
        hidden = ahead + A * Wp;
        back = hidden + W * Wp;
        out = back + W * Wp;
        back_out = out + W * Op;
        biases = back_out + O * Wp;
        packed = biases + Wp + Op;
        of_ahead = 0;                               // [A][Wp]
        of_hidden = of_ahead + A * Wp;              // [W][Wp]
        of_out = of_hidden + W * Wp;                // [O][Wp]
        of_biases = of_out + O * Wp;                // [Wp], [Op]
        of_step = of_biases + Wp + Op;              // [H][Wp]
        of_gate_step = of_step + given.steps * Wp;  // [H][K * G]
        sums = pad(of_gate_step + given.steps * given.targets * given.bases);
    }
};

}  // namespace carousel
