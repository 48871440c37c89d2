// Kernels over edges in bf16, embedding, messages and heads: see fused/edges.hpp.
#pragma once

#include "cpu/bf16/simd.hpp"
#include "cpu/bf16/tile.hpp"
#include "cpu/fused/edges.hpp"

namespace metaedit::bf16 {

using fused::EdgeHeads;
using fused::EmbedEdges;
using fused::PassMessages;

// ---- Embedding ----

template <class U, int kWidth>
METAEDIT_INLINE void embed_edges(const EmbedEdges& op) {
    using V = typename U::V;
    constexpr int kFeatures = 16;  // at most; the kernel of float32 takes any number
    const std::int64_t n_in = op.in.n_in;
    if (op.in.pairs == nullptr || n_in > kFeatures) return fused::embed_edges<U, kWidth>(op);
    RowsOfPairs<U, kFeatures> features;
    RowsOfPairs<U, kEmbed> hidden;
    for (std::int64_t k = 0; k < op.n; k += kRows) {
        const std::int64_t n = op.n - k < kRows ? op.n - k : kRows;
        for (int r = 0; r < kRows; ++r) {
            features.set(r, 0, r < n ? load_first(op.features + (k + r) * n_in, n_in) : U::all(0.0F));
        }
        U::start(pairs_of(kFeatures));
        U::template multiply<kPanelsOf<kEmbed>, 0>(
            features.view(), op.in, 0,
            [&](int, int j) METAEDIT_INLINE_LAMBDA { return U::load(op.hidden_bias + j * U::kLanes); },
            [&](int r, int j, V x) METAEDIT_INLINE_LAMBDA { hidden.set(r, j, U::scaled_silu(x)); });
        U::start(pairs_of(kEmbed));
        float* edges = op.edges + k * kWidth;
        U::template multiply<kPanelsOf<kWidth>, kEmbed>(
            hidden.view(), op.out, 0,
            [&](int, int j) METAEDIT_INLINE_LAMBDA { return U::load(op.out.bias + j * U::kLanes); },
            [&](int r, int j, V y) METAEDIT_INLINE_LAMBDA {
                if (r < n) U::store(edges + r * kWidth + j * U::kLanes, y);
            });
    }
    U::stop();
}

// ---- Messages ----

// As fused::pass_tile.
template <class U, int kWidth, bool kRun>
METAEDIT_INLINE void pass_tile(const PassMessages& op, float* e, const std::int64_t* sources,
                               const std::int64_t* targets) {
    using V = typename U::V;
    constexpr int kPanels = kPanelsOf<kWidth>;
    RowsOfPairs<U, kWidth> e_pairs, q;
    V total[kPanels], minimum[kPanels];  // over the run
    if constexpr (kRun) {
        METAEDIT_UNROLL
        for (int j = 0; j < kPanels; ++j) {
            total[j] = U::all(0.0F);
            minimum[j] = U::all(__builtin_inff());
        }
    }
    const auto target = [&](int r) METAEDIT_INLINE_LAMBDA { return kRun ? targets[0] + r : targets[r]; };
    e_pairs.fill(e);
    U::template multiply<kPanels, kWidth>(
        e_pairs.view(), op.edge, 0,
        [&](int r, int j) METAEDIT_INLINE_LAMBDA {
            const float* at_source = op.terms + sources[kRun ? 0 : r] * 2 * kWidth;
            const float* at_target = op.terms + target(r) * 2 * kWidth + kWidth;
            return U::add(U::load(at_source + j * U::kLanes), U::load(at_target + j * U::kLanes));
        },
        [&](int r, int j, V sum) METAEDIT_INLINE_LAMBDA {
            const V message = U::scaled_silu(sum);
            q.set(r, j, message);
            fused::aggregate<U, kWidth>(op.received.of(target(r)) + j * U::kLanes, message, message);
            if constexpr (kRun) {
                total[j] = U::add(total[j], message);
                minimum[j] = U::min(minimum[j], message);
            } else {
                fused::aggregate<U, kWidth>(op.returned.of(sources[r]) + j * U::kLanes, message, message);
            }
        });
    if constexpr (kRun) {
        float* at_source = op.returned.of(sources[0]);
        METAEDIT_UNROLL
        for (int j = 0; j < kPanels; ++j) {
            fused::aggregate<U, kWidth>(at_source + j * U::kLanes, total[j], minimum[j]);
        }
    }
    U::template multiply<kPanels, kWidth>(
        q.view(), op.update, 0,
        [&](int r, int j) METAEDIT_INLINE_LAMBDA {
            return U::add(U::load(op.update.bias + j * U::kLanes), U::load(e + r * kWidth + j * U::kLanes));
        },
        [&](int r, int j, V y) METAEDIT_INLINE_LAMBDA { U::store(e + r * kWidth + j * U::kLanes, y); });
}

template <class U, int kWidth>
METAEDIT_INLINE void pass_messages(const PassMessages& op) {
    if (op.edge.pairs == nullptr) return fused::pass_messages<U, kWidth>(op);
    std::int64_t sources[kRows], targets[kRows];
    alignas(64) float last[kRows * kWidth] = {};
    U::start(pairs_of(kWidth));
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        fused::EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            float* e = op.edges + walk.edge * kWidth;
            if (walk.is_run(kRows)) {
                bf16::pass_tile<U, kWidth, true>(op, e, &walk.source, &walk.target);
                walk.skip_run(kRows);
                continue;
            }
            const int n = walk.take(kRows, op.n_nodes, op.target_sink, sources, targets);
            if (n < kRows) fused::copy(e, n * kWidth, last);
            bf16::pass_tile<U, kWidth, false>(op, n < kRows ? last : e, sources, targets);
            if (n < kRows) fused::copy(last, n * kWidth, e);
        }
    }
    U::stop();
}

