// What the MLP kernels need of AVX2 beyond fused/simd_avx2.hpp; the other lanes_*.hpp have the same names.
#pragma once

#include "cpu/fused/simd_avx2.hpp"

namespace metaedit::avx2 {

struct Lanes : Simd {
    // 6 x 2 sums, 2 vectors of b and a broadcast operand: 15 of 16 registers.
    static constexpr int kProductRows = 6;
    static constexpr int kProductVectors = 2;

    METAEDIT_INLINE static V div(V x, V y) { return _mm256_div_ps(x, y); }
    METAEDIT_INLINE static V sqrt(V x) { return _mm256_sqrt_ps(x); }
    METAEDIT_INLINE static V max(V x, V y) { return _mm256_max_ps(x, y); }
    METAEDIT_INLINE static V abs(V x) { return _mm256_andnot_ps(all(-0.0F), x); }
    // a where x < y, else b; min and max give y where either is NaN, this one b.
    METAEDIT_INLINE static V if_less(V x, V y, V a, V b) {
        return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
    }
    METAEDIT_INLINE static V if_equal(V x, V y, V a, V b) {
        return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_EQ_OQ));
    }
    // x times 2^n, n being the low bits of `shift`'s mantissa; see exp in math.hpp.
    METAEDIT_INLINE static V scale(V x, V shift) {
        return _mm256_castsi256_ps(
            _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(shift), 23)));
    }
    // x = the result times 2^exponent, the result in [0.75, 1.5); x is a positive normal number.
    METAEDIT_INLINE static V split(V x, V& exponent) {
        const __m256i bits = _mm256_castps_si256(x);
        const __m256i n = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3F400000)), 23);
        exponent = _mm256_cvtepi32_ps(n);
        return _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(n, 23)));
    }
};

}  // namespace metaedit::avx2
