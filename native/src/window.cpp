#include "window.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "plan.h"

namespace carousel {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr float never = -1;  // the age before a first observation
constexpr int64_t per_target = 4, per_lag = 4;
constexpr int64_t most_rows = int64_t{1} << 53;  // of a series; counts beyond it come from no series
constexpr double most_bytes = 4e9;               // of a series

size_t size_of(int64_t n) { return static_cast<size_t>(n); }
int64_t count_of(const auto& items) { return static_cast<int64_t>(items.size()); }
int64_t width_of(const std::vector<Codebook>& books) {
    int64_t found = 0;
    for (const Codebook& b : books) found += b.width;
    return found;
}

void expect_codes(const std::vector<Codebook>& books, const int64_t* codes) {
    for (size_t k = 0; k < books.size(); ++k)
        if (codes[k] < 0 || codes[k] >= books[k].codes)
            throw std::invalid_argument("a category's code is out of range");
}

}  // namespace

void Forecast::finish() {
    const int64_t K = targets, S = count_of(seasons), H = horizon, lanes = step_kernels().lanes;
    const auto whole = [&](int64_t n) { return (n + lanes - 1) / lanes * lanes; };
    if (context < 1 || H < 1 || K < 1 || stacks.empty() || decoders.size() != stacks.size())
        throw std::invalid_argument("a forecast has context, horizon, targets and members");
    reach_ = context;
    for (const int64_t m : seasons) {
        if (m < 1 || m > most_rows) throw std::invalid_argument("a season has too many rows, or none");
        reach_ = std::max(reach_, context + m);
    }
    channels_ = K * (per_target + S);
    row_numbers_ = feature_numbers + known_numbers + uneven;
    row_codes_ = count_of(features) + count_of(known);
    step_numbers_ = channels_ + row_numbers_;
    ahead_numbers_ = per_lag * K * S + known_numbers + uneven;
    if (static_cast<double>(reach_) * static_cast<double>(2 + 2 * K + row_numbers_ + row_codes_) * 8 > most_bytes)
        throw std::invalid_argument("a window reaches further back than a stream can keep");
    input_ = step_numbers_ + width_of(features) + width_of(known);
    ahead_ = ahead_numbers_ + width_of(known);
    fixed_ = 2 * K + static_numbers + width_of(fixed);
    bases_ = 2 + 2 * S;
    width_ = decoders.front().hidden.outputs();
    const int64_t Q = quantiles(), P = stacks.front().output();
    for (size_t m = 0; m < stacks.size(); ++m) {
        const Decoder& d = decoders[m];
        if (stacks[m].input() != input_ || stacks[m].output() != P || d.state.inputs() != P + fixed_ ||
            d.state.outputs() != width_ || d.hidden.inputs() != width_ || d.out.inputs() != width_ ||
            d.out.outputs() != K * Q || d.gate.inputs() != width_ || d.gate.outputs() != K * bases_ ||
            d.linear.inputs() != context + 1 || d.linear.outputs() != H || count_of(d.step) != H * width_ ||
            count_of(d.gate_step) != H * K * bases_ || bool(d.ahead) != (ahead_ > 0) ||
            (d.ahead && (d.ahead.inputs() != ahead_ || d.ahead.outputs() != width_)))
            throw std::invalid_argument("the sizes of stack and decoder do not fit the input");
    }
    const int64_t words = 4 + reach_ * (1 + K) + K * (8 + S) + reach_ * row_codes_ + count_of(fixed);
    const int64_t floats = reach_ * (K + 1 + row_numbers_) + static_numbers;
    floats_at_ = size_of(words) * 8;
    bytes_ = floats_at_ + (size_of(floats) * 4 + 7) / 8 * 8;
    group_ = with_rows ? step_rows : 1;
    window_floats_ = size_of(whole(context * input_) + whole(context) + whole(H * ahead_) + whole(P + fixed_) +
                             whole(K * (context + 1)) + whole(H * K * bases_));
    windows_memory_.reset(allocate(size_of(group_) * window_floats_ * sizeof(float)));
    scales_.assign(size_of(group_ * 2 * K), 0.0);
    windows_.clear();
    for (int64_t n = 0; n < group_; ++n) {
        float* at = static_cast<float*>(windows_memory_.get()) + size_of(n) * window_floats_;
        const auto take = [&](int64_t count) { return std::exchange(at, at + whole(count)); };
        Window w{};
        w.steps = take(context * input_), w.elapsed = take(context), w.ahead = take(H * ahead_);
        w.fixed = take(P + fixed_), w.linear = take(K * (context + 1)), w.base = take(H * K * bases_);
        w.level = scales_.data() + n * 2 * K, w.spread = w.level + K;
        windows_.push_back(w);
    }
    state_floats_ = whole(stacks.front().state_floats());
    states_.reset(allocate(size_of(group_ * state_floats_) * sizeof(float)));
    const Decoder& d = decoders.front();
    past_.assign(size_of((reach_ + 1) * K), 0);
    z_.assign(size_of(H * d.hidden.padded()), 0);
    inner_.assign(size_of(H * d.hidden.padded() + d.state.padded()), 0);
    raw_.assign(size_of(H * d.out.padded()), 0);
    gate_.assign(size_of(H * d.gate.padded()), 0);
    straight_.assign(size_of(K * d.linear.padded()), 0);
    pointers_.assign(size_of(std::max(H, K)), nullptr);
}

