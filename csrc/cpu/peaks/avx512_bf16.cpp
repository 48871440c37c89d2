// Compiled with AVX512_BF16 and what avx512 has; nothing in here runs before cpu/isa.cpp has found it.

#include "cpu/bf16/simd.hpp"
#include "cpu/peaks/loops.hpp"

namespace metaedit::avx512_bf16 {

using Simd = bf16::RoughSimd;

// Twelve chains hide a latency of six cycles.
METAEDIT_INLINE std::int64_t products(std::int64_t rounds, float* buffer) {
    constexpr int kProducts = 12, kPairs = 2;
    __m512 sums[kProducts];
    const auto a = (__m512bh)_mm512_loadu_si512(buffer), b = (__m512bh)_mm512_loadu_si512(buffer + Simd::kLanes);
    METAEDIT_UNROLL
    for (int c = 0; c < kProducts; ++c) sums[c] = Simd::load(buffer + c * Simd::kLanes);
    for (std::int64_t i = 0; i < rounds; ++i) {
        METAEDIT_UNROLL
        for (int c = 0; c < kProducts; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], a, b);
    }
    METAEDIT_UNROLL
    for (int c = 0; c < kProducts; ++c) Simd::store(buffer + c * Simd::kLanes, sums[c]);
    return rounds * kProducts * kPairs * Simd::kLanes;
}

}  // namespace metaedit::avx512_bf16

#define METAEDIT_LEVEL avx512_bf16
#define METAEDIT_SECTION "metaedit_avx512_bf16"
#define METAEDIT_BF16_PRODUCT products
#include "cpu/peaks/entry_points.hpp"
