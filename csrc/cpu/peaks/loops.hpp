// Loops that do one thing as fast as an instruction set can. They end by writing what they computed, so that no
// compiler leaves it out.
#pragma once

#include <cstdint>

#include "cpu/fused/inline.hpp"

namespace metaedit::peaks {

inline constexpr int kBuffer = 1024;  // floats; 4 KB of the first-level cache

// Reads and writes `buffer` [kBuffer]; returns how many values it worked on.
using Loop = std::int64_t (*)(std::int64_t rounds, float* buffer);

// Null where there is none.
struct Loops {
    Loop multiply_add, with_additions, silu, bf16_product;
};

// Chains of dependent multiply-adds, enough to hide the latency of each (four cycles, two a cycle), and few enough
// for the sixteen registers of AVX2 with the additions' chains beside them.
inline constexpr int kChains = 8, kAdditions = 4;

template <class S>
METAEDIT_INLINE std::int64_t multiply_add(std::int64_t rounds, float* buffer) {
    typename S::V sums[kChains];
    const typename S::V a = S::load(buffer), b = S::load(buffer + S::kLanes);
    METAEDIT_UNROLL
    for (int c = 0; c < kChains; ++c) sums[c] = S::load(buffer + c * S::kLanes);
    for (std::int64_t i = 0; i < rounds; ++i) {
        METAEDIT_UNROLL
        for (int c = 0; c < kChains; ++c) sums[c] = S::fma(sums[c], a, b);
    }
    METAEDIT_UNROLL
    for (int c = 0; c < kChains; ++c) S::store(buffer + c * S::kLanes, sums[c]);
    return rounds * kChains * S::kLanes;
}

// The same with two additions and two minima a round in between. Returns the number of these.
template <class S>
METAEDIT_INLINE std::int64_t with_additions(std::int64_t rounds, float* buffer) {
    typename S::V sums[kChains], others[kAdditions];
    const typename S::V a = S::load(buffer), b = S::load(buffer + S::kLanes);
    METAEDIT_UNROLL
    for (int c = 0; c < kChains; ++c) sums[c] = S::load(buffer + c * S::kLanes);
    METAEDIT_UNROLL
    for (int c = 0; c < kAdditions; ++c) others[c] = S::load(buffer + (kChains + c) * S::kLanes);
    for (std::int64_t i = 0; i < rounds; ++i) {
        METAEDIT_UNROLL
        for (int c = 0; c < kChains; ++c) {
            sums[c] = S::fma(sums[c], a, b);
            if (c % 2 == 1) continue;
            others[c / 2] = c % 4 == 0 ? S::add(others[c / 2], b) : S::min(others[c / 2], sums[c]);
        }
    }
    METAEDIT_UNROLL
    for (int c = 0; c < kChains; ++c) S::store(buffer + c * S::kLanes, sums[c]);
    METAEDIT_UNROLL
    for (int c = 0; c < kAdditions; ++c) S::store(buffer + (kChains + c) * S::kLanes, others[c]);
    return rounds * kAdditions * S::kLanes;
}

// From one half of the buffer to the other: in place the values would shrink to subnormal numbers. The compiler must
// not see that a round repeats the one before.
template <class S>
METAEDIT_INLINE std::int64_t silu(std::int64_t rounds, float* buffer) {
    constexpr int kHalf = kBuffer / 2;
    for (std::int64_t i = 0; i < rounds; ++i) {
        __asm__ volatile("" ::: "memory");
        for (int k = 0; k < kHalf; k += S::kLanes) {
            S::store(buffer + kHalf + k, S::scaled_silu(S::load(buffer + k)));
        }
    }
    return rounds * kHalf;
}

}  // namespace metaedit::peaks
