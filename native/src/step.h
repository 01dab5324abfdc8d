// One step of one layer for one sequence, or for many that are not neighbours in memory: what streams are made of.
//
// The sums run over k in ascending order from the bias, as in tile.h, and the update is lstm.h's: with weights in float
// a step gives the very bits that carousel::forward gives for the same row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "carousel.h"

namespace carousel {

// How the matrices of a layer are stored: a word holds 1, 2 or 4 consecutive k of one output. Vectors stay in float.
// int8 has one scale for each row of weight_ih and weight_hh; the operands become 16-bit integers, scaled anew each
// step.
enum class Storage : int { f32 = 0, bf16 = 1, int8 = 2 };

// A matrix laid out for matrix-vector products; all pointers lie in the memory that `lay` was given.
struct StepMatrix {
    const float* words = nullptr;  // [groups][ceil(K / grain)][vectors of the group][lanes]
    const float* scale = nullptr;  // int8: [vectors * lanes]
    const int32_t* sum = nullptr;  // int8: [vectors * lanes] 128 times the sum of the row's weights
    int64_t K = 0, vectors = 0;
};

// One layer and direction. `rows` holds the weights once more for `steps`, where they are wanted.
struct StepWeights {
    Spec spec;
    Storage storage = Storage::f32;
    bool tiled = false;  // laid out for AMX
    int64_t I = 0, H = 0, P = 0;
    int64_t G = 4, U = 0;    // stored gates, blocks of units
    int64_t Hp = 0, Pp = 0;  // H and P, padded to whole vectors
    StepMatrix x, h, project;
    const float *bias = nullptr, *peephole = nullptr, *rate = nullptr;
    const float *norm_x = nullptr, *norm_h = nullptr, *norm_c = nullptr, *norm_bias_c = nullptr;
    const float *rows_x = nullptr, *rows_h = nullptr, *rows_project = nullptr;
};

// A dense map y = W x + b, W [N, K] in float.
struct StepDense {
    StepMatrix matrix;
    const float* bias = nullptr;  // [N padded]
    int64_t N = 0;
};

// Where a sequence's state of one layer lies: h [Pp], c [Hp]; missing lanes are zero.
struct StepState {
    float *h, *c;
};

// How numbers are scaled that follow one another: [n] each. `inverse` is 1 / scale, and scale within 1e-100 and 1e100,
// so that a quotient can be had without a division.
struct Scaling {
    const double *mean, *scale, *inverse;
    double bound, largest;
};

constexpr int64_t step_rows = 48;  // of one chunk of `steps`

struct StepKernels {
    int64_t lanes;
    // Lays the weights of one direction out in `memory`; of null it measures and does nothing else.
    size_t (*lay)(const Layer&, const Weights&, Storage, bool rows, void* memory, StepWeights& to);
    size_t (*lay_dense)(const float* weight, const float* bias, int64_t N, int64_t K, void* memory, StepDense& to);
    size_t (*scratch)(const StepWeights&, bool rows);  // bytes
    // x [I]; the state is read and written in place.
    void (*step)(const StepWeights&, const float* x, float elapsed, const StepState&, void* scratch);
    // n <= step_rows sequences at once, all different; the bits are those of `step`.
    void (*steps)(const StepWeights&, int64_t n, const float* const* x, const float* elapsed, const StepState*,
                  void* scratch);
    void (*dense)(const StepDense&, const float* x, float* y);  // y [N padded]
    // The same for n rows; y [n, N padded].
    void (*dense_rows)(const StepDense&, int64_t n, const float* const* x, float* y);
    // y = (x - mean) / scale within +-bound, in double, then rounded to float; whether all |x| are at most `largest`.
    bool (*scale)(const double* x, const Scaling&, int64_t n, float* y);
    void (*silu)(float* x, int64_t n);  // x sigmoid(x), n a multiple of the lanes
};

// Those of the instruction set in use.
const StepKernels& step_kernels();

}  // namespace carousel
