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

// use(r, i, message) for every edge r and vector of columns from i on, of one slot's messages s(LN(e B + terms)),
// for as many edges as a vector has lanes: the squares of all their rows then end as one vector. `buffer` is
// [kLanes][kWidth].
template <class S, int kWidth, int kSlot, class Use>
METAEDIT_INLINE void official_message(const PassOfficial& op, const float* e, const std::int64_t* sources,
                                      const std::int64_t* targets, float* buffer, const Use& use) {
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
            add_product<S>(sums, e + row * kWidth, kWidth, weight, kWidth, op.size);
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    squares[row + r] = S::fma(sums[r][j], sums[r][j], squares[row + r]);
                    S::store(buffer + (row + r) * kWidth + column + j * S::kLanes, sums[r][j]);
                }
            }
        }
    }
    alignas(64) float inverse[kEdges];
    const V variance = S::div(S::sums_of(squares), S::all(static_cast<float>(op.size)));
    S::store(inverse, S::div(S::all(1.0F), S::sqrt(S::add(variance, S::all(kEpsilon)))));
    const float* scale = op.scale + kSlot * kWidth;
    const float* shift = op.shift + kSlot * kWidth;
    for (int r = 0; r < kEdges; ++r) {
        const V factor = S::all(inverse[r]);
        METAEDIT_UNROLL
        for (int i = 0; i < kWidth; i += S::kLanes) {
            const V normed = S::mul(S::load(buffer + r * kWidth + i), factor);
            use(r, i, S::scaled_silu(S::fma(normed, S::load(scale + i), S::load(shift + i))));
        }
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void pass_official(const PassOfficial& op) {
    using V = typename S::V;
    constexpr int kEdges = S::kLanes;
    std::int64_t sources[kEdges], targets[kEdges];
    alignas(64) float last[kEdges * kWidth] = {};
    alignas(64) float buffer[kEdges * kWidth];
    const auto add_to = [](float* at, V value) METAEDIT_INLINE_LAMBDA { S::store(at, S::add(S::load(at), value)); };
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            float* const given = op.edges + walk.edge * kWidth;
            const int n = walk.take(kEdges, op.n_nodes, op.target_sink, sources, targets);
            if (n < kEdges) copy(given, n * kWidth, last);
            float* const e = n < kEdges ? last : given;
            official_message<S, kWidth, 0>(op, e, sources, targets, buffer,
                                           [&](int r, int i, V m)
                                               METAEDIT_INLINE_LAMBDA { add_to(op.received.of(targets[r]) + i, m); });
            official_message<S, kWidth, 1>(op, e, sources, targets, buffer,
                                           [&](int r, int i, V m)
                                               METAEDIT_INLINE_LAMBDA { add_to(op.returned.of(sources[r]) + i, m); });
            official_message<S, kWidth, 2>(op, e, sources, targets, buffer,
                                           [&](int r, int i, V m)
                                               METAEDIT_INLINE_LAMBDA { S::store(e + r * kWidth + i, m); });
            if (n < kEdges) copy(last, n * kWidth, given);
        }
    }
}

}  // namespace metaedit::fused
