// Matrix product with an epilogue, in bf16.
#pragma once

#include "cpu/bf16/simd.hpp"
#include "cpu/bf16/tile.hpp"
#include "cpu/fused/dense.hpp"

namespace metaedit::bf16 {

using fused::Dense;
using fused::normalise;  // nothing in it is a product
using fused::Then;

// Wider inputs, which no network has, run float32: the rows of a tile would not fit the stack's share.
inline constexpr std::int64_t kMaxDensePairs = 512;

template <class U, int kPanels, Then kThen>
METAEDIT_INLINE void dense_columns(const Dense& op, const Pairs& x, std::int64_t row, std::int64_t n,
                                   std::int64_t panel) {
    using V = typename U::V;
    const float* bias = op.matrix.bias + panel * kPanel;
    float* out = op.out + row * op.out_stride + panel * kPanel;
    U::template multiply<kPanels, 0>(
        x, op.matrix, panel, [&](int, int j) METAEDIT_INLINE_LAMBDA { return U::load(bias + j * kPanel); },
        [&](int r, int j, V y) METAEDIT_INLINE_LAMBDA {
            if (r >= n) return;
            float* at = out + r * op.out_stride + j * kPanel;
            if constexpr (kThen == Then::add) y = U::add(U::load(at), y);
            if constexpr (kThen == Then::scaled_silu) y = U::scaled_silu(y);
            U::store(at, y);
        });
}

template <class U, Then kThen>
METAEDIT_INLINE void dense_rows(const Dense& op) {
    constexpr std::int64_t kSize = kRows * kMaxDensePairs;
    alignas(64) std::uint32_t high[kSize], low[U::kSplit ? kSize : 1];
    const std::int64_t n_pairs = pairs_of(op.matrix.n_in);
    const Pairs x{high, low, n_pairs};
    for (std::int64_t row = 0; row < op.rows; row += kRows) {
        const std::int64_t n = op.rows - row < kRows ? op.rows - row : kRows;
        for (std::int64_t r = 0; r < kRows; ++r) {
            const float* from = op.x + (row + r) * op.x_stride;
            for (std::int64_t k = 0; k < n_pairs; k += 8) {
                const std::int64_t left = r < n ? op.matrix.n_in - 2 * k : 0;
                U::store_pairs(x, r * n_pairs + k, left > 0 ? load_first(from + 2 * k, left) : U::all(0.0F));
            }
        }
        const std::int64_t n_panels = op.matrix.n_out / kPanel;
        std::int64_t panel = 0;
        for (; panel + 4 <= n_panels; panel += 4) bf16::dense_columns<U, 4, kThen>(op, x, row, n, panel);
        for (; panel < n_panels; ++panel) bf16::dense_columns<U, 1, kThen>(op, x, row, n, panel);
    }
}

template <class U>
METAEDIT_INLINE void dense(const Dense& op) {
    const std::int64_t n_pairs = pairs_of(op.matrix.n_in);
    if (op.matrix.pairs == nullptr || n_pairs > kMaxDensePairs) return fused::dense<U>(op);
    U::start(n_pairs);
    if (op.then == Then::store) bf16::dense_rows<U, Then::store>(op);
    if (op.then == Then::add) bf16::dense_rows<U, Then::add>(op);
    if (op.then == Then::scaled_silu) bf16::dense_rows<U, Then::scaled_silu>(op);
    U::stop();
}

}  // namespace metaedit::bf16
