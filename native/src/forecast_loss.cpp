#include "forecast_loss.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "carousel.h"
#include "plan.h"

namespace carousel {

namespace portable {
extern const ForecastKernel forecast_kernel;
}
#ifdef CAROUSEL_X86
namespace avx2 {
extern const ForecastKernel forecast_kernel;
}
namespace avx512 {
extern const ForecastKernel forecast_kernel;
}
#endif

namespace {

const ForecastKernel& kernel() {
#ifdef CAROUSEL_X86
    const std::string_view name = instruction_set();
    if (name == "avx2") return avx2::forecast_kernel;
    if (name != "portable") return avx512::forecast_kernel;
#endif
    return portable::forecast_kernel;
}

void check(const ForecastLoss& g) {
    for (const int64_t size : {g.windows, g.steps, g.targets, g.quantiles, g.bases, g.width})
        if (size < 1) throw std::invalid_argument("the sizes of a forecaster's head must be positive");
    if (g.ahead < 0 || g.median < 0 || g.median >= g.quantiles)
        throw std::invalid_argument("the median must be one of the quantiles");
}

// Rows [count][width] of the workers' sums, `apart` from each other, become matrix [count, columns].
void deliver(const float* sums, int64_t apart, int workers, int64_t count, int64_t width, int64_t columns, float* to) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t c = 0; c < columns; ++c) {
            float total = 0;
            for (int w = 0; w < workers; ++w) total += sums[w * apart + r * width + c];
            to[r * columns + c] = total;
        }
}

void deliver(const ForecastLoss& g, const ForecastPlaces& at, const float* sums, int workers) {
    const ForecastWeights<float>& to = g.of_weights;
    const int64_t W = g.width, raw = g.targets * g.quantiles, gates = g.targets * g.bases, apart = at.sums;
    for (int64_t a = 0; a < g.ahead; ++a)
        for (int64_t k = 0; k < W; ++k) {
            float total = 0;
            for (int w = 0; w < workers; ++w) total += sums[w * apart + at.of_ahead + a * at.Wp + k];
            to.ahead[k * g.ahead + a] = total;
        }
    deliver(sums + at.of_hidden, apart, workers, W, at.Wp, W, to.hidden);
    deliver(sums + at.of_out, apart, workers, raw, at.Wp, W, to.out);
    deliver(sums + at.of_out + raw * at.Wp, apart, workers, gates, at.Wp, W, to.gate);
    deliver(sums + at.of_biases, apart, workers, 1, W, W, to.hidden_bias);
    deliver(sums + at.of_biases + at.Wp, apart, workers, 1, raw, raw, to.out_bias);
    deliver(sums + at.of_biases + at.Wp + raw, apart, workers, 1, gates, gates, to.gate_bias);
    deliver(sums + at.of_step, apart, workers, g.steps, at.Wp, W, to.step);
    deliver(sums + at.of_gate_step, apart, workers, g.steps, gates, gates, to.gate_step);
}

}  // namespace

double forecast_loss(const ForecastLoss& given, int threads) {
    check(given);
    const ForecastKernel& one = kernel();
    const ForecastPlaces at(given, one.lanes);
    const double flops = 12.0 * static_cast<double>(given.windows * given.steps * given.width) *
                         static_cast<double>(given.width + at.O + given.ahead);
    const int count = static_cast<int>(std::min<int64_t>(threads_for(flops, threads), given.windows));
    const size_t each = one.run(given, 0, 0, nullptr, nullptr, nullptr, nullptr);
    const auto take = [&](Carver& carver, float*& packed, float*& sums, double*& losses) {
        packed = carver.take<float>(at.packed);
        sums = carver.take<float>(count * at.sums);
        losses = carver.take<double>(count * 16);
    };
    float *packed = nullptr, *sums = nullptr;
    double* losses = nullptr;
    Carver measure(nullptr);
    take(measure, packed, sums, losses);
    char* const memory = static_cast<char*>(scratch_of(measure.used() + static_cast<size_t>(count) * (each + 128)));
    Carver carver(memory);
    take(carver, packed, sums, losses);
    one.pack(given, packed);
    int workers = 1;
    const auto work = [&](int index) {
        float* const own = sums + index * at.sums;
        std::memset(own, 0, sizeof(float) * static_cast<size_t>(at.sums));
        losses[16 * index] = 0;
        const int64_t first = given.windows * index / workers, last = given.windows * (index + 1) / workers;
        void* const place = memory + carver.used() + static_cast<size_t>(index) * (each + 128);
        one.run(given, first, last, packed, own, losses + 16 * index, place);
    };
    if (count == 1) {
        work(0);
    } else {
#pragma omp parallel num_threads(count)
        {
#pragma omp single
            workers = omp_get_num_threads();
            work(omp_get_thread_num());
        }
    }
    deliver(given, at, sums, workers);
    double loss = 0;
    for (int w = 0; w < workers; ++w) loss += losses[16 * w];
    return loss;
}

}  // namespace carousel
