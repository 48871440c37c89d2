// Everything of training that is not a product of matrices.
#pragma once

#include <bit>
#include <cstring>

#include "cpu/mlp/math.hpp"
#include "cpu/training/kernels.hpp"

namespace metaedit::training {

template <class S>
METAEDIT_INLINE void cross_entropy(const CrossEntropy& op) {
    using V = typename S::V;
    const V one = S::all(1.0F), zero = S::all(0.0F), weight = S::all(op.weight);
    float keeps[kBlockRows];
    for (std::int64_t row = 0; row < kBlockRows; ++row) keeps[row] = row < op.rows ? 1.0F : 0.0F;
    for (std::int64_t lane = 0; lane < kBlockRows; lane += S::kLanes) {
        float* z = op.logits + lane;
        V largest = S::load(z);
        for (std::int64_t c = 1; c < op.n_outputs; ++c) largest = S::max(largest, S::load(z + c * kBlockRows));
        V sum = zero;
        for (std::int64_t c = 0; c < op.n_outputs; ++c) {
            const V power = mlp::exp_of_negative<S>(S::sub(S::load(z + c * kBlockRows), largest));
            S::store(z + c * kBlockRows, power);
            sum = S::add(sum, power);
        }
        const V label = S::load(op.labels + lane), keep = S::load(keeps + lane), inverse = S::div(one, sum);
        for (std::int64_t c = 0; c < op.n_outputs; ++c) {
            const V target = S::if_equal(label, S::all(static_cast<float>(c)), one, zero);
            const V gradient = S::mul(weight, S::sub(S::mul(S::load(z + c * kBlockRows), inverse), target));
            // Not a product with keep: what stands behind the last row may be NaN.
            S::store(z + c * kBlockRows, S::if_less(zero, keep, gradient, zero));
        }
    }
    for (std::int64_t c = 0; c < op.n_outputs; ++c) {
        V sum = zero;
        for (std::int64_t lane = 0; lane < kBlockRows; lane += S::kLanes) {
            sum = S::add(sum, S::load(op.logits + c * kBlockRows + lane));
        }
        op.bias_gradient[c] += S::sum(sum);
    }
}

template <class S>
METAEDIT_INLINE void column_sums(const ColumnSums& op) {
    using V = typename S::V;
    for (std::int64_t j = 0; j < op.x.n; j += S::kLanes) {
        const float* x = op.x.values + j;
        V sum = S::all(0.0F);
        if (op.centre == nullptr) {
            for (std::int64_t i = 0; i < op.x.rows; ++i) sum = S::add(sum, S::load(x + i * op.x.n));
        } else {
            const V centre = S::load(op.centre + j);
            for (std::int64_t i = 0; i < op.x.rows; ++i) {
                const V distance = S::sub(S::load(x + i * op.x.n), centre);
                sum = S::fma(distance, distance, sum);
            }
        }
        S::store(op.out + j, S::add(S::load(op.out + j), sum));
    }
}

template <class S>
METAEDIT_INLINE void through_activation(const ThroughActivation& op) {
    using V = typename S::V;
    const std::int64_t n = op.gradient.n;
    for (std::int64_t j = 0; j < n; j += S::kLanes) {
        float* gradient = op.gradient.values + j;
        V sum = S::all(0.0F), product = S::all(0.0F);
        for (std::int64_t at = 0; at < op.gradient.rows * n; at += n) {
            const V g = S::mul(S::load(gradient + at), S::load(op.slope + j + at));
            S::store(gradient + at, g);
            sum = S::add(sum, g);
            if (op.standardised != nullptr) product = S::fma(g, S::load(op.standardised + j + at), product);
        }
        S::store(op.sums + j, S::add(S::load(op.sums + j), sum));
        if (op.standardised != nullptr) S::store(op.products + j, S::add(S::load(op.products + j), product));
    }
}

template <class S>
METAEDIT_INLINE void batch_norm(const BatchNorm& op) {
    using V = typename S::V;
    for (std::int64_t j = 0; j < op.z.n; j += S::kLanes) {
        const V mean = S::load(op.mean + j), inverse = S::load(op.inverse_std + j);
        const V scale = S::load(op.scale + j), shift = S::load(op.shift + j);
        for (std::int64_t at = j; at < op.z.rows * op.z.n; at += op.z.n) {
            const V standardised = S::mul(S::sub(S::load(op.z.values + at), mean), inverse);
            S::store(op.standardised + at, standardised);
            S::store(op.z.values + at, S::fma(standardised, scale, shift));
        }
    }
}

template <class S>
METAEDIT_INLINE void batch_norm_backward(const BatchNormBackward& op) {
    using V = typename S::V;
    const std::int64_t n = op.gradient.n;
    for (std::int64_t j = 0; j < n; j += S::kLanes) {
        const V factor = S::load(op.factor + j), mean = S::load(op.mean + j), slope = S::load(op.slope + j);
        for (std::int64_t at = j; at < op.gradient.rows * n; at += n) {
            const V centred = S::sub(S::load(op.gradient.values + at), mean);
            const V rest = S::mul(S::load(op.standardised + at), slope);
            S::store(op.gradient.values + at, S::mul(factor, S::sub(centred, rest)));
        }
    }
}

// kLanes rows at a time, so that their sums across lanes are taken together; behind the last row it repeats.
template <class S>
METAEDIT_INLINE void layer_norm(const LayerNorm& op) {
    using V = typename S::V;
    const std::int64_t n = op.z.n;
    const V share = S::all(1.0F / static_cast<float>(op.width)), one = S::all(1.0F);
    V sums[S::kLanes];
    float means[S::kLanes];
    for (std::int64_t first = 0; first < op.z.rows; first += S::kLanes) {
        const std::int64_t end = op.z.rows - first < S::kLanes ? op.z.rows - first : S::kLanes;
        for (int r = 0; r < S::kLanes; ++r) {
            const float* z = op.z.values + (first + (r < end ? r : end - 1)) * n;
            V sum = S::all(0.0F);
            for (std::int64_t j = 0; j < n; j += S::kLanes) sum = S::add(sum, S::load(z + j));
            sums[r] = sum;
        }
        S::store(means, S::mul(S::sums_of(sums), share));
        for (int r = 0; r < S::kLanes; ++r) {
            const std::int64_t at = (first + (r < end ? r : end - 1)) * n;
            const V mean = S::all(means[r]);
            V sum = S::all(0.0F);
            for (std::int64_t j = 0; j < n; j += S::kLanes) {
                const V centred = S::mul(S::sub(S::load(op.z.values + at + j), mean), S::load(op.keeps + j));
                S::store(op.standardised + at + j, centred);
                sum = S::add(sum, S::mul(centred, centred));
            }
            sums[r] = sum;
        }
        const V deviation = S::sqrt(S::fma(S::sums_of(sums), share, S::all(op.epsilon)));
        S::store(op.inverse_std + first, S::div(one, deviation));
        for (int r = 0; r < end; ++r) {
            const std::int64_t at = (first + r) * n;
            const V inverse = S::all(op.inverse_std[first + r]);
            for (std::int64_t j = 0; j < n; j += S::kLanes) {
                const V standardised = S::mul(S::load(op.standardised + at + j), inverse);
                S::store(op.standardised + at + j, standardised);
                S::store(op.z.values + at + j, S::fma(standardised, S::load(op.scale + j), S::load(op.shift + j)));
            }
        }
    }
}

template <class S>
METAEDIT_INLINE void layer_norm_backward(const LayerNorm& op) {
    using V = typename S::V;
    const std::int64_t n = op.z.n;
    const V share = S::all(1.0F / static_cast<float>(op.width));
    V sums[S::kLanes], products[S::kLanes];
    float means[S::kLanes], slopes[S::kLanes];
    for (std::int64_t first = 0; first < op.z.rows; first += S::kLanes) {
        const std::int64_t end = op.z.rows - first < S::kLanes ? op.z.rows - first : S::kLanes;
        for (int r = 0; r < S::kLanes; ++r) {
            const std::int64_t at = (first + (r < end ? r : end - 1)) * n;
            V sum = S::all(0.0F), product = S::all(0.0F);
            for (std::int64_t j = 0; j < n; j += S::kLanes) {
                const V scaled = S::mul(S::load(op.z.values + at + j), S::load(op.scale + j));
                sum = S::add(sum, scaled);
                product = S::add(product, S::mul(scaled, S::load(op.standardised + at + j)));
            }
            sums[r] = sum;
            products[r] = product;
        }
        S::store(means, S::mul(S::sums_of(sums), share));
        S::store(slopes, S::mul(S::sums_of(products), share));
        for (int r = 0; r < end; ++r) {
            const std::int64_t at = (first + r) * n;
            const V mean = S::all(means[r]), slope = S::all(slopes[r]), inverse = S::all(op.inverse_std[first + r]);
            for (std::int64_t j = 0; j < n; j += S::kLanes) {
                const V scaled = S::mul(S::load(op.z.values + at + j), S::load(op.scale + j));
                const V rest = S::mul(S::load(op.standardised + at + j), slope);
                const V found = S::mul(inverse, S::sub(S::sub(scaled, mean), rest));
                S::store(op.z.values + at + j, S::mul(found, S::load(op.keeps + j)));
            }
        }
    }
}

template <class S>
METAEDIT_INLINE void add_columns(const AddColumns& op) {
    for (std::int64_t i = 0; i < op.rows; ++i) {
        const float* from = op.from + i * op.from_stride;
        float* to = op.to + i * op.to_stride;
        for (std::int64_t j = 0; j < op.n; j += S::kLanes) S::store(to + j, S::add(S::load(to + j), S::load(from + j)));
    }
}

// The compiler's own vectors, as long as those of the instruction set where it has any. (GCC drops the attribute
// where a template argument gives the size.)
template <int lanes>
struct Vectors {
    using Words = std::uint32_t;
    using Integers = std::int32_t;
    using Floats = float;
};
#ifdef __GNUC__
#define METAEDIT_VECTORS(lanes)                                                \
    template <>                                                                \
    struct Vectors<lanes> {                                                    \
        using Words = std::uint32_t __attribute__((vector_size(4 * lanes)));   \
        using Integers = std::int32_t __attribute__((vector_size(4 * lanes))); \
        using Floats = float __attribute__((vector_size(4 * lanes)));          \
    };
METAEDIT_VECTORS(4)
METAEDIT_VECTORS(8)
METAEDIT_VECTORS(16)
#undef METAEDIT_VECTORS
#endif

template <class S>
struct Random {
    using Words = typename Vectors<S::kLanes>::Words;
    using Integers = typename Vectors<S::kLanes>::Integers;
    using Floats = typename Vectors<S::kLanes>::Floats;
    static constexpr int kWords = sizeof(Words) / sizeof(std::uint32_t);

