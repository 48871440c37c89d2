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
        add_product<S>(sums, e, kWidth, column_of(op.edge.values, kWidth, column), kWidth, op.size);

        V total[kVectors], minimum[kVectors];  // over the run
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            float* at_target = op.received.of(kRun ? targets[0] + r : targets[r]) + column;
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
                    aggregate<S, kWidth>(op.returned.of(sources[r]) + column + lane, message, message);
                }
            }
        }
        if constexpr (kRun) {
            float* at_source = op.returned.of(sources[0]) + column;
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
        add_product<S>(sums, q, kWidth, column_of(op.update.values, kWidth, column), kWidth, op.size);
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
            const int n = walk.take(kRows, op.n_nodes, op.target_sink, sources, targets);
            if (n < kRows) copy(e, n * kWidth, last);
            pass_tile<S, kWidth, false>(op, n < kRows ? last : e, sources, targets);
            if (n < kRows) copy(last, n * kWidth, e);
        }
    }
}

// ---- Heads ----

// The sums over the hidden values of a tile of edges, as many as a vector has lanes: [output][edge][lane].
template <class S>
struct HeadSums {
    alignas(64) float values[EdgeHeads::kOutputs * S::kLanes * S::kLanes];
    METAEDIT_INLINE float* of(int output, int edge) { return values + (output * S::kLanes + edge) * S::kLanes; }
};

// What kVectors vectors of the hidden layer, from `panel` on, give to kOutputs outputs that read the same panels.
template <class S, int kWidth, int kVectors, int kOutputs>
METAEDIT_INLINE void read_panels(const EdgeHeads& op, int output, std::int64_t panel, const float* e,
                                 const std::int64_t* sources, const std::int64_t* targets, HeadSums<S>& sums) {
    using V = typename S::V;
    constexpr int kRows = S::rows_of_tile(kVectors) < S::kLanes ? S::rows_of_tile(kVectors) : S::kLanes;
    const std::int64_t hidden = op.edge.n_out;
    const float* terms = op.terms + panel * kPanel;
    const float* weight = op.edge.values + panel * kPanel * kWidth;
    const bool is_first = panel == op.outputs[output].first_panel;
    for (int row = 0; row < S::kLanes; row += kRows) {
        V tile[kRows][kVectors];
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const float* source = terms + sources[row + r] * 2 * hidden;
            const float* target = terms + targets[row + r] * 2 * hidden + hidden;
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                tile[r][j] = S::add(S::load(source + j * S::kLanes), S::load(target + j * S::kLanes));
            }
        }
        add_product<S>(tile, e + row * kWidth, kWidth, weight, kWidth, op.size);
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            V found[kOutputs];
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                const V value = S::scaled_silu(tile[r][j]);
                METAEDIT_UNROLL
                for (int o = 0; o < kOutputs; ++o) {
                    const V readout = S::load(op.outputs[output + o].readout + panel * kPanel + j * S::kLanes);
                    found[o] = j == 0 ? S::mul(value, readout) : S::fma(value, readout, found[o]);
                }
            }
            METAEDIT_UNROLL
            for (int o = 0; o < kOutputs; ++o) {
                float* at = sums.of(output + o, row + r);
                S::store(at, is_first ? found[o] : S::add(S::load(at), found[o]));
            }
        }
    }
}

template <class S, int kWidth, int kOutputs>
METAEDIT_INLINE void read_head(const EdgeHeads& op, int output, const float* e, const std::int64_t* sources,
                               const std::int64_t* targets, HeadSums<S>& sums) {
    constexpr int kNarrow = kPanel / S::kLanes, kWide = 2;
    std::int64_t panel = op.outputs[output].first_panel;
    const std::int64_t last = op.outputs[output].last_panel;
    for (; panel + kWide / kNarrow <= last; panel += kWide / kNarrow) {
        read_panels<S, kWidth, kWide, kOutputs>(op, output, panel, e, sources, targets, sums);
    }
    for (; panel < last; ++panel) {
        read_panels<S, kWidth, kNarrow, kOutputs>(op, output, panel, e, sources, targets, sums);
    }
}

// Writes outputs [output, output + kOutputs) of the first n edges of a tile.
template <class S, int kOutputs>
METAEDIT_INLINE void write_outputs(const EdgeHeads& op, int output, std::int64_t first, int n, HeadSums<S>& sums) {
    alignas(64) float values[S::kLanes];
    METAEDIT_UNROLL
    for (int o = output; o < output + kOutputs; ++o) {
        typename S::V rows[S::kLanes];
        METAEDIT_UNROLL
        for (int r = 0; r < S::kLanes; ++r) rows[r] = S::load(sums.of(o, r));
        const typename S::V found = S::add(S::sums_of(rows), S::all(op.outputs[o].bias));
        if (n == S::kLanes) {
            S::store(op.outputs[o].values + first, found);
        } else {
            S::store(values, found);
            copy(values, n, op.outputs[o].values + first);
        }
    }
}

// The states of a tile of listed edges, one after the other.
template <class S, int kWidth, int kRows>
METAEDIT_INLINE void gather_edges(const EdgeHeads& op, std::int64_t first, float* tile) {
    for (int r = 0; r < kRows; ++r) {
        const float* e = op.edges + op.listed.edges[first + r] * kWidth;
        METAEDIT_UNROLL
        for (int i = 0; i < kWidth; i += S::kLanes) S::store(tile + r * kWidth + i, S::load(e + i));
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void listed_edge_heads(const EdgeHeads& op) {
    constexpr int kEdges = S::kLanes;
    static_assert(EdgeList::kTile % kEdges == 0);
    alignas(64) float tile[kEdges * kWidth];
    HeadSums<S> sums;
    for (std::int64_t first = 0; first < op.listed.n; first += kEdges) {
        gather_edges<S, kWidth, kEdges>(op, first, tile);
        read_head<S, kWidth, 2>(op, 1, tile, op.listed.sources + first, op.listed.targets + first, sums);
        write_outputs<S, 2>(op, 1, first, kEdges, sums);
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void edge_heads(const EdgeHeads& op) {
    if (op.listed.n > 0) return listed_edge_heads<S, kWidth>(op);
    constexpr int kEdges = S::kLanes;
    std::int64_t sources[kEdges], targets[kEdges];
    alignas(64) float last[kEdges * kWidth] = {};
    HeadSums<S> sums;
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            const std::int64_t first = walk.edge;
            const float* e = op.edges + first * kWidth;
            const int n = walk.take(kEdges, op.n_nodes, sources, targets);
            if (n < kEdges) {
                copy(e, n * kWidth, last);
                e = last;
            }
            read_head<S, kWidth, 1>(op, 0, e, sources, targets, sums);
            write_outputs<S, 1>(op, 0, first, n, sums);
            if (op.outputs[1].values == nullptr) continue;
            read_head<S, kWidth, 2>(op, 1, e, sources, targets, sums);
            write_outputs<S, 2>(op, 1, first, n, sums);
        }
    }
}

}  // namespace metaedit::fused
