// Vectors of AVX-512 for the bf16 kernels: those of float32, with elementwise functions as fine as the products.
#pragma once

#include <cstdint>

#include "cpu/fused/simd_avx512.hpp"

namespace metaedit::bf16 {

// Loads of the first n floats, zeros behind them, for any n.
METAEDIT_INLINE __m512 load_first(const float* x, std::int64_t n) {
    if (n >= 16) return _mm512_loadu_ps(x);
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << static_cast<unsigned>(n < 0 ? 0 : n)) - 1U), x);
}

// Beside products of split factors.
struct FineSimd : avx512::Simd {
    METAEDIT_INLINE static V inverse_root(V x) { return div(all(1.0F), sqrt(x)); }
};

// Beside products of bf16 numbers, whose rounding errs by 2e-3: 2^x by a cubic (error 2e-4) and reciprocals to 14
// bits. A SiLU takes 5.6 cycles on Zen 4, where that of float32 takes eight.
struct RoughSimd : avx512::Simd {
    METAEDIT_INLINE static V scaled_silu(V x) {
        constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
        const V fraction = sub(x, _mm512_roundscale_ps(x, kDown));
        V power = fma(fraction, all(0.0790199F), all(0.2241169F));
        power = fma(power, fraction, all(0.6968368F));
        power = fma(power, fraction, all(0.9998119F));
        return mul(x, _mm512_rcp14_ps(add(_mm512_scalef_ps(power, x), all(1.0F))));
    }
    METAEDIT_INLINE static V inverse_root(V x) { return _mm512_rsqrt14_ps(x); }
};

}  // namespace metaedit::bf16
