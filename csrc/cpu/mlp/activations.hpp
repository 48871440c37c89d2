// Activations with their derivatives, and layer norm. At a kink the derivative is the one from the left.
#pragma once

#include "cpu/mlp/kernels.hpp"
#include "cpu/mlp/math.hpp"

namespace metaedit::mlp {

// act(z), and its derivative in `slope` where it is wanted.
template <class S, Activation kActivation, bool kSlope>
METAEDIT_INLINE typename S::V activation(typename S::V z, typename S::V alpha, typename S::V& slope) {
    using V = typename S::V;
    const V zero = S::all(0.0F), one = S::all(1.0F);
    if constexpr (kActivation == Activation::relu) {
        if constexpr (kSlope) slope = S::if_less(zero, z, one, zero);
        return S::max(zero, z);
    } else if constexpr (kActivation == Activation::leaky_relu) {
        if constexpr (kSlope) slope = S::if_less(zero, z, one, alpha);
        return S::if_less(zero, z, z, S::mul(alpha, z));
    } else if constexpr (kActivation == Activation::relu6) {
        const V six = S::all(6.0F);
        if constexpr (kSlope) slope = S::if_less(zero, z, S::if_less(z, six, one, zero), zero);
        return S::min(six, S::max(zero, z));
    } else if constexpr (kActivation == Activation::elu) {
        V minus_one;
        const V power = exp_of_negative<S>(S::min(zero, z), &minus_one);
        if constexpr (kSlope) slope = S::if_less(zero, z, one, S::mul(alpha, power));
        return S::if_less(zero, z, z, S::mul(alpha, minus_one));
    } else if constexpr (kActivation == Activation::tanh) {
        return tanh<S>(z, kSlope ? &slope : nullptr);
    } else if constexpr (kActivation == Activation::sigmoid) {
        const Sigmoid<S> s(z);
        if constexpr (kSlope) slope = S::mul(s.value, s.rest);
        return s.value;
    } else if constexpr (kActivation == Activation::silu) {
        const Sigmoid<S> s(z);
        if constexpr (kSlope) slope = S::mul(s.value, S::fma(z, s.rest, one));
        return S::mul(z, s.value);
    } else if constexpr (kActivation == Activation::gelu) {
        constexpr float kInvSqrt2Pi = 0.398942280F;
        V bell;
        const V cdf = normal_cdf<S>(z, bell);
        if constexpr (kSlope) slope = S::fma(S::mul(z, S::all(kInvSqrt2Pi)), bell, cdf);
        return S::mul(z, cdf);
    } else if constexpr (kActivation == Activation::gelu_tanh) {
        // (1 + tanh(y)) / 2 = sigmoid(2 y), which keeps its digits where tanh is near -1.
        constexpr float kScale = 2.0F * 0.797884561F, kCube = 0.044715F;
        const V squared = S::mul(z, z);
        const Sigmoid<S> s(S::mul(S::mul(S::all(kScale), z), S::fma(squared, S::all(kCube), one)));
        if constexpr (kSlope) {
            const V inner = S::mul(S::all(kScale), S::fma(squared, S::all(3.0F * kCube), one));
            slope = S::mul(s.value, S::fma(S::mul(z, s.rest), inner, one));
        }
        return S::mul(z, s.value);
    } else {
        if constexpr (kSlope) slope = one;
        return z;
    }
}

template <class S, Activation kActivation, bool kSlope>
METAEDIT_INLINE void activate_all(const Activate& op) {
    const typename S::V alpha = S::all(op.alpha);
    for (std::int64_t i = 0; i < op.n * kPanelRows; i += S::kLanes) {
        typename S::V slope = alpha;
        S::store(op.z + i, activation<S, kActivation, kSlope>(S::load(op.z + i), alpha, slope));
        if constexpr (kSlope) S::store(op.slope + i, slope);
    }
}

template <class S, Activation kActivation>
METAEDIT_INLINE void activate_with(const Activate& op) {
    if (op.slope != nullptr) return activate_all<S, kActivation, true>(op);
    activate_all<S, kActivation, false>(op);
}

// A pass of its own over a panel that is still in the first-level cache: with ten activations, each with and
// without derivative, the products would else exist twenty times.
template <class S>
METAEDIT_INLINE void activate(const Activate& op) {
    switch (op.activation) {
        case Activation::identity:
        case Activation::count:
            return activate_with<S, Activation::identity>(op);
        case Activation::relu:
            return activate_with<S, Activation::relu>(op);
        case Activation::gelu:
            return activate_with<S, Activation::gelu>(op);
        case Activation::gelu_tanh:
            return activate_with<S, Activation::gelu_tanh>(op);
        case Activation::silu:
            return activate_with<S, Activation::silu>(op);
        case Activation::tanh:
            return activate_with<S, Activation::tanh>(op);
        case Activation::leaky_relu:
            return activate_with<S, Activation::leaky_relu>(op);
        case Activation::sigmoid:
            return activate_with<S, Activation::sigmoid>(op);
        case Activation::elu:
            return activate_with<S, Activation::elu>(op);
        case Activation::relu6:
            return activate_with<S, Activation::relu6>(op);
    }
}

// z becomes its standardised rows times scale plus shift. Each lane is a row, so its sums are plain additions.
// Here and backward, what is added was rounded first: a fused multiply-add favours one of two neurons, and where a
// norm has but two, their gradients are so small a difference that it would show.
template <class S>
METAEDIT_INLINE void norm(const Norm& op, float* z) {
    using V = typename S::V;
    const V share = S::all(1.0F / static_cast<float>(op.n)), one = S::all(1.0F);
    for (std::int64_t lane = 0; lane < kPanelRows; lane += S::kLanes) {
        V sum = S::all(0.0F);
        for (std::int64_t i = 0; i < op.n; ++i) sum = S::add(sum, S::load(z + i * kPanelRows + lane));
        const V mean = S::mul(sum, share);
        V squares = S::all(0.0F);
        for (std::int64_t i = 0; i < op.n; ++i) {
            const V centred = S::sub(S::load(z + i * kPanelRows + lane), mean);
            squares = S::add(squares, S::mul(centred, centred));
        }
        const V inverse = S::div(one, S::sqrt(S::fma(squares, share, S::all(op.epsilon))));
        S::store(op.inverse_std + lane, inverse);
        for (std::int64_t i = 0; i < op.n; ++i) {
            const std::int64_t at = i * kPanelRows + lane;
            const V standardised = S::mul(S::sub(S::load(z + at), mean), inverse);
            S::store(op.standardised + at, standardised);
            S::store(z + at, S::fma(standardised, S::all(op.scale[i]), S::all(op.shift[i])));
        }
    }
}

template <class S>
METAEDIT_INLINE void norm_backward(const NormBackward& op) {
    using V = typename S::V;
    const std::int64_t n = op.norm.n;
    for (std::int64_t i = 0; i < n; ++i) {
        V along_scale = S::all(0.0F), along_shift = S::all(0.0F);
        for (std::int64_t at = i * kPanelRows; at < (i + 1) * kPanelRows; at += S::kLanes) {
            const V gradient = S::load(op.gradient + at);
            along_scale = S::fma(gradient, S::load(op.norm.standardised + at), along_scale);
            along_shift = S::add(along_shift, gradient);
        }
        op.scale_gradient[i] += S::sum(along_scale);
        op.shift_gradient[i] += S::sum(along_shift);
    }
    const V share = S::all(1.0F / static_cast<float>(n));
    for (std::int64_t lane = 0; lane < kPanelRows; lane += S::kLanes) {
        V sum = S::all(0.0F), along = S::all(0.0F);
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t at = i * kPanelRows + lane;
            const V scaled = S::mul(S::load(op.gradient + at), S::all(op.norm.scale[i]));
            sum = S::add(sum, scaled);
            along = S::add(along, S::mul(scaled, S::load(op.norm.standardised + at)));
        }
        const V mean = S::mul(sum, share), slope = S::mul(along, share), inverse = S::load(op.norm.inverse_std + lane);
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t at = i * kPanelRows + lane;
            const V scaled = S::mul(S::load(op.gradient + at), S::all(op.norm.scale[i]));
            const V rest = S::mul(S::load(op.norm.standardised + at), slope);
            S::store(op.gradient + at, S::mul(inverse, S::sub(S::sub(scaled, mean), rest)));
        }
    }
}

}  // namespace metaedit::mlp
