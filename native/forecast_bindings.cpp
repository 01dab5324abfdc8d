// Bindings of a forecaster's loss: numbers and addresses in, one call of the core out, without the GIL.
#include "forecast_bindings.h"

#include <nanobind/stl/vector.h>

#include <vector>

#include "src/forecast_loss.h"

namespace nb = nanobind;

namespace {

using Address = uintptr_t;  // 0 where there is nothing
typedef std::vector<Address> Addresses;

template <class F>
F* pointer(Address address) {
    return reinterpret_cast<F*>(address);
}

template <class F>
carousel::ForecastWeights<F> weights(const Addresses& from) {
    const auto at = [&](size_t k) { return pointer<F>(from.at(k)); };
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8)};
}

// dims: n, H, K, Q, the median's place, G, W, A. in: levels, state, rows, linear, base, truth, share; out: gradients of
// state, rows and linear. Weights and their gradients: step, ahead, hidden, its bias, out, its bias, gate, its bias,
// gate_step.
double forecast_loss(const std::vector<int64_t>& dims, const Addresses& in, const Addresses& weights_in,
                     const Addresses& out, const Addresses& weights_out, int threads) {
    carousel::ForecastLoss given;
    given.windows = dims.at(0);
    given.steps = dims.at(1);
    given.targets = dims.at(2);
    given.quantiles = dims.at(3);
    given.median = dims.at(4);
    given.bases = dims.at(5);
    given.width = dims.at(6);
    given.ahead = dims.at(7);
    given.levels = pointer<const float>(in.at(0));
    given.state = pointer<const float>(in.at(1));
    given.rows = pointer<const float>(in.at(2));
    given.linear = pointer<const float>(in.at(3));
    given.base = pointer<const float>(in.at(4));
    given.truth = pointer<const float>(in.at(5));
    given.share = pointer<const float>(in.at(6));
    given.weights = weights<const float>(weights_in);
    given.of_state = pointer<float>(out.at(0));
    given.of_rows = pointer<float>(out.at(1));
    given.of_linear = pointer<float>(out.at(2));
    given.of_weights = weights<float>(weights_out);
    const nb::gil_scoped_release unlocked;
    return carousel::forecast_loss(given, threads);
}

}  // namespace

void bind_forecasts(nb::module_& m) { m.def("forecast_loss", &forecast_loss); }
