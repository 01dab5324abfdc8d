// Streams of a whole program: nothing is allocated after the first row, many give the bits of one, what is refused
// changes nothing, and a state goes through its plain form and back.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../src/stream.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

// Every allocation with new is counted; `allocate` of plan.h is called when a layer is added or a slab grows.
// Inlined, these would look like a mismatch to GCC.
[[gnu::noinline]] void* operator new(size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size ? size : 1)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

using carousel::Pooling;
using carousel::Program;
using carousel::ReadOut;
using carousel::Refusal;
using carousel::Row;
typedef std::vector<float> Floats;

int failures = 0;

void expect(bool good, const char* what) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "FAILED: %s\n", what);
}

std::mt19937 generator(5);

Floats drawn(int64_t n, float scale) {
    std::uniform_real_distribution<float> draw(-scale, scale);
    Floats v(static_cast<size_t>(n));
    for (float& x : v) x = draw(generator);
    return v;
}

void add_layer(carousel::Stack& stack, int64_t I, int64_t H, bool rows) {
    carousel::Layer layer;
    layer.spec.decay = true;
    layer.sizes = {I, H, H, 0, 0, 0, 1};
    const Floats ih = drawn(4 * H * I, .4f), hh = drawn(4 * H * H, .4f), bias = drawn(4 * H, .4f), rate = drawn(H, 1);
    carousel::Weights w;
    const auto at = [](const Floats& v) { return const_cast<float*>(v.data()); };
    w.weight_ih = at(ih), w.weight_hh = at(hh), w.bias_ih = w.bias_hh = at(bias), w.decay_rate = at(rate);
    stack.add(layer, w, carousel::Storage::f32, rows);
}

constexpr int64_t members = 2, H = 19, classes = 3, width = 6, scored = 2;

// Two columns, one of them with gaps, seen in three ways.
void add_scores(Program& p, bool history) {
    p.scored = {0, 2};
    p.scorer.keep = {1, .9}, p.scorer.floor = {.1, .1};
    p.scorer.history = history, p.scorer.rest = history ? 2 : 0, p.scorer.threshold = .2;
    for (const auto& [of_errors, rows] : {std::pair(true, 1), std::pair(true, 4), std::pair(false, 3)})
        p.scorer.views.push_back({of_errors,
                                  rows,
                                  {.1, -.2},
                                  {1.1, .9},
                                  {-1, -1},
                                  {1, 1},
                                  {1, .3, .3, 1},
                                  {1 / .91, -.3 / .91, -.3 / .91, 1 / .91},
                                  1.5,
                                  1.2});
}

// Three numbers (one plain, one squashed, one with gaps), a category, static columns, two members of two layers.
void build(Program& p, Pooling pooling, ReadOut read_out) {
    p.unit = 2;
    p.uneven = p.with_rows = true;
    p.calendar = 2;
    p.numbers = {{1, 2, 0, false}, {0, .5, 3, false}, {-1, 4, 0, true}};
    p.static_numbers = {{0, 1, 0, true}};
    p.categories = {{4, 2, drawn(members * 4 * 2, 1)}};
    p.static_categories = {{3, 3, drawn(members * 3 * 3, 1)}};
    const int64_t fixed = 2 + 3, I = 2 + 4 + 1 + 2 + 2 + fixed,
                  outputs = read_out == ReadOut::label   ? classes
                            : read_out == ReadOut::score ? 2 * scored
                                                         : 1;
    p.stacks.resize(members), p.heads.resize(members), p.initial.resize(members);
    for (size_t m = 0; m < members; ++m) {
        add_layer(p.stacks[m], I, H, true);
        add_layer(p.stacks[m], H, H, true);
        const Floats a = drawn(width * H, .5f), b = drawn(width, .5f), c = drawn(outputs * width, .5f);
        const Floats d = drawn(outputs, .5f), e = drawn(4 * H * fixed, .5f), f = drawn(4 * H, .5f), g = drawn(H, .5f);
        p.heads[m].hidden = carousel::Dense(a.data(), b.data(), width, H);
        p.heads[m].out = carousel::Dense(c.data(), d.data(), outputs, width);
        if (pooling == Pooling::attention) p.heads[m].attention = carousel::Dense(g.data(), nullptr, 1, H);
        p.initial[m] = carousel::Dense(e.data(), f.data(), 4 * H, fixed);
    }
    p.pooling = pooling;
    p.read_out = read_out;
    p.temperature = 1.5;
    if (read_out == ReadOut::regression) p.errors = {-1, 1};
    if (read_out == ReadOut::score) add_scores(p, pooling == Pooling::max);
    p.finish();
}

