// What the gradient kernels are made of: products of a chunk of rows, sums of outer products, SiLU with its slope,
// the chunks of a graph's edges.
#pragma once

#include "cpu/fused/tile.hpp"
#include "cpu/gradient/kernels.hpp"

namespace metaedit::gradient {

using fused::add_product;
using fused::column_of;
using fused::copy;
using fused::EdgeWalk;
using fused::TileShape;

// s(x) of fused/kernels.hpp, and its derivative: with y = s(x) and p = y / x, p + ln(2) y (p - 1).
template <class S>
METAEDIT_INLINE typename S::V silu(typename S::V x, typename S::V& slope) {
    using V = typename S::V;
    constexpr float kLn2 = 0.693147181F;
    const V one = S::all(1.0F);
    const V share = S::div(one, S::add(S::exp2(x), one));
    const V y = S::mul(x, share);
    slope = S::fma(S::mul(y, S::all(kLn2)), S::sub(share, one), share);
    return y;
}

// Chunks of edges: rows up to the next multiple of kRowStep are worked on.
inline constexpr int kRowStep = 16;
constexpr int chunk_of(int width) {
    return width <= 64 ? 64 : 32;
}
METAEDIT_INLINE int to_rows(int n) {
    return (n + kRowStep - 1) / kRowStep * kRowStep;
}

// then(r, column, start(r, column) + (x B)[r, column...]) for `rows` rows, a multiple of kRowStep, and kColumns
// columns of B, whose panels begin at `values` and are n_in rows long, of which n_used are B's.
template <class S, int kColumns, class Start, class Take>
METAEDIT_INLINE void product(const float* x, std::int64_t stride, int rows, const float* values, std::int64_t n_in,
                             std::int64_t n_used, const Start& start, const Take& take) {
    using Shape = TileShape<S, kColumns>;
    constexpr int kVectors = Shape::kVectors, kRows = Shape::kRows;
    static_assert(kRowStep % kRows == 0);
    for (int column = 0; column < kColumns; column += Shape::kWidth) {
        const float* weight = column_of(values, n_in, column);
        for (int row = 0; row < rows; row += kRows) {
            typename S::V sums[kRows][kVectors];
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) sums[r][j] = start(row + r, column + j * S::kLanes);
            }
            add_product<S>(sums, x + row * stride, stride, weight, n_in, n_used);
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) take(row + r, column + j * S::kLanes, sums[r][j]);
            }
        }
    }
}

template <class S, int kColumns, class Start, class Take>
METAEDIT_INLINE void product(const float* x, std::int64_t stride, int rows, const float* values, std::int64_t n_in,
                             const Start& start, const Take& take) {
    product<S, kColumns>(x, stride, rows, values, n_in, n_in, start, take);
}

// values[k][column...] += the sum over rows of x[row][k] g[row][column...], for kIn neighbouring k. The sum begins
// with 0: added chunk by chunk, a gradient over many edges keeps three times the digits' accuracy.
template <class S, int kIn, int kVectors>
METAEDIT_INLINE void outer_tile(const float* x, std::int64_t x_stride, const float* g, std::int64_t g_stride,
                                std::int64_t rows, float* values, std::int64_t n_in) {
    using V = typename S::V;
    V sums[kIn][kVectors];
    const auto at = [=](int k, int j) METAEDIT_INLINE_LAMBDA {
        const int column = j * S::kLanes;
        return values + column / kPanel * kPanel * n_in + k * kPanel + column % kPanel;
    };
    METAEDIT_UNROLL
    for (int k = 0; k < kIn; ++k) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) sums[k][j] = S::all(0.0F);
    }
    for (std::int64_t row = 0; row < rows; ++row, x += x_stride, g += g_stride) {
        V y[kVectors];
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) y[j] = S::load(g + j * S::kLanes);
        METAEDIT_UNROLL
        for (int k = 0; k < kIn; ++k) {
            const V a = S::all(x[k]);
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) sums[k][j] = S::fma(a, y[j], sums[k][j]);
        }
    }
    METAEDIT_UNROLL
    for (int k = 0; k < kIn; ++k) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) S::store(at(k, j), S::add(S::load(at(k, j)), sums[k][j]));
    }
}

