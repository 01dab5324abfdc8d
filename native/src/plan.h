// How the work of one call is cut: plain data, shared by the code that is compiled once and the kernels that are
// compiled per instruction set.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "carousel.h"

namespace carousel {

// Some sequences of one direction. Longest first, so that those still alive at a step are a prefix.
struct Part {
    int64_t direction;
    int64_t count;
    const int64_t* sequence;  // [count]
    int64_t steps;
    const int64_t* active;  // [steps] sequences alive at the part's step s
    int64_t rows;           // the sum of `active`
};

// Spins, then yields: the other thread may have lost its core.
class Barrier {
  public:
    explicit Barrier(int members) : members_(members) {}
    void wait();

  private:
    const int members_;
    std::atomic<int> arrived_{0}, generation_{0};
};

struct Job {
    const Layer* layer;
    const Outputs* out;
    const Gradients* gradients;  // null in forward
    const Part* parts;
    int64_t part_count;
    bool team;  // every part is worked on by all threads, which share its units; else a thread has parts of its own
};

struct ConvJob {
    const ConvLayer* layer;
    const ConvOutputs* out;
    const ConvGradients* gradients;  // null in forward
    const int64_t* order;            // [sequences] in which they are worked on
    const int64_t* owner;            // [sequences] the worker of the k-th, unless in a team
    bool team;                       // all workers share the places of every frame
};

// The calling thread's place in the call.
struct Worker {
    int index, count;
    Barrier* barrier;  // over all workers
};

// A block for long use, on a boundary of large pages; throws std::bad_alloc. Freed by std::free.
void* allocate(size_t bytes);

// How many threads work that is worth `flops` should have: one where it is little, or after a fork.
int threads_for(double flops, int threads);

// At least so many bytes that the calling thread keeps from call to call: large buffers would cost page faults each
// time.
void* scratch_of(size_t bytes);

// Asks for large pages under fresh memory: a page fault for every 4 KiB of it costs more than filling it does.
void prefer_large_pages(void* memory, size_t bytes);

// Hands out one block of memory piece by piece; with a null base it only measures.
class Carver {
  public:
    explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
    template <class T>
    T* take(int64_t count) {
        const size_t start = used_;
        used_ = (used_ + static_cast<size_t>(count) * sizeof(T) + 127) / 128 * 128;
        return base_ ? reinterpret_cast<T*>(base_ + start) : nullptr;
    }
    size_t used() const { return used_; }

  private:
    char* base_;
    size_t used_ = 0;
};

// One instruction set's kernels for one type. `scratch` of null measures and does nothing else.
struct Kernels {
    size_t (*forward)(const Job&, void* scratch, const Worker&);
    size_t (*backward)(const Job&, void* scratch, const Worker&);
    size_t (*pack)(const Layer&, void* memory);  // of null measures and does nothing else
    int64_t (*reserve_width)(const Layer&);
    size_t (*conv_forward)(const ConvJob&, void* scratch, const Worker&);
    size_t (*conv_backward)(const ConvJob&, void* scratch, const Worker&);
    int64_t lanes;
};

}  // namespace carousel
