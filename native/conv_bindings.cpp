// Bindings of convolutional layers: numbers and addresses in, one call of the core out, without the GIL.
#include "conv_bindings.h"

#include <nanobind/stl/vector.h>

#include <vector>

#include "carousel.h"

namespace nb = nanobind;

namespace {

using Address = uintptr_t;  // 0 where there is nothing
typedef std::vector<Address> Addresses;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// What stays the same from call to call.
struct ConvPlan {
    carousel::Type type;
    carousel::Spec spec;
    int64_t input, hidden;
    carousel::Window window;
};

// In the order of CellSpec.shapes.
carousel::Weights weights(const carousel::Spec& spec, const Addresses& addresses) {
    size_t next = 0;
    const auto take = [&](bool wanted) { return wanted ? pointer(addresses.at(next++)) : nullptr; };
    carousel::Weights w;
    w.weight_ih = take(true);
    w.weight_hh = take(true);
    w.bias_ih = take(spec.bias);
    w.bias_hh = take(spec.bias);
    w.weight_ch = take(spec.peephole);
    w.norm_ih = take(spec.layer_norm);
    w.norm_hh = take(spec.layer_norm);
    w.norm_c = take(spec.layer_norm);
    w.norm_bias_c = take(spec.layer_norm && spec.bias);
    return w;
}

// dims: N, B, T and the heights and widths of frames and of states; in: x, first, ahead, lengths, h0, c0.
carousel::ConvLayer layer_of(const ConvPlan& plan, const std::vector<int64_t>& dims, const Addresses& in,
                             const Addresses& weight_addresses, int threads) {
    const auto numbers = [&](size_t k) { return static_cast<const int64_t*>(pointer(in.at(k))); };
    carousel::ConvLayer layer;
    layer.type = plan.type;
    layer.spec = plan.spec;
    layer.input = plan.input;
    layer.hidden = plan.hidden;
    layer.window = plan.window;
    layer.frames = dims.at(0);
    layer.sequences = dims.at(1);
    layer.steps = dims.at(2);
    layer.in_height = dims.at(3);
    layer.in_width = dims.at(4);
    layer.height = dims.at(5);
    layer.width = dims.at(6);
    layer.x = pointer(in.at(0));
    layer.rows = {numbers(1), numbers(2), numbers(3)};
    layer.h0 = pointer(in.at(4));
    layer.c0 = pointer(in.at(5));
    layer.weights = weights(plan.spec, weight_addresses);
    layer.threads = threads;
    return layer;
}

// out: y, h, c and the reserve.
void forward(const ConvPlan& plan, const std::vector<int64_t>& dims, const Addresses& in,
             const Addresses& weight_addresses, const Addresses& out, int threads) {
    const carousel::ConvLayer layer = layer_of(plan, dims, in, weight_addresses, threads);
    const carousel::ConvOutputs to{pointer(out.at(0)), pointer(out.at(1)), pointer(out.at(2)), pointer(out.at(3))};
    const nb::gil_scoped_release unlocked;
    carousel::forward(layer, to);
}

// from: the reserve, gradients of y, h and c, and y; out: gradients of W x, U h, h0, c0 and x, and of the weights that
// are vectors, in the weights' order after two that are looked at where conv_gives_matrices().
void backward(const ConvPlan& plan, const std::vector<int64_t>& dims, const Addresses& in,
              const Addresses& weight_addresses, const Addresses& from, const Addresses& out,
              const Addresses& weight_out, int threads) {
    const carousel::ConvLayer layer = layer_of(plan, dims, in, weight_addresses, threads);
    carousel::ConvGradients to;
    to.reserve = pointer(from.at(0));
    to.of_y = pointer(from.at(1));
    to.of_h = pointer(from.at(2));
    to.of_c = pointer(from.at(3));
    to.y = pointer(from.at(4));
    to.of_x_z = pointer(out.at(0));
    to.of_h_z = pointer(out.at(1));
    to.h0 = pointer(out.at(2));
    to.c0 = pointer(out.at(3));
    to.x = pointer(out.at(4));
    to.weights = weights(plan.spec, weight_out);
    const nb::gil_scoped_release unlocked;
    carousel::backward(layer, to);
}

int64_t reserve_width(const ConvPlan& plan) {
    carousel::ConvLayer layer;
    layer.type = plan.type;
    layer.spec = plan.spec;
    layer.hidden = plan.hidden;
    return carousel::reserve_width(layer);
}

bool gives_matrices(const ConvPlan& plan, int64_t height, int64_t width) {
    carousel::ConvLayer layer;
    layer.type = plan.type;
    layer.spec = plan.spec;
    layer.window = plan.window;
    layer.height = height;
    layer.width = width;
    return carousel::gives_matrices(layer);
}

}  // namespace

void bind_conv(nb::module_& m) {
    nb::class_<ConvPlan>(m, "ConvPlan")
        .def(
            "__init__",
            [](ConvPlan* self, int type, bool bias, bool peephole, bool coupled, bool layer_norm, double cell_clip,
               int64_t input, int64_t hidden, const std::vector<int64_t>& window) {
                carousel::Spec spec;
                spec.bias = bias;
                spec.peephole = peephole;
                spec.coupled = coupled;
                spec.layer_norm = layer_norm;
                spec.cell_clip = cell_clip;
                const auto at = [&](size_t k) { return window.at(k); };
                new (self) ConvPlan{static_cast<carousel::Type>(type),
                                    spec,
                                    input,
                                    hidden,
                                    {{at(0), at(1)}, {at(2), at(3)}, {at(4), at(5)}}};
            },
            nb::arg("type"), nb::arg("bias"), nb::arg("peephole"), nb::arg("coupled"), nb::arg("layer_norm"),
            nb::arg("cell_clip"), nb::arg("input_size"), nb::arg("hidden_size"), nb::arg("window"));
    m.def("conv_forward", &forward);
    m.def("conv_backward", &backward);
    m.def("conv_reserve_width", &reserve_width);
    m.def("conv_gives_matrices", &gives_matrices);
}
