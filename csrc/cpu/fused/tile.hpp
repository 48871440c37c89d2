// The register tile that all products are made of, and the walk over a block's edges.
#pragma once

#include <cstdint>

#include "core/panels.hpp"
#include "core/weight_graph.hpp"
#include "cpu/fused/inline.hpp"

namespace metaedit::fused {

// Registers of a tile over a product's columns: vectors, and rows that go with them.
template <class S, int kColumns>
struct TileShape {
    static constexpr int kAll = kColumns / S::kLanes;
    static constexpr int kVectors = kAll < S::kTileVectors ? kAll : S::kTileVectors;
    static constexpr int kRows = S::rows_of_tile(kVectors);
    static constexpr int kWidth = kVectors * S::kLanes;  // columns of the tile
};

// Where column `column` of a matrix in panels begins.
METAEDIT_INLINE const float* column_of(const float* values, std::int64_t n_in, std::int64_t column) {
    return values + column / kPanel * kPanel * n_in + column % kPanel;
}

// sums[r][j] += x[r] times vector j of the columns that begin at `weight`; rows of x are `stride` apart. The
// order of the additions is that of the inputs, whatever the size of the tile: a row's bits are the same in all.
// From n_used on, the inputs only fill up a width.
template <class S, int kRows, int kVectors>
METAEDIT_INLINE void add_product(typename S::V (&sums)[kRows][kVectors], const float* x, std::int64_t stride,
                                 const float* weight, std::int64_t n_in, std::int64_t n_used) {
    for (std::int64_t k = 0; k < n_used; ++k) {
        typename S::V w[kVectors];
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) {
            const int column = j * S::kLanes;
            w[j] = S::load(weight + column / kPanel * kPanel * n_in + k * kPanel + column % kPanel);
        }
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const typename S::V a = S::all(x[r * stride + k]);
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) sums[r][j] = S::fma(a, w[j], sums[r][j]);
        }
    }
}

template <class S, int kRows, int kVectors>
METAEDIT_INLINE void add_product(typename S::V (&sums)[kRows][kVectors], const float* x, std::int64_t stride,
                                 const float* weight, std::int64_t n_in) {
    add_product<S>(sums, x, stride, weight, n_in, n_in);
}

// out[r] = x[r] B + start, or s(it), for the rows of a buffer.
template <class S, int kRows, int kColumns, bool kSilu>
METAEDIT_INLINE void multiply_rows(const float* x, std::int64_t stride, const float* start, const Panels& matrix,
                                   float* out) {
    constexpr int kVectors = TileShape<S, kColumns>::kVectors;
    constexpr int kWidth = TileShape<S, kColumns>::kWidth;
    constexpr int kFit = TileShape<S, kColumns>::kRows;
    constexpr int kStep = kFit < kRows ? kFit : kRows;
    static_assert(kRows % kStep == 0);
    for (int column = 0; column < kColumns; column += kWidth) {
        const float* weight = column_of(matrix.values, matrix.n_in, column);
        for (int row = 0; row < kRows; row += kStep) {
            typename S::V sums[kStep][kVectors];
            METAEDIT_UNROLL
            for (int r = 0; r < kStep; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) sums[r][j] = S::load(start + column + j * S::kLanes);
            }
            add_product<S>(sums, x + row * stride, stride, weight, matrix.n_in);
            METAEDIT_UNROLL
            for (int r = 0; r < kStep; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    if constexpr (kSilu) sums[r][j] = S::scaled_silu(sums[r][j]);
                    S::store(out + (row + r) * kColumns + column + j * S::kLanes, sums[r][j]);
                }
            }
        }
    }
}

// Steps over the edges of a block in their order, a tile at a time.
struct EdgeWalk {
    std::int64_t edge, end;
    std::int64_t source, target;  // node numbers of `edge`
    std::int64_t first_target, end_target;
    bool dense;

    METAEDIT_INLINE explicit EdgeWalk(const Block& block)
        : edge(block.edge_offset),
          source(block.src_offset),
          target(block.dst_offset),
          first_target(block.dst_offset),
          end_target(block.dst_offset + block.n_dst),
          dense(block.kind == BlockKind::dense) {
        end = edge + (dense ? block.n_src * block.n_dst : block.n_src);
    }

    // Whether the next `rows` edges leave one source for neighbouring targets.
    METAEDIT_INLINE bool is_run(int rows) const { return dense && target + rows <= end_target; }

    METAEDIT_INLINE void skip_run(int rows) {
        edge += rows;
        target += rows;
        if (target == end_target) next_source();
    }

    // Writes the ends of the next `rows` edges and goes on; the sinks fill up behind the last edge. Returns the
    // number of edges.
    METAEDIT_INLINE int take(int rows, std::int64_t source_sink, std::int64_t target_sink, std::int64_t* sources,
                             std::int64_t* targets) {
        int n = 0;
        for (; n < rows && edge < end; ++n, ++edge) {
            sources[n] = source;
            targets[n] = target;
            ++target;
            if (!dense) {
                ++source;
            } else if (target == end_target) {
                next_source();
            }
        }
        for (int r = n; r < rows; ++r) {
            sources[r] = source_sink;
            targets[r] = target_sink;
        }
        return n;
    }

    METAEDIT_INLINE int take(int rows, std::int64_t sink, std::int64_t* sources, std::int64_t* targets) {
        return take(rows, sink, sink, sources, targets);
    }

  private:
    METAEDIT_INLINE void next_source() {
        target = first_target;
        ++source;
    }
};

// Copies, because memcpy is a function that other object files share.
METAEDIT_INLINE void copy(const float* from, std::int64_t size, float* to) {
    for (std::int64_t i = 0; i < size; ++i) to[i] = from[i];
}

}  // namespace metaedit::fused
