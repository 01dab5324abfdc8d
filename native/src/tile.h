// The affine part: tiles of R rows x NV vectors of columns that stay in registers while k runs.
//
// Every sum runs over k in ascending order, starting from its initial value, in every tile shape; so a result does not
// depend on how many rows happen to be computed together, nor on the split into chunks or threads.
#pragma once

#include "simd.h"
#include "storage.h"

namespace carousel::CAROUSEL_NS {

// Left operands: element k of row r. A `Tile` holds the addresses of R rows in registers; `segments` x `count` is K.

template <class T, class S, int R>
struct PointerTile {
    const S* row[R];
    int64_t count;
    static constexpr int64_t segments = 1;
    T at(int64_t, int r, int64_t k) const { return widen(row[r][k]); }
};

template <class T, class S>
struct PointerRows {  // rows anywhere in memory: rows[r] [K]
    const S* const* rows;
    int64_t count, offset = 0;
    static constexpr int64_t grain = 1;
    PointerRows cut(int64_t k0, int64_t k1) const { return {rows, k1 - k0, offset + k0}; }
    template <int R>
    PointerTile<T, S, R> tile(int64_t first) const {
        PointerTile<T, S, R> t;
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) t.row[r] = rows[first + r] + offset;
        t.count = count;
        return t;
    }
};

template <class T, int R, int WIDTH>
struct BlockedTile {
    const T* base;
    int64_t segments, stride;
    static constexpr int64_t count = WIDTH;
    T at(int64_t segment, int r, int64_t k) const { return base[segment * stride + r * WIDTH + k]; }
};

template <class T, int WIDTH>
struct BlockedRows {  // [segments][rows, stride apart between segments][WIDTH]
    const T* data;
    int64_t segments, stride, count = segments * WIDTH;
    static constexpr int64_t grain = WIDTH;
    BlockedRows cut(int64_t k0, int64_t k1) const { return {data + k0 / WIDTH * stride, (k1 - k0) / WIDTH, stride}; }
    template <int R>
    BlockedTile<T, R, WIDTH> tile(int64_t first) const {
        return {data + first * WIDTH, segments, stride};
    }
};

template <class T, int R>
struct StridedTile {
    const T* base;
    int64_t stride, count;
    static constexpr int64_t segments = 1;
    T at(int64_t, int r, int64_t k) const { return base[r * stride + k]; }
};

template <class T>
struct StridedRows {  // [rows][K], rows `stride` apart
    const T* data;
    int64_t stride, count;
    static constexpr int64_t grain = 1;
    StridedRows cut(int64_t k0, int64_t k1) const { return {data + k0, stride, k1 - k0}; }
    template <int R>
    StridedTile<T, R> tile(int64_t first) const {
        return {data + first * stride, stride, count};
    }
};

template <class T, class S, int R>
struct ColumnTile {
    const S* const* rows;
    int64_t first, count;
    static constexpr int64_t segments = 1;
    T at(int64_t, int r, int64_t k) const { return widen(rows[k][first + r]); }
};

template <class T, class S>
struct Columns {  // the transpose of PointerRows, for gradients of weights: k runs over rows
    const S* const* rows;
    int64_t count;
    static constexpr int64_t grain = 1;
    Columns cut(int64_t k0, int64_t k1) const { return {rows + k0, k1 - k0}; }
    template <int R>
    ColumnTile<T, S, R> tile(int64_t first) const {
        return {rows, first, count};
    }
};

template <class T, int R>
struct StridedColumnTile {
    const T* base;
    int64_t stride, count;
    static constexpr int64_t segments = 1;
    T at(int64_t, int r, int64_t k) const { return base[k * stride + r]; }
};

template <class T>
struct StridedColumns {  // the transpose of StridedRows
    const T* data;
    int64_t stride, count;
    static constexpr int64_t grain = 1;
    StridedColumns cut(int64_t k0, int64_t k1) const { return {data + k0 * stride, stride, k1 - k0}; }
    template <int R>
    StridedColumnTile<T, R> tile(int64_t first) const {
        return {data + first, stride, count};
    }
};

