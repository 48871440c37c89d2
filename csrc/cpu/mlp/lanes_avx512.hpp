// What the MLP kernels need of AVX-512 beyond fused/simd_avx512.hpp; the other lanes_*.hpp have the same names.
#pragma once

#include "cpu/fused/simd_avx512.hpp"

namespace metaedit::avx512 {

struct Lanes : Simd {
    // 6 x 4 sums, 4 vectors of b and a broadcast operand: 28 of 32 registers.
    static constexpr int kProductRows = 6;
    static constexpr int kProductVectors = 4;

    METAEDIT_INLINE static V div(V x, V y) { return _mm512_div_ps(x, y); }
    METAEDIT_INLINE static V sqrt(V x) { return _mm512_sqrt_ps(x); }
    METAEDIT_INLINE static V max(V x, V y) { return _mm512_max_ps(x, y); }
    METAEDIT_INLINE static V abs(V x) { return _mm512_abs_ps(x); }
    // a where x < y, else b; min and max give y where either is NaN, this one b.
    METAEDIT_INLINE static V if_less(V x, V y, V a, V b) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
    }
    METAEDIT_INLINE static V if_equal(V x, V y, V a, V b) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ), b, a);
    }
    // x times 2^n, n being the low bits of `shift`'s mantissa; see exp in math.hpp.
    METAEDIT_INLINE static V scale(V x, V shift) {
        return _mm512_castsi512_ps(
            _mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(shift), 23)));
    }
    // x = the result times 2^exponent, the result in [0.75, 1.5); x is a positive normal number.
    METAEDIT_INLINE static V split(V x, V& exponent) {
        const __m512i bits = _mm512_castps_si512(x);
        const __m512i n = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3F400000)), 23);
        exponent = _mm512_cvtepi32_ps(n);
        return _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(n, 23)));
    }
};

}  // namespace metaedit::avx512
