#include "scorer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

namespace carousel {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double smallest = 0.01;  // of a forecast's scale, in scaled units: no column is ever certain
constexpr int64_t inverse_bytes = 1 << 20;
constexpr int64_t most_values = 1 << 24;  // that a view keeps of a sequence: 128 MiB

size_t size_of(int64_t n) { return static_cast<size_t>(n); }

// As np.fmax: a number beats NaN.
double larger(double a, double b) { return std::isnan(a) || b > a ? b : a; }
double smaller(double a, double b) { return std::isnan(a) || b < a ? b : a; }

// a [n, n] becomes its inverse, by Gauss and Jordan with row pivots; work [n, n].
void invert(double* a, int64_t n, double* work) {
    std::fill_n(work, n * n, 0.0);
    for (int64_t k = 0; k < n; ++k) work[k * n + k] = 1;
    for (int64_t k = 0; k < n; ++k) {
        int64_t pivot = k;
        for (int64_t r = k + 1; r < n; ++r)
            if (std::abs(a[r * n + k]) > std::abs(a[pivot * n + k])) pivot = r;
        std::swap_ranges(a + k * n, a + k * n + n, a + pivot * n);
        std::swap_ranges(work + k * n, work + k * n + n, work + pivot * n);
        const double factor = 1 / a[k * n + k];
        for (int64_t j = 0; j < n; ++j) a[k * n + j] *= factor, work[k * n + j] *= factor;
        for (int64_t r = 0; r < n; ++r) {
            const double by = a[r * n + k];
            if (r == k || by == 0) continue;
            for (int64_t j = 0; j < n; ++j) {
                a[r * n + j] -= by * a[k * n + j];
                work[r * n + j] -= by * work[k * n + j];
            }
        }
    }
    std::copy_n(work, n * n, a);
}

}  // namespace

void Scorer::finish() {
    const int64_t C = columns();
    if (C < 1 || static_cast<int64_t>(floor.size()) != C) throw std::invalid_argument("a score needs columns");
    const auto slots = size_of(std::clamp<int64_t>(inverse_bytes / (8 * C * C), 1, 64));
    memory_ = 3 * C + 2;
    inverses_.clear();
    for (const ScoreView& v : views) {
        for (const auto* part : {&v.centre, &v.spread, &v.low, &v.high})
            if (part->size() != size_of(C))
                throw std::invalid_argument("a view has one of each number for each column");
        if (v.rows < 1 || v.correlation.size() != size_of(C * C) || v.inverse.size() != size_of(C * C))
            throw std::invalid_argument("a view has rows, and correlations of all columns");
        if (v.rows > most_values / C) throw std::invalid_argument("a view has more rows than a stream can keep");
        memory_ += v.rows * C + 1 + 2 * C;
        std::vector<Inverse> of_view(slots);
        for (Inverse& slot : of_view) slot.seen.resize(size_of(C)), slot.matrix.resize(size_of(C * C));
        inverses_.push_back(std::move(of_view));
    }
    for (auto* part : {&errors_, &means_, &parts_, &best_}) part->resize(size_of(C));
    work_.resize(size_of(C * C + C));
    known_.resize(size_of(C));
    seen_.resize(size_of(C));
}

// mean, scale, last [C] each; held, left; of each view the ring [rows, C], the largest distance, low and high [C].
void Scorer::begin(double* memory) const {
    const int64_t C = columns();
    memory = std::fill_n(memory, C, nan_value);
    memory = std::fill_n(memory, C, 1.0);
    memory = std::fill_n(memory, C, 0.0);
    *memory++ = 1;
    *memory++ = 0;
    for (const ScoreView& v : views) {
        memory = std::fill_n(memory, v.rows * C, nan_value);
        *memory++ = v.largest;
        memory = std::copy_n(v.low.data(), C, memory);
        memory = std::copy_n(v.high.data(), C, memory);
    }
}

const double* Scorer::inverse(size_t view, const uint8_t* seen) const {
    const ScoreView& v = views[view];
    const int64_t C = columns();
    if (std::all_of(seen, seen + C, [](uint8_t s) { return s; })) return v.inverse.data();
    uint64_t mark = 0xcbf29ce484222325u;
    for (int64_t k = 0; k < C; ++k) mark = (mark ^ seen[k]) * 0x00000100000001b3u;
    Inverse& slot = inverses_[view][(mark ^ mark >> 32) % inverses_[view].size()];
    if (slot.known && std::equal(seen, seen + C, slot.seen.data())) return slot.matrix.data();
    // The inverse of what is seen, packed; its rows then go to where they belong.
    int64_t n = 0;
    for (int64_t k = 0; k < C; ++k) n += seen[k];
    double* packed = slot.matrix.data();
    for (int64_t i = 0; i < C; ++i)
        for (int64_t j = 0; seen[i] && j < C; ++j)
            if (seen[j]) *packed++ = v.correlation[size_of(i * C + j)];
    invert(slot.matrix.data(), n, work_.data());
    std::fill(slot.matrix.begin(), slot.matrix.end(), 0.0);
    const double* from = work_.data();
    for (int64_t i = 0; i < C; ++i)
        for (int64_t j = 0; seen[i] && j < C; ++j)
            if (seen[j]) slot.matrix[size_of(i * C + j)] = *from++;
    std::copy_n(seen, C, slot.seen.data());
    slot.known = true;
    return slot.matrix.data();
}

