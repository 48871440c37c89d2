// AVX2 with FMA behind the names that the kernel templates use; simd_avx512.hpp has the same ones.
#pragma once

#include <immintrin.h>

#include "cpu/fused/inline.hpp"

namespace metaedit::avx2 {

struct Simd {
    using V = __m256;
    static constexpr int kLanes = 8;

    // Registers of a tile of sums: `rows_of_tile(n)` rows of n <= kTileVectors vectors. Eight of the sixteen
    // registers, because the rows should divide the usual widths of layers; where rows are nodes, twelve, which
    // hides more of the multiply-add's latency.
    static constexpr int kTileVectors = 2;
    static constexpr int rows_of_tile(int vectors) { return 8 / vectors; }
    static constexpr int rows_of_dense_tile(int vectors) { return 12 / vectors; }

    METAEDIT_INLINE static V load(const float* p) { return _mm256_loadu_ps(p); }
    METAEDIT_INLINE static void store(float* p, V x) { _mm256_storeu_ps(p, x); }
    METAEDIT_INLINE static V all(float x) { return _mm256_set1_ps(x); }
    METAEDIT_INLINE static V add(V x, V y) { return _mm256_add_ps(x, y); }
    METAEDIT_INLINE static V sub(V x, V y) { return _mm256_sub_ps(x, y); }
    METAEDIT_INLINE static V mul(V x, V y) { return _mm256_mul_ps(x, y); }
    METAEDIT_INLINE static V fma(V x, V y, V z) { return _mm256_fmadd_ps(x, y, z); }
    METAEDIT_INLINE static V div(V x, V y) { return _mm256_div_ps(x, y); }
    METAEDIT_INLINE static V sqrt(V x) { return _mm256_sqrt_ps(x); }
    METAEDIT_INLINE static V min(V x, V y) { return _mm256_min_ps(x, y); }
    METAEDIT_INLINE static float sum(V x) {
        const __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
    }

    // x / (1 + 2^x); see kernels.hpp. 2^x is put together from the bits of its exponent, so it is held within the
    // normal numbers; beyond them the result is x or 0 anyway. The operand order of min and max keeps a NaN.
    METAEDIT_INLINE static V scaled_silu(V x) {
        x = _mm256_min_ps(all(127.0F), x);
        const V held = _mm256_max_ps(all(-126.0F), x);
        const V whole = _mm256_floor_ps(held);
        const V fraction = sub(held, whole);
        V power = all(kExp2[0]);
        METAEDIT_UNROLL
        for (int i = 1; i < kExp2Terms; ++i) power = fma(power, fraction, all(kExp2[i]));
        constexpr int kMantissaBits = 23;
        const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), kMantissaBits);
        power = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(power), exponent));
        return _mm256_div_ps(x, add(power, all(1.0F)));
    }

    // Lane r of the result is the sum of rows[r]: additions in a tree that transposes on the way.
    METAEDIT_INLINE static V sums_of(const V (&rows)[kLanes]) {
        V halves[4];
        METAEDIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            halves[i] = add(_mm256_permute2f128_ps(rows[i], rows[4 + i], 0x20),
                            _mm256_permute2f128_ps(rows[i], rows[4 + i], 0x31));
        }
        const V low = add(_mm256_unpacklo_ps(halves[0], halves[1]), _mm256_unpackhi_ps(halves[0], halves[1]));
        const V high = add(_mm256_unpacklo_ps(halves[2], halves[3]), _mm256_unpackhi_ps(halves[2], halves[3]));
        return add(_mm256_shuffle_ps(low, high, 0x44), _mm256_shuffle_ps(low, high, 0xEE));
    }
};

}  // namespace metaedit::avx2