template <class S, int kVectors>
METAEDIT_INLINE void outer_columns(const float* x, std::int64_t x_stride, std::int64_t n_in, const float* g,
                                   std::int64_t g_stride, std::int64_t rows, float* values) {
    constexpr int kIn = S::rows_of_tile(kVectors);
    std::int64_t k = 0;
    for (; k + kIn <= n_in; k += kIn) {
        outer_tile<S, kIn, kVectors>(x + k, x_stride, g, g_stride, rows, values + k * kPanel, n_in);
    }
    if constexpr (kIn > 4) {
        for (; k + 4 <= n_in; k += 4) {
            outer_tile<S, 4, kVectors>(x + k, x_stride, g, g_stride, rows, values + k * kPanel, n_in);
        }
    }
    for (; k < n_in; ++k) outer_tile<S, 1, kVectors>(x + k, x_stride, g, g_stride, rows, values + k * kPanel, n_in);
}

// values += x^T g, in panels.
template <class S>
METAEDIT_INLINE void add_outer(const float* x, std::int64_t x_stride, std::int64_t n_in, const float* g,
                               std::int64_t g_stride, std::int64_t n_out, std::int64_t rows, float* values) {
    constexpr int kWide = S::kTileVectors * S::kLanes;
    std::int64_t column = 0;
    for (; column + kWide <= n_out; column += kWide) {
        outer_columns<S, S::kTileVectors>(x, x_stride, n_in, g + column, g_stride, rows,
                                          values + column / kPanel * kPanel * n_in + column % kPanel);
    }
    for (; column < n_out; column += kPanel) {
        outer_columns<S, kPanel / S::kLanes>(x, x_stride, n_in, g + column, g_stride, rows, values + column * n_in);
    }
}

// sums += the rows of g.
template <class S>
METAEDIT_INLINE void add_column_sums(const float* g, std::int64_t stride, std::int64_t width, std::int64_t rows,
                                     float* sums) {
    for (std::int64_t i = 0; i < width; i += S::kLanes) {
        typename S::V sum = S::all(0.0F);
        for (std::int64_t row = 0; row < rows; ++row) sum = S::add(sum, S::load(g + row * stride + i));
        S::store(sums + i, S::add(S::load(sums + i), sum));
    }
}

// Neighbouring edges of a chunk that leave one source.
METAEDIT_INLINE int end_of_run(const std::int64_t* sources, int first, int rows) {
    int last = first + 1;
    while (last < rows && sources[last] == sources[first]) ++last;
    return last;
}

// Adds rows of g to those of two tables: at the target of each edge, and at its source, whose neighbouring edges are
// added up first.
template <class S, int kWidth>
METAEDIT_INLINE void scatter(const float* g, int rows, const std::int64_t* sources, const std::int64_t* targets,
                             float* at_source, float* at_target, std::int64_t stride) {
    using V = typename S::V;
    for (int first = 0; first < rows;) {
        const int last = end_of_run(sources, first, rows);
        float* source = at_source == nullptr ? nullptr : at_source + sources[first] * stride;
        for (int i = 0; i < kWidth; i += S::kLanes) {
            V sum = S::all(0.0F);
            for (int r = first; r < last; ++r) {
                const V value = S::load(g + r * kWidth + i);
                if (at_target != nullptr) {
                    float* target = at_target + targets[r] * stride + i;
                    S::store(target, S::add(S::load(target), value));
                }
                sum = S::add(sum, value);
            }
            if (source != nullptr) S::store(source + i, S::add(S::load(source + i), sum));
        }
        first = last;
    }
}

// The edges of a graph in chunks of at most kChunk, with their ends; edges that fill up a chunk's rows join the node
// behind the last.
template <int kChunk, class Visit>
METAEDIT_INLINE void for_each_chunk(const Edges& edges, const Visit& visit) {
    std::int64_t sources[kChunk], targets[kChunk];
    for (std::int64_t b = 0; b < edges.n_blocks; ++b) {
        EdgeWalk walk(edges.blocks[b]);
        while (walk.edge < walk.end) {
            const std::int64_t first = walk.edge;
            const int n = walk.take(kChunk, edges.n_nodes, sources, targets);
            visit(first, n, sources, targets);
        }
    }
}

// The rows of a chunk: those given, or, where they do not fill up the last step, a copy followed by zeros.
template <int kWidth>
METAEDIT_INLINE const float* filled(const float* rows, int n, float* room) {
    if (n % kRowStep == 0) return rows;
    copy(rows, n * kWidth, room);
    for (int i = n * kWidth; i < to_rows(n) * kWidth; ++i) room[i] = 0.0F;
    return room;
}

}  // namespace metaedit::gradient
