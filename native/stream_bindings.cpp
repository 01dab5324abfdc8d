// Streams for Python. What is called for every row takes its arguments as they come and allocates nothing but its
// result.
#include "stream_bindings.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "src/places.h"
#include "src/stream.h"
#include "stack_bindings.h"
#include "window_bindings.h"

namespace nb = nanobind;

namespace {

using carousel::Program;
using carousel::Refusal;
using carousel::Row;
using carousel::Stack;
using carousel::Verdict;

using namespace carousel::bindings;

// A stack alone, for windows that are run as a whole, and its own state.
struct Walker {
    Walker() = default;
    Walker(const Walker&) = delete;

    Stack stack;
    std::vector<float> state;

    void reset() { state.assign(static_cast<size_t>(stack.state_floats()), 0.0f); }

    // x [T, I], elapsed [T] or none, y [T, P] or none: from where the last call ended.
    void run(const Matrix& x, const std::optional<Vector>& elapsed, std::optional<Array<float, nb::ndim<2>>> y) {
        const auto T = static_cast<int64_t>(x.shape(0)), I = static_cast<int64_t>(x.shape(1)), P = stack.output();
        if (I != stack.input() || (elapsed && static_cast<int64_t>(elapsed->shape(0)) != T) ||
            (y && (static_cast<int64_t>(y->shape(0)) != T || static_cast<int64_t>(y->shape(1)) != P)))
            throw std::invalid_argument("the sizes of x, elapsed and y do not fit the stack");
        if (state.empty()) reset();
        for (int64_t t = 0; t < T; ++t) {
            stack.step(x.data() + t * I, elapsed ? elapsed->data()[t] : 1.0f, state.data());
            if (y) std::copy_n(stack.top(state.data()), P, y->data() + t * P);
        }
    }

    // The nanoseconds [T] that each row took, for measurements.
    void timed(const Matrix& x, const Array<int64_t, nb::ndim<1>>& nanoseconds) {
        if (x.shape(0) != nanoseconds.shape(0) || static_cast<int64_t>(x.shape(1)) != stack.input())
            throw std::invalid_argument("the sizes of x and of the times do not fit");
        if (state.empty()) reset();
        auto before = std::chrono::steady_clock::now();
        for (size_t t = 0; t < x.shape(0); ++t) {
            stack.step(x.data() + t * x.shape(1), 1.0f, state.data());
            const auto now = std::chrono::steady_clock::now();
            nanoseconds.data()[t] = std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
            before = now;
        }
    }

    void top(const Array<float, nb::ndim<1>>& to) {
        if (static_cast<int64_t>(to.shape(0)) != stack.output()) throw std::invalid_argument("y has another size");
        if (state.empty()) reset();
        std::copy_n(stack.top(state.data()), stack.output(), to.data());
    }
};

// What a stream gives as Python values: a dict with `names` as keys.
struct Answer {
    nb::object names;    // tuple
    nb::object classes;  // tuple, or None; of a detector its columns

    // The names of the columns that a score is put down to.
    PyObject* because(const double* columns) const {
        PyObject* found = nullptr;
        for (int64_t k = 0; k < carousel::named_columns && columns[k] >= 0; ++k) {
            PyObject* name = PyTuple_GET_ITEM(classes.ptr(), static_cast<Py_ssize_t>(columns[k]));
            PyObject* more = found ? PyUnicode_FromFormat("%U, %U", found, name) : Py_NewRef(name);
            Py_XDECREF(found);
            if (!more) throw nb::python_error();
            found = more;
        }
        return found ? found : Py_NewRef(Py_None);
    }

