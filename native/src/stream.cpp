#include "stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "plan.h"

namespace carousel {
namespace {

constexpr double largest = 1e140;  // as in inputs/columns.py: beyond it, squares leave the range

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t most_rows = int64_t{1} << 53;  // of a stream; counts beyond it come from no stream

// NaN where x is.
double scaled(const NumberColumn& c, double x, double bound) {
    if (c.squash > 0) x = x / (std::abs(x) + c.squash);
    const double y = (x - c.mean) / c.scale;
    return std::isnan(y) ? y : std::min(std::max(y, -bound), bound);
}

// Whether the core's vectors can scale it, see `Scaling`.
bool is_simple(const NumberColumn& c) { return !c.gaps && c.squash == 0 && c.scale > 1e-100 && c.scale < 1e100; }

double fade(double age) { return age / (1.0 + age); }

template <class T>
uint8_t* put(uint8_t* to, const T* from, int64_t n) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    return to + static_cast<size_t>(n) * sizeof(T);
}

template <class T>
const uint8_t* take(const uint8_t* from, T* to, int64_t n) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    return from + static_cast<size_t>(n) * sizeof(T);
}

int64_t count_of(const auto& items) { return static_cast<int64_t>(items.size()); }

float* copy_embedding(const Embedding& e, size_t member, int64_t code, float* to) {
    const float* row = e.table.data() + (static_cast<int64_t>(member) * e.codes + code) * e.width;
    return std::copy_n(row, e.width, to);
}

}  // namespace

void Program::finish() {
    if (stacks.empty() || heads.size() != stacks.size())
        throw std::invalid_argument("a member has one stack, one head");
    const int64_t lanes = step_kernels().lanes, P = stacks.front().output();
    const auto whole = [&](int64_t n) { return (n + lanes - 1) / lanes * lanes; };
    value_size_ = static_values_ = 0;
    gapped_ = 0;
    spans_.clear(), means_.clear(), scales_.clear(), inverses_.clear();
    for (int64_t k = 0; k < count_of(numbers); ++k) {
        const NumberColumn& c = numbers[static_cast<size_t>(k)];
        const bool simple = is_simple(c);
        if (!spans_.empty() && simple && spans_.back().simple)
            ++spans_.back().count;
        else
            spans_.push_back({k, 1, value_size_, simple});
        means_.push_back(c.mean), scales_.push_back(c.scale), inverses_.push_back(1 / c.scale);
        value_size_ += c.gaps ? 4 : 1;
        gapped_ += c.gaps;
    }
    for (const NumberColumn& c : static_numbers) static_values_ += 1 + c.gaps;
    value_size_ += uneven + calendar;
    input_ = value_size_ + static_values_;
    for (const auto* group : {&categories, &static_categories})
        for (const Embedding& e : *group) input_ += e.width;
    pool_floats_ = pooling <= Pooling::last ? 0 : P + (pooling == Pooling::attention ? 2 : 0);
    state_floats_ = stacks.front().state_floats();
    member_floats_ = whole(state_floats_ + pool_floats_);
    const bool fixed = !static_numbers.empty() || !static_categories.empty();
    int64_t widest = 0;
    for (size_t m = 0; m < stacks.size(); ++m) {
        const Head& head = heads[m];
        const int64_t inner = head.hidden ? head.hidden.outputs() : P;
        if (stacks[m].input() != input_ || stacks[m].output() != P || head.out.inputs() != inner ||
            (head.hidden && head.hidden.inputs() != P) || (pooling == Pooling::attention) != bool(head.attention) ||
            head.out.outputs() != logits() ||
            (fixed && (initial[m].inputs() > input_ || initial[m].outputs() != stacks[m].plain_floats())))
            throw std::invalid_argument("the sizes of stack and head do not fit the input");
        widest = std::max({widest, head.out.padded(), head.hidden ? head.hidden.padded() : 0, lanes});
    }
    outputs_ = read_out == ReadOut::label        ? logits()
               : read_out == ReadOut::event      ? 2
               : read_out == ReadOut::regression ? 1 + count_of(errors)
                                                 : Scorer::outputs;
    scores_ = 0;
    if (read_out == ReadOut::score) {
        scorer.finish();
        const int64_t C = scorer.columns(), most = count_of(numbers);
        if (count_of(scored) != C || logits() != 2 * C ||
            std::any_of(scored.begin(), scored.end(), [&](int64_t k) { return k < 0 || k >= most; }))
            throw std::invalid_argument("the columns of the scores do not fit the input and the head");
        scores_ = scorer.memory();
        scored_.assign(static_cast<size_t>(2 * C), 0.0);
    }
    const int64_t doubles = words();
    at_members_ = (static_cast<size_t>(doubles) * 8 + static_cast<size_t>(static_values_) * 4 + 63) / 64 * 64;
    bytes_ = (at_members_ + stacks.size() * static_cast<size_t>(member_floats_) * 4 + 63) / 64 * 64;
    plain_bytes_ = static_cast<size_t>(doubles) * 8 +
                   4 * (static_cast<size_t>(static_values_) +
                        stacks.size() * static_cast<size_t>(stacks.front().plain_floats() + pool_floats_));
    channels_ = whole(input_);
    x_.assign(static_cast<size_t>(channels_), 0.0f);
    pooled_.assign(static_cast<size_t>(step_rows * whole(P)), 0.0f);
    hidden_.assign(static_cast<size_t>(step_rows * widest), 0.0f);
    logits_.assign(static_cast<size_t>(step_rows * widest), 0.0f);
    sums_.assign(static_cast<size_t>(step_rows * logits()), 0.0);
}

