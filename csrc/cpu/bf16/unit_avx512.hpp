// The unit (tile.hpp) of AVX512_BF16: products by vdpbf16ps, which does two multiply-adds a lane.
#pragma once

#include "cpu/bf16/simd.hpp"
#include "cpu/bf16/tile.hpp"

namespace metaedit::bf16 {

struct Avx512Unit : RoughSimd {
    static constexpr bool kSplit = false;

    METAEDIT_INLINE static void start(std::int64_t) {}
    METAEDIT_INLINE static void stop() {}

    METAEDIT_INLINE static void store_pairs(const Pairs& to, std::int64_t at, V x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.high + at), (__m256i)_mm512_cvtneps_pbh(x));
    }

    template <int kPanels, int kInputs, class Start, class Finish>
    METAEDIT_INLINE static void multiply(const Pairs& x, const Panels& matrix, std::int64_t panel, const Start& start,
                                         const Finish& finish) {
        constexpr int kVectors = kPanels < kTileVectors ? kPanels : kTileVectors;
        // Sixteen sums in flight keep the loads behind the products; of the shortest products eight, so that one
        // tile's activations run beside the next one's products.
        constexpr int kTileRows = (kInputs == 16 ? 8 : 16) / kVectors;
        static_assert(kPanels % kVectors == 0 && kRows % kTileRows == 0);
        const std::int64_t n_pairs = pairs_of(kInputs > 0 ? kInputs : matrix.n_in);
        const std::int64_t n_used = kInputs > 0 ? n_pairs : (matrix.n_in + 1) / 2;  // the others are zeros
        for (int first = 0; first < kPanels; first += kVectors) {
            const std::uint32_t* weight = matrix.pairs + (panel + first) * n_pairs * kPanel;
            for (int row = 0; row < kRows; row += kTileRows) {
                V sums[kTileRows][kVectors];
                METAEDIT_UNROLL
                for (int r = 0; r < kTileRows; ++r) {
                    METAEDIT_UNROLL
                    for (int j = 0; j < kVectors; ++j) sums[r][j] = start(row + r, first + j);
                }
                const std::uint32_t* rows = x.high + row * x.stride;
                if constexpr (kInputs == 16) {
                    METAEDIT_UNROLL
                    for (int k = 0; k < 8; ++k) add_pair(sums, rows + k, x.stride, weight + k * kPanel, 8);
                } else {
                    for (std::int64_t k = 0; k < n_used; ++k) {
                        add_pair(sums, rows + k, x.stride, weight + k * kPanel, n_pairs);
                    }
                }
                METAEDIT_UNROLL
                for (int r = 0; r < kTileRows; ++r) {
                    METAEDIT_UNROLL
                    for (int j = 0; j < kVectors; ++j) finish(row + r, first + j, sums[r][j]);
                }
            }
        }
    }

  private:
    // One pair of every row times the same of every panel.
    template <int kTileRows, int kVectors>
    METAEDIT_INLINE static void add_pair(V (&sums)[kTileRows][kVectors], const std::uint32_t* x, std::int64_t stride,
                                         const std::uint32_t* weight, std::int64_t n_pairs) {
        __m512bh w[kVectors];
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) w[j] = (__m512bh)_mm512_loadu_si512(weight + j * n_pairs * kPanel);
        METAEDIT_UNROLL
        for (int r = 0; r < kTileRows; ++r) {
            const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(x[r * stride]));
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) sums[r][j] = _mm512_dpbf16_ps(sums[r][j], a, w[j]);
        }
    }
};

}  // namespace metaedit::bf16
