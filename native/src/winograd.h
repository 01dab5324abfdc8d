// Winograd's minimal filtering F(2 x 2, 3 x 3) (Winograd 1980; Lavin & Gray 2016): a tile of 2 x 2 places costs 16
// products for each pair of channels instead of 36. Its sums are less exact than direct ones by a small factor, so only
// float goes through it; which frames do depends on nothing but the layer, so that chunks of time give what the whole
// gives.
//
// y = A' [(G w G') * (B' x B)] A, the product in the middle being one matrix product for each of its 16 parts.
#pragma once

#include "patches.h"

namespace carousel::CAROUSEL_NS {

inline constexpr int64_t parts = 16;

template <class S>
inline bool by_winograd(const ConvLayer& c) {
    return __is_same(S, float) && gives_matrices(c);
}

// Tiles of a frame, in rows as its places are.
struct TileGrid {
    int64_t height, width, down, across;

    explicit TileGrid(const ConvLayer& c)
        : height(c.height), width(c.width), down((c.height + 1) / 2), across((c.width + 1) / 2) {}
    int64_t count() const { return down * across; }

    // The place k = 0 ... 3 of a tile, or -1 outside the frame.
    int64_t place(int64_t tile, int k) const {
        const int64_t y = tile / across * 2 + k / 2, x = tile % across * 2 + k % 2;
        return y < height && x < width ? y * width + x : -1;
    }
};

// Tiles that are worked on together: what they see in 16 parts should leave room in a 2 MiB L2, and their number be
// worth the weights, which pass through it once for them all.
inline int64_t tiles_together(int64_t K, int64_t tiles) {
    const int64_t most = (int64_t{1} << 13) / K / 24 * 24, some = most < 48 ? 48 : most > 96 ? 96 : most;
    return some < tiles ? some : tiles;
}

// Numbers from part to part: a line of cache more than they need, lest all 16 lie in the same few lines of L1.
template <class T>
inline int64_t apart_of(int64_t tiles, int64_t K) {
    return tiles * K + line<T>;
}

template <class V>
inline void minus_plus(V& a, V& b, V& c, V& d) {  // B'
    const V first = a - c, last = b - d;
    const V sum = b + c, difference = c - b;
    a = first;
    b = sum;
    c = difference;
    d = last;
}

// B' x B of n tiles: to[part][tile][K], `apart` from part to part. `zeros` [channels] stands for what lies outside.
template <class T>
inline void see_tiles(const TileGrid& grid, const T* frame, int64_t channels, const T* zeros, int64_t first, int64_t n,
                      T* to, int64_t K, int64_t apart) {
    for (int64_t i = 0; i < n; ++i, to += K) {
        const int64_t y0 = (first + i) / grid.across * 2 - 1, x0 = (first + i) % grid.across * 2 - 1;
        const T* from[parts];
        for (int64_t p = 0; p < parts; ++p) {
            const int64_t y = y0 + p / 4, x = x0 + p % 4;
            const bool inside = y >= 0 && y < grid.height && x >= 0 && x < grid.width;
            from[p] = inside ? frame + (y * grid.width + x) * channels : zeros;
        }
        for (int64_t k = 0; k < channels; k += VL<T>) {
            const int64_t left = channels - k;
            Vec<T> v[parts];
#pragma GCC unroll 16
            for (int p = 0; p < parts; ++p) v[p] = load_first(from[p] + k, left);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) minus_plus(v[j], v[4 + j], v[8 + j], v[12 + j]);
#pragma GCC unroll 4
            for (int j = 0; j < 16; j += 4) minus_plus(v[j], v[j + 1], v[j + 2], v[j + 3]);
#pragma GCC unroll 16
            for (int p = 0; p < parts; ++p) store_first(to + p * apart + k, v[p], left);
        }
    }
}

// A' m A: the vectors at the four places of a tile, from those of the 16 parts, `apart` from each other.
template <class T>
inline void tile_places(const T* from, int64_t apart, Vec<T> (&place)[4]) {
    Vec<T> upper[4], lower[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const Vec<T> b = load(from + (4 + j) * apart), c = load(from + (8 + j) * apart);
        upper[j] = load(from + j * apart) + b + c;
        lower[j] = b - c - load(from + (12 + j) * apart);
    }
    place[0] = upper[0] + upper[1] + upper[2];
    place[1] = upper[1] - upper[2] - upper[3];
    place[2] = lower[0] + lower[1] + lower[2];
    place[3] = lower[1] - lower[2] - lower[3];
}

