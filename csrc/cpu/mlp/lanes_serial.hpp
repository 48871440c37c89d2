// The names of lanes_avx2.hpp for every machine: four floats where the compiler has vectors of its own (they become
// SSE2 or NEON), else one. The same text serves both.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/fused/inline.hpp"

namespace metaedit::serial {

struct Lanes {
#ifdef __GNUC__
    using V = float __attribute__((vector_size(16)));
    using Bits = std::uint32_t __attribute__((vector_size(16)));
    using Integer = std::int32_t __attribute__((vector_size(16)));
#else
    using V = float;
    using Bits = std::uint32_t;
    using Integer = std::int32_t;
#endif
    static constexpr int kLanes = sizeof(V) / sizeof(float);
    // 4 x 2 sums and 2 vectors of b: 10 of 16 registers; without multiply-add, products need some too.
    static constexpr int kProductRows = 4;
    static constexpr int kProductVectors = 2;

    METAEDIT_INLINE static V load(const float* p) {
        V x;
        std::memcpy(&x, p, sizeof x);
        return x;
    }
    METAEDIT_INLINE static void store(float* p, V x) { std::memcpy(p, &x, sizeof x); }
    METAEDIT_INLINE static V all(float x) { return x - V{}; }  // not +, which would lose the sign of -0
    METAEDIT_INLINE static V add(V x, V y) { return x + y; }
    METAEDIT_INLINE static V sub(V x, V y) { return x - y; }
    METAEDIT_INLINE static V mul(V x, V y) { return x * y; }
    METAEDIT_INLINE static V fma(V x, V y, V z) { return x * y + z; }
    METAEDIT_INLINE static V div(V x, V y) { return x / y; }
    METAEDIT_INLINE static V sqrt(V x) {
        float at[kLanes];
        store(at, x);
        for (float& value : at) value = std::sqrt(value);
        return load(at);
    }
    // As the instructions of x86 do: y where either is NaN.
    METAEDIT_INLINE static V min(V x, V y) { return x < y ? x : y; }
    METAEDIT_INLINE static V max(V x, V y) { return x > y ? x : y; }
    METAEDIT_INLINE static V abs(V x) { return std::bit_cast<V>(std::bit_cast<Bits>(x) & 0x7FFFFFFFU); }
    METAEDIT_INLINE static V if_less(V x, V y, V a, V b) { return x < y ? a : b; }
    METAEDIT_INLINE static V if_equal(V x, V y, V a, V b) { return x == y ? a : b; }
    METAEDIT_INLINE static V scale(V x, V shift) {
        return std::bit_cast<V>(std::bit_cast<Bits>(x) + (std::bit_cast<Bits>(shift) << 23U));
    }
    METAEDIT_INLINE static V split(V x, V& exponent) {
        const Bits bits = std::bit_cast<Bits>(x);
        const Bits n = std::bit_cast<Bits>(std::bit_cast<Integer>(bits - 0x3F400000U) >> 23);
        // Small whole numbers, added to the bits of 1.5 · 2^23, are added to the number.
        exponent = std::bit_cast<V>(n + 0x4B400000U) - 12582912.0F;
        return std::bit_cast<V>(bits - (n << 23U));
    }
    METAEDIT_INLINE static float sum(V x) {
        float at[kLanes];
        store(at, x);
        for (int step = kLanes / 2; step > 0; step /= 2) {
            for (int i = 0; i < step; ++i) at[i] += at[i + step];
        }
        return at[0];
    }
    METAEDIT_INLINE static V sums_of(const V (&rows)[kLanes]) {
        float at[kLanes];
        for (int i = 0; i < kLanes; ++i) at[i] = sum(rows[i]);
        return load(at);
    }
};

}  // namespace metaedit::serial