Program::View Program::view(const void* stream) const {
    auto* memory = static_cast<uint8_t*>(const_cast<void*>(stream));
    auto* words = reinterpret_cast<int64_t*>(memory);
    auto* doubles = reinterpret_cast<double*>(memory);
    const int64_t n = gapped_;
    int64_t* codes = words + 3 + 2 * n;
    return {words,
            words + 1,
            doubles + 2,
            doubles + 3,
            doubles + 3 + n,
            codes,
            doubles + this->words() - scores_,
            reinterpret_cast<float*>(words + this->words()),
            reinterpret_cast<float*>(memory + at_members_)};
}

bool Program::begun(const void* stream) const { return *view(stream).begun != 0; }
int64_t Program::rows(const void* stream) const { return *view(stream).rows; }
double Program::time(const void* stream) const { return *view(stream).time; }

Verdict Program::begin(void* stream, const float* values, const int64_t* codes) const {
    const bool fixed = !static_numbers.empty() || !static_categories.empty();
    const bool given = !fixed || values || codes;
    for (size_t k = 0; given && k < static_categories.size(); ++k)
        if (codes[k] < 0 || codes[k] >= static_categories[k].codes)
            return {Refusal::unknown_code, static_cast<int64_t>(k)};
    std::memset(stream, 0, bytes_);
    const View v = view(stream);
    *v.begun = given;
    *v.time = nan_value;
    std::fill_n(v.seen, gapped_, nan_value);
    if (scores_) scorer.begin(v.score);
    if (!fixed || !given) return {};
    std::copy_n(values, static_values_, v.values);
    std::copy_n(codes, static_categories.size(), v.codes);
    std::vector<float> channels(static_cast<size_t>(input_)), flat;
    for (size_t m = 0; m < stacks.size(); ++m) {
        float* to = std::copy_n(v.values, static_values_, channels.data());
        for (size_t k = 0; k < static_categories.size(); ++k)
            to = copy_embedding(static_categories[k], m, v.codes[k], to);
        // The map gives h of all layers, then c of all layers; a plain state has them layer by layer.
        flat.assign(static_cast<size_t>(initial[m].padded()), 0.0f);
        initial[m](channels.data(), flat.data());
        stacks[m].begin(flat.data(), state(v, m));
    }
    return {};
}

