// The one header of Carousel's native core: LSTM layers, forward and backward, on plain memory.
//
// Letters: T steps, B sequences, N rows (the sum of all lengths), D directions, I input size, H hidden size,
// P output size (the projection's, or H). Gate order i, f, g, o; with `coupled` f, g, o. Weights have torch's layout.
// Nothing here keeps a pointer after it returns, and outputs must not alias inputs.
#pragma once

#include <cstdint>

namespace carousel {

enum class Type : int { f32 = 0, f64 = 1, bf16 = 2 };

// The fields of CellSpec in src/carousel/cell.py that the core computes; weight drop happens before it is called.
struct Spec {
    bool bias = true;
    bool peephole = false;
    bool coupled = false;
    bool layer_norm = false;
    bool decay = false;
    bool projection = false;
    double cell_clip = 0;
    double recurrent_dropout = 0;
    double zoneout_c = 0;
    double zoneout_h = 0;
};

struct Sizes {
    int64_t input = 0, hidden = 0, output = 0;   // I, H, P
    int64_t rows = 0, sequences = 0, steps = 0;  // N, B, T
    int64_t directions = 1;                      // D
};

// Step t of sequence b lies in row first[b] + ahead[t], for t < lengths[b].
struct Rows {
    const int64_t* first;    // [B]
    const int64_t* ahead;    // [T]
    const int64_t* lengths;  // [B]
};

// One direction, or the gradients of one; every matrix contiguous; null where the spec has no such weight.
struct Weights {
    void* weight_ih = nullptr;    // [G*H, I], G = 4 gates, or 3 with `coupled`
    void* weight_hh = nullptr;    // [G*H, P]
    void* bias_ih = nullptr;      // [G*H]
    void* bias_hh = nullptr;      // [G*H]
    void* weight_hr = nullptr;    // [P, H]
    void* weight_ch = nullptr;    // [(G-1)*H]
    void* norm_ih = nullptr;      // [G*H]
    void* norm_hh = nullptr;      // [G*H]
    void* norm_c = nullptr;       // [H]
    void* norm_bias_c = nullptr;  // [H]
    void* decay_rate = nullptr;   // [H]
};

class Packed;

struct Layer {
    Type type = Type::f32;
    Spec spec;
    Sizes sizes;
    Rows rows{};
    const void* x = nullptr;  // [N, I], rows x_stride apart
    int64_t x_stride = 0;
    const void* h0 = nullptr;          // [D, B, P]
    const void* c0 = nullptr;          // [D, B, H]
    const void* elapsed = nullptr;     // [D, N], with `decay`
    const Weights* weights = nullptr;  // [D]
    const Packed* packed = nullptr;  // the same weights laid out once and for all; forward then leaves `weights` alone
    bool training = false;           // draw masks from seed + d; otherwise zoneout in expectation
    uint64_t seed = 0;
    int threads = 1;
    int64_t recompute = 0;  // 0, or: keep only c of every so many steps, and work the gates out again in backward
};

struct Outputs {
    void* y = nullptr;        // [N, D*P]
    void* h = nullptr;        // [D, B, P]
    void* c = nullptr;        // [D, B, H]
    void* reserve = nullptr;  // what backward needs, see reserve_width(); null in inference
    void* trace = nullptr;    // [5, D, N, H]: activated i, f, g, o and the carried c; null unless wanted
};

// What backward reads and writes besides the layer itself; the layer must be the one that forward saw.
struct Gradients {
    const void* reserve = nullptr;
    const void* y = nullptr;     // [N, D*P] forward's own
    const void* of_y = nullptr;  // [N, D*P], rows of_y_stride apart
    int64_t of_y_stride = 0;
    const void* of_h = nullptr;  // [D, B, P]
    const void* of_c = nullptr;  // [D, B, H]