    Words s[4];

    METAEDIT_INLINE static Words rotated(Words x, int by) { return (x << by) | (x >> (32 - by)); }

    // xoshiro128++ (Blackman & Vigna 2021), a generator in each lane.
    METAEDIT_INLINE Words next() {
        const Words result = rotated(s[0] + s[3], 7) + s[0], shifted = s[1] << 9;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = rotated(s[3], 11);
        return result;
    }

    // 0 where the lowest byte is below the threshold, else `factor`, by the sign of the difference: comparisons of
    // such vectors are more than GCC 12 can do without leaving the vectors.
    METAEDIT_INLINE static Floats mask(Words word, std::uint32_t threshold, Words factor) {
        const auto sign = std::bit_cast<Integers>((word & 255U) - threshold) >> 31;
        return std::bit_cast<Floats>(~std::bit_cast<Words>(sign) & factor);
    }

    METAEDIT_INLINE static void multiply(float* values, Floats by) {
        Floats x;
        std::memcpy(&x, values, sizeof x);
        x *= by;
        std::memcpy(values, &x, sizeof x);
    }
};

// Byte q of word l decides on value 16 q + l of each 64, whatever the instruction set.
template <class S>
METAEDIT_INLINE void dropout(const Dropout& op) {
    using R = Random<S>;
    for (int lane = 0; lane < kColumns; lane += R::kWords) {
        R random;
        for (int i = 0; i < 4; ++i) std::memcpy(&random.s[i], op.state + i * kColumns + lane, sizeof random.s[i]);
        const auto factor = std::bit_cast<typename R::Words>(typename R::Floats{} + op.factor);
        for (std::int64_t at = lane; at < op.n; at += 4 * kColumns) {
            typename R::Words word = random.next();
            METAEDIT_UNROLL
            for (int q = 0; q < 4; ++q, word >>= 8) {
                const typename R::Floats mask = R::mask(word, op.threshold, factor);
                R::multiply(op.values + at + q * kColumns, mask);
                R::multiply(op.slopes + at + q * kColumns, mask);
            }
        }
        for (int i = 0; i < 4; ++i) std::memcpy(op.state + i * kColumns + lane, &random.s[i], sizeof random.s[i]);
    }
}

template <class S>
METAEDIT_INLINE void adam(const Adam& op) {
    using V = typename S::V;
    const V keep = S::all(op.keep), gain1 = S::all(1.0F - op.beta1), beta2 = S::all(op.beta2);
    const V gain2 = S::all(1.0F - op.beta2), epsilon = S::all(op.epsilon), rate = S::all(op.rate);
    for (std::int64_t i = 0; i < op.n; i += S::kLanes) {
        const V gradient = S::load(op.gradient + i), before = S::load(op.first + i);
        const V first = S::fma(gain1, S::sub(gradient, before), before);
        const V second = S::fma(S::mul(gain2, gradient), gradient, S::mul(beta2, S::load(op.second + i)));
        S::store(op.first + i, first);
        S::store(op.second + i, second);
        const V update = S::div(first, S::add(S::sqrt(second), epsilon));
        S::store(op.parameters + i, S::sub(S::mul(S::load(op.parameters + i), keep), S::mul(rate, update)));
    }
}

}  // namespace metaedit::training