Verdict Program::check(const void* stream, const Row& row, float* x) const {
    const View v = view(stream);
    if (!*v.begun) return {Refusal::no_static};
    bool odd = false;
    for (const Span& span : spans_) {
        const auto at = static_cast<size_t>(span.first);
        if (span.simple)
            odd |= !step_kernels().scale(
                row.numbers + at, {means_.data() + at, scales_.data() + at, inverses_.data() + at, bound, largest},
                span.count, x + span.at);
        else
            odd |= !(std::abs(row.numbers[at]) <= largest);
    }
    for (size_t k = 0; odd && k < numbers.size(); ++k) {
        const double given = row.numbers[k];
        if (std::abs(given) > largest) return {Refusal::infinite, static_cast<int64_t>(k)};
        if (std::isnan(given) && !numbers[k].gaps) return {Refusal::missing, static_cast<int64_t>(k)};
    }
    for (size_t k = 0; k < categories.size(); ++k)
        if (row.codes[k] < 0 || row.codes[k] >= categories[k].codes)
            return {Refusal::unknown_code, static_cast<int64_t>(k)};
    if (!(std::abs(row.time) <= largest)) return {Refusal::no_time};
    if (*v.rows && row.time < *v.time) return {Refusal::backwards};
    return {};
}

// The numeric channels of the row into x, where `check` has left some; its elapsed time. The memory of what was seen
// moves on.
float Program::advance(const View& v, const Row& row, float* x) const {
    const double elapsed = *v.rows ? (row.time - *v.time) / unit : 0.0;
    int64_t gapped = 0;
    for (const Span& span : spans_) {
        if (span.simple) {
            x += span.count;
            continue;
        }
        const NumberColumn& c = numbers[static_cast<size_t>(span.first)];
        const double y = scaled(c, row.numbers[span.first], bound);
        if (!c.gaps) {
            *x++ = static_cast<float>(y);
            continue;
        }
        const bool missing = std::isnan(y);
        double &seen = v.seen[gapped], &last = v.last[gapped];
        ++gapped;
        if (!missing) seen = row.time, last = y;
        const double since = (row.time - seen) / unit;
        *x++ = missing ? 0.0f : static_cast<float>(y);
        *x++ = missing ? 0.0f : 1.0f;
        *x++ = std::isnan(since) ? 1.0f : static_cast<float>(fade(since));
        *x++ = static_cast<float>(last);
    }
    if (uneven) *x++ = static_cast<float>(fade(elapsed));
    for (int64_t k = 0; k < calendar; ++k) *x++ = static_cast<float>(row.calendar[k]);
    *v.time = row.time;
    ++*v.rows;
    return static_cast<float>(elapsed);
}

// The channels behind the numeric ones, which each member has its own embeddings for.
void Program::embed(const View& v, const Row& row, size_t member, float* x) const {
    for (size_t k = 0; k < categories.size(); ++k) x = copy_embedding(categories[k], member, row.codes[k], x);
    x = std::copy_n(v.values, static_values_, x);
    for (size_t k = 0; k < static_categories.size(); ++k)
        x = copy_embedding(static_categories[k], member, v.codes[k], x);
}

// Of the rows so far; in the stream, or in `to` [P].
const float* Program::pool(const View& v, size_t member, const float* h, float* to) const {
    if (pooling <= Pooling::last) return h;
    const int64_t P = stacks[member].output();
    float* kept = state(v, member) + state_floats_;
    const bool first = *v.rows == 1;  // this row is counted already
    if (pooling == Pooling::max) {
        for (int64_t k = 0; k < P; ++k) kept[k] = first || h[k] > kept[k] ? h[k] : kept[k];
        return kept;
    }
    float share = 1, fall = 1;
    float count = static_cast<float>(*v.rows);
    if (pooling == Pooling::attention) {
        heads[member].attention(h, hidden_.data());
        const float score = hidden_[0];
        float &top = kept[P], &total = kept[P + 1];
        if (first || score > top) {
            fall = first ? 0.0f : std::exp(top - score);
            top = score;
        } else {
            share = std::exp(score - top);
        }
        total = total * fall + share;
        count = total;
    }
    for (int64_t k = 0; k < P; ++k) {
        kept[k] = kept[k] * fall + h[k] * share;
        to[k] = kept[k] / count;
    }
    return to;
}

