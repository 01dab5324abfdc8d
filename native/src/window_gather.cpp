// From the rows of a series to its forecast: the window, the stack over it, the decoder.
#include <algorithm>
#include <cmath>
#include <limits>

#include "window.h"

namespace carousel {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double far = 10.0;    // as in inputs/windows.py
constexpr float never = -1;     // the age before a first observation
constexpr double least = 1e-9;  // spread of a series that was always 0
constexpr float bound = 100;    // of scaled inputs
constexpr double fewest = 2;    // observed values of each target before which nothing is forecast
constexpr int64_t per_target = 4, per_lag = 4, missing = 0;

size_t size_of(int64_t n) { return static_cast<size_t>(n); }
int64_t count_of(const auto& items) { return static_cast<int64_t>(items.size()); }
float bounded(float x) { return std::min(std::max(x, -bound), bound); }
// As np.nan_to_num.
float number(float x) {
    constexpr float most = std::numeric_limits<float>::max();
    return std::isnan(x) ? 0 : std::min(std::max(x, -most), most);
}

}  // namespace

// Level and spread, as Rows._scale of inputs/windows.py.
void Forecast::scale(const View& v, const Window& w) const {
    const int64_t K = targets;
    for (int64_t k = 0; k < K; ++k) {
        const bool any = v.seen_row[k] >= 0;
        const double last = any ? v.value[k] : 0.0;
        double total = 0, size = 0, away = 0;
        int64_t count = 0;
        const auto each = [&](const auto& visit) {
            for (int64_t r = std::max(reach_ - context, *v.start); r < reach_; ++r) {
                const double x = v.target[slot(v, r) * K + k];
                if (std::isfinite(x)) visit(x);
            }
        };
        each([&](double x) { total += x, size += std::abs(x), ++count; });
        const double n = static_cast<double>(std::max<int64_t>(count, 1));
        const double level = from_last ? last : count ? total / n : last;
        each([&](double x) { away += std::abs(x - level); });
        const double running = any ? v.change[k] / std::max(v.changes[k], 1.0) : 0.0;
        const double spread = std::max(count > 1 ? away / n : 0.0, 0.1 * running);
        size = std::max(size / n, std::abs(last));
        const double some = std::max(size, running);
        const double floor = 1e-4 * size + (some > 0 ? std::min(least, 1e-5 * some) : least);
        w.level[k] = level;
        w.spread[k] = std::max(spread, floor);
    }
}

// The window from the latest row into scratch, but for the embeddings, which each member has its own of.
void Forecast::gather(const View& v, const StepsAhead& ahead, const Window& w) const {
    const int64_t K = targets;
    scale(v, w);
    for (int64_t r = 0; r < reach_; ++r) {
        const double* target = v.target + slot(v, r) * K;
        for (int64_t k = 0; k < K; ++k)
            past_[size_of(r * K + k)] =
                static_cast<float>(r < *v.start ? nan_value : (target[k] - w.level[k]) / w.spread[k]);
    }
    float* now = past_.data() + reach_ * K;  // the latest values
    for (int64_t k = 0; k < K; ++k)
        now[k] = static_cast<float>(((v.seen_row[k] >= 0 ? v.value[k] : 0.0) - w.level[k]) / w.spread[k]);
    gather_steps(v, w);
    gather_linear(v, w);
    gather_lags(v, w);
    float* own = std::copy_n(now, K, w.fixed + stacks.front().output());
    for (int64_t k = 0; k < K; ++k)
        *own++ = static_cast<float>(std::log(std::max(w.spread[k] / (std::abs(w.level[k]) + w.spread[k]), 1e-6)) / 3);
    std::copy_n(v.statics, static_numbers, own);
    const double latest = v.time[slot(v, reach_ - 1)];
    for (int64_t h = 0; h < horizon; ++h) {
        float* to = w.ahead + h * ahead_ + per_lag * K * count_of(seasons);
        for (int64_t k = 0; k < known_numbers; ++k) *to++ = static_cast<float>(ahead.known[h * known_numbers + k]);
        if (uneven) *to = static_cast<float>(std::log1p(std::max((ahead.time[h] - latest) / step, 0.0)));
    }
}

