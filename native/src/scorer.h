// How odd a row is: what a detector's head does with the forecast of the row, and all that it remembers of a sequence.
// Restates DetectState of src/carousel/heads/detect.py and View of src/carousel/heads/view.py, sum by sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel {

// Means over `rows` rows of the forecast's errors, or of the values, and how they were spread in normal operation.
struct ScoreView {
    bool of_errors = true;
    int64_t rows = 1;
    std::vector<double> centre, spread, low, high;  // [C]
    std::vector<double> correlation, inverse;       // [C, C], the second with all columns observed
    double limit = 1, largest = 1;
};

constexpr int64_t named_columns = 3;  // that an anomaly is put down to, at most

class Scorer {
  public:
    // All of it before `finish`.
    std::vector<double> keep, floor;  // [C]
    std::vector<ScoreView> views;
    bool history = false;  // against the largest of the sequence so far, not against the limits of training
    int64_t rest = 0;
    double threshold = 1;

    void finish();
    int64_t columns() const { return static_cast<int64_t>(keep.size()); }
    static constexpr int64_t outputs = 2 + named_columns;  // score, anomaly, the columns that it is put down to (or -1)
    int64_t memory() const { return memory_; }             // doubles that a sequence keeps

    void begin(double* memory) const;
    // Row number `row` (from 0) of the sequence: made [2 C] is what the head says of the row to come, scaled [C] and
    // values [C] this row's columns, NaN where missing. Nothing is allocated.
    void step(double* memory, int64_t row, const double* made, const double* scaled, const double* values,
              double* out) const;

  private:
    // Of the columns that some row had; kept, since a few patterns of gaps come again and again.
    struct Inverse {
        std::vector<uint8_t> seen;
        std::vector<double> matrix;
        bool known = false;
    };
    const double* inverse(size_t view, const uint8_t* seen) const;
    double distance(size_t view, const double* means, const int64_t* known) const;
    double beyond(const ScoreView& view, const double* means, const int64_t* known, double* low, double* high) const;
    double rested(double score, double* held) const;
    void name(double* to) const;

    int64_t memory_ = 0;
    mutable std::vector<std::vector<Inverse>> inverses_;  // [views][slots]
    mutable std::vector<double> errors_, means_, parts_, best_, work_;
    mutable std::vector<int64_t> known_;
    mutable std::vector<uint8_t> seen_;
};

}  // namespace carousel