// The logits of n rows, added to sums [n, logits].
void Program::add_head(size_t member, int64_t n, const float* const* pooled, double* sums) const {
    const Head& head = heads[member];
    const float* inner[step_rows];
    if (head.hidden) {
        const int64_t wide = head.hidden.padded();
        head.hidden.rows(n, pooled, hidden_.data());
        for (int64_t k = 0; k < n * wide; ++k)
            hidden_[static_cast<size_t>(k)] = std::max(hidden_[static_cast<size_t>(k)], 0.0f);
        for (int64_t k = 0; k < n; ++k) inner[k] = hidden_.data() + k * wide;
        pooled = inner;
    }
    head.out.rows(n, pooled, logits_.data());
    for (int64_t r = 0; r < n; ++r)
        for (int64_t k = 0; k < logits(); ++k)
            sums[r * logits() + k] += static_cast<double>(logits_[static_cast<size_t>(r * head.out.padded() + k)]);
}

// From the sum over the members: the probabilities of the classes; a number and its quantiles; a probability and
// whether it is an alarm; or a score, whether it is an anomaly, and the columns that it is put down to.
void Program::give(const View& v, const Row& row, double* sums, double* out) const {
    const double members = static_cast<double>(stacks.size());
    if (read_out == ReadOut::score) return score(v, row, sums, out);
    if (read_out == ReadOut::regression) {
        const double y = sums[0] / members * scale + mean;
        out[0] = y;
        for (size_t k = 0; k < errors.size(); ++k) out[1 + k] = y + errors[k];
        return;
    }
    if (read_out == ReadOut::event) {
        const double z = sums[0] / members / temperature, e = std::exp(-std::abs(z));
        out[0] = (z >= 0 ? 1.0 : e) / (1.0 + e);
        out[1] = out[0] >= threshold;
        return;
    }
    const int64_t n = logits();
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t k = 0; k < n; ++k) top = std::max(top, out[k] = sums[k] / members / temperature);
    for (int64_t k = 0; k < n; ++k) total += out[k] = std::exp(out[k] - top);
    for (int64_t k = 0; k < n; ++k) out[k] /= total;
}

void Program::score(const View& v, const Row& row, double* sums, double* out) const {
    const double members = static_cast<double>(stacks.size());
    const size_t C = scored.size();
    double *values = scored_.data(), *counted = values + C;
    for (size_t k = 0; k < 2 * C; ++k) sums[k] /= members;
    for (size_t k = 0; k < C; ++k) {
        const auto column = static_cast<size_t>(scored[k]);
        values[k] = row.numbers[column];
        counted[k] = scaled(numbers[column], values[k], bound);
    }
    scorer.step(v.score, *v.rows - 1, sums, counted, values, out);
}

void Program::push(void* stream, const Row& row, double* out) const {
    const View v = view(stream);
    float* x = x_.data();
    const float elapsed = advance(v, row, x);
    std::fill_n(sums_.data(), logits(), 0.0);
    for (size_t m = 0; m < stacks.size(); ++m) {
        embed(v, row, m, x + value_size_);
        stacks[m].step(x, elapsed, state(v, m));
        const float* pooled = pool(v, m, stacks[m].top(state(v, m)), pooled_.data());
        add_head(m, 1, &pooled, sums_.data());
    }
    give(v, row, sums_.data(), out);
}

void Program::push_many(int64_t n, void* const* streams, const Row* rows, float* channels, double* out) const {
    const float* x[step_rows];
    float elapsed[step_rows];
    float* states[step_rows];
    for (int64_t start = 0; start < n; start += step_rows) {
        const int64_t count = std::min(step_rows, n - start);
        // Streams lie anywhere in memory: those of the next chunk are fetched while this one is worked on.
        for (int64_t k = start + count; k < std::min(n, start + count + step_rows); ++k)
            for (size_t line = 0; line < bytes_; line += 64)
                __builtin_prefetch(static_cast<const uint8_t*>(streams[k]) + line, 1, 2);
        for (int64_t k = 0; k < count; ++k) {
            float* to = channels + (start + k) * channels_;
            x[k] = to;
            elapsed[k] = advance(view(streams[start + k]), rows[start + k], to);
        }
        std::fill(sums_.begin(), sums_.end(), 0.0);
        for (size_t m = 0; m < stacks.size(); ++m) {
            for (int64_t k = 0; k < count; ++k) {
                const View v = view(streams[start + k]);
                embed(v, rows[start + k], m, channels + (start + k) * channels_ + value_size_);
                states[k] = state(v, m);
            }
            stacks[m].steps(count, x, elapsed, states);
            const float* pooled[step_rows];
            const int64_t P = static_cast<int64_t>(pooled_.size()) / step_rows;
            for (int64_t k = 0; k < count; ++k)
                pooled[k] = pool(view(streams[start + k]), m, stacks[m].top(states[k]), pooled_.data() + k * P);
            add_head(m, count, pooled, sums_.data());
        }
        for (int64_t k = 0; k < count; ++k)
            give(view(streams[start + k]), rows[start + k], sums_.data() + k * logits(), out + (start + k) * outputs_);
    }
}

