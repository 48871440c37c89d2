// Kernels over rows: matrix product with an epilogue, LayerNorm.
#pragma once

#include "cpu/fused/kernels.hpp"
#include "cpu/fused/tile.hpp"

namespace metaedit::fused {

template <class S, int kRows, int kVectors, Then kThen>
METAEDIT_INLINE void dense_tile(const Dense& op, std::int64_t row, std::int64_t column) {
    typename S::V sums[kRows][kVectors];
    const float* bias = op.matrix.bias + column;
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) sums[r][j] = S::load(bias + j * S::kLanes);
    }
    const std::int64_t n_in = op.matrix.n_in;
    add_product<S>(sums, op.x + row * op.x_stride, op.x_stride, column_of(op.matrix.values, n_in, column), n_in);
    float* out = op.out + row * op.out_stride + column;
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r, out += op.out_stride) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) {
            typename S::V y = sums[r][j];
            if constexpr (kThen == Then::add) y = S::add(S::load(out + j * S::kLanes), y);
            if constexpr (kThen == Then::scaled_silu) y = S::scaled_silu(y);
            S::store(out + j * S::kLanes, y);
        }
    }
}

// One panel column of tiles, all rows: the panel stays in the first-level cache.
template <class S, int kVectors, Then kThen>
METAEDIT_INLINE void dense_column(const Dense& op, std::int64_t column) {
    constexpr int kRows = S::rows_of_dense_tile(kVectors);
    std::int64_t row = 0;
    for (; row + kRows <= op.rows; row += kRows) dense_tile<S, kRows, kVectors, kThen>(op, row, column);
    for (; row < op.rows; ++row) dense_tile<S, 1, kVectors, kThen>(op, row, column);
}

template <class S, Then kThen>
METAEDIT_INLINE void dense_all(const Dense& op) {
    constexpr std::int64_t kWide = S::kTileVectors * S::kLanes;
    std::int64_t column = 0;
    for (; column + kWide <= op.matrix.n_out; column += kWide) dense_column<S, S::kTileVectors, kThen>(op, column);
    for (; column < op.matrix.n_out; column += kPanel) dense_column<S, kPanel / S::kLanes, kThen>(op, column);
}

template <class S>
METAEDIT_INLINE void dense(const Dense& op) {
    switch (op.then) {
        case Then::store:
            return dense_all<S, Then::store>(op);
        case Then::add:
            return dense_all<S, Then::add>(op);
        case Then::scaled_silu:
            return dense_all<S, Then::scaled_silu>(op);
    }
}

// finish(i, y) gives what stands behind normalisation at columns from i on.
template <class S, class Finish>
METAEDIT_INLINE void normalise_rows(const Normalise& op, const Finish& finish) {
    constexpr float kEpsilon = 1e-5F;
    const float size = static_cast<float>(op.size);
    for (std::int64_t row = 0; row < op.rows; ++row) {
        const float* x = op.x + row * op.width;
        float* out = op.out + row * op.out_stride;
        typename S::V sum = S::all(0.0F);
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) sum = S::add(sum, S::load(x + i));
        const typename S::V mean = S::all(S::sum(sum) / size);
        typename S::V squares = S::all(0.0F);
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
            const typename S::V centred = S::mul(S::sub(S::load(x + i), mean), S::load(op.keeps + i));
            squares = S::fma(centred, centred, squares);
            S::store(out + i, centred);
        }
        const float inverse = 1.0F / __builtin_sqrtf(S::sum(squares) / size + kEpsilon);
        if (op.inverse != nullptr) op.inverse[row * op.inverse_stride] = inverse;
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
            S::store(out + i, finish(i, S::mul(S::load(out + i), S::all(inverse))));
        }
    }
}

template <class S>
METAEDIT_INLINE void normalise(const Normalise& op) {
    using V = typename S::V;
    normalise_rows<S>(op, [&](std::int64_t i, V y) METAEDIT_INLINE_LAMBDA {
        return op.scale == nullptr ? y : S::scaled_silu(S::fma(y, S::load(op.scale + i), S::load(op.shift + i)));
    });
}

}  // namespace metaedit::fused
