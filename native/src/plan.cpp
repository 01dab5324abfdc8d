#include "plan.h"

#include <sched.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <new>

namespace carousel {
namespace {

constexpr size_t large_page = size_t{1} << 21;

}  // namespace

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
