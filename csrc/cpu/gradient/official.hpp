// Gradient kernels over the edges of the official form's layer.
#pragma once

#include "cpu/fused/official.hpp"
#include "cpu/gradient/tiles.hpp"

namespace metaedit::gradient {

using fused::term_of;

// x[r] = (a[r] B + terms) / its standard deviation, of one slot, for a chunk's rows; `inverse` gets what x was
// multiplied by.
template <class S, int kWidth, int kSlot>
METAEDIT_INLINE void slot_normed(const Panels& edge, const float* terms, float size, const float* a, int rows,
                                 const std::int64_t* sources, const std::int64_t* targets, float* x, float* inverse) {
    using V = typename S::V;
    constexpr float kEpsilon = 1e-5F;
    product<S, kWidth>(
        a, kWidth, rows, edge.values + kSlot * kWidth * kWidth, kWidth,
        [&](int r, int column)
            METAEDIT_INLINE_LAMBDA { return term_of<S, kWidth, kSlot>(terms, sources[r], targets[r], column); },
        [&](int r, int column, V value) METAEDIT_INLINE_LAMBDA { S::store(x + r * kWidth + column, value); });
    for (int first = 0; first < rows; first += S::kLanes) {
        V squares[S::kLanes];
        METAEDIT_UNROLL
        for (int r = 0; r < S::kLanes; ++r) {
            squares[r] = S::all(0.0F);
            for (int i = 0; i < kWidth; i += S::kLanes) {
                const V value = S::load(x + (first + r) * kWidth + i);
                squares[r] = S::fma(value, value, squares[r]);
            }
        }
        const V variance = S::div(S::sums_of(squares), S::all(size));
        S::store(inverse + first, S::div(S::all(1.0F), S::sqrt(S::add(variance, S::all(kEpsilon)))));
    }
}

template <class S, int kWidth, int kSlot>
METAEDIT_INLINE void official_slot(const Official& op, const float* a, int n, const std::int64_t* sources,
                                   const std::int64_t* targets, float* m) {
    using V = typename S::V;
    alignas(64) float inverse[kMaxChunk];
    slot_normed<S, kWidth, kSlot>(op.edge, op.terms, op.size, a, to_rows(n), sources, targets, m, inverse);
    for (int r = 0; r < n; ++r) {
        for (int i = 0; i < kWidth; i += S::kLanes) {
            float* at = m + r * kWidth + i;
            const V normed = S::mul(S::load(at), S::all(inverse[r]));
            V slope;
            S::store(at, silu<S>(S::fma(normed, S::load(op.scale + kSlot * kWidth + i),
                                        S::load(op.shift + kSlot * kWidth + i)),
                                 slope));
        }
    }
}

template <class S, int kWidth>
METAEDIT_INLINE void official(const Official& op) {
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float last[kChunk * kWidth], m[kChunk * kWidth];
    for_each_chunk<kChunk>(op.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                         const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const float* a = filled<kWidth>(op.a + first * kWidth, n, last);
        official_slot<S, kWidth, 0>(op, a, n, sources, targets, m);
        scatter<S, kWidth>(m, n, sources, targets, nullptr, op.sums, op.sums_row);
        official_slot<S, kWidth, 1>(op, a, n, sources, targets, m);
        scatter<S, kWidth>(m, n, sources, targets, op.sums + kWidth, nullptr, op.sums_row);
        official_slot<S, kWidth, 2>(op, a, n, sources, targets, m);
        copy(m, n * kWidth, op.a_out + first * kWidth);
    });
}

// Where a row of the gradient of one slot's message stands.
template <int kWidth, int kSlot>
METAEDIT_INLINE const float* message_gradient(const OfficialGradient& op, const float* g, int r, std::int64_t source,
                                              std::int64_t target) {
    if constexpr (kSlot == 0) return op.sums_gradient + target * op.sums_gradient_row;
    if constexpr (kSlot == 1) return op.sums_gradient + source * op.sums_gradient_row + kWidth;
    return g + r * kWidth;
}

