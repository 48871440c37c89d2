// Gradient kernels over edges that both forms share: embedding and heads.
#pragma once

#include "cpu/gradient/tiles.hpp"

namespace metaedit::gradient {

// ---- Embedding ----

// hidden = s(in(features) + hidden_bias) of a chunk's rows, and the slopes.
template <class S, int kChunk>
METAEDIT_INLINE void embed_hidden(const Embed& op, const float* features, int rows, float* hidden, float* slopes) {
    using V = typename S::V;
    product<S, kEmbed>(
        features, op.in.n_in, rows, op.in.values, op.in.n_in,
        [&](int, int column) METAEDIT_INLINE_LAMBDA { return S::load(op.hidden_bias + column); },
        [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA {
            V slope;
            S::store(hidden + r * kEmbed + column, silu<S>(x, slope));
            S::store(slopes + r * kEmbed + column, slope);
        });
}

// Features of a chunk, in `room` with zeros behind them where they do not fill up its rows.
METAEDIT_INLINE const float* filled_features(const float* features, std::int64_t width, int n, float* room) {
    if (n % kRowStep == 0) return features;
    copy(features, n * width, room);
    for (std::int64_t i = n * width; i < to_rows(n) * width; ++i) room[i] = 0.0F;
    return room;
}

template <class S, int kWidth>
METAEDIT_INLINE void embed(const Embed& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float room[kChunk * kMaxEdgeFeatures];
    alignas(64) float hidden[kChunk * kEmbed], slopes[kChunk * kEmbed], last[kChunk * kWidth];
    for (std::int64_t k = 0; k < op.n; k += kChunk) {
        const int n = static_cast<int>(op.n - k < kChunk ? op.n - k : kChunk), rows = to_rows(n);
        const float* features = filled_features(op.features + k * op.in.n_in, op.in.n_in, n, room);
        embed_hidden<S, kChunk>(op, features, rows, hidden, slopes);
        float* const given = op.edges + k * kWidth;
        float* const out = n < rows ? last : given;
        product<S, kWidth>(
            hidden, kEmbed, rows, op.out.values, kEmbed,
            [&](int, int column) METAEDIT_INLINE_LAMBDA { return S::load(op.out.bias + column); },
            [&](int r, int column, V e) METAEDIT_INLINE_LAMBDA { S::store(out + r * kWidth + column, e); });
        if (n < rows) copy(last, n * kWidth, given);
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void embed_gradient(const EmbedGradient& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    const Embed& forward = op.forward;
    const std::int64_t n_in = forward.in.n_in;
    alignas(64) float room[kChunk * kMaxEdgeFeatures];
    alignas(64) float hidden[kChunk * kEmbed], slopes[kChunk * kEmbed], last[kChunk * kWidth];
    for (std::int64_t k = 0; k < forward.n; k += kChunk) {
        const int n = static_cast<int>(forward.n - k < kChunk ? forward.n - k : kChunk), rows = to_rows(n);
        const float* features = filled_features(forward.features + k * n_in, n_in, n, room);
        const float* g = filled<kWidth>(forward.edges + k * kWidth, n, last);
        embed_hidden<S, kChunk>(forward, features, rows, hidden, slopes);
        add_outer<S>(hidden, kEmbed, kEmbed, g, kWidth, kWidth, rows, op.out_values);
        add_column_sums<S>(g, kWidth, kWidth, rows, op.out_bias);
        product<S, kEmbed>(
            g, kWidth, rows, op.out_back.values, kWidth, [&](int, int) METAEDIT_INLINE_LAMBDA { return S::all(0.0F); },
            [&](int r, int column, V of_hidden) METAEDIT_INLINE_LAMBDA {
                float* at = slopes + r * kEmbed + column;
                S::store(at, S::mul(of_hidden, S::load(at)));
            });
        add_outer<S>(features, n_in, n_in, slopes, kEmbed, kEmbed, rows, op.in_values);
        add_column_sums<S>(slopes, kEmbed, kEmbed, rows, op.hidden_bias);
    }
}

// ---- Heads ----

// One panel of hidden values of a chunk's rows, and their slopes.
template <class S, int kWidth>
METAEDIT_INLINE void head_panel(const Heads& op, const float* e, int rows, const std::int64_t* sources,
                                const std::int64_t* targets, std::int64_t panel, float* hidden, float* slopes) {
    using V = typename S::V;
    const std::int64_t width = op.edge.n_out;
    const float* terms = op.terms + panel * kPanel;
    product<S, static_cast<int>(kPanel)>(
        e, kWidth, rows, op.edge.values + panel * kPanel * kWidth, kWidth,
        [&](int r, int column) METAEDIT_INLINE_LAMBDA {
            const float* source = terms + sources[r] * 2 * width + column;
            const float* target = terms + targets[r] * 2 * width + width + column;
            return S::add(S::load(source), S::load(target));
        },
        [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA {
            V slope;
            S::store(hidden + r * kPanel + column, silu<S>(x, slope));
            S::store(slopes + r * kPanel + column, slope);
        });
}

template <class S, int kWidth>
METAEDIT_INLINE void heads(const Heads& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float last[kChunk * kWidth];
    alignas(64) float hidden[kChunk * kPanel], slopes[kChunk * kPanel];
    for_each_chunk<kChunk>(op.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                         const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const float* e = filled<kWidth>(op.e + first * kWidth, n, last);
        float sums[Heads::kOutputs][kChunk] = {};
        for (std::int64_t panel = 0; panel < op.edge.n_out / kPanel; ++panel) {
            head_panel<S, kWidth>(op, e, to_rows(n), sources, targets, panel, hidden, slopes);
            for (int o = 0; o < Heads::kOutputs; ++o) {
                const Heads::Output& output = op.outputs[o];
                if (panel < output.first_panel || panel >= output.last_panel) continue;
                for (int r = 0; r < n; ++r) {
                    V sum = S::all(0.0F);
                    for (int i = 0; i < kPanel; i += S::kLanes) {
                        sum =
                            S::fma(S::load(hidden + r * kPanel + i), S::load(output.readout + panel * kPanel + i), sum);
                    }
                    sums[o][r] += S::sum(sum);
                }
            }
        }
        for (int o = 0; o < Heads::kOutputs; ++o) {
            if (op.outputs[o].first_panel == op.outputs[o].last_panel) continue;
            for (int r = 0; r < n; ++r) op.outputs[o].values[first + r] = sums[o][r] + op.outputs[o].bias;
        }
    });
}

template <class S, int kWidth>
METAEDIT_INLINE void heads_gradient(const HeadsGradient& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    static_assert(kChunk <= kMaxChunk);
    const Heads& forward = op.forward;
    const std::int64_t width = forward.edge.n_out;
    alignas(64) float last[kChunk * kWidth], last_gradient[kChunk * kWidth];
    alignas(64) float hidden[kChunk * kPanel], slopes[kChunk * kPanel];
    for_each_chunk<kChunk>(forward.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                              const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const int rows = to_rows(n);
        const float* e = filled<kWidth>(forward.e + first * kWidth, n, last);
        float upstream[Heads::kOutputs][kChunk] = {};
        for (int o = 0; o < Heads::kOutputs; ++o) {
            const Heads::Output& output = forward.outputs[o];
            if (output.first_panel < output.last_panel) copy(output.values + first, n, upstream[o]);
        }
        for (std::int64_t panel = 0; panel < width / kPanel; ++panel) {
            head_panel<S, kWidth>(forward, e, rows, sources, targets, panel, hidden, slopes);
            for (int i = 0; i < kPanel; i += S::kLanes) {
                V readouts[Heads::kOutputs], of_readouts[Heads::kOutputs];
                for (int o = 0; o < Heads::kOutputs; ++o) {
                    const Heads::Output& output = forward.outputs[o];
                    const bool is_in = panel >= output.first_panel && panel < output.last_panel;
                    readouts[o] = is_in ? S::load(output.readout + panel * kPanel + i) : S::all(0.0F);
                    of_readouts[o] = S::all(0.0F);
                }
                for (int r = 0; r < rows; ++r) {
                    const V inner = S::load(hidden + r * kPanel + i);
                    V of_hidden = S::all(0.0F);
                    METAEDIT_UNROLL
                    for (int o = 0; o < Heads::kOutputs; ++o) {
                        const V given = S::all(upstream[o][r]);
                        of_hidden = S::fma(given, readouts[o], of_hidden);
                        of_readouts[o] = S::fma(given, inner, of_readouts[o]);
                    }
                    S::store(op.hidden + r * width + panel * kPanel + i,
                             S::mul(of_hidden, S::load(slopes + r * kPanel + i)));
                }
                for (int o = 0; o < Heads::kOutputs; ++o) {
                    const Heads::Output& output = forward.outputs[o];
                    if (panel < output.first_panel || panel >= output.last_panel) continue;
                    float* at = op.readouts[o] + panel * kPanel + i;
                    S::store(at, S::add(S::load(at), of_readouts[o]));
                }
            }
        }
        for (int r = 0; r < n; ++r) {
            float* source = op.terms_gradient + sources[r] * 2 * width;
            float* target = op.terms_gradient + targets[r] * 2 * width + width;
            for (std::int64_t i = 0; i < width; i += S::kLanes) {
                const V value = S::load(op.hidden + r * width + i);
                S::store(source + i, S::add(S::load(source + i), value));
                S::store(target + i, S::add(S::load(target + i), value));
            }
        }
        add_outer<S>(e, kWidth, kWidth, op.hidden, width, width, rows, op.edge_values);
        float* const given = op.gradient + first * kWidth;
        float* const out = n < rows ? last_gradient : given;
        product<S, kWidth>(
            op.hidden, width, rows, op.edge_back.values, width,
            [&](int, int) METAEDIT_INLINE_LAMBDA { return S::all(0.0F); },
            [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA { S::store(out + r * kWidth + column, x); });
        if (n < rows) copy(last_gradient, n * kWidth, given);
    });
}

}  // namespace metaedit::gradient