template <class T, int R, int NV, class A>
inline __attribute__((always_inline)) void accumulate(Vec<T> (&acc)[R][NV], const A& a, const T* panel, int64_t stride,
                                                      const char* ahead, int64_t line) {
    for (int64_t segment = 0; segment < a.segments; ++segment) {
        for (int64_t k = 0; k < a.count; ++k, panel += stride) {
            Vec<T> w[NV];
            __builtin_prefetch(ahead, 0, 2);
            ahead += line;
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) w[v] = load(panel + v * VL<T>);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const Vec<T> x = all(a.at(segment, r, k));
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
            }
        }
    }
}

// One row: two panels at once, because four accumulators are bound by the latency of FMA.
template <class T, int NV, class A>
inline __attribute__((always_inline)) void accumulate_pair(Vec<T> (&acc)[2][NV], const A& a, const T* panel,
                                                           const T* second, int64_t stride) {
    for (int64_t segment = 0; segment < a.segments; ++segment) {
        for (int64_t k = 0; k < a.count; ++k, panel += stride, second += stride) {
            const Vec<T> x = all(a.at(segment, 0, k));
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[0][v] = fma(x, load(panel + v * VL<T>), acc[0][v]);
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[1][v] = fma(x, load(second + v * VL<T>), acc[1][v]);
        }
    }
}

// One row and one panel, where the order of the sum is free: four sums by turns, again because of the latency of FMA.
template <class T, int NV, class A>
inline __attribute__((always_inline)) void accumulate_split(Vec<T> (&acc)[4][NV], const A& a, const T* panel,
                                                            int64_t stride) {
    for (int64_t segment = 0; segment < a.segments; ++segment) {
        int64_t k = 0;
        for (; k + 4 <= a.count; k += 4, panel += 4 * stride)
#pragma GCC unroll 4
            for (int s = 0; s < 4; ++s) {
                const Vec<T> x = all(a.at(segment, 0, k + s));
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) acc[s][v] = fma(x, load(panel + s * stride + v * VL<T>), acc[s][v]);
            }
        for (; k < a.count; ++k, panel += stride)
            for (int v = 0; v < NV; ++v) acc[0][v] = fma(all(a.at(segment, 0, k)), load(panel + v * VL<T>), acc[0][v]);
    }
}

// Where a block of columns starts and how far its rows are apart.
template <class T>
struct Place {
    T* data = nullptr;
    int64_t block = 0, row = 0;
    T* at(int64_t b, int64_t r) const { return data + b * block + r * row; }
};

// Right operand: `blocks` panels of [K][NV * VL], `size` apart; `stride` apart from k to k. With `reversed` the last
// block comes first: steps that turn round by turns find in cache what the step before has left there.
template <class T>
struct Panels {
    const T* data = nullptr;
    int64_t blocks = 0, size = 0, stride = 0;
    bool reversed = false;
};

struct Nothing {
    void operator()(int64_t, int64_t, int) const {}
};

template <class T, int R, int NV, class A, class Done>
__attribute__((noinline)) void tile(const A& a, int64_t r0, const Panels<T>& right, int64_t block,
                                    const Place<const T>& from, const Place<T>& to, const char* ahead, int64_t line,
                                    const Done& done) {
    Vec<T> acc[R][NV];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < NV; ++v) acc[r][v] = from.data ? load(from.at(block, r0 + r) + v * VL<T>) : zero<T>();
    accumulate<T, R, NV>(acc, a.template tile<R>(r0), right.data + block * right.size, right.stride, ahead, line);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(to.at(block, r0 + r) + v * VL<T>, acc[r][v]);
    done(block, r0, R);
}

template <class T, int NV, class A, class Done>
__attribute__((noinline)) void tile_pair(const A& a, int64_t r0, const Panels<T>& right, int64_t block,
                                         const Place<const T>& from, const Place<T>& to, const Done& done) {
    Vec<T> acc[2][NV];
    for (int b = 0; b < 2; ++b)
        for (int v = 0; v < NV; ++v) acc[b][v] = from.data ? load(from.at(block + b, r0) + v * VL<T>) : zero<T>();
    const T* panel = right.data + block * right.size;
    accumulate_pair<T, NV>(acc, a.template tile<1>(r0), panel, panel + right.size, right.stride);
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(to.at(block + b, r0) + v * VL<T>, acc[b][v]);
    done(block, r0, 1);
    done(block + 1, r0, 1);
}

