// Bindings only: numbers and addresses in, one call of the core out, without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "carousel.h"
#include "conv_bindings.h"
#include "forecast_bindings.h"
#include "stream_bindings.h"

namespace nb = nanobind;

namespace {

using Address = uintptr_t;  // 0 where there is nothing

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// What stays the same from call to call: the cell, the type and the sizes.
struct Plan {
    carousel::Type type;
    carousel::Spec spec;
    carousel::Sizes sizes;
};

// The addresses of one direction's weights stand in the order of CellSpec.shapes.
carousel::Weights weights(const carousel::Spec& spec, const std::vector<Address>& addresses, size_t& next) {
    const auto take = [&](bool wanted) { return wanted ? pointer(addresses.at(next++)) : nullptr; };
    carousel::Weights w;
    w.weight_ih = take(true);
    w.weight_hh = take(true);
    w.bias_ih = take(spec.bias);
    w.bias_hh = take(spec.bias);
    w.weight_hr = take(spec.projection);
    w.weight_ch = take(spec.peephole);
    w.norm_ih = take(spec.layer_norm);
    w.norm_hh = take(spec.layer_norm);
    w.norm_c = take(spec.layer_norm);
    w.norm_bias_c = take(spec.layer_norm && spec.bias);
    w.decay_rate = take(spec.decay);
    return w;
}

struct Call {
    std::vector<carousel::Weights> directions;
    carousel::Layer layer;

    Call(const Plan& plan, const std::vector<int64_t>& dims, const std::vector<Address>& in,
         const std::vector<Address>& weight_addresses, bool training, uint64_t seed, int threads) {
        layer.type = plan.type;
        layer.spec = plan.spec;
        layer.sizes = plan.sizes;
        layer.sizes.rows = dims.at(0);
        layer.sizes.sequences = dims.at(1);
        layer.sizes.steps = dims.at(2);
        layer.x_stride = dims.at(3);
        layer.recompute = dims.at(4);
        layer.x = pointer(in.at(0));
        layer.rows = {static_cast<const int64_t*>(pointer(in.at(1))), static_cast<const int64_t*>(pointer(in.at(2))),
                      static_cast<const int64_t*>(pointer(in.at(3)))};
        layer.h0 = pointer(in.at(4));
        layer.c0 = pointer(in.at(5));
        layer.elapsed = pointer(in.at(6));
        layer.training = training;
        layer.seed = seed;
        layer.threads = threads;
        size_t next = 0;
        for (int64_t d = 0; d < plan.sizes.directions; ++d)
            directions.push_back(weights(plan.spec, weight_addresses, next));
        layer.weights = directions.data();
    }
};

void forward(const Plan& plan, const std::vector<int64_t>& dims, const std::vector<Address>& in,
             const std::vector<Address>& weight_addresses, const std::vector<Address>& out, bool training,
             uint64_t seed, int threads) {
    const Call call(plan, dims, in, weight_addresses, training, seed, threads);
    carousel::Outputs to;
    to.y = pointer(out.at(0));
    to.h = pointer(out.at(1));
    to.c = pointer(out.at(2));
    to.reserve = pointer(out.at(3));
    to.trace = pointer(out.at(4));
    const nb::gil_scoped_release unlocked;
    carousel::forward(call.layer, to);
}

// in: reserve, y, gradients of y, h and c; out: gradients of x, h0, c0 and elapsed.
void backward(const Plan& plan, const std::vector<int64_t>& dims, const std::vector<Address>& in,
              const std::vector<Address>& weight_addresses, const std::vector<Address>& from, int64_t of_y_stride,
              const std::vector<Address>& out, const std::vector<Address>& weight_out, bool training, uint64_t seed,
              int threads) {
    const Call call(plan, dims, in, weight_addresses, training, seed, threads);
    carousel::Gradients to;
    to.reserve = pointer(from.at(0));
    to.y = pointer(from.at(1));
    to.of_y = pointer(from.at(2));
    to.of_h = pointer(from.at(3));
    to.of_c = pointer(from.at(4));
    to.of_y_stride = of_y_stride;
    to.x = pointer(out.at(0));
    to.h0 = pointer(out.at(1));
    to.c0 = pointer(out.at(2));
    to.elapsed = pointer(out.at(3));
    std::vector<carousel::Weights> directions;
    size_t next = 0;
    for (int64_t d = 0; d < plan.sizes.directions; ++d) directions.push_back(weights(plan.spec, weight_out, next));
    to.weights = directions.data();
    const nb::gil_scoped_release unlocked;
    carousel::backward(call.layer, to);
}

int64_t reserve_width(const Plan& plan) {
    carousel::Layer layer;
    layer.type = plan.type;
    layer.spec = plan.spec;
    layer.sizes = plan.sizes;
    return carousel::reserve_width(layer);
}

}  // namespace

NB_MODULE(_core, m) {
    nb::set_leak_warnings(false);  // plans that a cache holds until the interpreter ends are no leak
    m.doc() = "Carousel's native core; use it through carousel.backends.native.";
    nb::class_<Plan>(m, "Plan").def(
        "__init__",
        [](Plan* self, int type, bool bias, bool peephole, bool coupled, bool layer_norm, bool decay, bool projection,
           double cell_clip, double recurrent_dropout, double zoneout_c, double zoneout_h, int64_t I, int64_t H,
           int64_t P, int64_t D) {
            new (self) Plan{static_cast<carousel::Type>(type),
                            {bias, peephole, coupled, layer_norm, decay, projection, cell_clip, recurrent_dropout,
                             zoneout_c, zoneout_h},
                            {I, H, P, 0, 0, 0, D}};
        },
        nb::arg("type"), nb::arg("bias"), nb::arg("peephole"), nb::arg("coupled"), nb::arg("layer_norm"),
        nb::arg("decay"), nb::arg("projection"), nb::arg("cell_clip"), nb::arg("recurrent_dropout"),
        nb::arg("zoneout_c"), nb::arg("zoneout_h"), nb::arg("input_size"), nb::arg("hidden_size"),
        nb::arg("output_size"), nb::arg("directions"));
    m.def("forward", &forward);
    m.def("backward", &backward);
    m.def("reserve_width", &reserve_width);
    m.def("lanes", [](int type) { return carousel::lanes(static_cast<carousel::Type>(type)); });
    m.def("instruction_set", &carousel::instruction_set);
    bind_conv(m);
    bind_forecasts(m);
    bind_streams(m);
}
