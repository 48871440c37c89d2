// 2^x where no instruction puts a power of two together.
#pragma once

#include "cpu/fused/inline.hpp"

namespace metaedit::gradient {

// x is held within the normal numbers. The operand order of min and max keeps a NaN.
template <class L>
METAEDIT_INLINE typename L::V exp2_of(typename L::V x) {
    using V = typename L::V;
    constexpr float kRounder = 12582912.0F;  // adding it rounds to a whole number, in the low bits of the mantissa
    x = L::max(L::all(-126.0F), L::min(L::all(127.0F), x));
    const V shift = L::add(L::sub(x, L::all(0.5F)), L::all(kRounder));
    const V fraction = L::sub(x, L::sub(shift, L::all(kRounder)));  // within [0, 1]
    V power = L::all(kExp2[0]);
    METAEDIT_UNROLL
    for (int i = 1; i < kExp2Terms; ++i) power = L::fma(power, fraction, L::all(kExp2[i]));
    return L::scale(power, shift);
}

}  // namespace metaedit::gradient
