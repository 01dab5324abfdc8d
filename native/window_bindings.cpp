// Forecasters for Python: what a window is made of, series that grow row by row, and forecasts of many at once.
#include "window_bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <vector>

#include "src/plan.h"
#include "src/window.h"
#include "stack_bindings.h"

using namespace carousel::bindings;

namespace {

using carousel::Forecast;

typedef Array<const double, nb::ndim<1>> Doubles;
typedef Array<const int64_t, nb::ndim<1>> Codes;

// Series of one forecaster, by number.
class SeriesSet {
  public:
    explicit SeriesSet(const Forecast& forecast) : forecast_(forecast), kept_(forecast.bytes()) {}
    SeriesSet(const SeriesSet&) = delete;

    int64_t count() const { return static_cast<int64_t>(series_.size()); }
    void grow(int64_t count) {
        while (this->count() < count) {
            series_.emplace_back(carousel::allocate(forecast_.bytes()));
            forecast_.begin(series_.back().get());
        }
    }
    void begin(int64_t k) { forecast_.begin(at(k)); }

    void set_static(int64_t k, const Vector& numbers, const Codes& codes) {
        if (size(numbers) != forecast_.static_numbers || codes.shape(0) != forecast_.fixed.size())
            throw std::invalid_argument("static numbers and codes do not fit the model");
        forecast_.set_static(at(k), numbers.data(), codes.data());
    }

    void append(int64_t k, double time, const Doubles& target, const Doubles& features, const Codes& feature_codes,
                const Doubles& known, const Codes& known_codes) {
        if (size(target) != forecast_.targets || size(features) != forecast_.feature_numbers ||
            size(known) != forecast_.known_numbers || feature_codes.shape(0) != forecast_.features.size() ||
            known_codes.shape(0) != forecast_.known.size())
            throw std::invalid_argument("the row does not fit the model");
        forecast_.append(
            at(k), {time, target.data(), features.data(), known.data(), feature_codes.data(), known_codes.data()});
    }
    void skip(int64_t k, int64_t rows) { forecast_.skip(at(k), rows); }

    // time [n, H], known [n, H, .], codes [n, H, .] -> out [n, H, K, Q] for the series `which` [n], all different.
    void forecast(const Codes& which, const Array<const double, nb::ndim<2>>& time,
                  const Array<const double, nb::ndim<3>>& known, const Array<const int64_t, nb::ndim<3>>& codes,
                  const Array<double, nb::ndim<4>>& out) {
        const auto n = static_cast<int64_t>(which.shape(0)), H = forecast_.horizon;
        const auto fits = [&](const auto& array, int64_t last) {
            return static_cast<int64_t>(array.shape(0)) == n && static_cast<int64_t>(array.shape(1)) == H &&
                   static_cast<int64_t>(array.size()) == n * H * last;
        };
        if (!fits(time, 1) || !fits(known, forecast_.known_numbers) ||
            !fits(codes, static_cast<int64_t>(forecast_.known.size())) || !fits(out, forecast_.outputs() / H))
            throw std::invalid_argument("the steps ahead do not fit the model");
        series_at_.clear();
        ahead_.clear();
        for (int64_t k = 0; k < n; ++k) {
            series_at_.push_back(at(which.data()[k]));
            ahead_.push_back({time.data() + k * H, known.data() + k * H * forecast_.known_numbers,
                              codes.data() + k * H * static_cast<int64_t>(forecast_.known.size())});
        }
        forecast_.forecast(n, series_at_.data(), ahead_.data(), out.data());
    }

    // Rows so far, the time of the first and that of the latest.
    nb::tuple about(int64_t k) const {
        return nb::make_tuple(forecast_.rows(at(k)), forecast_.first(at(k)), forecast_.latest(at(k)));
    }

    nb::bytes save(int64_t k) const { return nb::bytes(at(k), forecast_.bytes()); }
    bool load(int64_t k, const nb::bytes& plain) {
        if (plain.size() != kept_.size()) return false;
        std::memcpy(kept_.data(), plain.data(), kept_.size());
        if (!forecast_.sound(kept_.data())) return false;
        std::memcpy(at(k), kept_.data(), kept_.size());
        return true;
    }

  private:
    static int64_t size(const auto& array) { return static_cast<int64_t>(array.shape(0)); }
    void* at(int64_t k) const {
        if (k < 0 || k >= count()) throw std::out_of_range("there is no series of this number");
        return series_[static_cast<size_t>(k)].get();
    }