void Forecast::gather_steps(const View& v, const Window& w) const {
    const int64_t K = targets, C = context;
    for (int64_t t = 0; t < C; ++t) {
        const int64_t row = reach_ - C + t, at = slot(v, row);
        const bool outside = row < *v.start;
        float* own = w.steps + t * input_;
        const float* x = past_.data() + row * K;
        for (int64_t k = 0; k < K; ++k) {
            const bool seen = std::isfinite(x[k]), before = t > 0 && std::isfinite(x[k - K]);
            own[k] = bounded(seen ? x[k] : 0);
            own[K + k] = seen;
            own[2 * K + k] = bounded(outside ? never : v.age[at * K + k]);
            own[3 * K + k] = bounded(seen && before ? x[k] - x[k - K] : 0);
            for (size_t n = 0; n < seasons.size(); ++n) {
                const float earlier = past_[size_of((row - seasons[n]) * K + k)];
                own[(per_target + static_cast<int64_t>(n)) * K + k] = bounded(std::isfinite(earlier) ? earlier : 0);
            }
        }
        for (int64_t k = 0; k < row_numbers_; ++k) own[channels_ + k] = outside ? 0 : v.numbers[at * row_numbers_ + k];
        w.elapsed[t] = outside ? 1 : v.elapsed[at];
    }
}

// What the linear path reads, target by target: the context without gaps, and how far the level is from all history.
void Forecast::gather_linear(const View& v, const Window& w) const {
    const int64_t K = targets, C = context;
    const float *past = past_.data() + (reach_ - C) * K, *now = past_.data() + reach_ * K;
    for (int64_t k = 0; k < K; ++k) {
        float* to = w.linear + k * (C + 1);
        int64_t before = -1, after = 0;  // neighbours that are observed
        for (int64_t t = 0; t < C; ++t) {
            const auto seen = [&](int64_t row) { return std::isfinite(past[row * K + k]); };
            if (seen(t)) before = t;
            for (after = std::max(after, t); after < C && !seen(after);) ++after;
            const int64_t left = before < 0 ? std::min(after, C - 1) : before, right = after >= C ? left : after;
            const float a = past[left * K + k], b = past[right * K + k];
            const double share =
                static_cast<double>(t - left) / static_cast<double>(std::max<int64_t>(right - left, 1));
            const float filled = a + static_cast<float>(std::min(std::max(share, 0.0), 1.0)) * (b - a);
            to[t] = bounded(std::isfinite(filled) ? filled : now[k]);
        }
        const double away = (w.level[k] - v.mean[k]) / (far * w.spread[k]);
        to[C] = static_cast<float>(std::min(std::max(away, -1.0), 1.0));
    }
}

// What the last seasons say of each step ahead: channels, and the naive forecasts.
void Forecast::gather_lags(const View& v, const Window& w) const {
    const int64_t K = targets;
    const float* latest = past_.data() + reach_ * K;
    for (int64_t h = 0; h < horizon; ++h)
        for (int64_t k = 0; k < K; ++k) {
            float* base = w.base + (h * K + k) * bases_;
            const float now = latest[k];
            base[0] = now, base[1] = 0;
            for (size_t n = 0; n < seasons.size(); ++n) {
                const int64_t m = seasons[n], season = static_cast<int64_t>(n), ahead = (h + m) / m;
                const double before = v.before[season * K + k];
                const float found = past_[size_of((reach_ + h - m * ahead) * K + k)];
                const float anchor = number(static_cast<float>((before - w.level[k]) / w.spread[k]));
                const bool there = std::isfinite(found), sure = there && std::isfinite(before);
                const float value = there ? found : now;
                float* lag = w.ahead + h * ahead_ + per_lag * K * season + k;
                lag[0] = bounded(value);
                lag[K] = bounded(value - now);
                lag[2 * K] = !there;
                lag[3 * K] = bounded(sure ? value - anchor : 0);
                base[2 + 2 * n] = value;
                base[3 + 2 * n] =
                    sure ? static_cast<float>(static_cast<double>(value) +
                                              static_cast<double>(ahead) * static_cast<double>(now - anchor))
                         : now;
            }
        }
}