void Program::save(const void* stream, uint8_t* to) const {
    const View v = view(stream);
    const int64_t plain = stacks.front().plain_floats();
    to = put(to, v.rows, words());  // one after the other, as view() says
    to = put(to, v.values, static_values_);
    std::vector<float> flat(static_cast<size_t>(plain));
    for (size_t m = 0; m < stacks.size(); ++m) {
        stacks[m].save(state(v, m), flat.data());
        to = put(to, flat.data(), plain);
        to = put(to, state(v, m) + state_floats_, pool_floats_);
    }
}

bool Program::load(const uint8_t* from, void* stream) const {
    const int64_t plain = stacks.front().plain_floats();
    std::vector<int64_t> head(static_cast<size_t>(words()));
    take(from, head.data(), words());
    if (head[0] < 0 || head[0] > most_rows || head[1] < 0 || head[1] > 1) return false;
    for (size_t k = 0; k < static_categories.size(); ++k) {
        const int64_t code = head[static_cast<size_t>(3 + 2 * gapped_) + k];
        if (code < 0 || code >= static_categories[k].codes) return false;
    }
    std::memset(stream, 0, bytes_);
    const View v = view(stream);
    from = take(from, v.rows, words());
    from = take(from, v.values, static_values_);
    std::vector<float> flat(static_cast<size_t>(plain));
    for (size_t m = 0; m < stacks.size(); ++m) {
        from = take(from, flat.data(), plain);
        stacks[m].load(flat.data(), state(v, m));
        from = take(from, state(v, m) + state_floats_, pool_floats_);
    }
    return true;
}

void Slab::grow(int64_t count) {
    while (static_cast<int64_t>(chunks_.size()) * chunk_streams < count)
        chunks_.emplace_back(allocate(static_cast<size_t>(chunk_streams) * program_.bytes()));
    met_.resize(static_cast<size_t>(count), 0);
    time_.resize(static_cast<size_t>(count), 0);
    for (; count_ < count; ++count_) program_.begin(at(count_), nullptr, nullptr);
}

Verdict Slab::check(int64_t n, const int64_t* which, const Row* rows, int64_t& refused) {
    ++mark_;
    const int64_t wide = program_.channels();
    if (static_cast<int64_t>(x_.size()) < n * wide) x_.resize(static_cast<size_t>(n * wide));
    for (refused = 0; refused < n; ++refused) {
        if (refused + 16 < n) __builtin_prefetch(at(which[refused + 16]));
        const auto k = static_cast<size_t>(which[refused]);
        const Verdict v = program_.check(at(which[refused]), rows[refused], x_.data() + refused * wide);
        if (v.why != Refusal::none) return v;
        if (met_[k] == mark_ && rows[refused].time < time_[k]) return {Refusal::backwards};
        met_[k] = mark_;
        time_[k] = rows[refused].time;
    }
    return {};
}

void Slab::push(int64_t n, const int64_t* which, const Row* rows, double* out) {
    for (int64_t start = 0; start < n;) {
        ++mark_;
        streams_.clear();
        int64_t end = start;
        for (; end < n && met_[static_cast<size_t>(which[end])] != mark_; ++end) {
            met_[static_cast<size_t>(which[end])] = mark_;
            streams_.push_back(at(which[end]));
        }
        program_.push_many(end - start, streams_.data(), rows + start, x_.data() + start * program_.channels(),
                           out + start * program_.outputs());
        start = end;
    }
}

}  // namespace carousel