// G w G' of weight [N, 3, 3, C]: to[part][N][K], from column `column` on; `turned` by 180 degrees for gradients.
template <class T>
inline void see_weight(const T* weight, int64_t N, int64_t C, bool turned, T* to, int64_t K, int64_t column) {
    for (int64_t n = 0; n < N; ++n)
        for (int64_t c = 0; c < C; ++c) {
            T rows[4][3];
            for (int j = 0; j < 3; ++j) {
                const auto at = [&](int i) { return weight[(n * 9 + (turned ? 8 - i * 3 - j : i * 3 + j)) * C + c]; };
                const T a = at(0), b = at(1), d = at(2);
                rows[0][j] = a;
                rows[1][j] = (a + b + d) / 2;
                rows[2][j] = (a - b + d) / 2;
                rows[3][j] = d;
            }
            for (int i = 0; i < 4; ++i) {
                const T a = rows[i][0], b = rows[i][1], d = rows[i][2];
                const T seen[] = {a, (a + b + d) / 2, (a - b + d) / 2, d};
                for (int j = 0; j < 4; ++j) to[((i * 4 + j) * N + n) * K + column + c] = seen[j];
            }
        }
}

// For the gradient of the weight, part by part: of the products' operands one part each stays in cache, and their sums.
// B' x B and A z A' of part i, j are sums of four numbers with the factors of rows i and j below.
inline constexpr int64_t weight_tiles = 96;  // worked on together

struct PartRow {
    int first, second;
    float factor, other;
};
inline constexpr PartRow input_rows[4] = {{0, 2, 1, -1}, {1, 2, 1, 1}, {2, 1, 1, -1}, {1, 3, 1, -1}};  // rows of B'
inline constexpr PartRow output_rows[4] = {{0, 1, 1, 0}, {0, 1, 1, 1}, {0, 1, 1, -1}, {0, 1, 0, -1}};  // rows of A

// Where the numbers of n tiles lie, `side` x `side` of each, from `before` places before its first one.
template <class T>
inline void find_tiles(const TileGrid& grid, const T* frame, int64_t channels, const T* zeros, int64_t first, int64_t n,
                       int64_t side, int64_t before, const T** to) {
    for (int64_t i = 0; i < n; ++i) {
        const int64_t y0 = (first + i) / grid.across * 2 - before, x0 = (first + i) % grid.across * 2 - before;
        for (int64_t p = 0; p < side * side; ++p) {
            const int64_t y = y0 + p / side, x = x0 + p % side;
            const bool inside = y >= 0 && y < grid.height && x >= 0 && x < grid.width;
            *to++ = inside ? frame + (y * grid.width + x) * channels : zeros;
        }
    }
}

// One part of n tiles that find_tiles found: rows of `channels` numbers, `stride` apart.
template <class T>
inline void see_part(const T* const* tiles, int64_t n, int64_t side, int64_t channels, const PartRow& row,
                     const PartRow& column, T* to, int64_t stride) {
    const Vec<T> a = all(T(row.factor * column.factor)), b = all(T(row.factor * column.other));
    const Vec<T> c = all(T(row.other * column.factor)), d = all(T(row.other * column.other));
    for (int64_t i = 0; i < n; ++i, tiles += side * side, to += stride) {
        const T *const at_a = tiles[row.first * side + column.first], *const at_b =
                                                                          tiles[row.first * side + column.second];
        const T *const at_c = tiles[row.second * side + column.first], *const at_d =
                                                                           tiles[row.second * side + column.second];
        for (int64_t k = 0; k < channels; k += VL<T>) {
            const int64_t left = channels - k;
            Vec<T> v = a * load_first(at_a + k, left);
            v = fma(b, load_first(at_b + k, left), v);
            v = fma(c, load_first(at_c + k, left), v);
            store_first(to + k, fma(d, load_first(at_d + k, left), v), left);
        }
    }
}

// G' m G: the gradient of weight [N, 3, 3, C] from the sums m[part][K][Np] of `count` workers, `apart` from each other;
// its channels are the rows from `first` on.
template <class T>
inline void deliver_weight(const T* sums, int64_t count, int64_t apart, int64_t K, int64_t Np, int64_t first, int64_t N,
                           int64_t C, int64_t c0, int64_t c1, T* weight) {
    const auto narrowed = [](T a, T b, T c, T d, T(&to)[3]) {
        to[0] = a + (b + c) / 2;
        to[1] = (b - c) / 2;
        to[2] = (b + c) / 2 + d;
    };
    for (int64_t c = c0; c < c1; ++c)
        for (int64_t n = 0; n < N; ++n) {
            T m[4][4], half[4][3];
            for (int p = 0; p < parts; ++p) {
                T total = 0;
                for (int64_t w = 0; w < count; ++w) total += sums[w * apart + (p * K + first + c) * Np + n];
                m[p / 4][p % 4] = total;
            }
            for (int j = 0; j < 4; ++j) {
                T column[3];
                narrowed(m[0][j], m[1][j], m[2][j], m[3][j], column);
                for (int i = 0; i < 3; ++i) half[j][i] = column[i];
            }
            for (int i = 0; i < 3; ++i) {
                T row[3];
                narrowed(half[0][i], half[1][i], half[2][i], half[3][i], row);
                for (int j = 0; j < 3; ++j) weight[(n * 9 + i * 3 + j) * C + c] = row[j];
            }
        }
}

}  // namespace carousel::CAROUSEL_NS
