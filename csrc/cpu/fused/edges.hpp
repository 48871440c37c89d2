// Kernels over edges: embedding, messages with the edges' own update, heads. Each reads and writes an edge once;
// what lies between stays in registers and in a buffer of one tile.
#pragma once

#include "cpu/fused/kernels.hpp"
#include "cpu/fused/tile.hpp"

namespace metaedit::fused {

// ---- Embedding ----

template <class S, int kWidth>
METAEDIT_INLINE void embed_edges(const EmbedEdges& op) {
    constexpr int kRows = 16;  // a multiple of every tile's rows
    alignas(64) float hidden[kRows * kEmbed];
    const std::int64_t n_in = op.in.n_in;
    std::int64_t k = 0;
    for (; k + kRows <= op.n; k += kRows) {
        multiply_rows<S, kRows, kEmbed, true>(op.features + k * n_in, n_in, op.hidden_bias, op.in, hidden);
        multiply_rows<S, kRows, kWidth, false>(hidden, kEmbed, op.out.bias, op.out, op.edges + k * kWidth);
    }
    for (; k < op.n; ++k) {
        multiply_rows<S, 1, kEmbed, true>(op.features + k * n_in, n_in, op.hidden_bias, op.in, hidden);
        multiply_rows<S, 1, kWidth, false>(hidden, kEmbed, op.out.bias, op.out, op.edges + k * kWidth);
    }
}

// ---- Messages ----

// Adds q to the sum and lowers the minimum behind it.
template <class S, int kWidth>
METAEDIT_INLINE void aggregate(float* at, typename S::V sum, typename S::V minimum) {
    S::store(at, S::add(S::load(at), sum));
    S::store(at + kWidth, S::min(S::load(at + kWidth), minimum));
}

// One tile of edges e. kRun: all leave sources[0] for the targets that follow targets[0], so that the source's
// part is read and aggregated once.
template <class S, int kWidth, bool kRun>
METAEDIT_INLINE void pass_tile(const PassMessages& op, float* e, const std::int64_t* sources,
                               const std::int64_t* targets) {
    using V = typename S::V;
    using Shape = TileShape<S, kWidth>;
    constexpr int kRows = Shape::kRows, kVectors = Shape::kVectors;
    alignas(64) float q[kRows * kWidth];
    for (int column = 0; column < kWidth; column += Shape::kWidth) {
        const float* terms = op.terms + column;
        V sums[kRows][kVectors];
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const float* source = terms + sources[kRun ? 0 : r] * 2 * kWidth;
            const float* target = terms + (kRun ? targets[0] + r : targets[r]) * 2 * kWidth + kWidth;
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                sums[r][j] = S::add(S::load(source + j * S::kLanes), S::load(target + j * S::kLanes));
            }
        }
        add_product<S>(sums, e, kWidth, column_of(op.edge.values, kWidth, column), kWidth);

        float* aggregates = op.aggregates + column;
        V total[kVectors], minimum[kVectors];  // over the run
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            float* at_target = aggregates + (kRun ? targets[0] + r : targets[r]) * op.aggregate_row;
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                const int lane = j * S::kLanes;
                const V message = S::scaled_silu(sums[r][j]);
                S::store(q + r * kWidth + column + lane, message);
                aggregate<S, kWidth>(at_target + lane, message, message);
                if constexpr (kRun) {
                    total[j] = r == 0 ? message : S::add(total[j], message);
                    minimum[j] = r == 0 ? message : S::min(minimum[j], message);
                } else {
                    float* at_source = aggregates + sources[r] * op.aggregate_row + 2 * kWidth;
                    aggregate<S, kWidth>(at_source + lane, message, message);
                }
            }
        }
        if constexpr (kRun) {
            float* at_source = aggregates + sources[0] * op.aggregate_row + 2 * kWidth;
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) aggregate<S, kWidth>(at_source + j * S::kLanes, total[j], minimum[j]);
        }
    }
    for (int column = 0; column < kWidth; column += Shape::kWidth) {
        V sums[kRows][kVectors];
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                const int at = column + j * S::kLanes;
                sums[r][j] = S::add(S::load(op.update.bias + at), S::load(e + r * kWidth + at));
            }
        }
        add_product<S>(sums, q, kWidth, column_of(op.update.values, kWidth, column), kWidth);
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) S::store(e + r * kWidth + column + j * S::kLanes, sums[r][j]);
        }
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void pass_messages(const PassMessages& op) {
    constexpr int kRows = TileShape<S, kWidth>::kRows;
    std::int64_t sources[kRows], targets[kRows];
    alignas(64) float last[kRows * kWidth] = {};
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            float* e = op.edges + walk.edge * kWidth;
            if (walk.is_run(kRows)) {
                pass_tile<S, kWidth, true>(op, e, &walk.source, &walk.target);
                walk.skip_run(kRows);
                continue;
            }
            const int n = walk.take(kRows, op.n_nodes, sources, targets);
            if (n < kRows) copy(e, n * kWidth, last);
            pass_tile<S, kWidth, false>(op, n < kRows ? last : e, sources, targets);
            if (n < kRows) copy(last, n * kWidth, e);
        }
    }
}