    void* x = nullptr;                 // [D, N, I], to be summed over D; null where it is not wanted
    void* h0 = nullptr;                // [D, B, P]
    void* c0 = nullptr;                // [D, B, H]
    void* elapsed = nullptr;           // [D, N], with `decay`
    const Weights* weights = nullptr;  // [D] gradients, every one that the spec has
};

// The instruction set in use: the machine's best, or the one that CAROUSEL_ISA names.
const char* instruction_set();

// Numbers of the computed type in one of its vectors.
int64_t lanes(Type type);

// The reserve is [D, N, reserve_width()] in the computed type: float for bfloat16, else the layer's own. With
// `recompute` it is [D, ceil(T / recompute), B, H rounded up to whole vectors].
int64_t reserve_width(const Layer& layer);

// All that follow throw std::invalid_argument where `rows` names a row outside x, the lengths do not add up to N, or
// the sizes contradict the spec. That no row is named twice is the caller's promise.
//
// Weights in the layout that forward works with, for callers that run the same layer again and again for a step or two:
// laying them out costs one pass over them, which a long call does not notice. It owns a copy.
class Packed {
  public:
    explicit Packed(const Layer& layer);  // reads type, spec, input, hidden, output, directions and weights
    ~Packed();
    Packed(const Packed&) = delete;
    Packed& operator=(const Packed&) = delete;
    void* data() const { return data_; }

  private:
    void* data_;
};

void forward(const Layer& layer, const Outputs& out);
void backward(const Layer& layer, const Gradients& gradients);

// How the input convolution looks at a frame, (rows, columns) each; kernels are odd, and zeros around the frame keep
// its size but for the stride. The recurrent convolution has the same kernel, stride 1 and dilation 1.
struct Window {
    int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1};
};

// A convolutional layer, one direction, neither projection nor decay nor masks. Rows are frames, channels last; the two
// matrices among the weights are [G*H, kernel rows, kernel columns, channels].
struct ConvLayer {
    Type type = Type::f32;
    Spec spec;
    int64_t input = 0, hidden = 0;                 // I, H
    int64_t frames = 0, sequences = 0, steps = 0;  // N, B, T
    int64_t in_height = 0, in_width = 0;           // of x
    int64_t height = 0, width = 0;                 // of the states: those of x divided by the stride, rounded up
    Window window;
    Rows rows{};
    const void* x = nullptr;   // [N, in_height, in_width, I]
    const void* h0 = nullptr;  // [B, height, width, H]
    const void* c0 = nullptr;  // [B, height, width, H]
    Weights weights;
    int threads = 1;
};

struct ConvOutputs {
    void* y = nullptr;        // [N, height, width, H]
    void* h = nullptr;        // [B, height, width, H]
    void* c = nullptr;        // [B, height, width, H]
    void* reserve = nullptr;  // [N, height, width, reserve_width()] in the computed type; null in inference
};

// Backward through the states. The gradients of W x and of U h, [N, height, width, G*H], are the same without layer
// norm: one buffer then. What remains, the gradients of the matrices, are plain convolutions with them. Where
// gives_matrices(), neither is given out, and the gradients of the matrices are.
struct ConvGradients {
    const void* reserve = nullptr;
    const void* y = nullptr;     // [N, height, width, H] forward's own; looked at where gives_matrices()
    const void* of_y = nullptr;  // [N, height, width, H]
    const void* of_h = nullptr;  // [B, height, width, H]
    const void* of_c = nullptr;  // [B, height, width, H]

    void* of_x_z = nullptr;
    void* of_h_z = nullptr;
    void* x = nullptr;   // [N, height, width, I], or null; only with stride and dilation 1 and without layer norm
    void* h0 = nullptr;  // [B, height, width, H]
    void* c0 = nullptr;  // [B, height, width, H]
    Weights weights;     // the vectors, and where gives_matrices() the matrices
};

int64_t reserve_width(const ConvLayer& layer);

// Whether backward works out the gradients of both matrices; it depends on type, spec, window and the states' size.
bool gives_matrices(const ConvLayer& layer);

void forward(const ConvLayer& layer, const ConvOutputs& out);
void backward(const ConvLayer& layer, const ConvGradients& gradients);

}  // namespace carousel
