// What the minimiser does with vectors of parameters; n counts 64 floats.
#pragma once

#include "cpu/mlp/kernels.hpp"

namespace metaedit::mlp {

template <class S>
METAEDIT_INLINE void dot(const float* x, const float* y, std::int64_t n, double* out) {
    using V = typename S::V;
    constexpr int kSums = 4;  // in flight; 64 floats are so many vectors or a multiple of it
    V sums[kSums];
    METAEDIT_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = S::all(0.0F);
    for (std::int64_t at = 0; at < n * kPanelRows; at += kSums * S::kLanes) {
        METAEDIT_UNROLL
        for (int i = 0; i < kSums; ++i) {
            sums[i] = S::fma(S::load(x + at + i * S::kLanes), S::load(y + at + i * S::kLanes), sums[i]);
        }
    }
    *out = static_cast<double>(S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))));
}

template <class S>
METAEDIT_INLINE void add_scaled(const AddScaled& op) {
    const typename S::V factor = S::all(op.factor), zero = S::all(0.0F);
    for (std::int64_t i = 0; i < op.n * kPanelRows; i += S::kLanes) {
        S::store(op.out + i, S::fma(factor, S::load(op.x + i), op.y != nullptr ? S::load(op.y + i) : zero));
    }
}

template <class S>
METAEDIT_INLINE void inverse_power(const InversePower& op) {
    using V = typename S::V;
    const V floor = S::all(op.floor), one = S::all(1.0F);
    for (std::int64_t i = 0; i < op.n * kPanelRows; i += S::kLanes) {
        const V quarter = S::sqrt(S::sqrt(S::add(S::load(op.x + i), floor)));
        S::store(op.out + i, S::div(one, S::mul(quarter, S::sqrt(quarter))));
    }
}

}  // namespace metaedit::mlp
