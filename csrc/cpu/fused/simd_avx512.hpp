// AVX-512 (F, BW, DQ, VL) behind the names that the kernel templates use; simd_avx2.hpp has the same ones.
#pragma once

#include <immintrin.h>

#include "cpu/fused/inline.hpp"

namespace metaedit::avx512 {

struct Simd {
    using V = __m512;
    static constexpr int kLanes = 16;

    // Registers of a tile of sums: `rows_of_tile(n)` rows of n <= kTileVectors vectors. Sixteen sums in flight
    // hide the latency of a fused multiply-add on every machine and leave half of the registers.
    static constexpr int kTileVectors = 4;
    static constexpr int rows_of_tile(int vectors) { return 16 / vectors; }
    static constexpr int rows_of_dense_tile(int vectors) { return rows_of_tile(vectors); }

    METAEDIT_INLINE static V load(const float* p) { return _mm512_loadu_ps(p); }
    METAEDIT_INLINE static void store(float* p, V x) { _mm512_storeu_ps(p, x); }
    METAEDIT_INLINE static V all(float x) { return _mm512_set1_ps(x); }
    METAEDIT_INLINE static V add(V x, V y) { return _mm512_add_ps(x, y); }
    METAEDIT_INLINE static V sub(V x, V y) { return _mm512_sub_ps(x, y); }
    METAEDIT_INLINE static V mul(V x, V y) { return _mm512_mul_ps(x, y); }
    METAEDIT_INLINE static V fma(V x, V y, V z) { return _mm512_fmadd_ps(x, y, z); }
    METAEDIT_INLINE static V div(V x, V y) { return _mm512_div_ps(x, y); }
    METAEDIT_INLINE static V sqrt(V x) { return _mm512_sqrt_ps(x); }
    METAEDIT_INLINE static V min(V x, V y) { return _mm512_min_ps(x, y); }
    METAEDIT_INLINE static float sum(V x) { return _mm512_reduce_add_ps(x); }

    // x / (1 + 2^x); see kernels.hpp. vscalefps multiplies by a power of two and saturates, so nothing is clamped.
    // vreduceps would give the fraction at once, but takes five cycles on Zen 4, and rounds it down; the maximum
    // makes the fraction of an infinity 0. The division runs in a unit of its own beside the multiply-adds, which
    // are what limits these kernels; a reciprocal with a Newton step would cost three of them.
    METAEDIT_INLINE static V scaled_silu(V x) {
        constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
        const V fraction = _mm512_max_ps(_mm512_sub_ps(x, _mm512_roundscale_ps(x, kDown)), all(0.0F));
        V power = all(kExp2[0]);
        METAEDIT_UNROLL
        for (int i = 1; i < kExp2Terms; ++i) power = fma(power, fraction, all(kExp2[i]));
        return _mm512_div_ps(x, add(_mm512_scalef_ps(power, x), all(1.0F)));
    }

    // Lane r of the result is the sum of rows[r]: additions in a tree that transposes on the way.
    METAEDIT_INLINE static V sums_of(const V (&rows)[kLanes]) {
        V quads[4];
        METAEDIT_UNROLL
        for (int i = 0; i < 4; ++i) quads[i] = quarter_sums(rows[i], rows[4 + i], rows[8 + i], rows[12 + i]);
        const V low = add(_mm512_unpacklo_ps(quads[0], quads[1]), _mm512_unpackhi_ps(quads[0], quads[1]));
        const V high = add(_mm512_unpacklo_ps(quads[2], quads[3]), _mm512_unpackhi_ps(quads[2], quads[3]));
        return add(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xEE));
    }

  private:
    // Quarter i (4 lanes) of the result is the sum of the four quarters of the i-th argument.
    METAEDIT_INLINE static V quarter_sums(V a, V b, V c, V d) {
        const V ab = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
        const V cd = add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
        return add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    }
};

}  // namespace metaedit::avx512
