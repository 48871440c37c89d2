// What the gradient kernels need of AVX-512 beyond mlp/lanes_avx512.hpp; the other vectors_*.hpp have the same names.
#pragma once

#include "cpu/mlp/lanes_avx512.hpp"

namespace metaedit::avx512 {

struct Vectors : Lanes {
    // vscalefps multiplies by a power of two and saturates, so nothing is clamped. More digits than those of
    // Simd::scaled_silu: a slope is the difference of two numbers.
    METAEDIT_INLINE static V exp2(V x) {
        const V fraction = sub(x, _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
        V power = all(kExp2[0]);
        METAEDIT_UNROLL
        for (int i = 1; i < kExp2Terms; ++i) power = fma(power, fraction, all(kExp2[i]));
        return _mm512_scalef_ps(power, x);
    }
};

}  // namespace metaedit::avx512