float* Forecast::look_up(const Codebook& book, size_t member, int64_t code, float* to) {
    return std::copy_n(book.table.data() + (static_cast<int64_t>(member) * book.codes + code) * book.width, book.width,
                       to);
}

void Forecast::embed(const View& v, const StepsAhead& ahead, size_t member, const Window& w) const {
    for (int64_t t = 0; row_codes_ && t < context; ++t) {
        const int64_t row = reach_ - context + t;
        const int64_t* codes = v.codes + slot(v, row) * row_codes_;
        float* to = w.steps + t * input_ + step_numbers_;
        for (const auto* books : {&features, &known})
            for (const Codebook& b : *books) to = look_up(b, member, row < *v.start ? missing : *codes, to), ++codes;
    }
    for (int64_t h = 0; !known.empty() && h < horizon; ++h) {
        float* to = w.ahead + h * ahead_ + ahead_numbers_;
        for (size_t k = 0; k < known.size(); ++k)
            to = look_up(known[k], member, ahead.codes[h * count_of(known) + static_cast<int64_t>(k)], to);
    }
    float* to = w.fixed + stacks.front().output() + 2 * targets + static_numbers;
    for (size_t k = 0; k < fixed.size(); ++k) to = look_up(fixed[k], member, v.static_codes[k], to);
}

// The stack over the windows of n series side by side, from an empty state.
void Forecast::run(int64_t n, size_t member) const {
    const Stack& stack = stacks[member];
    auto* states = static_cast<float*>(states_.get());
    std::fill_n(states, n * state_floats_, 0.0f);
    if (n == 1) {
        for (int64_t t = 0; t < context; ++t)
            stack.step(windows_[0].steps + t * input_, windows_[0].elapsed[t], states);
        return;
    }
    const float* x[step_rows];
    float elapsed[step_rows];
    float* at[step_rows];
    for (int64_t k = 0; k < n; ++k) at[k] = states + k * state_floats_;
    for (int64_t t = 0; t < context; ++t) {
        for (int64_t k = 0; k < n; ++k) {
            const Window& w = windows_[size_of(k)];
            x[k] = w.steps + t * input_;
            elapsed[k] = w.elapsed[t];
        }
        stack.steps(n, x, elapsed, at);
    }
}