struct Rows {
    std::vector<double> numbers, calendar, time;
    std::vector<int64_t> codes;
    explicit Rows(int64_t n) {
        std::uniform_real_distribution<double> draw(-4, 4);
        double at = 0;
        for (int64_t k = 0; k < n; ++k) {
            for (int j = 0; j < 3; ++j) numbers.push_back(draw(generator));
            if (k % 3 == 1) numbers.back() = std::numeric_limits<double>::quiet_NaN();
            for (int j = 0; j < 2; ++j) calendar.push_back(draw(generator));
            codes.push_back(k % 4);
            time.push_back(at += std::abs(draw(generator)));
        }
    }
    Row at(size_t k) const { return {numbers.data() + 3 * k, codes.data() + k, calendar.data() + 2 * k, time[k]}; }
};

bool same(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

constexpr float value[] = {0.3f, 1.0f};
constexpr int64_t code[] = {2};

void try_program(Pooling pooling, ReadOut read_out) {
    Program p;
    build(p, pooling, read_out);
    const auto outputs = static_cast<size_t>(p.outputs());
    constexpr size_t T = 12;
    const Rows rows(T);
    carousel::Slab one(p);
    one.grow(1);
    expect(p.check(one.at(0), rows.at(0)).why == Refusal::no_static, "rows wait for static columns");
    p.begin(one.at(0), value, code);
    std::vector<double> found(T * outputs);
    const auto push = [&](void* stream, size_t t, double* to) {
        expect(p.check(stream, rows.at(t)).why == Refusal::none, "a good row passes");
        p.push(stream, rows.at(t), to);
    };
    push(one.at(0), 0, found.data());
    const int64_t before = allocations;
    for (size_t t = 1; t < T; ++t) push(one.at(0), t, found.data() + t * outputs);
    expect(allocations == before, "a row allocates nothing");
    for (const double y : found) expect(std::isfinite(y), "answers are finite");

    // The same rows to 70 streams at once, which is more than a chunk holds.
    constexpr int64_t streams = 70;
    carousel::Slab many(p);
    many.grow(streams);
    std::vector<int64_t> which;
    for (int64_t k = 0; k < streams; ++k) which.push_back(k), p.begin(many.at(k), value, code);
    std::vector<double> all(static_cast<size_t>(streams) * outputs);
    for (size_t t = 0; t < T; ++t) {
        const std::vector<Row> row(static_cast<size_t>(streams), rows.at(t));
        int64_t refused = 0;
        expect(many.check(streams, which.data(), row.data(), refused).why == Refusal::none, "good rows pass");
        many.push(streams, which.data(), row.data(), all.data());
        for (size_t k = 0; k < static_cast<size_t>(streams); ++k)
            expect(std::memcmp(all.data() + k * outputs, found.data() + t * outputs, outputs * sizeof(double)) == 0,
                   "many streams give the bits of one");
    }

    // Through the plain form and back, in the middle.
    carousel::Slab two(p);
    two.grow(1);
    p.begin(two.at(0), value, code);
    std::vector<double> again(T * outputs);
    std::vector<uint8_t> plain(p.plain_bytes()), twice(p.plain_bytes());
    for (size_t t = 0; t < T; ++t) {
        push(two.at(0), t, again.data() + t * outputs);
        p.save(two.at(0), plain.data());
        carousel::Slab other(p);
        other.grow(1);
        expect(p.load(plain.data(), other.at(0)), "a state is taken back");
        p.save(other.at(0), twice.data());
        expect(plain == twice, "a state comes back as it was");
        p.load(twice.data(), two.at(0));
    }
    expect(same(found, again), "a restored stream goes on with the same bits");
    std::fill_n(plain.data() + 8, 8, uint8_t{9});
    expect(!p.load(plain.data(), two.at(0)), "a damaged state is refused");

    // What is refused.
    const auto refused = [&](Refusal why, int64_t column, auto change) {
        Rows bad = rows;
        change(bad);
        const carousel::Verdict v = p.check(one.at(0), bad.at(T - 1));
        expect(v.why == why && v.column == column, "a bad row is refused with its reason");
    };
    constexpr double infinite = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    constexpr size_t last = 3 * (T - 1);
    refused(Refusal::missing, 1, [&](Rows& r) { r.numbers[last + 1] = nan; });
    refused(Refusal::infinite, 2, [&](Rows& r) { r.numbers[last + 2] = -infinite; });
    refused(Refusal::infinite, 0, [&](Rows& r) { r.numbers[last] = 1e200; });
    refused(Refusal::no_time, 0, [&](Rows& r) { r.time.back() = nan; });
    refused(Refusal::backwards, 0, [&](Rows& r) { r.time.back() -= 100; });
    refused(Refusal::unknown_code, 0, [&](Rows& r) { r.codes.back() = 4; });
    refused(Refusal::none, 0, [&](Rows& r) { r.numbers[last + 2] = nan; });
}

// Scaling without a division rounds as a division does; what is beyond, infinite or missing is told.
void try_scaling() {
    constexpr size_t n = 1003;
    std::vector<double> x(n), mean(n), scale(n), inverse(n);
    std::vector<float> y(n);
    std::uniform_real_distribution<double> draw(-1, 1);
    for (int round = 0; round < 40; ++round) {
        for (size_t k = 0; k < n; ++k) {
            x[k] = draw(generator) * std::pow(10.0, draw(generator) * (round % 4 == 3 ? 139 : 6));
            mean[k] = round % 2 ? draw(generator) : 0;
            scale[k] = std::abs(draw(generator) + 1.001) * std::pow(10.0, draw(generator) * (round % 4 == 3 ? 99 : 3));
            inverse[k] = 1 / scale[k];
        }
        const carousel::Scaling by{mean.data(), scale.data(), inverse.data(), 1e30, 1e140};
        expect(carousel::step_kernels().scale(x.data(), by, n, y.data()), "numbers are numbers");
        for (size_t k = 0; k < n; ++k) {
            const auto exact = static_cast<float>(std::min(std::max((x[k] - mean[k]) / scale[k], -1e30), 1e30));
            expect(y[k] == exact, "a scaled number is rounded as a quotient is");
        }
        for (const double bad :
             {std::numeric_limits<double>::quiet_NaN(), -1e141, std::numeric_limits<double>::infinity()})
            for (const size_t at : {size_t{0}, size_t{9}, n - 1}) {
                const double before = std::exchange(x[at], bad);
                expect(!carousel::step_kernels().scale(x.data(), by, n, y.data()), "what is no number is told");
                x[at] = before;
            }
    }
}

}  // namespace

int main() {
    try {
        std::printf("instruction set: %s\n", carousel::instruction_set());
    } catch (const std::invalid_argument& error) {
        std::printf("skipped: %s\n", error.what());
        return 77;
    }
    for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::max, Pooling::attention})
        for (const ReadOut read_out : {ReadOut::label, ReadOut::regression, ReadOut::event, ReadOut::score})
            try_program(pooling, read_out);
    try_scaling();
    if (failures) std::fprintf(stderr, "%d checks failed\n", failures);
    return failures ? 1 : 0;
}
