// Layers above one another that walk one row at a time. A state is one block of floats per sequence, in a layout of the
// instruction set in use; `save` and `load` go through the plain one, h [P] then c [H] of each layer.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "step.h"

namespace carousel {

struct FreeMemory {
    void operator()(void* p) const { std::free(p); }
};
typedef std::unique_ptr<void, FreeMemory> Memory;

class Stack {
  public:
    // The layer's input is the output of the one below. `rows`: `steps` will be called. Copies the weights.
    void add(const Layer& layer, const Weights& weights, Storage storage, bool rows);

    int64_t input() const { return layers_.empty() ? 0 : layers_.front().I; }
    int64_t output() const { return layers_.empty() ? 0 : layers_.back().P; }  // P of the last layer
    int64_t state_floats() const { return state_floats_; }
    int64_t plain_floats() const { return plain_floats_; }

    // The new h of the last layer lies in the state, at `top`.
    void step(const float* x, float elapsed, float* state) const;
    const float* top(const float* state) const { return state + top_; }
    // n <= step_rows states, all different.
    void steps(int64_t n, const float* const* x, const float* elapsed, float* const* states) const;

    // From h of all layers, then c of all layers.
    void begin(const float* flat, float* state) const;
    void save(const float* state, float* plain) const;
    void load(const float* plain, float* state) const;

  private:
    std::vector<StepWeights> layers_;
    std::vector<Memory> memory_;
    std::vector<int64_t> at_h_, at_c_;
    Memory scratch_;
    size_t scratch_bytes_ = 0;
    int64_t state_floats_ = 0, plain_floats_ = 0, top_ = 0;
};

// y = W x + b.
class Dense {
  public:
    Dense() = default;
    Dense(const float* weight, const float* bias, int64_t outputs, int64_t inputs);
    explicit operator bool() const { return memory_ != nullptr; }
    int64_t outputs() const { return weights_.N; }
    int64_t inputs() const { return weights_.matrix.K; }
    int64_t padded() const { return weights_.matrix.vectors * step_kernels().lanes; }
    void operator()(const float* x, float* y) const { step_kernels().dense(weights_, x, y); }  // y [padded]
    void rows(int64_t n, const float* const* x, float* y) const { step_kernels().dense_rows(weights_, n, x, y); }

  private:
    StepDense weights_;
    Memory memory_;
};

}  // namespace carousel