// Mahalanobis' distance of the means, NaN where nothing is known; the columns' parts in it stay in parts_.
double Scorer::distance(size_t view, const double* means, const int64_t* known) const {
    const ScoreView& v = views[view];
    const int64_t C = columns();
    double *d = work_.data() + C * C, total = 0;
    int64_t count = 0;
    for (int64_t k = 0; k < C; ++k) {
        const auto at = size_of(k);
        const double share = std::sqrt(static_cast<double>(known[k]) / static_cast<double>(v.rows));
        seen_[at] = known[k] > 0;
        count += known[k] > 0;
        d[k] = known[k] > 0 ? (means[k] - v.centre[at]) / v.spread[at] * share : 0;
    }
    std::fill(parts_.begin(), parts_.end(), 0.0);
    if (!count) return nan_value;
    const double* inverse = this->inverse(view, seen_.data());
    for (int64_t j = 0; j < C; ++j)
        for (int64_t k = 0; seen_[size_of(j)] && k < C; ++k) parts_[size_of(k)] += d[j] * inverse[j * C + k];
    for (int64_t k = 0; k < C; ++k) {
        double& part = parts_[size_of(k)];
        part *= d[k];
        total += part;
        part = std::max(part, 0.0);
    }
    return std::sqrt(std::max(total, 0.0) / static_cast<double>(count));
}

// How far means of whole windows lie from the middle of the range so far, in halves of it; the range grows.
double Scorer::beyond(const ScoreView& v, const double* means, const int64_t* known, double* low, double* high) const {
    double score = nan_value;
    for (int64_t k = 0; k < columns(); ++k) {
        const double full = known[k] == v.rows ? means[k] : nan_value, half = (high[k] - low[k]) / 2;
        double away = std::abs(full - (low[k] + half)) / (half > 0 ? half : std::numeric_limits<double>::infinity());
        if (!(half > 0) && !std::isnan(full)) away = full == low[k] ? 0 : 2;  // of a constant: any change
        score = larger(score, away);
        parts_[size_of(k)] = std::max((std::isnan(away) ? 0 : away) - 1, 0.0);
        low[k] = smaller(low[k], full);
        high[k] = larger(high[k], full);
    }
    return score;
}

// After a score above 1 only higher ones stand for `rest` rows; the others count as 1 at most. held: [2] with left.
double Scorer::rested(double score, double* held) const {
    if (score > held[0]) {
        held[0] = score;
        held[1] = static_cast<double>(rest);
        return score;
    }
    held[1] -= 1;
    if (!(held[1] > 0)) held[0] = 1, held[1] = 0;
    return std::min(score, 1.0);
}

// The columns that make up nine tenths of the best view's parts, most first.
void Scorer::name(double* to) const {
    double total = 0, before = 0;
    for (const double part : best_) total += part;
    seen_.assign(best_.size(), 0);
    for (int64_t n = 0; n < named_columns; ++n) {
        int64_t most = -1;
        for (int64_t k = 0; k < columns(); ++k)
            if (!seen_[size_of(k)] && (most < 0 || best_[size_of(k)] > best_[size_of(most)])) most = k;
        if (most < 0 || !(total > 0) || !(before < 0.9 * total) || !(best_[size_of(most)] > 0)) return;
        seen_[size_of(most)] = 1;
        before += best_[size_of(most)];
        to[n] = static_cast<double>(most);
    }
}

void Scorer::step(double* memory, int64_t row, const double* made, const double* scaled, const double* values,
                  double* out) const {
    const int64_t C = columns();
    double *mean = memory, *scale = memory + C, *last = memory + 2 * C, *held = memory + 3 * C;
    double *of_view = held + 2, best = 0;
    bool observed = false;
    for (int64_t k = 0; k < C; ++k) {
        errors_[size_of(k)] = (scaled[k] - mean[k]) / scale[k];
        observed = observed || !std::isnan(values[k]);
    }
    std::fill(best_.begin(), best_.end(), 0.0);
    for (size_t n = 0; n < views.size(); ++n) {
        const ScoreView& v = views[n];
        double *ring = of_view, *largest = ring + v.rows * C, *low = largest + 1, *high = low + C;
        of_view = high + C;
        std::copy_n(v.of_errors ? errors_.data() : values, C, ring + row % v.rows * C);
        std::fill(means_.begin(), means_.end(), 0.0);
        std::fill(known_.begin(), known_.end(), 0);
        for (int64_t back = v.rows - 1; back >= 0; --back) {  // the oldest first, as tables add them
            const double* at = ring + ((row - back) % v.rows + v.rows) % v.rows * C;
            for (int64_t k = 0; k < C; ++k)
                if (!std::isnan(at[k])) means_[size_of(k)] += at[k], ++known_[size_of(k)];
        }
        for (int64_t k = 0; k < C; ++k) {
            const int64_t known = known_[size_of(k)];
            means_[size_of(k)] = known ? means_[size_of(k)] / static_cast<double>(known) : nan_value;
        }
        double score;
        if (history && !v.of_errors) {
            score = beyond(v, means_.data(), known_.data(), low, high);
        } else {
            const double found = distance(n, means_.data(), known_.data());
            score = found / (history ? *largest : v.limit);
            *largest = larger(*largest, found);
        }
        if (score > best) best = score, best_.swap(parts_);
    }
    if (history && rest) best = rested(best, held);
    for (int64_t k = 0; k < C; ++k) {
        const double raw = made[C + k];
        if (!std::isnan(scaled[k])) last[k] = scaled[k];
        mean[k] = last[k] * keep[size_of(k)] + made[k];
        scale[k] = std::max(std::log1p(std::exp(-std::abs(raw))) + std::max(raw, 0.0) + smallest, floor[size_of(k)]);
    }
    out[0] = observed ? best : nan_value;
    out[1] = out[0] >= threshold;
    std::fill_n(out + 2, named_columns, -1.0);
    if (out[1] != 0) name(out + 2);
}

}  // namespace carousel
