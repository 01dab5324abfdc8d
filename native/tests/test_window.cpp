// Forecasts of series: nothing is allocated after the first, many at once give the bits of one, what a window does not
// see changes nothing, and a block of memory is all that a series is.
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
#include <vector>

#include "../src/window.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

[[gnu::noinline]] void* operator new(size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size ? size : 1)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

using carousel::Forecast;
using carousel::StepsAhead;
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

carousel::Dense dense(int64_t outputs, int64_t inputs) {
    const Floats weight = drawn(outputs * inputs, .3f), bias = drawn(outputs, .3f);
    return carousel::Dense(weight.data(), bias.data(), outputs, inputs);
}

constexpr int64_t members = 2, targets = 2, context = 9, horizon = 5, hidden = 19, width = 7, quantiles = 3;

// Two targets, two seasons, a number and a category of each role, two members of one layer.
void build(Forecast& f, bool uneven) {
    f.context = context, f.horizon = horizon, f.targets = targets;
    if (!uneven) f.seasons = {2, 4};
    f.feature_numbers = f.known_numbers = f.static_numbers = 2;
    f.uneven = uneven, f.from_last = !uneven, f.with_rows = true;
    f.step = 1.5;
    for (auto* books : {&f.features, &f.known, &f.fixed}) books->push_back({4, 3, drawn(members * 4 * 3, 1)});
    const auto S = static_cast<int64_t>(f.seasons.size()), bases = 2 + 2 * S;
    const int64_t I = targets * (4 + S) + 2 + 2 + uneven + 6, A = targets * 4 * S + 2 + uneven + 3;
    f.stacks.resize(members), f.decoders.resize(members);
    for (size_t m = 0; m < members; ++m) {
        carousel::Layer layer;
        layer.spec.decay = true;
        layer.sizes = {I, hidden, hidden, 0, 0, 0, 1};
        Floats ih = drawn(4 * hidden * I, .3f), hh = drawn(4 * hidden * hidden, .3f), bias = drawn(4 * hidden, .3f);
        Floats rate = drawn(hidden, 1);
        carousel::Weights w;
        w.weight_ih = ih.data(), w.weight_hh = hh.data(), w.bias_ih = w.bias_hh = bias.data();
        w.decay_rate = rate.data();
        f.stacks[m].add(layer, w, carousel::Storage::f32, true);
        carousel::Decoder& d = f.decoders[m];
        d.state = dense(width, hidden + 2 * targets + 2 + 3);
        d.ahead = dense(width, A);
        d.hidden = dense(width, width);
        d.out = dense(targets * quantiles, width);
        d.gate = dense(targets * bases, width);
        d.linear = dense(horizon, context + 1);
        d.step = drawn(horizon * width, .3f), d.gate_step = drawn(horizon * targets * bases, .3f);
    }
    f.median = 1;
    f.factors = {1.2, 1, 1.1};
    f.finish();
}

// Rows and steps ahead; what is missing is NaN, at first for longer than a window sees.
struct Rows {
    std::vector<double> numbers, time, ahead_time, ahead;
    std::vector<int64_t> codes, ahead_codes;
    explicit Rows(int64_t n) {
        std::uniform_real_distribution<double> draw(-3, 3);
        double at = 5;
        for (int64_t k = 0; k < n; ++k) {
            for (int j = 0; j < 6; ++j) numbers.push_back(draw(generator));
            if (k % 3 == 1 || k < 12) numbers[static_cast<size_t>(6 * k)] = std::numeric_limits<double>::quiet_NaN();
            codes.push_back(k % 4);
            time.push_back(at += std::abs(draw(generator)));
        }
        for (int64_t h = 0; h < horizon; ++h) {
            ahead_time.push_back(at + 1.5 * static_cast<double>(h + 1));
            ahead_codes.push_back(h % 4);
            for (int j = 0; j < 2; ++j) ahead.push_back(draw(generator));
        }
    }
    carousel::SeriesRow at(size_t k) const {
        const double* own = numbers.data() + 6 * k;
        return {time[k], own, own + 2, own + 4, codes.data() + k, codes.data() + k};
    }
    StepsAhead following() const { return {ahead_time.data(), ahead.data(), ahead_codes.data()}; }
};

void try_forecast(bool uneven) {
    Forecast f;
    build(f, uneven);
    constexpr size_t T = 40, series = 60;  // more than a group holds
    const Rows rows(T);
    const StepsAhead ahead = rows.following();
    const auto outputs = static_cast<size_t>(f.outputs());
    std::vector<std::vector<uint8_t>> blocks(series, std::vector<uint8_t>(f.bytes() + 64));
    std::vector<void*> at;
    const float numbers[] = {.4f, 1};
    const int64_t code = 3;
    for (auto& block : blocks) {
        at.push_back(reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block.data()) + 63) / 64 * 64));
        f.begin(at.back());
        f.set_static(at.back(), numbers, &code);
    }
    std::vector<double> out(outputs), all(series * outputs), again(outputs);
    int64_t before = 0;
    for (size_t t = 0; t < T; ++t) {
        f.append(at[0], rows.at(t));
        f.forecast(1, at.data(), &ahead, out.data());
        if (t == 0) before = allocations;
        const bool any = std::isfinite(out[0]);
        expect(any == (t > 13), "a forecast takes two values of every target");
        for (size_t k = 1; any && k < outputs; ++k)
            expect(std::isfinite(out[k]) && (k % quantiles == 0 || out[k] >= out[k - 1]), "quantiles ascend");
    }
    expect(allocations == before, "a row allocates nothing");

    // Series that began later differ; each gives alone what it gives among the others.
    for (size_t k = 1; k < series; ++k)
        for (size_t t = k % 20; t < T; ++t) f.append(at[k], rows.at(t));
    const std::vector<StepsAhead> each(series, ahead);
    f.forecast(series, at.data(), each.data(), all.data());
    for (size_t k = 0; k < series; ++k) {
        f.forecast(1, at.data() + k, &ahead, again.data());
        expect(std::memcmp(again.data(), all.data() + k * outputs, outputs * sizeof(double)) == 0,
               "many series give the bits of one");
    }
    expect(std::memcmp(out.data(), all.data(), outputs * sizeof(double)) == 0, "a forecast changes no series");
    expect(std::memcmp(out.data(), all.data() + outputs, outputs * sizeof(double)) != 0, "the beginning counts");

    // A block is all that a series is; what cannot be one is told.
    std::vector<uint8_t> kept(f.bytes() + 64);
    void* copy = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(kept.data()) + 63) / 64 * 64);
    std::memcpy(copy, at[0], f.bytes());
    expect(f.sound(copy), "a copy is sound");
    f.forecast(1, &copy, &ahead, again.data());
    expect(std::memcmp(out.data(), again.data(), outputs * sizeof(double)) == 0, "a copy gives the same bits");
    for (const size_t word : {size_t{0}, size_t{1}, size_t{2}}) {
        std::memcpy(copy, at[0], f.bytes());
        static_cast<int64_t*>(copy)[word] = word ? 1000 : -1;
        expect(!f.sound(copy), "a damaged block is told");
    }
    Rows bad = rows;
    bad.codes[0] = 4;
    try {
        f.append(at[0], bad.at(0));
        expect(false, "a code out of range is refused");
    } catch (const std::invalid_argument&) {
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
    for (const bool uneven : {false, true}) try_forecast(uneven);
    if (failures) std::fprintf(stderr, "%d checks failed\n", failures);
    return failures ? 1 : 0;
}
