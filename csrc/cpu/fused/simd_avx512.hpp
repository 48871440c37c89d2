// AVX-512 (F, BW, DQ, VL) behind the names that the kernel templates use; simd_avx2.hpp has the same ones.
#pragma once

#include <immintrin.h>

#include "cpu/fused/inline.hpp"

namespace metaedit::avx512 {

// 2^x on [0, 1/16) as c (1 + x (slope + x square)), and c 2^(i/16): relative error below 4.3e-7 (5.4e-7 with
// rounding), by the Remez algorithm. Adding kSixteenths leaves floor(16 x) in the last bits.
inline constexpr float kExp2Slope = 0.6930239F, kExp2Square = 0.24547948F, kSixteenths = 786432.0F;
alignas(64) inline constexpr float kExp2Table[16] = {
    1.00000048F, 1.04427421F, 1.09050822F, 1.13878906F, 1.18920767F, 1.24185836F, 1.29684007F, 1.35425615F,
    1.41421413F, 1.47682679F, 1.54221153F, 1.61049104F, 1.68179357F, 1.75625288F, 1.83400881F, 1.91520739F};

struct Simd {
    using V = __m512;
    static constexpr int kLanes = 16;

    // Registers of a tile of sums: `rows_of_tile(n)` rows of n <= kTileVectors vectors. Eight sums in flight hide
    // the latency of a fused multiply-add on every machine; of narrow tiles more than one is then in flight, so
    // that one's activations run beside another's products.
    static constexpr int kTileVectors = 4;
    static constexpr int rows_of_tile(int vectors) { return vectors == 4 ? 4 : 8 / vectors; }
    static constexpr int rows_of_dense_tile(int vectors) { return 16 / vectors; }

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

    // x / (1 + 2^x); see kernels.hpp. 2^x is 2^floor(x), by vscalefps, which saturates, so nothing is clamped; times
    // a power of 2^(1/16) from a table that lies in a register, chosen by the last bits of x rounded down to
    // sixteenths; times a parabola in what is left. A polynomial without the table would cost two more
    // multiply-adds, which are what limits these kernels, and so would a reciprocal instead of the division.
    METAEDIT_INLINE static V scaled_silu(V x) {
        constexpr int kSixteenthsRoundedDown = 0x41;
        const V shifted = _mm512_add_round_ps(x, all(kSixteenths), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        const V rest = _mm512_reduce_ps(x, kSixteenthsRoundedDown);
        const V power = _mm512_permutexvar_ps(_mm512_castps_si512(shifted), _mm512_load_ps(kExp2Table));
        const V grown = fma(fma(all(kExp2Square), rest, all(kExp2Slope)), mul(power, rest), power);
        return _mm512_div_ps(x, add(_mm512_scalef_ps(grown, x), all(1.0F)));
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
