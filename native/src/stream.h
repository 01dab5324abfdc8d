// A whole model of sequences, one row at a time: row -> channels -> stack -> pooling -> head -> what the head gives.
// Restates src/carousel/inputs/sequence.py (SequenceInput.step) and the read-outs of src/carousel/heads.
//
// After `finish` nothing is allocated: a stream is one block of memory of `bytes()`, which its owner keeps. A refused
// row leaves it as it was.
#pragma once

#include <string>
#include <vector>

#include "scorer.h"
#include "stack.h"

namespace carousel {

// x becomes (x' - mean) / scale within +-bound, where x' is x, or x / (|x| + squash).
struct NumberColumn {
    double mean = 0, scale = 1, squash = 0;
    bool gaps = false;
};

struct Embedding {
    int64_t codes = 0, width = 0;
    std::vector<float> table;  // [members][codes, width]
};

enum class Pooling : int { none = 0, last, mean, max, attention };
enum class ReadOut : int { label = 0, regression, event, score };

struct Head {
    Dense hidden, out, attention;  // the first and the last only where there is one
};

struct Row {
    const double* numbers;   // [numbers] NaN where missing
    const int64_t* codes;    // [categories]
    const double* calendar;  // [calendar]
    double time;
};

enum class Refusal : int { none = 0, missing, infinite, no_time, backwards, unknown_code, no_static };

struct Verdict {
    Refusal why = Refusal::none;
    int64_t column = 0;  // among the numbers or the categories
};

class Program {
  public:
    Program() = default;
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    // How the input was fitted; all of it before `finish`.
    double unit = 1, bound = 10;
    bool uneven = false, with_rows = false;  // with_rows: `push_many` will be called
    int64_t calendar = 0;
    std::vector<NumberColumn> numbers, static_numbers;
    std::vector<Embedding> categories, static_categories;
    std::vector<Stack> stacks;   // of each member
    std::vector<Head> heads;     // of each member
    std::vector<Dense> initial;  // of each member, where there are static columns
    Pooling pooling = Pooling::none;
    ReadOut read_out = ReadOut::label;
    double temperature = 1, mean = 0, scale = 1, threshold = 0.5;
    std::vector<double> errors;   // of the quantiles
    Scorer scorer;                // of a detector
    std::vector<int64_t> scored;  // its columns among the numbers

    void finish();

    size_t bytes() const { return bytes_; }
    int64_t outputs() const { return outputs_; }  // numbers that a row gives: see `give`
    int64_t static_values() const { return static_values_; }

    // The state of a sequence before its first row. values [static_values()]: the channels of the static numbers; codes
    // of the static categories. With static columns, null leaves a stream that refuses rows until it has them.
    Verdict begin(void* stream, const float* values, const int64_t* codes) const;
    bool begun(const void* stream) const;
    int64_t rows(const void* stream) const;
    double time(const void* stream) const;

    // x [channels()] gets the channels that depend on the row alone; `push` of the same row makes the rest.
    Verdict check(const void* stream, const Row& row, float* x) const;
    int64_t channels() const { return channels_; }  // padded to whole vectors
    Verdict check(const void* stream, const Row& row) const { return check(stream, row, x_.data()); }
    // out [outputs]. `check` the same row first.
    void push(void* stream, const Row& row, double* out) const;
    // n different streams, x [n, channels()] of `check`, out [n, outputs]; the bits are those of `push`.
    void push_many(int64_t n, void* const* streams, const Row* rows, float* x, double* out) const;

    // A state as plain numbers, the same on every machine.
    size_t plain_bytes() const { return plain_bytes_; }
    void save(const void* stream, uint8_t* to) const;
    bool load(const uint8_t* from, void* stream) const;  // false, and nothing done, where it cannot be such a state

  private:
    // Where a stream keeps what.
    struct View {
        int64_t *rows, *begun;
        double *time, *seen, *last;  // [1], then of the numbers with gaps: when seen, and the value scaled
        int64_t* codes;              // [static categories]
        double* score;               // the scorer's
        float *values, *members;     // [static numbers' channels], [members][member_floats]
    };
    View view(const void* stream) const;
    float advance(const View& v, const Row& row, float* x) const;
    void embed(const View& v, const Row& row, size_t member, float* x) const;
    const float* pool(const View& v, size_t member, const float* h, float* to) const;
    void add_head(size_t member, int64_t n, const float* const* pooled, double* sums) const;
    void give(const View& v, const Row& row, double* sums, double* out) const;
    void score(const View& v, const Row& row, double* sums, double* out) const;
    int64_t words() const { return 3 + 2 * gapped_ + static_cast<int64_t>(static_categories.size()) + scores_; }
    float* state(const View& v, size_t member) const {
        return v.members + static_cast<int64_t>(member) * member_floats_;
    }
    int64_t logits() const { return heads.front().out.outputs(); }

    // Numbers that follow one another and are scaled alike, so that vectors can do it; `at` is their first channel.
    struct Span {
        int64_t first, count, at;
        bool simple;
    };

    size_t bytes_ = 0, plain_bytes_ = 0, at_members_ = 0;
    int64_t gapped_ = 0, scores_ = 0;
    std::vector<Span> spans_;
    std::vector<double> means_, scales_, inverses_;
    int64_t value_size_ = 0, input_ = 0, channels_ = 0, static_values_ = 0, outputs_ = 0;
    int64_t state_floats_ = 0, pool_floats_ = 0, member_floats_ = 0;
    mutable std::vector<float> x_, pooled_, hidden_, logits_;
    mutable std::vector<double> sums_, scored_;
};

// Streams of one program, numbered from 0; what has been given stays where it is.
class Slab {
  public:
    explicit Slab(const Program& program) : program_(program) {}
    int64_t count() const { return count_; }
    void* at(int64_t k) const {
        auto* chunk = static_cast<uint8_t*>(chunks_[static_cast<size_t>(k / chunk_streams)].get());
        return chunk + static_cast<size_t>(k % chunk_streams) * program_.bytes();
    }
    void grow(int64_t count);  // the new ones are not begun
    void fetch(int64_t k) const {
        if (k >= 0 && k < count_) __builtin_prefetch(at(k));
    }

    // The first row that would be refused, if rows were pushed one after the other; a stream may come more than once.
    // `push` takes the same rows afterwards.
    Verdict check(int64_t n, const int64_t* which, const Row* rows, int64_t& refused);
    void push(int64_t n, const int64_t* which, const Row* rows, double* out);

  private:
    static constexpr int64_t chunk_streams = 64;
    const Program& program_;
    std::vector<Memory> chunks_;
    int64_t count_ = 0;
    std::vector<int64_t> met_;  // [count] the mark of the call, or part of it, that met a stream last
    std::vector<double> time_;  // [count]
    std::vector<void*> streams_;
    std::vector<float> x_;  // [n, channels] what `check` has made of the rows
    int64_t mark_ = 0;
};

}  // namespace carousel