// The quantiles of one member in scaled units, added to made [H, K, Q].
void Forecast::decode(size_t member, const Window& w, const float* top, double* made) const {
    const Decoder& d = decoders[member];
    const int64_t K = targets, H = horizon, Q = quantiles(), wide = d.hidden.padded();
    std::copy_n(top, stacks[member].output(), w.fixed);
    float* shared = inner_.data() + H * wide;
    d.state(w.fixed, shared);
    std::fill(z_.begin(), z_.end(), 0.0f);
    if (d.ahead) {
        for (int64_t h = 0; h < H; ++h) pointers_[size_of(h)] = w.ahead + h * ahead_;
        d.ahead.rows(H, pointers_.data(), z_.data());
    }
    for (int64_t h = 0; h < H; ++h)
        for (int64_t j = 0; j < width_; ++j) z_[size_of(h * wide + j)] += shared[j] + d.step[size_of(h * width_ + j)];
    step_kernels().silu(z_.data(), H * wide);
    const auto rows_of = [&](const std::vector<float>& from, int64_t stride) {
        for (int64_t h = 0; h < H; ++h) pointers_[size_of(h)] = from.data() + h * stride;
        return pointers_.data();
    };
    d.hidden.rows(H, rows_of(z_, wide), inner_.data());
    step_kernels().silu(inner_.data(), H * wide);
    d.out.rows(H, rows_of(inner_, wide), raw_.data());
    d.gate.rows(H, pointers_.data(), gate_.data());
    for (int64_t k = 0; k < K; ++k) pointers_[size_of(k)] = w.linear + k * (context + 1);
    d.linear.rows(K, pointers_.data(), straight_.data());
    for (int64_t h = 0; h < H; ++h)
        for (int64_t k = 0; k < K; ++k) {
            const float* gate = gate_.data() + h * d.gate.padded() + k * bases_;
            const float* of_step = d.gate_step.data() + (h * K + k) * bases_;
            const float* base = w.base + (h * K + k) * bases_;
            float most = gate[0] + of_step[0], total = 0, mean = 0;
            for (int64_t g = 1; g < bases_; ++g) most = std::max(most, gate[g] + of_step[g]);
            for (int64_t g = 0; g < bases_; ++g) {
                const float weight = std::exp(gate[g] + of_step[g] - most);
                total += weight, mean += weight * base[g];
            }
            const float* raw = raw_.data() + h * d.out.padded() + k * Q;
            const float middle = mean / total + raw[median] + straight_[size_of(k * d.linear.padded() + h)];
            double* to = made + (h * K + k) * Q;
            to[median] += static_cast<double>(middle);
            const auto softplus = [](float x) { return std::log1p(std::exp(-std::abs(x))) + std::max(x, 0.0f); };
            float away = 0;
            for (int64_t q = median + 1; q < Q; ++q) {
                away += softplus(raw[q] - 1);
                to[q] += static_cast<double>(middle + away);
            }
            away = 0;
            for (int64_t q = median - 1; q >= 0; --q) {
                away += softplus(raw[q] - 1);
                to[q] += static_cast<double>(middle - away);
            }
        }
}

// From sums over the members to the target's own units, ascending: `read_out` of heads/forecast.py.
void Forecast::read_out(const Window& w, double* made) const {
    const int64_t Q = quantiles();
    const auto members = static_cast<double>(stacks.size());
    for (int64_t n = 0; n < horizon * targets; ++n, made += Q) {
        const double middle = made[median] / members;
        for (int64_t q = 0; q < Q; ++q) made[q] = middle + (made[q] / members - middle) * factors[size_of(q)];
        std::sort(made, made + Q);
        for (int64_t q = 0; q < Q; ++q) made[q] = made[q] * w.spread[n % targets] + w.level[n % targets];
    }
}

void Forecast::forecast(int64_t n, void* const* series, const StepsAhead* ahead, double* out) const {
    const int64_t each = outputs();
    for (int64_t start = 0; start < n; start += group_) {
        const int64_t count = std::min(group_, n - start);
        std::fill_n(out + start * each, count * each, 0.0);
        for (int64_t k = 0; k < count; ++k) gather(view(series[start + k]), ahead[start + k], windows_[size_of(k)]);
        for (size_t m = 0; m < stacks.size(); ++m) {
            for (int64_t k = 0; k < count; ++k)
                embed(view(series[start + k]), ahead[start + k], m, windows_[size_of(k)]);
            run(count, m);
            for (int64_t k = 0; k < count; ++k)
                decode(m, windows_[size_of(k)],
                       stacks[m].top(static_cast<const float*>(states_.get()) + k * state_floats_),
                       out + (start + k) * each);
        }
        for (int64_t k = 0; k < count; ++k) {
            double* made = out + (start + k) * each;
            const View v = view(series[start + k]);
            read_out(windows_[size_of(k)], made);
            if (std::any_of(v.count, v.count + targets, [](double seen) { return seen < fewest; }))
                std::fill_n(made, each, nan_value);
        }
    }
}

}  // namespace carousel
