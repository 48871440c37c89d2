// Gradient kernels over rows: gradients of matrices, SiLU, LayerNorm.
#pragma once

#include "cpu/gradient/tiles.hpp"

namespace metaedit::gradient {

template <class S>
METAEDIT_INLINE void weight_gradient(const WeightGradient& op) {
    if (op.values != nullptr) {
        add_outer<S>(op.x, op.x_stride, op.n_in, op.g, op.g_stride, op.n_out, op.rows, op.values);
    }
    if (op.bias != nullptr) add_column_sums<S>(op.g, op.g_stride, op.n_out, op.rows, op.bias);
}

template <class S>
METAEDIT_INLINE void activate(const Activate& op) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
        const float* y = op.y + row * op.y_stride;
        float* out = op.out + row * op.width;
        float* g = op.gradient == nullptr ? nullptr : op.gradient + row * op.width;
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
            typename S::V slope;
            S::store(out + i, silu<S>(S::load(y + i), slope));
            if (g != nullptr) S::store(g + i, S::mul(S::load(g + i), slope));
        }
    }
}

template <class S>
METAEDIT_INLINE void normalise_gradient(const NormaliseGradient& op) {
    using V = typename S::V;
    const float size = static_cast<float>(op.size);
    for (std::int64_t row = 0; row < op.rows; ++row) {
        const float* normed = op.normed + row * op.normed_stride;
        const float* g = op.g + row * op.g_stride;
        float* out = op.out + row * op.width;
        V sum = S::all(0.0F), along = S::all(0.0F);
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
            const V value = S::mul(S::load(g + i), S::load(op.keeps + i));
            sum = S::add(sum, value);
            along = S::fma(value, S::load(normed + i), along);
        }
        const V mean = S::all(S::sum(sum) / size), mean_along = S::all(S::sum(along) / size);
        const V inverse = S::all(op.inverse[row * op.inverse_stride]);
        for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
            const V value = S::sub(S::sub(S::load(g + i), mean), S::mul(S::load(normed + i), mean_along));
            const V given = op.add ? S::load(out + i) : S::all(0.0F);
            S::store(out + i, S::fma(S::mul(value, inverse), S::load(op.keeps + i), given));
        }
    }
}

template <class S>
METAEDIT_INLINE void scaled_activate(const ScaledActivate& op) {
    using V = typename S::V;
    for (std::int64_t i = 0; i < op.width; i += S::kLanes) {
        const V scale = S::load(op.scale + i), shift = S::load(op.shift + i);
        V of_scale = S::all(0.0F), of_shift = S::all(0.0F);
        for (std::int64_t row = 0; row < op.rows; ++row) {
            const V normed = S::load(op.normed + row * op.normed_stride + i);
            V slope;
            S::store(op.out + row * op.width + i, silu<S>(S::fma(normed, scale, shift), slope));
            if (op.gradient == nullptr) continue;
            float* g = op.gradient + row * op.width + i;
            const V of_z = S::mul(S::load(g), slope);
            of_scale = S::fma(of_z, normed, of_scale);
            of_shift = S::add(of_z, of_shift);
            S::store(g, S::mul(of_z, scale));
        }
        if (op.gradient == nullptr) continue;
        S::store(op.scale_gradient + i, S::add(S::load(op.scale_gradient + i), of_scale));
        S::store(op.shift_gradient + i, S::add(S::load(op.shift_gradient + i), of_shift));
    }
}

}  // namespace metaedit::gradient