template <class T, int NV, class A>
__attribute__((noinline)) void tile_split(const A& a, const Panels<T>& right, int64_t block, const Place<T>& to) {
    Vec<T> acc[4][NV] = {};
    accumulate_split<T, NV>(acc, a.template tile<1>(0), right.data + block * right.size, right.stride);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store(to.at(block, 0) + v * VL<T>, (acc[0][v] + acc[1][v]) + (acc[2][v] + acc[3][v]));
}

template <int NV>
inline constexpr int tile_rows = tile_vectors / NV > 8 ? 8 : tile_vectors / NV;

template <class T, int NV, int R, class A, class Done>
inline void tile_of(int rows, const A& a, int64_t r0, const Panels<T>& right, int64_t block, const Place<const T>& from,
                    const Place<T>& to, const char* ahead, int64_t line, const Done& done) {
    if constexpr (R > 1) {
        if (rows < R) return tile_of<T, NV, R - 1>(rows, a, r0, right, block, from, to, ahead, line, done);
    }
    tile<T, R, NV>(a, r0, right, block, from, to, ahead, line, done);
}

// All rows of one block of columns. Each of the first NV tiles fetches its share of the panel that comes `next` into
// L2: one line for every k, and a panel has NV of them.
template <class T, int NV, class A, class Done>
inline void sweep(const A& a, int64_t rows, int64_t tiles, const Panels<T>& right, int64_t block, const T* next,
                  const Place<const T>& from, const Place<T>& to, const Done& done) {
    const char* ahead = reinterpret_cast<const char*>(next);
    for (int64_t t = 0, r0 = 0; t < tiles; ++t) {
        const int64_t r1 = rows * (t + 1) / tiles, line = t < NV ? 64 : 0;
        tile_of<T, NV, tile_rows<NV>>(static_cast<int>(r1 - r0), a, r0, right, block, from, to, ahead, line, done);
        ahead += a.count * line;
        r0 = r1;
    }
}

// How much of a panel the tiles of one block of columns share before they go on: it should stay close to L1.
inline constexpr int64_t panel_bytes = 1 << 16;

// to[b][r] = from[b][r] + sum over k of a[r][k] right[b][k], and done(b, r, R) after each tile. Rows are cut into tiles
// of nearly equal height, so that no tile is left with a row or two.
template <class T, int NV, class A, class Done>
inline void product(const A& a, int64_t rows, const Panels<T>& right, const Place<const T>& from, const Place<T>& to,
                    const Done& done) {
    constexpr int most = tile_rows<NV>;
    const int64_t tiles = (rows + most - 1) / most;
    int64_t done_with = 0;
    const auto at = [&](int64_t k) { return right.reversed ? right.blocks - 1 - k : k; };
    if (rows == 1)
        for (; done_with + 1 < right.blocks; done_with += 2) {
            const int64_t one = at(done_with), other = at(done_with + 1);
            tile_pair<T, NV>(a, 0, right, one < other ? one : other, from, to, done);
        }
    constexpr int64_t fits = panel_bytes / (NV * vector_bytes) / A::grain * A::grain;
    const int64_t depth = tiles > 1 && a.count > fits + fits / 2 ? fits : a.count;
    for (; done_with < right.blocks; ++done_with) {
        const int64_t block = at(done_with);
        for (int64_t k = 0; k < a.count || k == 0; k += depth) {
            const int64_t end = a.count - k > depth ? k + depth : a.count;
            const bool last = end == a.count;
            const Panels<T> piece{right.data + k * right.stride, right.blocks, right.size, right.stride};
            const T* next = last ? right.data + (done_with + 1 < right.blocks ? at(done_with + 1) : 0) * right.size
                                 : right.data + block * right.size + end * right.stride;
            const Place<const T> start = k ? Place<const T>{to.data, to.block, to.row} : from;
            if (last)
                sweep<T, NV>(k ? a.cut(k, end) : a, rows, tiles, piece, block, next, start, to, done);
            else
                sweep<T, NV>(a.cut(k, end), rows, tiles, piece, block, next, start, to, Nothing{});
        }
    }
}

}  // namespace carousel::CAROUSEL_NS