// ---- Heads ----

// As many edges as a vector has lanes, so that an output's sums over the hidden values end as one vector.
template <class S, int kWidth>
METAEDIT_INLINE void heads_of_tile(const EdgeHeads& op, const float* e, const std::int64_t* sources,
                                   const std::int64_t* targets, typename S::V (&found)[EdgeHeads::kOutputs]) {
    using V = typename S::V;
    constexpr int kEdges = S::kLanes;
    constexpr int kVectors = kPanel / S::kLanes;
    constexpr int kRows = S::rows_of_tile(kVectors);
    const std::int64_t hidden = op.edge.n_out;
    V sums_of_output[EdgeHeads::kOutputs][kEdges];
    METAEDIT_UNROLL
    for (int o = 0; o < EdgeHeads::kOutputs; ++o) {
        METAEDIT_UNROLL
        for (int r = 0; r < kEdges; ++r) sums_of_output[o][r] = S::all(0.0F);
    }
    for (std::int64_t panel = 0; panel < hidden / kPanel; ++panel) {
        const float* terms = op.terms + panel * kPanel;
        for (int row = 0; row < kEdges; row += kRows) {
            V sums[kRows][kVectors];
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                const float* source = terms + sources[row + r] * 2 * hidden;
                const float* target = terms + targets[row + r] * 2 * hidden + hidden;
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    sums[r][j] = S::add(S::load(source + j * S::kLanes), S::load(target + j * S::kLanes));
                }
            }
            add_product<S>(sums, e + row * kWidth, kWidth, op.edge.values + panel * kPanel * kWidth, kWidth);
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) sums[r][j] = S::scaled_silu(sums[r][j]);
            }
            for (int o = 0; o < EdgeHeads::kOutputs; ++o) {
                const EdgeHeads::Output& output = op.outputs[o];
                if (panel < output.first_panel || panel >= output.last_panel) continue;
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) {
                    const V readout = S::load(output.readout + panel * kPanel + j * S::kLanes);
                    METAEDIT_UNROLL
                    for (int r = 0; r < kRows; ++r) {
                        V& sum = sums_of_output[o][row + r];
                        sum = S::fma(sums[r][j], readout, sum);
                    }
                }
            }
        }
    }
    METAEDIT_UNROLL
    for (int o = 0; o < EdgeHeads::kOutputs; ++o) {
        found[o] = S::add(S::sums_of(sums_of_output[o]), S::all(op.outputs[o].bias));
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void edge_heads(const EdgeHeads& op) {
    constexpr int kEdges = S::kLanes;
    std::int64_t sources[kEdges], targets[kEdges];
    alignas(64) float last[kEdges * kWidth] = {};
    alignas(64) float values[kEdges];
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            const std::int64_t first = walk.edge;
            const float* e = op.edges + first * kWidth;
            const int n = walk.take(kEdges, op.n_nodes, sources, targets);
            if (n < kEdges) copy(e, n * kWidth, last);
            typename S::V found[EdgeHeads::kOutputs];
            heads_of_tile<S, kWidth>(op, n < kEdges ? last : e, sources, targets, found);
            for (int o = 0; o < EdgeHeads::kOutputs; ++o) {
                if (op.outputs[o].values == nullptr) continue;
                if (n == kEdges) {
                    S::store(op.outputs[o].values + first, found[o]);
                } else {
                    S::store(values, found[o]);
                    copy(values, n, op.outputs[o].values + first);
                }
            }
        }
    }
}

}  // namespace metaedit::fused