Forecast::View Forecast::view(const void* series) const {
    auto* memory = static_cast<uint8_t*>(const_cast<void*>(series));
    auto* words = reinterpret_cast<int64_t*>(memory);
    auto* doubles = reinterpret_cast<double*>(memory) + 4;
    auto* floats = reinterpret_cast<float*>(memory + floats_at_);
    const int64_t K = targets;
    const auto take = [&](int64_t n) { return std::exchange(doubles, doubles + n); };
    const auto take_floats = [&](int64_t n) { return std::exchange(floats, floats + n); };
    View v{};
    v.rows = words, v.start = words + 1, v.oldest = words + 2;
    v.first = reinterpret_cast<double*>(words + 3);
    v.time = take(reach_), v.target = take(reach_ * K);
    v.value = take(K), v.seen_time = take(K), v.count = take(K), v.sum = take(K), v.changes = take(K);
    v.change = take(K), v.mean = take(K), v.before = take(K * count_of(seasons));
    v.seen_row = reinterpret_cast<int64_t*>(take(K));
    v.codes = reinterpret_cast<int64_t*>(take(reach_ * row_codes_));
    v.static_codes = reinterpret_cast<int64_t*>(take(count_of(fixed)));
    v.age = take_floats(reach_ * K), v.elapsed = take_floats(reach_), v.numbers = take_floats(reach_ * row_numbers_);
    v.statics = take_floats(static_numbers);
    return v;
}

void Forecast::begin(void* series) const {
    std::memset(series, 0, bytes_);
    const View v = view(series);
    const int64_t K = targets;
    *v.start = reach_;
    std::fill_n(v.target, reach_ * K, nan_value);
    std::fill_n(v.value, K, nan_value);
    std::fill_n(v.seen_time, K, nan_value);
    std::fill_n(v.before, K * count_of(seasons), nan_value);
    std::fill_n(v.seen_row, K, -1);
    std::fill_n(v.age, reach_ * K, never);
    std::fill_n(v.elapsed, reach_, 1.0f);
}

void Forecast::set_static(void* series, const float* numbers, const int64_t* codes) const {
    expect_codes(fixed, codes);
    const View v = view(series);
    std::copy_n(numbers, static_numbers, v.statics);
    std::copy_n(codes, fixed.size(), v.static_codes);
}

double Forecast::latest(const void* series) const {
    const View v = view(series);
    return v.time[slot(v, reach_ - 1)];
}

bool Forecast::sound(const void* series) const {
    const View v = view(series);
    const auto in_range = [](const std::vector<Codebook>& books, const int64_t* codes) {
        for (size_t k = 0; k < books.size(); ++k)
            if (codes[k] < 0 || codes[k] >= books[k].codes) return false;
        return true;
    };
    if (*v.rows < 0 || *v.rows > most_rows || *v.start < 0 || *v.start > reach_ || *v.oldest < 0 || *v.oldest >= reach_)
        return false;
    if (*v.rows && !(std::isfinite(*v.first) && std::isfinite(latest(series)) && *v.first <= latest(series)))
        return false;
    for (int64_t r = 0; r < reach_; ++r) {
        const int64_t* codes = v.codes + r * row_codes_;
        if (!in_range(features, codes) || !in_range(known, codes + features.size())) return false;
    }
    return in_range(fixed, v.static_codes);
}

void Forecast::skip(void* series, int64_t rows) const {
    const View v = view(series);
    *v.rows += rows;
    *v.start = std::max<int64_t>(*v.start - rows, 0);
}

void Forecast::append(void* series, const SeriesRow& row) const {
    expect_codes(features, row.feature_codes);
    expect_codes(known, row.known_codes);
    const View v = view(series);
    const int64_t K = targets, F = feature_numbers;
    const float gap = uneven && *v.rows ? static_cast<float>((row.time - latest(series)) / step) : 1.0f;
    const int64_t at = *v.oldest;  // the oldest row makes room
    *v.oldest = (at + 1) % reach_;
    *v.start = std::max<int64_t>(*v.start - 1, 0);
    if (!*v.rows) *v.first = row.time;
    v.time[at] = row.time;
    v.elapsed[at] = gap;
    std::copy_n(row.target, K, v.target + at * K);
    float* numbers = v.numbers + at * row_numbers_;
    for (int64_t k = 0; k < F; ++k) *numbers++ = static_cast<float>(row.features[k]);
    for (int64_t k = 0; k < known_numbers; ++k) *numbers++ = static_cast<float>(row.known[k]);
    if (uneven) *numbers = std::log1p(gap);
    std::copy_n(row.known_codes, known.size(),
                std::copy_n(row.feature_codes, features.size(), v.codes + at * row_codes_));
    remember(v, row.time, row.target);
    ++*v.rows;
    for (int64_t k = 0; k < K; ++k) {
        v.mean[k] = v.sum[k] / std::max(v.count[k], 1.0);
        const double since = uneven ? (row.time - v.seen_time[k]) / step
                                    : static_cast<double>(*v.rows) - 1 - static_cast<double>(v.seen_row[k]);
        v.age[at * K + k] = v.seen_row[k] < 0 ? never : static_cast<float>(std::log1p(std::max(since, 0.0)) / 3);
    }
}

// The sums over all of the series, and what its latest values were.
void Forecast::remember(const View& v, double time, const double* target) const {
    const int64_t K = targets;
    for (int64_t k = 0; k < K; ++k) {
        if (!std::isfinite(target[k])) continue;
        if (v.seen_row[k] >= 0) v.change[k] += std::abs(target[k] - v.value[k]), v.changes[k] += 1;
        v.sum[k] += target[k], v.count[k] += 1;
        for (size_t n = 0; n < seasons.size(); ++n) {
            const int64_t row = reach_ - 1 - seasons[n];
            v.before[static_cast<int64_t>(n) * K + k] = row >= *v.start ? v.target[slot(v, row) * K + k] : nan_value;
        }
        v.value[k] = target[k];
        v.seen_row[k] = *v.rows;
        v.seen_time[k] = time;
    }
}

}  // namespace carousel
