// The kernels of edit/kernels.hpp. Sums go into eight partial sums in double, in an order that the compiler may keep
// in vectors of any width.
#pragma once

#include "cpu/edit/kernels.hpp"
#include "cpu/mlp/math.hpp"

namespace metaedit::edit {

inline constexpr int kParts = 8;

METAEDIT_INLINE double total(const double (&parts)[kParts]) {
    return ((parts[0] + parts[1]) + (parts[2] + parts[3])) + ((parts[4] + parts[5]) + (parts[6] + parts[7]));
}

METAEDIT_INLINE double sum_of(const float* x, std::int64_t n) {
    double parts[kParts] = {};
    std::int64_t i = 0;
    for (; i + kParts <= n; i += kParts) {
        METAEDIT_UNROLL
        for (int part = 0; part < kParts; ++part) parts[part] += static_cast<double>(x[i + part]);
    }
    for (int part = 0; i < n; ++i, ++part) parts[part] += static_cast<double>(x[i]);
    return total(parts);
}

METAEDIT_INLINE double square(float x) {
    return static_cast<double>(x * x);
}

METAEDIT_INLINE void square_sums(const SquareSums& op) {
    for (std::int64_t v = 0; v < op.n_out; ++v) op.of_column[v] = 0.0;
    const float* weight = op.weight;
    for (std::int64_t u = 0; u < op.n_in; ++u, weight += op.n_out) {
        const float scale = op.scale == nullptr ? 1.0F : op.scale[u];
        double parts[kParts] = {};
        std::int64_t v = 0;
        for (; v + kParts <= op.n_out; v += kParts) {
            METAEDIT_UNROLL
            for (int part = 0; part < kParts; ++part) {
                const double squared = square(weight[v + part] * scale);
                parts[part] += squared;
                op.of_column[v + part] += squared;
            }
        }
        for (int part = 0; v < op.n_out; ++v, ++part) {
            const double squared = square(weight[v] * scale);
            parts[part] += squared;
            op.of_column[v] += squared;
        }
        op.of_row[u] = total(parts);
    }
}

// Up to kLanes floats; the other lanes are `rest`.
template <class S>
METAEDIT_INLINE typename S::V load_some(const float* p, std::int64_t n, float rest) {
    if (n >= S::kLanes) return S::load(p);
    float values[S::kLanes];
    for (int i = 0; i < S::kLanes; ++i) values[i] = i < n ? p[i] : rest;
    return S::load(values);
}

template <class S>
METAEDIT_INLINE void store_some(float* p, typename S::V x, std::int64_t n) {
    if (n >= S::kLanes) return S::store(p, x);
    float values[S::kLanes];
    S::store(values, x);
    for (int i = 0; i < n; ++i) p[i] = values[i];
}

template <class S, LogOf kOf>
METAEDIT_INLINE void logarithms_of(const Logarithms& op) {
    using V = typename S::V;
    for (std::int64_t i = 0; i < op.n; i += S::kLanes) {
        const std::int64_t n = op.n - i;
        V x = load_some<S>(op.x + i, n, 1.0F);
        if constexpr (kOf == LogOf::magnitude) x = S::add(S::abs(x), S::all(kTinyWeight));
        if constexpr (kOf == LogOf::saliency) x = S::mul(S::mul(x, x), load_some<S>(op.fisher + i, n, 1.0F));
        if constexpr (kOf != LogOf::magnitude) x = S::add(x, S::all(kTinyFisher));
        V y = mlp::log_of_normal<S>(x);
        if constexpr (kOf != LogOf::magnitude) y = S::mul(y, S::all(0.5F));
        store_some<S>(op.out + i, y, n);
    }
    *op.sum = sum_of(op.out, op.n);
}

template <class S>
METAEDIT_INLINE void logarithms(const Logarithms& op) {
    switch (op.of) {
        case LogOf::magnitude:
            return logarithms_of<S, LogOf::magnitude>(op);
        case LogOf::fisher:
            return logarithms_of<S, LogOf::fisher>(op);
        case LogOf::saliency:
            return logarithms_of<S, LogOf::saliency>(op);
    }
}

template <class S>
METAEDIT_INLINE typename S::V clamped(typename S::V x) {
    return S::max(S::all(-kLimit), S::min(S::all(kLimit), x));  // in the order that keeps a NaN
}

template <class S>
METAEDIT_INLINE typename S::V centred(const float* x, std::int64_t n, float mean) {
    return clamped<S>(S::sub(load_some<S>(x, n, 0.0F), S::all(mean)));
}

template <class S, bool kProbe>
METAEDIT_INLINE void edge_features_of(const EdgeFeatures& op) {
    using V = typename S::V;
    constexpr int kColumns = kProbe ? 8 : 5;
    float columns[kColumns][S::kLanes];
    S::store(columns[4], S::all(op.log_rms));
    std::int64_t edge = 0;
    for (std::int64_t u = 0; u < op.n_in; ++u) {
        for (std::int64_t v = 0; v < op.n_out; v += S::kLanes) {
            const std::int64_t n = op.n_out - v < S::kLanes ? op.n_out - v : S::kLanes;
            const V weight = load_some<S>(op.weight + edge, n, 0.0F);
            const V log_weight = centred<S>(op.log_weight + edge, n, op.mean_log_weight);
            V saliency = log_weight;
            S::store(columns[0], clamped<S>(S::mul(weight, S::all(op.inverse_rms))));
            S::store(columns[1], log_weight);
            S::store(columns[2], clamped<S>(S::mul(weight, load_some<S>(op.inverse_rms_of_target + v, n, 0.0F))));
            S::store(columns[3], clamped<S>(S::mul(weight, S::all(op.inverse_rms_of_source[u]))));
            if constexpr (kProbe) {
                const V moved = S::mul(weight, S::all(op.deviation[u]));
                saliency = centred<S>(op.log_saliency + edge, n, op.mean_log_saliency);
                S::store(columns[5], saliency);
                S::store(columns[6], centred<S>(op.log_sensitivity + edge, n, op.mean_log_sensitivity));
                S::store(columns[7], clamped<S>(S::mul(moved, load_some<S>(op.inverse_moved + v, n, 0.0F))));
            }
            store_some<S>(op.saliency + edge, saliency, n);
            float* out = op.features + edge * kColumns;
            for (std::int64_t k = 0; k < n; ++k, out += kColumns) {
                METAEDIT_UNROLL
                for (int i = 0; i < kColumns; ++i) out[i] = columns[i][k];
            }
            edge += n;
        }
    }
}

template <class S>
METAEDIT_INLINE void edge_features(const EdgeFeatures& op) {
    if (op.log_saliency != nullptr) return edge_features_of<S, true>(op);
    edge_features_of<S, false>(op);
}

}  // namespace metaedit::edit
