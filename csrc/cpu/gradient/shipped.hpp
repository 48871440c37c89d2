// Gradient kernels over the edges of the shipped form's layer. Forward and backward compute a message by one
// function, so that the backward pass meets the very bits whose minimum the forward pass took.
#pragma once

#include "cpu/gradient/tiles.hpp"

namespace metaedit::gradient {

// take(r, column, q, slope) for every message of a chunk.
template <class S, int kWidth, class Take>
METAEDIT_INLINE void compute_messages(const float* e, int rows, const Panels& edge, const float* terms,
                                      const std::int64_t* sources, const std::int64_t* targets, const Take& take) {
    using V = typename S::V;
    product<S, kWidth>(
        e, kWidth, rows, edge.values, kWidth,
        [&](int r, int column) METAEDIT_INLINE_LAMBDA {
            const float* source = terms + sources[r] * 2 * kWidth + column;
            const float* target = terms + targets[r] * 2 * kWidth + kWidth + column;
            return S::add(S::load(source), S::load(target));
        },
        [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA {
            V slope;
            const V q = silu<S>(x, slope);
            take(r, column, q, slope);
        });
}

// Sums and minima of a chunk's messages at both ends.
template <class S, int kWidth>
METAEDIT_INLINE void aggregate(const float* q, int n, const std::int64_t* sources, const std::int64_t* targets,
                               float* aggregates, std::int64_t stride) {
    using V = typename S::V;
    for (int first = 0; first < n;) {
        const int last = end_of_run(sources, first, n);
        for (int i = 0; i < kWidth; i += S::kLanes) {
            float* source = aggregates + sources[first] * stride + 2 * kWidth + i;
            V sum = S::all(0.0F), minimum = S::load(source + kWidth);
            for (int r = first; r < last; ++r) {
                const V value = S::load(q + r * kWidth + i);
                float* target = aggregates + targets[r] * stride + i;
                S::store(target, S::add(S::load(target), value));
                S::store(target + kWidth, S::min(S::load(target + kWidth), value));
                sum = S::add(sum, value);
                minimum = S::min(minimum, value);
            }
            S::store(source, S::add(S::load(source), sum));
            S::store(source + kWidth, minimum);
        }
        first = last;
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void messages(const Messages& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float last[kChunk * kWidth], q[kChunk * kWidth], last_out[kChunk * kWidth];
    for_each_chunk<kChunk>(op.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                         const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const int rows = to_rows(n);
        const float* e = filled<kWidth>(op.e + first * kWidth, n, last);
        compute_messages<S, kWidth>(e, rows, op.edge, op.terms, sources, targets,
                                    [&](int r, int column, V message, V)
                                        METAEDIT_INLINE_LAMBDA { S::store(q + r * kWidth + column, message); });
        aggregate<S, kWidth>(q, n, sources, targets, op.aggregates, op.aggregates_row);
        float* const given = op.e_out + first * kWidth;
        float* const out = n < rows ? last_out : given;
        product<S, kWidth>(
            q, kWidth, rows, op.update.values, kWidth,
            [&](int r, int column) METAEDIT_INLINE_LAMBDA {
                return S::add(S::load(op.update.bias + column), S::load(e + r * kWidth + column));
            },
            [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA { S::store(out + r * kWidth + column, x); });
        if (n < rows) copy(last_out, n * kWidth, given);
    });
}

// What a minimum gives to a message: all that is left of its gradient where the message is the minimum.
template <class S, int kWidth>
METAEDIT_INLINE typename S::V take_minimum(typename S::V q, const float* minimum, float* gradient) {
    const typename S::V left = S::load(gradient);
    const typename S::V taken = S::if_equal(q, S::load(minimum), left, S::all(0.0F));
    S::store(gradient, S::sub(left, taken));
    return taken;
}

template <class S, int kWidth>
METAEDIT_INLINE void messages_gradient(const MessagesGradient& op) {
    using V = typename S::V;
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float last[kChunk * kWidth], last_gradient[kChunk * kWidth];
    alignas(64) float q[kChunk * kWidth], slopes[kChunk * kWidth];  // these become the gradient in front of SiLU
    const std::int64_t row = op.aggregates_row, gradient_row = op.aggregates_gradient_row;
    for_each_chunk<kChunk>(op.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                         const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const int rows = to_rows(n);
        const float* e = filled<kWidth>(op.e + first * kWidth, n, last);
        float* const given = op.gradient + first * kWidth;
        const float* g = filled<kWidth>(given, n, last_gradient);
        compute_messages<S, kWidth>(e, rows, op.edge, op.terms, sources, targets,
                                    [&](int r, int column, V message, V slope) METAEDIT_INLINE_LAMBDA {
                                        S::store(q + r * kWidth + column, message);
                                        S::store(slopes + r * kWidth + column, slope);
                                    });
        product<S, kWidth>(
            g, kWidth, rows, op.update_back.values, kWidth,
            [&](int r, int column) METAEDIT_INLINE_LAMBDA {
                const float* target = op.aggregates_gradient + targets[r] * gradient_row + column;
                const float* source = op.aggregates_gradient + sources[r] * gradient_row + 2 * kWidth + column;
                return S::add(S::load(source), S::load(target));
            },
            [&](int r, int column, V of_message) METAEDIT_INLINE_LAMBDA {
                const int at = r * kWidth + column;
                const V message = S::load(q + at);
                const std::int64_t in = kWidth + column, out = 3 * kWidth + column;
                const V from_target = take_minimum<S, kWidth>(message, op.aggregates + targets[r] * row + in,
                                                              op.aggregates_gradient + targets[r] * gradient_row + in);
                const V from_source = take_minimum<S, kWidth>(message, op.aggregates + sources[r] * row + out,
                                                              op.aggregates_gradient + sources[r] * gradient_row + out);
                const V sum = S::add(of_message, S::add(from_target, from_source));
                S::store(slopes + at, S::mul(sum, S::load(slopes + at)));
            });
        scatter<S, kWidth>(slopes, n, sources, targets, op.terms_gradient, op.terms_gradient + kWidth, 2 * kWidth);
        add_outer<S>(q, kWidth, kWidth, g, kWidth, kWidth, rows, op.update_values);
        add_column_sums<S>(g, kWidth, kWidth, rows, op.update_bias);
        add_outer<S>(e, kWidth, kWidth, slopes, kWidth, kWidth, rows, op.edge_values);
        float* const out = n < rows ? last_gradient : given;
        product<S, kWidth>(
            slopes, kWidth, rows, op.edge_back.values, kWidth,
            [&](int r, int column) METAEDIT_INLINE_LAMBDA { return S::load(g + r * kWidth + column); },
            [&](int r, int column, V x) METAEDIT_INLINE_LAMBDA { S::store(out + r * kWidth + column, x); });
        if (n < rows) copy(last_gradient, n * kWidth, given);
    });
}

}  // namespace metaedit::gradient