    const Forecast& forecast_;
    std::vector<carousel::Memory> series_;
    std::vector<uint8_t> kept_;
    std::vector<void*> series_at_;
    std::vector<carousel::StepsAhead> ahead_;
};

// Decoder of one member; weights as the head's `state_dict` has them, ahead only where a step ahead has channels.
void set_decoder(Forecast& self, size_t member, const Matrix& step, const Matrix& gate_step, const Matrix& state,
                 const Vector& state_bias, const std::optional<Matrix>& ahead, const Matrix& hidden,
                 const Vector& hidden_bias, const Matrix& out, const Vector& out_bias, const Matrix& gate,
                 const Vector& gate_bias, const Matrix& linear, const Vector& linear_bias) {
    carousel::Decoder& d = self.decoders.at(member);
    d.state = dense(state, state_bias);
    if (ahead) d.ahead = dense(*ahead, {});
    d.hidden = dense(hidden, hidden_bias);
    d.out = dense(out, out_bias);
    d.gate = dense(gate, gate_bias);
    d.linear = dense(linear, linear_bias);
    d.step.assign(step.data(), step.data() + step.size());
    d.gate_step.assign(gate_step.data(), gate_step.data() + gate_step.size());
}

}  // namespace

void bind_windows(nb::module_& m) {
    nb::class_<Forecast>(m, "Forecast")
        .def(
            "__init__",
            [](Forecast* self, int64_t context, int64_t horizon, int64_t targets, const std::vector<int64_t>& seasons,
               const std::vector<int64_t>& numbers, bool uneven, bool from_last, double step, int64_t median,
               const std::vector<double>& factors, int64_t members, bool rows) {
                new (self) Forecast();
                self->context = context;
                self->horizon = horizon;
                self->targets = targets;
                self->seasons = seasons;
                self->feature_numbers = numbers.at(0);
                self->known_numbers = numbers.at(1);
                self->static_numbers = numbers.at(2);
                self->uneven = uneven;
                self->from_last = from_last;
                self->step = step;
                self->median = median;
                self->factors = factors;
                self->with_rows = rows;
                self->stacks.resize(static_cast<size_t>(members));
                self->decoders.resize(static_cast<size_t>(members));
            },
            nb::arg("context"), nb::arg("horizon"), nb::arg("targets"), nb::arg("seasons"), nb::arg("numbers"),
            nb::arg("uneven"), nb::arg("from_last"), nb::arg("step"), nb::arg("median"), nb::arg("factors"),
            nb::arg("members"), nb::arg("rows"))
        .def("add_embedding",
             [](Forecast& self, int role, const Array<const float, nb::ndim<3>>& table) {
                 if (table.shape(0) != self.stacks.size())
                     throw std::invalid_argument("an embedding has one table for each member");
                 (role == 0   ? self.features
                  : role == 1 ? self.known
                              : self.fixed)
                     .push_back({static_cast<int64_t>(table.shape(1)), static_cast<int64_t>(table.shape(2)),
                                 std::vector<float>(table.data(), table.data() + table.size())});
             })
        .def("add_layer",
             [](Forecast& self, size_t member, int64_t I, int64_t H, int64_t P, bool bias, bool peephole, bool coupled,
                bool layer_norm, bool decay, bool projection, double cell_clip, double zoneout_c, double zoneout_h,
                const Tensors& weights, int storage) {
                 add_layer(self.stacks.at(member), I, H, P, bias, peephole, coupled, layer_norm, decay, projection,
                           cell_clip, zoneout_c, zoneout_h, weights, storage, self.with_rows);
             })
        .def("set_decoder", &set_decoder, nb::arg("member"), nb::arg("step"), nb::arg("gate_step"), nb::arg("state"),
             nb::arg("state_bias"), nb::arg("ahead").none(), nb::arg("hidden"), nb::arg("hidden_bias"), nb::arg("out"),
             nb::arg("out_bias"), nb::arg("gate"), nb::arg("gate_bias"), nb::arg("linear"), nb::arg("linear_bias"))
        .def("finish", &Forecast::finish)
        .def_prop_ro("series_bytes", &Forecast::bytes);
    nb::class_<SeriesSet>(m, "SeriesSet")
        .def(nb::init<const Forecast&>(), nb::keep_alive<1, 2>(), nb::arg("forecast"))
        .def_prop_ro("count", &SeriesSet::count)
        .def("grow", &SeriesSet::grow)
        .def("begin", &SeriesSet::begin)
        .def("set_static", &SeriesSet::set_static)
        .def("append", &SeriesSet::append)
        .def("skip", &SeriesSet::skip)
        .def("forecast", &SeriesSet::forecast, nb::arg("which"), nb::arg("time"), nb::arg("known"), nb::arg("codes"),
             nb::arg("out"))
        .def("about", &SeriesSet::about)
        .def("save", &SeriesSet::save)
        .def("load", &SeriesSet::load);
}
