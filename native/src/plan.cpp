#include "plan.h"

#include <pthread.h>
#include <sched.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace carousel {
namespace {

constexpr size_t large_page = size_t{1} << 21;

// Forked children inherit an OpenMP pool without its threads: a parallel region there would wait for ever.
bool forked = false;

class Scratch {
  public:
    void* of(size_t bytes) {
        if (bytes > size_) {
            memory_.reset();
            size_ = 0;
            memory_.reset(allocate(bytes));
            size_ = bytes;
        }
        return memory_.get();
    }

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
    size_t size_ = 0;
};

}  // namespace

int threads_for(double flops, int threads) {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
    if (registered != 0 || forked) return 1;
    return flops < 1e6 ? 1 : std::max(1, threads);
}

void* scratch_of(size_t bytes) {
    thread_local Scratch scratch;
    return scratch.of(bytes);
}

void prefer_large_pages(void* memory, size_t bytes) {
#ifdef __linux__
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory), end = start + bytes;
    const uintptr_t first = (start + large_page - 1) / large_page * large_page, last = end / large_page * large_page;
    // It is advice: without it all is as it was.
    if (memory && first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

void* allocate(size_t bytes) {
    const size_t grain = bytes < large_page ? 4096 : large_page;
    void* memory = std::aligned_alloc(grain, (bytes + grain) / grain * grain);
    if (!memory) throw std::bad_alloc();
    prefer_large_pages(memory, bytes);
    return memory;
}

void Barrier::wait() {
    if (members_ == 1) return;
    const int generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        generation_.store(generation + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        if (spins > 4000) sched_yield();
    }
}

}  // namespace carousel
