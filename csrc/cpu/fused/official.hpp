// The edges of the official form's layer: three messages an edge, each with a LayerNorm of its own.
#pragma once

#include "cpu/fused/kernels.hpp"
#include "cpu/fused/tile.hpp"

namespace metaedit::fused {

// What a node adds to slot 0, 1 or 2 (forward, backward, edge) before LayerNorm; the edge slot sees both ends.
template <class S, int kWidth, int kSlot>
METAEDIT_INLINE typename S::V term_of(const float* terms, std::int64_t source, std::int64_t target, int column) {
    const float* at_source = terms + source * 4 * kWidth + column;
    const float* at_target = terms + target * 4 * kWidth + 2 * kWidth + column;
    if constexpr (kSlot == 0) return S::load(at_source);
    if constexpr (kSlot == 1) return S::load(at_target);
    return S::add(S::load(at_source + kWidth), S::load(at_target + kWidth));
}

// message[r] = s(LN(e[r] B + terms)) of one slot, for as many edges as a vector has lanes: the squares of all
// their rows then end as one vector.
template <class S, int kWidth, int kSlot>
METAEDIT_INLINE void official_message(const PassOfficial& op, const float* e, const std::int64_t* sources,
                                      const std::int64_t* targets, float* message) {
    using V = typename S::V;
    using Shape = TileShape<S, kWidth>;
    constexpr float kEpsilon = 1e-5F;
    constexpr int kEdges = S::kLanes, kVectors = Shape::kVectors;
    constexpr int kRows = Shape::kRows < kEdges ? Shape::kRows : kEdges;
    V squares[kEdges];
    METAEDIT_UNROLL
    for (int r = 0; r < kEdges; ++r) squares[r] = S::all(0.0F);
    for (int column = 0; column < kWidth; column += Shape::kWidth) {
        const float* weight = column_of(op.edge.values, kWidth, kSlot * kWidth + column);
        for (int row = 0; row < kEdges; row += kRows) {
            V sums[kRows][kVectors];
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    sums[r][j] =
                        term_of<S, kWidth, kSlot>(op.terms, sources[row + r], targets[row + r], column + j * S::kLanes);
                }
            }
            add_product<S>(sums, e + row * kWidth, kWidth, weight, kWidth);
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    squares[row + r] = S::fma(sums[r][j], sums[r][j], squares[row + r]);
                    S::store(message + (row + r) * kWidth + column + j * S::kLanes, sums[r][j]);
                }
            }
        }
    }
    alignas(64) float inverse[kEdges];
    const V variance = S::div(S::sums_of(squares), S::all(op.size));
    S::store(inverse, S::div(S::all(1.0F), S::sqrt(S::add(variance, S::all(kEpsilon)))));
    for (int r = 0; r < kEdges; ++r) {
        for (int i = 0; i < kWidth; i += S::kLanes) {
            float* at = message + r * kWidth + i;
            const V normed = S::mul(S::load(at), S::all(inverse[r]));
            const V scale = S::load(op.scale + kSlot * kWidth + i), shift = S::load(op.shift + kSlot * kWidth + i);
            S::store(at, S::scaled_silu(S::fma(normed, scale, shift)));
        }
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void add_rows(const float* message, const std::int64_t* nodes, float* sums, std::int64_t row) {
    for (int r = 0; r < S::kLanes; ++r) {
        float* at = sums + nodes[r] * row;
        for (int i = 0; i < kWidth; i += S::kLanes) {
            S::store(at + i, S::add(S::load(at + i), S::load(message + r * kWidth + i)));
        }
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void pass_official(const PassOfficial& op) {
    constexpr int kEdges = S::kLanes;
    std::int64_t sources[kEdges], targets[kEdges];
    alignas(64) float last[kEdges * kWidth] = {};
    alignas(64) float message[kEdges * kWidth];
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            float* const given = op.edges + walk.edge * kWidth;
            const int n = walk.take(kEdges, op.n_nodes, sources, targets);
            if (n < kEdges) copy(given, n * kWidth, last);
            float* const e = n < kEdges ? last : given;
            official_message<S, kWidth, 0>(op, e, sources, targets, message);
            add_rows<S, kWidth>(message, targets, op.sums, op.sums_row);
            official_message<S, kWidth, 1>(op, e, sources, targets, message);
            add_rows<S, kWidth>(message, sources, op.sums + kWidth, op.sums_row);
            official_message<S, kWidth, 2>(op, e, sources, targets, message);
            multiply_rows<S, kEdges, kWidth, false>(message, kWidth, op.update.bias, op.update, e);
            if (n < kEdges) copy(last, n * kWidth, given);
        }
    }
}

}  // namespace metaedit::fused
