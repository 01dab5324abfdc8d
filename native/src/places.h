// Where the stream of a whole number is kept: a table that thousands of ids are looked up in at once, without the cache
// misses that objects of Python cost.
#pragma once

#include <cstdint>
#include <vector>

namespace carousel {

class Places {
  public:
    // Replaces what stands for the key, or for the place.
    void put(int64_t key, int64_t place) {
        drop(place);
        if (2 * (count_ + 1) > static_cast<int64_t>(slots_.size())) grow();
        const size_t at = slot(key);
        if (slots_[at].place < 0)
            ++count_;
        else
            keys_[static_cast<size_t>(slots_[at].place)].used = false;
        slots_[at] = {key, place};
        if (place >= static_cast<int64_t>(keys_.size())) keys_.resize(static_cast<size_t>(place) + 1);
        keys_[static_cast<size_t>(place)] = {key, true};
    }

    // Forgets the key of a place, if it has one.
    void drop(int64_t place) {
        if (place >= static_cast<int64_t>(keys_.size()) || !keys_[static_cast<size_t>(place)].used) return;
        keys_[static_cast<size_t>(place)].used = false;
        size_t gap = slot(keys_[static_cast<size_t>(place)].key);
        for (size_t at = next(gap); slots_[at].place >= 0; at = next(at)) {  // those behind move up, if they may
            const size_t home = hash(slots_[at].key) & mask();
            if (((at - home) & mask()) < ((at - gap) & mask())) continue;
            slots_[gap] = slots_[at];
            gap = at;
        }
        slots_[gap].place = -1;
        --count_;
    }

    // The places of n keys; how many were found before the first that is not there.
    int64_t find(int64_t n, const int64_t* keys, int64_t* places) const {
        constexpr int64_t ahead = 16;
        if (slots_.empty()) return 0;
        for (int64_t k = 0; k < n; ++k) {
            if (k + ahead < n) __builtin_prefetch(&slots_[hash(keys[k + ahead]) & mask()]);
            if ((places[k] = slots_[slot(keys[k])].place) < 0) return k;
        }
        return n;
    }

  private:
    struct Slot {
        int64_t key = 0, place = -1;
    };
    struct Key {
        int64_t key = 0;
        bool used = false;
    };
    static size_t hash(int64_t key) {
        const uint64_t mixed = static_cast<uint64_t>(key) * 0x9e3779b97f4a7c15u;
        return static_cast<size_t>(mixed ^ mixed >> 32);
    }
    size_t mask() const { return slots_.size() - 1; }
    size_t next(size_t at) const { return (at + 1) & mask(); }
    size_t slot(int64_t key) const {  // where it is, or would be
        size_t at = hash(key) & mask();
        while (slots_[at].place >= 0 && slots_[at].key != key) at = next(at);
        return at;
    }
    void grow() {
        std::vector<Slot> before(slots_.empty() ? 64 : 2 * slots_.size());
        before.swap(slots_);
        for (const Slot& s : before)
            if (s.place >= 0) slots_[slot(s.key)] = s;
    }

    std::vector<Slot> slots_;  // a power of two of them, at most half taken
    std::vector<Key> keys_;    // of each place
    int64_t count_ = 0;
};

}  // namespace carousel
