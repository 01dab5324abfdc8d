// What a stack and dense maps are made from, as Python gives it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "src/stack.h"

namespace carousel::bindings {

namespace nb = nanobind;

template <class T, class Shape>
using Array = nb::ndarray<T, Shape, nb::c_contig, nb::device::cpu>;
typedef Array<const float, nb::ndim<1>> Vector;
typedef Array<const float, nb::ndim<2>> Matrix;
typedef std::vector<nb::ndarray<const float, nb::c_contig, nb::device::cpu>> Tensors;

// One layer and direction from CellSpec's fields and its weights in the order of CellSpec.shapes.
inline void add_layer(Stack& stack, int64_t I, int64_t H, int64_t P, bool bias, bool peephole, bool coupled,
                      bool layer_norm, bool decay, bool projection, double cell_clip, double zoneout_c,
                      double zoneout_h, const Tensors& weights, int storage, bool rows) {
    Layer layer;
    layer.spec = {bias, peephole, coupled, layer_norm, decay, projection, cell_clip, 0, zoneout_c, zoneout_h};
    layer.sizes = {I, H, P, 0, 0, 0, 1};
    const int64_t G = coupled ? 3 : 4;
    size_t next = 0;
    const auto take = [&](bool wanted, int64_t numbers) -> void* {
        if (!wanted) return nullptr;
        if (next >= weights.size() || static_cast<int64_t>(weights[next].size()) != numbers)
            throw std::invalid_argument("a layer's weights do not have the sizes that its cell says");
        return const_cast<float*>(weights[next++].data());
    };
    Weights w;
    w.weight_ih = take(true, G * H * I);
    w.weight_hh = take(true, G * H * P);
    w.bias_ih = take(bias, G * H);
    w.bias_hh = take(bias, G * H);
    w.weight_hr = take(projection, P * H);
    w.weight_ch = take(peephole, (G - 1) * H);
    w.norm_ih = take(layer_norm, G * H);
    w.norm_hh = take(layer_norm, G * H);
    w.norm_c = take(layer_norm, H);
    w.norm_bias_c = take(layer_norm && bias, H);
    w.decay_rate = take(decay, H);
    stack.add(layer, w, static_cast<Storage>(storage), rows);
}

inline Dense dense(const Matrix& weight, const std::optional<Vector>& bias) {
    const auto outputs = static_cast<int64_t>(weight.shape(0)), inputs = static_cast<int64_t>(weight.shape(1));
    if (bias && static_cast<int64_t>(bias->shape(0)) != outputs)
        throw std::invalid_argument("a dense map has one bias for each output");
    return Dense(weight.data(), bias ? bias->data() : nullptr, outputs, inputs);
}

}  // namespace carousel::bindings
