// Elementary functions of a vector of floats. Polynomials are minimax fits by iteratively reweighted least squares,
// highest power first; errors stated are relative, measured against float64 with rounding included.
//
// The operand order of min and max keeps a NaN, so whatever a NaN goes into is NaN.
#pragma once

#include "cpu/fused/inline.hpp"

namespace metaedit::mlp {

template <class S, int n>
METAEDIT_INLINE typename S::V polynomial(typename S::V x, const float (&terms)[n]) {
    typename S::V y = S::all(terms[0]);
    METAEDIT_UNROLL
    for (int i = 1; i < n; ++i) y = S::fma(y, x, S::all(terms[i]));
    return y;
}

template <class S>
METAEDIT_INLINE typename S::V negative(typename S::V x) {
    return S::sub(S::all(0.0F), x);
}

inline constexpr float kLog2E = 1.44269504F, kLn2 = 0.693147181F;
// ln 2 in two parts, the first with so few bits that n times it is exact.
inline constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
// Adding it rounds to a whole number, which then stands in the low bits of the mantissa.
inline constexpr float kRounder = 12582912.0F;
// (e^r - 1 - r) / r² for |r| <= ln(2) / 2
inline constexpr float kExpTail[5] = {0.00139517034F, 0.00836959016F, 0.0416661873F, 0.166665137F, 0.5F};
// exp stops here, in front of the subnormal numbers; what is smaller is 0 to everything that uses it.
inline constexpr float kExpLowest = -87.0F;

// e^x for x <= 0, and e^x - 1: 1.5e-7.
template <class S>
METAEDIT_INLINE typename S::V exp_of_negative(typename S::V x, typename S::V* minus_one = nullptr) {
    using V = typename S::V;
    x = S::max(S::all(kExpLowest), x);
    const V shift = S::fma(x, S::all(kLog2E), S::all(kRounder));
    const V n = S::sub(shift, S::all(kRounder));
    const V r = S::fma(n, S::all(-kLn2Low), S::fma(n, S::all(-kLn2High), x));
    const V tail = S::fma(S::mul(r, r), polynomial<S>(r, kExpTail), r);
    const V power = S::scale(S::add(tail, S::all(1.0F)), shift);
    if (minus_one != nullptr) {
        // Where n is 0 the 1 was never added.
        *minus_one = S::if_equal(n, S::all(0.0F), tail, S::sub(power, S::all(1.0F)));
    }
    return power;
}

// 2 atanh(t), which is ln((1 + t) / (1 - t)), for |t| <= 0.2, the series: 1e-8 before rounding
inline constexpr float kAtanh[5] = {2.0F / 9.0F, 2.0F / 7.0F, 2.0F / 5.0F, 2.0F / 3.0F, 2.0F};

template <class S>
METAEDIT_INLINE typename S::V twice_atanh(typename S::V t) {
    return S::mul(t, polynomial<S>(S::mul(t, t), kAtanh));
}

// ln x for positive normal x: 2e-7. NaN for infinity.
template <class S>
METAEDIT_INLINE typename S::V log_of_normal(typename S::V x) {
    using V = typename S::V;
    V exponent;
    const V m = S::split(x, exponent);
    const V one = S::all(1.0F);
    const V near = twice_atanh<S>(S::div(S::sub(m, one), S::add(m, one)));
    const V y = S::fma(exponent, S::all(kLn2High), S::fma(exponent, S::all(kLn2Low), near));
    return S::fma(x, S::all(0.0F), y);  // the bits of a NaN split into a number
}

// 2^r for |r| <= 1/2, highest power first
inline constexpr float kExp2Near[6] = {0.00132764713F, 0.00967554096F, 0.0555071309F,
                                       0.240221202F,   0.693146944F,   1.00000012F};
// Beyond it e^x or e^-x is not a normal number.
inline constexpr float kSigmoidFar = 87.0F;

// 1 / (1 + e^-x) and 1 minus it, both to 3e-7 + 2e-8 |x| (6e-8 |x| where multiply-adds round twice). One division and
// no choice between signs: what e^-x lacks in accuracy far out, nobody sees in a number so near to 0 or 1.
template <class S>
struct Sigmoid {
    typename S::V value, rest;

    METAEDIT_INLINE explicit Sigmoid(typename S::V x) {
        using V = typename S::V;
        x = S::max(S::all(-kSigmoidFar), S::min(S::all(kSigmoidFar), x));
        const V shift = S::fma(x, S::all(-kLog2E), S::all(kRounder));
        const V r = S::fma(x, S::all(-kLog2E), S::sub(S::all(kRounder), shift));
        const V e = S::scale(polynomial<S>(r, kExp2Near), shift), one = S::all(1.0F);
        value = S::div(one, S::add(one, e));
        rest = S::mul(e, value);
    }
};

// tanh x, and 1 minus its square, both to 4e-7.
template <class S>
METAEDIT_INLINE typename S::V tanh(typename S::V x, typename S::V* slope) {
    using V = typename S::V;
    const V zero = S::all(0.0F), one = S::all(1.0F);
    V minus_one;
    const V e = exp_of_negative<S>(S::mul(S::abs(x), S::all(-2.0F)), &minus_one);
    const V inverse = S::div(one, S::add(one, e));
    if (slope != nullptr) *slope = S::mul(S::mul(S::all(4.0F), e), S::mul(inverse, inverse));
    const V negative_size = S::mul(minus_one, inverse);
    return S::if_less(x, zero, negative_size, S::sub(zero, negative_size));
}

// The scaled upper tail of the normal distribution, e^(u²/2) (1 - cdf(u)), of 1 / (1 + 0.3 u) for 0 <= u <= 14
inline constexpr float kNormalTail[10] = {-0.00450932421F, 0.0618152805F, -0.221672013F, 0.29504174F,  -0.128568545F,
                                          0.168738753F,    0.0862389281F, 0.123597644F,  0.119301595F, 1.59529445e-05F};

// The normal distribution's cdf, and e^(-x²/2). The error is 3e-7, and below x = -2 it grows with the rounding of
// x²/2, to 1e-6 at -5.
template <class S>
METAEDIT_INLINE typename S::V normal_cdf(typename S::V x, typename S::V& bell) {
    using V = typename S::V;
    const V one = S::all(1.0F);
    bell = exp_of_negative<S>(S::mul(S::mul(x, S::all(-0.5F)), x));
    const V t = S::div(one, S::fma(S::abs(x), S::all(0.3F), one));
    const V tail = S::mul(bell, polynomial<S>(t, kNormalTail));
    return S::if_less(x, S::all(0.0F), tail, S::sub(one, tail));
}

}  // namespace metaedit::mlp
