// A forecaster, one row at a time: the last rows of a series and sums over all of it -> the window -> stack -> head ->
// quantiles in the target's own units. Restates src/carousel/inputs/windows.py and src/carousel/heads/forecast_net.py.
//
// After `finish` nothing is allocated: a series is one block of memory of `bytes()`, which its owner keeps, the same on
// every machine of one byte order.
#pragma once

#include <vector>

#include "stack.h"

namespace carousel {

// Categories of one column: [members][codes, width].
struct Codebook {
    int64_t codes = 0, width = 0;
    std::vector<float> table;
};

// One member's decoder; d is its width.
struct Decoder {
    Dense state, ahead, hidden, out, gate, linear;  // ahead only where a step ahead has channels
    std::vector<float> step, gate_step;             // [horizon, d], [horizon, targets * bases]
};

// One row of a series. Numbers are scaled, each beside whether it is observed.
struct SeriesRow {
    double time;
    const double *target, *features, *known;  // [K] NaN where missing, [.], [.] with the calendar
    const int64_t *feature_codes, *known_codes;
};

// The steps ahead of one series: time [H], known [H, .] with the calendar, codes [H, .].
struct StepsAhead {
    const double *time, *known;
    const int64_t* codes;
};

class Forecast {
  public:
    Forecast() = default;
    Forecast(const Forecast&) = delete;
    Forecast& operator=(const Forecast&) = delete;

    // How the input was fitted; all of it before `finish`.
    int64_t context = 1, horizon = 1, targets = 1;
    int64_t feature_numbers = 0, known_numbers = 0, static_numbers = 0;
    bool uneven = false, from_last = true, with_rows = false;  // from_last: the level is the latest value
    double step = 1;                                           // of the grid
    std::vector<int64_t> seasons;
    std::vector<Codebook> features, known, fixed;
    std::vector<Stack> stacks;
    std::vector<Decoder> decoders;
    int64_t median = 0;
    std::vector<double> factors;  // of the quantiles

    void finish();
    size_t bytes() const { return bytes_; }
    int64_t reach() const { return reach_; }
    int64_t outputs() const { return horizon * targets * quantiles(); }
    int64_t quantiles() const { return static_cast<int64_t>(factors.size()); }

    void begin(void* series) const;
    void set_static(void* series, const float* numbers, const int64_t* codes) const;
    void append(void* series, const SeriesRow& row) const;
    void skip(void* series, int64_t rows) const;  // rows that nobody gave; as many as a window sees are to follow
    // out [n, outputs()]: of series that have fewer than two values of some target NaN.
    void forecast(int64_t n, void* const* series, const StepsAhead* ahead, double* out) const;

    int64_t rows(const void* series) const { return *view(series).rows; }
    double first(const void* series) const { return *view(series).first; }  // time of the first row
    double latest(const void* series) const;                                // and of the latest
    bool sound(const void* series) const;  // whether a block from elsewhere can be such a series

  private:
    struct View {
        int64_t *rows, *start, *oldest, *seen_row, *codes, *static_codes;
        double *first, *time, *target, *value, *seen_time, *count, *sum, *changes, *change, *mean, *before;
        float *age, *elapsed, *numbers, *statics;
    };
    struct Window {  // of one series, in scratch
        float *steps, *elapsed, *ahead, *fixed, *linear, *base;
        double *level, *spread;
    };
    View view(const void* series) const;
    int64_t slot(const View& v, int64_t row) const { return (*v.oldest + row) % reach_; }
    void remember(const View& v, double time, const double* target) const;
    void gather(const View& v, const StepsAhead& ahead, const Window& w) const;
    void scale(const View& v, const Window& w) const;
    void gather_steps(const View& v, const Window& w) const;
    void gather_linear(const View& v, const Window& w) const;
    void gather_lags(const View& v, const Window& w) const;
    void embed(const View& v, const StepsAhead& ahead, size_t member, const Window& w) const;
    void run(int64_t n, size_t member) const;
    void decode(size_t member, const Window& w, const float* top, double* made) const;
    void read_out(const Window& w, double* made) const;
    static float* look_up(const Codebook& book, size_t member, int64_t code, float* to);

    int64_t reach_ = 1, channels_ = 0, step_numbers_ = 0, ahead_numbers_ = 0, row_numbers_ = 0, row_codes_ = 0;
    int64_t input_ = 0, ahead_ = 0, fixed_ = 0, bases_ = 0, width_ = 0, group_ = 1, state_floats_ = 0;
    size_t bytes_ = 0, floats_at_ = 0, window_floats_ = 0;
    mutable std::vector<float> past_, z_, inner_, raw_, gate_, straight_;
    mutable std::vector<double> scales_;
    mutable std::vector<const float*> pointers_;
    mutable std::vector<Window> windows_;
    Memory windows_memory_, states_;
};

}  // namespace carousel
