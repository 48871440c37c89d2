// What the minimiser does with vectors of parameters; n counts 64 floats.
#pragma once

#include "cpu/mlp/kernels.hpp"

namespace metaedit::mlp {

// Sums in flight; 64 floats are so many vectors or a multiple of it.
inline constexpr int kDotSums = 4;

template <class S>
METAEDIT_INLINE double total(const typename S::V (&sums)[kDotSums]) {
    return static_cast<double>(S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))));
}

template <class S>
METAEDIT_INLINE void dot(const float* x, const float* y, std::int64_t n, double* out) {
    typename S::V sums[kDotSums];
    METAEDIT_UNROLL
    for (int i = 0; i < kDotSums; ++i) sums[i] = S::all(0.0F);
    for (std::int64_t at = 0; at < n * kPanelRows; at += kDotSums * S::kLanes) {
        METAEDIT_UNROLL
        for (int i = 0; i < kDotSums; ++i) {
            sums[i] = S::fma(S::load(x + at + i * S::kLanes), S::load(y + at + i * S::kLanes), sums[i]);
        }
    }
    *out = total<S>(sums);
}

template <class S, bool kDot>
METAEDIT_INLINE void add_scaled_with(const AddScaled& op) {
    using V = typename S::V;
    const float *x = op.x, *y = op.y, *z = op.z;
    float* out = op.out;
    const V factor = S::all(op.factor), zero = S::all(0.0F);
    V sums[kDotSums];
    METAEDIT_UNROLL
    for (int i = 0; i < kDotSums; ++i) sums[i] = zero;
    for (std::int64_t at = 0; at < op.n * kPanelRows; at += kDotSums * S::kLanes) {
        METAEDIT_UNROLL
        for (int i = 0; i < kDotSums; ++i) {
            const std::int64_t place = at + i * S::kLanes;
            const V sum = S::fma(factor, S::load(x + place), y != nullptr ? S::load(y + place) : zero);
            S::store(out + place, sum);
            if constexpr (kDot) sums[i] = S::fma(sum, S::load(z + place), sums[i]);
        }
    }
    if constexpr (kDot) *op.dot = total<S>(sums);
}

template <class S>
METAEDIT_INLINE void add_scaled(const AddScaled& op) {
    if (op.z != nullptr) return add_scaled_with<S, true>(op);
    add_scaled_with<S, false>(op);
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
