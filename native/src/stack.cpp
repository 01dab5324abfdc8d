#include "stack.h"

#include <algorithm>
#include <stdexcept>

#include "plan.h"

namespace carousel {

void Stack::add(const Layer& layer, const Weights& weights, Storage storage, bool rows) {
    const StepKernels& kernels = step_kernels();
    if (!layers_.empty() && layer.sizes.input != layers_.back().P)
        throw std::invalid_argument("a layer's input size is the output size of the layer below");
    StepWeights w;
    memory_.emplace_back(allocate(kernels.lay(layer, weights, storage, rows, nullptr, w)));
    kernels.lay(layer, weights, storage, rows, memory_.back().get(), w);
    top_ = state_floats_;
    at_h_.push_back(state_floats_);
    at_c_.push_back(state_floats_ + w.Pp);
    state_floats_ += w.Pp + w.Hp;
    plain_floats_ += w.P + w.H;
    layers_.push_back(w);
    const size_t bytes = kernels.scratch(w, rows);
    if (bytes > scratch_bytes_) scratch_.reset(allocate(bytes)), scratch_bytes_ = bytes;
}

void Stack::step(const float* x, float elapsed, float* state) const {
    const StepKernels& kernels = step_kernels();
    for (size_t l = 0; l < layers_.size(); ++l) {
        kernels.step(layers_[l], x, elapsed, {state + at_h_[l], state + at_c_[l]}, scratch_.get());
        x = state + at_h_[l];
    }
}

void Stack::steps(int64_t n, const float* const* x, const float* elapsed, float* const* states) const {
    const StepKernels& kernels = step_kernels();
    const float* below[step_rows];
    StepState at[step_rows];
    std::copy_n(x, n, below);
    for (size_t l = 0; l < layers_.size(); ++l) {
        for (int64_t k = 0; k < n; ++k) at[k] = {states[k] + at_h_[l], states[k] + at_c_[l]};
        kernels.steps(layers_[l], n, below, elapsed, at, scratch_.get());
        for (int64_t k = 0; k < n; ++k) below[k] = at[k].h;
    }
}

void Stack::begin(const float* flat, float* state) const {
    std::fill_n(state, state_floats_, 0.0f);
    for (size_t l = 0; l < layers_.size(); ++l, flat += layers_[l - 1].P)
        std::copy_n(flat, layers_[l].P, state + at_h_[l]);
    for (size_t l = 0; l < layers_.size(); ++l, flat += layers_[l - 1].H)
        std::copy_n(flat, layers_[l].H, state + at_c_[l]);
}

void Stack::save(const float* state, float* plain) const {
    for (size_t l = 0; l < layers_.size(); ++l) {
        plain = std::copy_n(state + at_h_[l], layers_[l].P, plain);
        plain = std::copy_n(state + at_c_[l], layers_[l].H, plain);
    }
}

void Stack::load(const float* plain, float* state) const {
    std::fill_n(state, state_floats_, 0.0f);
    for (size_t l = 0; l < layers_.size(); ++l) {
        std::copy_n(plain, layers_[l].P, state + at_h_[l]);
        plain += layers_[l].P;
        std::copy_n(plain, layers_[l].H, state + at_c_[l]);
        plain += layers_[l].H;
    }
}

Dense::Dense(const float* weight, const float* bias, int64_t outputs, int64_t inputs) {
    const StepKernels& kernels = step_kernels();
    memory_.reset(allocate(kernels.lay_dense(weight, bias, outputs, inputs, nullptr, weights_)));
    kernels.lay_dense(weight, bias, outputs, inputs, memory_.get(), weights_);
}

}  // namespace carousel