// One slot of a chunk: `out` becomes, or where kSlot is not 0 gets added, the gradient of a.
template <class S, int kWidth, int kSlot>
METAEDIT_INLINE void slot_gradient(const OfficialGradient& op, const float* a, const float* g, int n,
                                   const std::int64_t* sources, const std::int64_t* targets, float* x, float* out) {
    using V = typename S::V;
    const int rows = to_rows(n);
    alignas(64) float inverse[kMaxChunk], of_x[kMaxChunk * kWidth];
    slot_normed<S, kWidth, kSlot>(op.edge, op.terms, op.size, a, rows, sources, targets, x, inverse);
    float* of_scale = op.scale_gradient + kSlot * kWidth;
    float* of_shift = op.shift_gradient + kSlot * kWidth;
    for (int i = 0; i < kWidth; i += S::kLanes) {
        const V scale = S::load(op.scale + kSlot * kWidth + i), shift = S::load(op.shift + kSlot * kWidth + i);
        V scale_sum = S::all(0.0F), shift_sum = S::all(0.0F);
        for (int r = 0; r < rows; ++r) {
            float* at = x + r * kWidth + i;
            const V normed = S::mul(S::load(at), S::all(inverse[r]));
            V slope;
            silu<S>(S::fma(normed, scale, shift), slope);
            const float* given = message_gradient<kWidth, kSlot>(op, g, r, sources[r], targets[r]) + i;
            const V of_z = S::mul(S::load(given), slope);
            scale_sum = S::fma(of_z, normed, scale_sum);
            shift_sum = S::add(of_z, shift_sum);
            S::store(at, normed);
            S::store(of_x + r * kWidth + i, S::mul(of_z, scale));
        }
        S::store(of_scale + i, S::add(S::load(of_scale + i), scale_sum));
        S::store(of_shift + i, S::add(S::load(of_shift + i), shift_sum));
    }
    for (int first = 0; first < rows; first += S::kLanes) {
        V along[S::kLanes];
        alignas(64) float mean[S::kLanes];
        METAEDIT_UNROLL
        for (int r = 0; r < S::kLanes; ++r) {
            along[r] = S::all(0.0F);
            for (int i = 0; i < kWidth; i += S::kLanes) {
                const int at = (first + r) * kWidth + i;
                along[r] = S::fma(S::load(x + at), S::load(of_x + at), along[r]);
            }
        }
        S::store(mean, S::div(S::sums_of(along), S::all(op.size)));
        for (int r = 0; r < S::kLanes; ++r) {
            for (int i = 0; i < kWidth; i += S::kLanes) {
                const int at = (first + r) * kWidth + i;
                const V value = S::sub(S::load(of_x + at), S::mul(S::load(x + at), S::all(mean[r])));
                S::store(of_x + at, S::mul(value, S::all(inverse[first + r])));
            }
        }
    }
    constexpr int kSource = kSlot == 2 ? kWidth : 0, kTarget = kSlot == 2 ? 3 * kWidth : 2 * kWidth;
    scatter<S, kWidth>(of_x, n, sources, targets, kSlot == 1 ? nullptr : op.terms_gradient + kSource,
                       kSlot == 0 ? nullptr : op.terms_gradient + kTarget, 4 * kWidth);
    add_outer<S>(a, kWidth, kWidth, of_x, kWidth, kWidth, rows, op.edge_values + kSlot * kWidth * kWidth);
    product<S, kWidth>(
        of_x, kWidth, rows, op.edge_back.values + kSlot * kWidth * kPanel, 3 * kWidth, kWidth,
        [&](int r, int column)
            METAEDIT_INLINE_LAMBDA { return kSlot == 0 ? S::all(0.0F) : S::load(out + r * kWidth + column); },
        [&](int r, int column, V value) METAEDIT_INLINE_LAMBDA { S::store(out + r * kWidth + column, value); });
}

template <class S, int kWidth>
METAEDIT_INLINE void official_gradient(const OfficialGradient& op) {
    constexpr int kChunk = chunk_of(kWidth);
    alignas(64) float last[kChunk * kWidth], last_gradient[kChunk * kWidth];
    alignas(64) float x[kChunk * kWidth], out[kChunk * kWidth];
    for_each_chunk<kChunk>(op.edges, [&](std::int64_t first, int n, const std::int64_t* sources,
                                         const std::int64_t* targets) METAEDIT_INLINE_LAMBDA {
        const float* a = filled<kWidth>(op.a + first * kWidth, n, last);
        float* const given = op.gradient + first * kWidth;
        const float* g = filled<kWidth>(given, n, last_gradient);
        slot_gradient<S, kWidth, 0>(op, a, g, n, sources, targets, x, out);
        slot_gradient<S, kWidth, 1>(op, a, g, n, sources, targets, x, out);
        slot_gradient<S, kWidth, 2>(op, a, g, n, sources, targets, x, out);
        copy(out, n * kWidth, given);
    });
}

}  // namespace metaedit::gradient
