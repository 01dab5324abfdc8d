// The calls of carousel.h: check the sizes, cut the work into parts, find scratch memory, let the kernels run.
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "carousel.h"
#include "dispatch.h"

namespace carousel {
namespace {

void check(const Layer& layer) {
    const Sizes& z = layer.sizes;
    if (z.input < 0 || z.hidden < 1 || z.output < 1 || z.rows < 0 || z.sequences < 0 || z.steps < 0)
        throw std::invalid_argument("the sizes of an LSTM layer must be positive");
    if (z.directions < 1 || z.directions > 2) throw std::invalid_argument("an LSTM layer has one or two directions");
    if (!layer.spec.projection && z.output != z.hidden)
        throw std::invalid_argument("without a projection the output size is the hidden size");
    const Rows& rows = layer.rows;
    if (!std::is_sorted(rows.ahead, rows.ahead + z.steps))
        throw std::invalid_argument("rows.ahead must not decrease from step to step");
    int64_t total = 0;
    for (int64_t b = 0; b < z.sequences; ++b) {
        const int64_t length = rows.lengths[b];
        if (length < 0 || length > z.steps)
            throw std::invalid_argument("rows.lengths must lie between 0 and the number of steps");
        if (length == 0) continue;
        total += length;
        const int64_t first = rows.first[b] + rows.ahead[0], last = rows.first[b] + rows.ahead[length - 1];
        if (first < 0 || last >= z.rows) throw std::invalid_argument("rows.first and rows.ahead name a row outside x");
    }
    if (total != z.rows) throw std::invalid_argument("rows.lengths must add up to the number of rows of x");
}

int threads_for(const Layer& layer) {
    const Sizes& z = layer.sizes;
    const double work = static_cast<double>(z.rows) * static_cast<double>(z.directions * z.hidden) *
                        static_cast<double>(4 * (z.input + z.output));
    return carousel::threads_for(work, layer.threads);
}

// Owns what the parts point to.
struct Plan {
    std::vector<Part> parts;
    std::vector<std::vector<int64_t>> numbers;
    bool team = false;
    int threads = 1;
};

void add_part(Plan& plan, const Layer& layer, int64_t direction, std::vector<int64_t> sequences) {
    const int64_t* lengths = layer.rows.lengths;
    Part part{direction, static_cast<int64_t>(sequences.size()), nullptr, 0, nullptr, 0};
    if (part.count) part.steps = lengths[sequences.front()];
    std::vector<int64_t> active(static_cast<size_t>(part.steps));
    int64_t alive = part.count;
    for (int64_t s = 0; s < part.steps; ++s) {
        while (alive && lengths[sequences[static_cast<size_t>(alive - 1)]] <= s) --alive;
        active[static_cast<size_t>(s)] = alive;
        part.rows += alive;
    }
    plan.numbers.push_back(std::move(sequences));
    part.sequence = plan.numbers.back().data();
    plan.numbers.push_back(std::move(active));
    part.active = plan.numbers.back().data();
    plan.parts.push_back(part);
}

// Longest first; each to the share that has the fewest rows so far.
std::vector<std::vector<int64_t>> shares_of(const Layer& layer, const std::vector<int64_t>& order, int64_t count) {
    std::vector<std::vector<int64_t>> shares(static_cast<size_t>(count));
    std::vector<int64_t> rows(shares.size());
    for (const int64_t b : order) {
        const auto least = std::min_element(rows.begin(), rows.end()) - rows.begin();
        shares[static_cast<size_t>(least)].push_back(b);
        rows[static_cast<size_t>(least)] += layer.rows.lengths[b];
    }
    return shares;
}

// Units are shared, at the price of a barrier a step, where the recurrent weights of one thread would not stay in its
// cache or where there are too few sequences to share out.
bool wants_team(const Layer& layer, int threads) {
    const Sizes& z = layer.sizes;
    const Spec& spec = layer.spec;
    if (threads == 1 || spec.layer_norm || spec.decay) return false;
    if (layer.packed && spec.projection) return false;  // a team packs the projection for its own number of workers
    const int64_t bytes = 4 * z.hidden * z.output * (layer.type == Type::f64 ? 8 : 4);
    if (z.directions >= threads) return false;
    return bytes > (int64_t{3} << 19) || (z.sequences < 2 * threads && bytes >= (int64_t{3} << 16));
}

Plan plan_of(const Layer& layer) {
    const Sizes& z = layer.sizes;
    Plan plan;
    plan.threads = threads_for(layer);
    plan.team = wants_team(layer, plan.threads);
    std::vector<int64_t> order(static_cast<size_t>(z.sequences));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return layer.rows.lengths[a] > layer.rows.lengths[b]; });
    const int64_t wanted = plan.team ? 1 : std::max<int64_t>(1, plan.threads / z.directions);
    const int64_t count = std::max<int64_t>(1, std::min(wanted, z.sequences));
    plan.numbers.reserve(static_cast<size_t>(4 * count * z.directions));
    for (int64_t d = 0; d < z.directions; ++d)
        for (auto& share : shares_of(layer, order, count)) add_part(plan, layer, d, std::move(share));
    if (!plan.team) plan.threads = std::min(plan.threads, static_cast<int>(plan.parts.size()));
    return plan;
}

void run(const Layer& layer, const Outputs* out, const Gradients* gradients) {
    check(layer);
    const Plan plan = plan_of(layer);
    const Job job{&layer, out, gradients, plan.parts.data(), static_cast<int64_t>(plan.parts.size()), plan.team};
    const Kernels& kernels = kernels_for(layer.type);
    const auto walk = gradients ? kernels.backward : kernels.forward;
    Barrier one(1);
    void* memory = scratch_of(walk(job, nullptr, {0, plan.threads, &one}));
    if (plan.threads == 1) {
        walk(job, memory, {0, 1, &one});
        return;
    }
    std::unique_ptr<Barrier> barrier;
#pragma omp parallel num_threads(plan.threads)
    {
#pragma omp single
        barrier = std::make_unique<Barrier>(omp_get_num_threads());
        walk(job, memory, {omp_get_thread_num(), omp_get_num_threads(), barrier.get()});
    }
}

}  // namespace

int64_t lanes(Type type) { return kernels_for(type).lanes; }

int64_t reserve_width(const Layer& layer) { return kernels_for(layer.type).reserve_width(layer); }

Packed::Packed(const Layer& layer) : data_(nullptr) {
    const auto pack = kernels_for(layer.type).pack;
    data_ = allocate(pack(layer, nullptr));
    pack(layer, data_);
}

Packed::~Packed() { std::free(data_); }

void forward(const Layer& layer, const Outputs& out) {
    if (out.reserve && !layer.recompute) {
        const Sizes& z = layer.sizes;
        const int64_t numbers = z.directions * z.rows * reserve_width(layer);
        prefer_large_pages(out.reserve, static_cast<size_t>(numbers) * (layer.type == Type::f64 ? 8 : 4));
    }
    run(layer, &out, nullptr);
}

void backward(const Layer& layer, const Gradients& gradients) { run(layer, nullptr, &gradients); }

}  // namespace carousel
