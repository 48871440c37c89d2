// Products of matrices for training. The order of the additions into a number depends on the shapes alone.
#pragma once

#include <cstring>

#include "cpu/fused/inline.hpp"
#include "cpu/training/kernels.hpp"

namespace metaedit::training {

template <class S, int kRows, int kVectors>
METAEDIT_INLINE void product_tile(const MatrixProduct& op, std::int64_t i, std::int64_t j) {
    using V = typename S::V;
    V sums[kRows][kVectors];
    float* c = op.c + i * op.c_stride + j;
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            const std::int64_t at = v * S::kLanes;
            sums[r][v] = op.add               ? S::load(c + r * op.c_stride + at)
                         : op.bias != nullptr ? S::load(op.bias + j + at)
                                              : S::all(0.0F);
        }
    }
    const float* a = op.a + i * op.row_stride;
    const float* b = op.b + j;
    for (std::int64_t t = 0; t < op.k; ++t, a += op.column_stride, b += op.b_stride) {
        V y[kVectors];
        METAEDIT_UNROLL
        for (int v = 0; v < kVectors; ++v) y[v] = S::load(b + v * S::kLanes);
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const V x = S::all(a[r * op.row_stride]);
            METAEDIT_UNROLL
            for (int v = 0; v < kVectors; ++v) sums[r][v] = S::fma(x, y[v], sums[r][v]);
        }
    }
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int v = 0; v < kVectors; ++v) S::store(c + r * op.c_stride + v * S::kLanes, sums[r][v]);
    }
}

// kVectors vectors of columns from j on, all rows.
template <class S, int kRows, int kVectors>
METAEDIT_INLINE void product_columns(const MatrixProduct& op, std::int64_t j) {
    std::int64_t i = 0;
    for (; op.m - i >= kRows && op.m - i != 8; i += kRows) product_tile<S, kRows, kVectors>(op, i, j);
    for (; op.m - i >= 4; i += 4) product_tile<S, 4, kVectors>(op, i, j);
    for (; op.m - i >= 2; i += 2) product_tile<S, 2, kVectors>(op, i, j);
    for (; i < op.m; ++i) product_tile<S, 1, kVectors>(op, i, j);
}

template <class S>
METAEDIT_INLINE void matrix_product(const MatrixProduct& op) {
    constexpr int kLanes = S::kLanes;
    std::int64_t j = 0;
    if constexpr (kLanes == kColumns) {
        for (; op.n - j >= 4 * kLanes; j += 4 * kLanes) product_columns<S, 6, 4>(op, j);
        for (; op.n - j >= 2 * kLanes; j += 2 * kLanes) product_columns<S, 8, 2>(op, j);
        for (; j < op.n; j += kLanes) product_columns<S, 8, 1>(op, j);
    } else {
        for (; j < op.n; j += S::kProductVectors * kLanes) {
            product_columns<S, S::kProductRows, S::kProductVectors>(op, j);
        }
    }
}

// Half as many rows as there are lanes by two outputs: that many sums are reduced together. Behind the last row or
// output a tile repeats it.
template <class S>
METAEDIT_INLINE void logits(const Logits& op) {
    using V = typename S::V;
    constexpr int kRows = S::kLanes < 2 ? 1 : S::kLanes / 2, kOutputs = S::kLanes / kRows;
    for (std::int64_t o = 0; o < op.n_outputs; o += kOutputs) {
        const float* weight[kOutputs];
        for (int s = 0; s < kOutputs; ++s) weight[s] = op.weight + (o + s < op.n_outputs ? o + s : o) * op.n;
        for (std::int64_t i = 0; i < op.rows; i += kRows) {
            const float* h[kRows];
            METAEDIT_UNROLL
            for (int r = 0; r < kRows; ++r) h[r] = op.h + (i + r < op.rows ? i + r : op.rows - 1) * op.n;
            V sums[S::kLanes];
            METAEDIT_UNROLL
            for (int t = 0; t < S::kLanes; ++t) sums[t] = S::all(0.0F);
            for (std::int64_t at = 0; at < op.n; at += S::kLanes) {
                V y[kOutputs];
                METAEDIT_UNROLL
                for (int s = 0; s < kOutputs; ++s) y[s] = S::load(weight[s] + at);
                METAEDIT_UNROLL
                for (int r = 0; r < kRows; ++r) {
                    const V x = S::load(h[r] + at);
                    METAEDIT_UNROLL
                    for (int s = 0; s < kOutputs; ++s) sums[s * kRows + r] = S::fma(x, y[s], sums[s * kRows + r]);
                }
            }
            float tile[S::kLanes];
            S::store(tile, S::sums_of(sums));
            for (int s = 0; s < kOutputs && o + s < op.n_outputs; ++s) {
                float* out = op.out + (o + s) * kBlockRows + i;
                for (int r = 0; r < kRows; ++r) out[r] = tile[s * kRows + r] + op.bias[o + s];
            }
        }
    }
}

#ifdef __GNUC__
METAEDIT_INLINE void transpose_tile(const float* from, std::int64_t from_stride, float* to, std::int64_t to_stride) {
    using Four = float __attribute__((vector_size(16)));
    Four x[4];
    METAEDIT_UNROLL
    for (int r = 0; r < 4; ++r) std::memcpy(&x[r], from + r * from_stride, sizeof(Four));
    const Four a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5), b = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    const Four c = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7), d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    x[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    x[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    x[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    x[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
    METAEDIT_UNROLL
    for (int r = 0; r < 4; ++r) std::memcpy(to + r * to_stride, &x[r], sizeof(Four));
}
#else
METAEDIT_INLINE void transpose_tile(const float* from, std::int64_t from_stride, float* to, std::int64_t to_stride) {
    for (int r = 0; r < 4; ++r) {
        for (int s = 0; s < 4; ++s) to[s * to_stride + r] = from[r * from_stride + s];
    }
}
#endif

METAEDIT_INLINE void transpose(const Transpose& op) {
    for (std::int64_t j = 0; j < op.n_columns; j += 4) {
        for (std::int64_t i = 0; i < op.n_rows; i += 4) {
            transpose_tile(op.from + i * op.from_stride + j, op.from_stride, op.to + j * op.to_stride + i,
                           op.to_stride);
        }
    }
}

}  // namespace metaedit::training