    PyObject* of(const Program& program, const double* out) const {
        PyObject* found = PyDict_New();
        if (!found) throw nb::python_error();
        const auto put = [&](Py_ssize_t k, PyObject* value) {
            if (!value || PyDict_SetItem(found, PyTuple_GET_ITEM(names.ptr(), k), value) != 0) {
                Py_XDECREF(value);
                Py_DECREF(found);
                throw nb::python_error();
            }
            Py_DECREF(value);
        };
        const int64_t n = program.outputs();
        Py_ssize_t at = 0;
        if (program.read_out == carousel::ReadOut::label) {
            int64_t best = 0;
            for (int64_t k = 1; k < n; ++k)
                if (out[k] > out[best]) best = k;
            PyObject* name = PyTuple_GET_ITEM(classes.ptr(), best);
            Py_INCREF(name);
            put(at++, name);
        }
        if (program.read_out == carousel::ReadOut::score) {
            put(0, std::isnan(out[0]) ? Py_NewRef(Py_None) : PyFloat_FromDouble(out[0]));
            put(1, PyBool_FromLong(out[1] != 0));
            put(2, because(out + 2));
            return found;
        }
        if (program.read_out == carousel::ReadOut::event) {
            put(0, PyFloat_FromDouble(out[0]));
            put(1, PyBool_FromLong(out[1] != 0));
            return found;
        }
        for (int64_t k = 0; k < n; ++k) put(at++, PyFloat_FromDouble(out[k]));
        return found;
    }
};

enum class Misfit : int { length = 100, type, time };

int64_t code_of(const Verdict& v) { return static_cast<int64_t>(v.why) | v.column << 8; }

// n numbers from an array of floats, or from a list or a tuple with None for what is missing; 0, or why not.
int64_t read_numbers(PyObject* from, std::vector<double>& to) {
    const auto n = static_cast<Py_ssize_t>(to.size());
    if (PyList_CheckExact(from) || PyTuple_CheckExact(from)) {
        if (PySequence_Fast_GET_SIZE(from) != n) return static_cast<int64_t>(Misfit::length);
        PyObject** items = PySequence_Fast_ITEMS(from);
        for (Py_ssize_t k = 0; k < n; ++k) {
            PyObject* item = items[k];
            double& x = to[static_cast<size_t>(k)];
            if (PyFloat_CheckExact(item)) {
                x = PyFloat_AS_DOUBLE(item);
            } else if (item == Py_None) {
                x = std::numeric_limits<double>::quiet_NaN();
            } else if (PyUnicode_Check(item) || PyBytes_Check(item)) {
                return static_cast<int64_t>(Misfit::type) | static_cast<int64_t>(k) << 8;
            } else {
                x = PyFloat_AsDouble(item);
                if (x == -1.0 && PyErr_Occurred()) {
                    PyErr_Clear();
                    return static_cast<int64_t>(Misfit::type) | static_cast<int64_t>(k) << 8;
                }
            }
        }
        return 0;
    }
    // A buffer says nothing of what an array masks.
    if (std::strcmp(Py_TYPE(from)->tp_name, "numpy.ndarray") != 0 && PyObject_HasAttrString(from, "mask"))
        return static_cast<int64_t>(Misfit::type);
    Py_buffer view;
    if (PyObject_GetBuffer(from, &view, PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
        PyErr_Clear();
        return static_cast<int64_t>(Misfit::type);
    }
    int64_t why = 0;
    const char type = view.format && view.format[0] && !view.format[1] ? view.format[0] : 0;
    if (view.ndim != 1 || view.shape[0] != n) {
        why = static_cast<int64_t>(Misfit::length);
    } else if (type == 'd' || type == 'f') {
        const char* at = static_cast<const char*>(view.buf);
        for (Py_ssize_t k = 0; k < n; ++k, at += view.strides[0]) {  // which may lie anywhere, as in a field of records
            double& x = to[static_cast<size_t>(k)];
            float narrow = 0;
            if (type == 'd') {
                std::memcpy(&x, at, sizeof x);
            } else {
                std::memcpy(&narrow, at, sizeof narrow);
                x = static_cast<double>(narrow);
            }
        }
    } else {
        why = static_cast<int64_t>(Misfit::type);
    }
    PyBuffer_Release(&view);
    return why;
}

// Of bytes, after `mark`: says whether two models are the same, not whether somebody forged one. FNV-1a over 64-bit
// words, each mixed as in MurmurHash3's finaliser.
uint64_t fingerprint(uint64_t mark, const nb::object& bytes) {
    Py_buffer view;
    if (PyObject_GetBuffer(bytes.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw nb::python_error();
    const auto* at = static_cast<const uint8_t*>(view.buf);
    uint64_t found = mark ^ 0xcbf29ce484222325u ^ static_cast<uint64_t>(view.len);
    for (Py_ssize_t left = view.len; left > 0; left -= 8, at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, at, static_cast<size_t>(std::min<Py_ssize_t>(left, 8)));
        word = (word ^ (word >> 33)) * 0xff51afd7ed558ccdu;
        found = (found ^ word ^ (word >> 33)) * 0x00000100000001b3u;
        found ^= found >> 29;
    }
    PyBuffer_Release(&view);
    return found;
}

class Streams {
  public:
    Streams(const Streams&) = delete;
    explicit Streams(Program& program, nb::tuple names, nb::object classes)
        : answer_{names, classes}, program_(program), slab_(program) {
        numbers_.resize(program.numbers.size());
        codes_.resize(program.categories.size());
        calendar_.resize(static_cast<size_t>(program.calendar));
        out_.resize(static_cast<size_t>(program.outputs()));
        kept_.resize(program.bytes());
    }

    int64_t count() const { return slab_.count(); }
    void grow(int64_t count) { slab_.grow(count); }

    // Stream k as before its first row. Without values a model with static columns waits for them.
    int64_t begin(int64_t k, const std::optional<Vector>& values,
                  const std::optional<Array<const int64_t, nb::ndim<1>>>& codes) {
        require(k);
        if (values && (!codes || static_cast<int64_t>(values->shape(0)) != program_.static_values() ||
                       codes->shape(0) != program_.static_categories.size()))
            throw std::invalid_argument("static values and codes do not fit the model");
        return code_of(
            program_.begin(slab_.at(k), values ? values->data() : nullptr, values ? codes->data() : nullptr));
    }

    bool begun(int64_t k) const { return require(k), program_.begun(slab_.at(k)); }
    int64_t rows(int64_t k) const { return require(k), program_.rows(slab_.at(k)); }
    double time(int64_t k) const { return require(k), program_.time(slab_.at(k)); }

    // One row of stream k: what the head gives, or a number that says why the row is refused (see streams.py).
    nb::object push(int64_t k, nb::handle numbers, nb::handle time, nb::handle codes, nb::handle calendar) {
        require(k);
        if (const int64_t why = read_numbers(numbers.ptr(), numbers_)) return nb::int_(why);
        if (!codes.is_none())
            if (const int64_t why = read_codes(codes.ptr())) return nb::int_(why);
        if (!calendar.is_none())
            if (const int64_t why = read_numbers(calendar.ptr(), calendar_)) return nb::int_(why);
        void* stream = slab_.at(k);
        double when = static_cast<double>(program_.rows(stream));
        if (!time.is_none()) {
            when = PyFloat_AsDouble(time.ptr());
            if (when == -1.0 && PyErr_Occurred()) {
                PyErr_Clear();
                return nb::int_(static_cast<int>(Misfit::time));
            }
        }
        const Row row{numbers_.data(), codes_.data(), calendar_.data(), when};
        const Verdict verdict = program_.check(stream, row);
        if (verdict.why != Refusal::none) return nb::int_(code_of(verdict));
        program_.push(stream, row, out_.data());
        return nb::steal(answer_.of(program_, out_.data()));
    }

    // Rows [n] of the streams `which` [n], in order; a number as `push` gives, and the row that it is about; or 0.
    nb::tuple push_many(const Array<const int64_t, nb::ndim<1>>& which, const Array<const double, nb::ndim<2>>& numbers,
                        const std::optional<Array<const double, nb::ndim<1>>>& time,
                        const std::optional<Array<const int64_t, nb::ndim<2>>>& codes,
                        const std::optional<Array<const double, nb::ndim<2>>>& calendar,
                        const Array<double, nb::ndim<2>>& out) {
        const auto n = static_cast<int64_t>(which.shape(0));
        const auto fits = [&](const auto& array, size_t columns) {
            return static_cast<int64_t>(array.shape(0)) == n && array.shape(1) == columns;
        };
        if (!fits(numbers, numbers_.size()) || !fits(out, out_.size()) ||
            (codes ? !fits(*codes, codes_.size()) : !codes_.empty()) ||
            (calendar ? !fits(*calendar, calendar_.size()) : !calendar_.empty()) ||
            (time && static_cast<int64_t>(time->shape(0)) != n))
            throw std::invalid_argument("the arrays of push_many do not fit the model");
        many_.clear();
        if (!time) ahead_.assign(static_cast<size_t>(count()), 0);
        for (int64_t r = 0; r < n; ++r) {
            const int64_t k = which.data()[r];
            require(k);
            if (r + 16 < n) slab_.fetch(which.data()[r + 16]);
            const double when =
                time ? time->data()[r]
                     : static_cast<double>(program_.rows(slab_.at(k)) + ahead_[static_cast<size_t>(k)]++);
            many_.push_back({numbers.data() + r * static_cast<int64_t>(numbers_.size()),
                             codes ? codes->data() + r * static_cast<int64_t>(codes_.size()) : nullptr,
                             calendar ? calendar->data() + r * static_cast<int64_t>(calendar_.size()) : nullptr, when});
        }
        int64_t refused = 0;
        const Verdict verdict = slab_.check(n, which.data(), many_.data(), refused);
        if (verdict.why == Refusal::none) slab_.push(n, which.data(), many_.data(), out.data());
        return nb::make_tuple(code_of(verdict), refused);
    }

    nb::bytes save(int64_t k) const {
        require(k);
        std::vector<uint8_t> plain(program_.plain_bytes());
        program_.save(slab_.at(k), plain.data());
        return nb::bytes(plain.data(), plain.size());
    }

    bool load(int64_t k, const nb::bytes& plain) {
        require(k);
        return plain.size() == program_.plain_bytes() &&
               program_.load(static_cast<const uint8_t*>(plain.data()), slab_.at(k));
    }

    // Stream k is put aside, for rows that are pushed together or not at all.
    void keep(int64_t k) { require(k), std::memcpy(kept_.data(), slab_.at(k), kept_.size()); }
    void back(int64_t k) { require(k), std::memcpy(slab_.at(k), kept_.data(), kept_.size()); }

  private:
    void require(int64_t k) const {
        if (k < 0 || k >= slab_.count()) throw std::out_of_range("there is no stream of this number");
    }

    int64_t read_codes(PyObject* from) {
        if (!PyList_CheckExact(from) || PyList_GET_SIZE(from) != static_cast<Py_ssize_t>(codes_.size()))
            return static_cast<int64_t>(Misfit::length);
        for (size_t k = 0; k < codes_.size(); ++k) {
            codes_[k] = PyLong_AsLongLong(PyList_GET_ITEM(from, static_cast<Py_ssize_t>(k)));
            if (codes_[k] == -1 && PyErr_Occurred()) throw nb::python_error();
        }
        return 0;
    }

    Answer answer_;
    Program& program_;
    carousel::Slab slab_;
    std::vector<double> numbers_, calendar_, out_;
    std::vector<int64_t> codes_, ahead_;
    std::vector<Row> many_;
    std::vector<uint8_t> kept_;
};

}  // namespace

void bind_streams(nb::module_& m) {
    nb::class_<Walker>(m, "Stack")
        .def(nb::init<>())
        .def("add_layer",
             [](Walker& self, int64_t I, int64_t H, int64_t P, bool bias, bool peephole, bool coupled, bool layer_norm,
                bool decay, bool projection, double cell_clip, double zoneout_c, double zoneout_h,
                const Tensors& weights, int storage) {
                 add_layer(self.stack, I, H, P, bias, peephole, coupled, layer_norm, decay, projection, cell_clip,
                           zoneout_c, zoneout_h, weights, storage, false);
             })
        .def("reset", &Walker::reset)
        .def("run", &Walker::run, nb::arg("x"), nb::arg("elapsed").none(), nb::arg("y").none())
        .def("timed", &Walker::timed)
        .def("top", &Walker::top);
    m.def("fingerprint", &fingerprint);
    bind_windows(m);
    nb::class_<carousel::Places>(m, "Places")
        .def(nb::init<>())
        .def("put", &carousel::Places::put)
        .def("drop", &carousel::Places::drop)
        .def("find", [](const carousel::Places& self, const Array<const int64_t, nb::ndim<1>>& keys,
                        const Array<int64_t, nb::ndim<1>>& places) {
            if (keys.shape(0) != places.shape(0)) throw std::invalid_argument("keys and places are as many");
            return self.find(static_cast<int64_t>(keys.shape(0)), keys.data(), places.data());
        });
    nb::class_<Program>(m, "Program")
        .def(
            "__init__",
            [](Program* self, double unit, double bound, bool uneven, int64_t calendar, int64_t members, bool rows) {
                new (self) Program();
                self->unit = unit;
                self->bound = bound;
                self->uneven = uneven;
                self->calendar = calendar;
                self->with_rows = rows;
                self->stacks.resize(static_cast<size_t>(members));
                self->heads.resize(static_cast<size_t>(members));
                self->initial.resize(static_cast<size_t>(members));
            },
            nb::arg("unit"), nb::arg("bound"), nb::arg("uneven"), nb::arg("calendar"), nb::arg("members"),
            nb::arg("rows"))
        .def("add_number",
             [](Program& self, bool fixed, double mean, double scale, double squash, bool gaps) {
                 (fixed ? self.static_numbers : self.numbers).push_back({mean, scale, squash, gaps});
             })
        .def("add_embedding",
             [](Program& self, bool fixed, const Array<const float, nb::ndim<3>>& table) {
                 if (table.shape(0) != self.stacks.size())
                     throw std::invalid_argument("an embedding has one table for each member");
                 (fixed ? self.static_categories : self.categories)
                     .push_back({static_cast<int64_t>(table.shape(1)), static_cast<int64_t>(table.shape(2)),
                                 std::vector<float>(table.data(), table.data() + table.size())});
             })
        .def("add_layer",
             [](Program& self, size_t member, int64_t I, int64_t H, int64_t P, bool bias, bool peephole, bool coupled,
                bool layer_norm, bool decay, bool projection, double cell_clip, double zoneout_c, double zoneout_h,
                const Tensors& weights, int storage) {
                 add_layer(self.stacks.at(member), I, H, P, bias, peephole, coupled, layer_norm, decay, projection,
                           cell_clip, zoneout_c, zoneout_h, weights, storage, self.with_rows);
             })
        .def(
            "set_head",
            [](Program& self, size_t member, const std::optional<Matrix>& hidden, const std::optional<Vector>& bias,
               const Matrix& out, const Vector& out_bias, const std::optional<Matrix>& attention) {
                carousel::Head& head = self.heads.at(member);
                if (hidden) head.hidden = dense(*hidden, bias);
                if (attention) head.attention = dense(*attention, {});
                head.out = dense(out, out_bias);
            },
            nb::arg("member"), nb::arg("hidden").none(), nb::arg("hidden_bias").none(), nb::arg("out"),
            nb::arg("out_bias"), nb::arg("attention").none())
        .def("set_initial", [](Program& self, size_t member, const Matrix& weight,
                               const Vector& bias) { self.initial.at(member) = dense(weight, bias); })
        .def("set_read_out",
             [](Program& self, int pooling, int kind, double temperature, double mean, double scale,
                const std::vector<double>& errors, double threshold) {
                 self.pooling = static_cast<carousel::Pooling>(pooling);
                 self.read_out = static_cast<carousel::ReadOut>(kind);
                 self.temperature = temperature;
                 self.mean = mean;
                 self.scale = scale;
                 self.errors = errors;
                 self.threshold = threshold;
             })
        .def(
            "set_scores",
            [](Program& self, const std::vector<int64_t>& columns, const std::vector<double>& keep,
               const std::vector<double>& floor, bool history, int64_t rest, double threshold) {
                self.scored = columns;
                self.scorer.keep = keep;
                self.scorer.floor = floor;
                self.scorer.history = history;
                self.scorer.rest = rest;
                self.scorer.threshold = threshold;
            },
            nb::arg("columns"), nb::arg("keep"), nb::arg("floor"), nb::arg("history"), nb::arg("rest"),
            nb::arg("threshold"))
        .def(
            "add_view",
            [](Program& self, bool of_errors, int64_t rows, const std::vector<double>& centre,
               const std::vector<double>& spread, const std::vector<double>& low, const std::vector<double>& high,
               const std::vector<double>& correlation, const std::vector<double>& inverse, double limit,
               double largest) {
                self.scorer.views.push_back(
                    {of_errors, rows, centre, spread, low, high, correlation, inverse, limit, largest});
            },
            nb::arg("of_errors"), nb::arg("rows"), nb::arg("centre"), nb::arg("spread"), nb::arg("low"),
            nb::arg("high"), nb::arg("correlation"), nb::arg("inverse"), nb::arg("limit"), nb::arg("largest"))
        .def("finish", &Program::finish)
        .def_prop_ro("outputs", &Program::outputs)
        .def_prop_ro("stream_bytes", &Program::bytes);
    nb::class_<Streams>(m, "Streams")
        .def(nb::init<Program&, nb::tuple, nb::object>(), nb::keep_alive<1, 2>(), nb::arg("program"), nb::arg("names"),
             nb::arg("classes").none())
        .def_prop_ro("count", &Streams::count)
        .def("grow", &Streams::grow)
        .def("begin", &Streams::begin, nb::arg("k"), nb::arg("values").none(), nb::arg("codes").none())
        .def("begun", &Streams::begun)
        .def("rows", &Streams::rows)
        .def("time", &Streams::time)
        .def("push", &Streams::push, nb::arg("k"), nb::arg("numbers").none(), nb::arg("time").none(),
             nb::arg("codes").none(), nb::arg("calendar").none())
        .def("push_many", &Streams::push_many, nb::arg("which"), nb::arg("numbers"), nb::arg("time").none(),
             nb::arg("codes").none(), nb::arg("calendar").none(), nb::arg("out"))
        .def("save", &Streams::save)
        .def("load", &Streams::load)
        .def("keep", &Streams::keep)
        .def("back", &Streams::back);
}