// ---- Heads ----

// Adds panels of the hidden layer to the sums of the outputs [kFrom, kTo), which read them. Sources and targets are
// places in the table of terms.
template <class U, int kWidth, int kPanels, int kFrom, int kTo>
METAEDIT_INLINE void add_head_panels(const EdgeHeads& op, const Pairs& e, const std::int64_t* sources,
                                     const std::int64_t* targets, std::int64_t panel,
                                     typename U::V (&sums)[EdgeHeads::kOutputs][kRows]) {
    using V = typename U::V;
    const std::int64_t first = panel * kPanel;
    U::template multiply<kPanels, kWidth>(
        e, op.edge, panel,
        [&](int r, int j) METAEDIT_INLINE_LAMBDA {
            const float* terms = op.terms + first + j * kPanel;
            return U::add(U::load(terms + sources[r]), U::load(terms + targets[r]));
        },
        [&](int r, int j, V x) METAEDIT_INLINE_LAMBDA {
            const V value = U::scaled_silu(x);
            METAEDIT_UNROLL
            for (int o = kFrom; o < kTo; ++o) {
                sums[o][r] = U::fma(value, U::load(op.outputs[o].readout + first + j * kPanel), sums[o][r]);
            }
        });
}

template <class U, int kWidth, int kFrom, int kTo>
METAEDIT_INLINE void add_head(const EdgeHeads& op, const Pairs& e, const std::int64_t* sources,
                              const std::int64_t* targets, typename U::V (&sums)[EdgeHeads::kOutputs][kRows]) {
    std::int64_t panel = op.outputs[kFrom].first_panel;
    const std::int64_t end = op.outputs[kFrom].last_panel;
    for (; panel + 2 <= end; panel += 2) {
        add_head_panels<U, kWidth, 2, kFrom, kTo>(op, e, sources, targets, panel, sums);
    }
    for (; panel < end; ++panel) add_head_panels<U, kWidth, 1, kFrom, kTo>(op, e, sources, targets, panel, sums);
}

// Outputs [kFrom, kTo), of one head, of the first n edges of a tile.
template <class U, int kWidth, int kFrom, int kTo>
METAEDIT_INLINE void write_head(const EdgeHeads& op, const Pairs& e, const std::int64_t* sources,
                                const std::int64_t* targets, std::int64_t first, int n) {
    using V = typename U::V;
    alignas(64) float values[kRows];
    V sums[EdgeHeads::kOutputs][kRows];
    METAEDIT_UNROLL
    for (int o = kFrom; o < kTo; ++o) {
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) sums[o][r] = U::all(0.0F);
    }
    add_head<U, kWidth, kFrom, kTo>(op, e, sources, targets, sums);
    for (int o = kFrom; o < kTo; ++o) {
        U::store(values, U::add(U::sums_of(sums[o]), U::all(op.outputs[o].bias)));
        fused::copy(values, n, op.outputs[o].values + first);
    }
}

template <class U, int kWidth>
METAEDIT_INLINE void edge_heads(const EdgeHeads& op) {
    if (op.edge.pairs == nullptr) return fused::edge_heads<U, kWidth>(op);
    std::int64_t sources[kRows], targets[kRows];
    alignas(64) float last[kRows * kWidth] = {};
    RowsOfPairs<U, kWidth> e_pairs;
    // From numbers of nodes to places in the table of terms.
    const auto set_places = [&](const std::int64_t* from, const std::int64_t* to) METAEDIT_INLINE_LAMBDA {
        for (int r = 0; r < kRows; ++r) {
            sources[r] = from[r] * 2 * op.edge.n_out;
            targets[r] = (2 * to[r] + 1) * op.edge.n_out;
        }
    };
    U::start(pairs_of(kWidth));
    for (std::int64_t first = 0; first < op.listed.n; first += kRows) {
        fused::gather_edges<U, kWidth, kRows>(op, first, last);
        e_pairs.fill(last);
        set_places(op.listed.sources + first, op.listed.targets + first);
        write_head<U, kWidth, 1, 3>(op, e_pairs.view(), sources, targets, first, kRows);
    }
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        fused::EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            const std::int64_t first = walk.edge;
            const float* e = op.edges + first * kWidth;
            const int n = walk.take(kRows, op.n_nodes, sources, targets);
            if (n < kRows) fused::copy(e, n * kWidth, last);
            e_pairs.fill(n < kRows ? last : e);
            set_places(sources, targets);
            write_head<U, kWidth, 0, 1>(op, e_pairs.view(), sources, targets, first, n);
            if (op.outputs[1].values == nullptr) continue;
            write_head<U, kWidth, 1, 3>(op, e_pairs.view(), sources, targets, first, n);
        }
    }
    U::stop();
}

}  // namespace metaedit::bf16
