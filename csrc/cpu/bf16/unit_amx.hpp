// The units (tile.hpp) of AMX: products of tiles of 16 rows by 16 columns, into a buffer from which the vector code
// goes on. T is the tiles: those of the processor (tiles_amx.hpp), or the ones that tests emulate.
#pragma once

#include "cpu/bf16/simd.hpp"
#include "cpu/bf16/tile.hpp"

namespace metaedit::bf16 {

template <int kNumber>
struct TileNumber {
    static constexpr int kValue = kNumber;
};

// use(TileNumber<0>), use(TileNumber<1>), ...: the number of a tile is part of the instruction.
template <int kCount, int kNumber = 0, class Use>
METAEDIT_INLINE void for_each_tile(const Use& use) {
    if constexpr (kNumber < kCount) {
        use(TileNumber<kNumber>{});
        for_each_tile<kCount, kNumber + 1>(use);
    }
}

// A factor of kSplit is the sum of two bf16 numbers, and the product of the two small ones is left out.
template <class Simd, class T, bool kSplitFactors>
struct AmxUnit : Simd {
    using typename Simd::V;
    static constexpr bool kSplit = kSplitFactors;

    METAEDIT_INLINE static void start(std::int64_t n_pairs) { T::configure(tile_pairs(n_pairs)); }
    METAEDIT_INLINE static void stop() { T::release(); }

    METAEDIT_INLINE static void store_pairs(const Pairs& to, std::int64_t at, V x) {
        const auto high = (__m256i)_mm512_cvtneps_pbh(x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.high + at), high);
        if constexpr (kSplit) {
            const V rounded = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
            const auto low = (__m256i)_mm512_cvtneps_pbh(Simd::sub(x, rounded));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.low + at), low);
        }
    }

    template <int kPanels, int kInputs, class Start, class Finish>
    METAEDIT_INLINE static void multiply(const Pairs& x, const Panels& matrix, std::int64_t panel, const Start& begin,
                                         const Finish& finish) {
        // Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 a panel.
        constexpr int kSums = kPanels < 4 ? kPanels : 4;
        static_assert(kPanels % kSums == 0);
        alignas(64) float sums[kSums][kRows * kPanel];
        const std::int64_t n_pairs = pairs_of(kInputs > 0 ? kInputs : matrix.n_in), tile = tile_pairs(n_pairs);
        for (int first = 0; first < kPanels; first += kSums) {
            const std::uint32_t* weight = matrix.pairs + (panel + first) * n_pairs * kPanel;
            for_each_tile<kSums>([&](auto j) METAEDIT_INLINE_LAMBDA { T::template zero<decltype(j)::kValue>(); });
            for (std::int64_t k = 0; k < n_pairs; k += tile) {
                T::template load<4>(x.high + k, x.stride);
                if constexpr (kSplit) T::template load<5>(x.low + k, x.stride);
                for_each_tile<kSums>([&](auto j) METAEDIT_INLINE_LAMBDA {
                    constexpr int kSum = decltype(j)::kValue;
                    const std::uint32_t* at = weight + (kSum * n_pairs + k) * kPanel;
                    T::template load<6>(at, kPanel);
                    T::template dot<kSum, 4, 6>();
                    if constexpr (kSplit) {
                        T::template load<7>(at + n_pairs * matrix.n_out, kPanel);
                        T::template dot<kSum, 4, 7>();
                        T::template dot<kSum, 5, 6>();
                    }
                });
            }
            for_each_tile<kSums>([&](auto j) METAEDIT_INLINE_LAMBDA {
                T::template store<decltype(j)::kValue>(sums[decltype(j)::kValue], kPanel);
            });
            for (int r = 0; r < kRows; ++r) {
                METAEDIT_UNROLL
                for (int j = 0; j < kSums; ++j) {
                    finish(r, first + j, Simd::add(begin(r, first + j), Simd::load(sums[j] + r * kPanel)));
                }
            }
        }
    }

  private:
    // Of one row in a tile.
    METAEDIT_INLINE static std::int64_t tile_pairs(std::int64_t n_pairs) { return n_pairs < kPanel ? n_pairs : kPanel; }
};

}  // namespace metaedit::bf16
