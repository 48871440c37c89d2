// Four floats in plain C++ behind the names of lanes_avx2.hpp. It is what every machine runs that has nothing
// better; compilers make their baseline's vectors of these loops.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/fused/inline.hpp"

namespace metaedit::serial {

struct Lanes {
    static constexpr int kLanes = 4;
    struct V {
        float at[kLanes];
    };
    // 4 x 2 sums and 2 vectors of b: 10 of 16 registers; without multiply-add, products need some too.
    static constexpr int kProductRows = 4;
    static constexpr int kProductVectors = 2;

    template <class F>
    METAEDIT_INLINE static V each(const F& f) {
        V out;
        METAEDIT_UNROLL
        for (int i = 0; i < kLanes; ++i) out.at[i] = f(i);
        return out;
    }

    METAEDIT_INLINE static V load(const float* p) {
        return each([&](int i) { return p[i]; });
    }
    METAEDIT_INLINE static void store(float* p, V x) {
        METAEDIT_UNROLL
        for (int i = 0; i < kLanes; ++i) p[i] = x.at[i];
    }
    METAEDIT_INLINE static V all(float x) {
        return each([&](int) { return x; });
    }
    METAEDIT_INLINE static V add(V x, V y) {
        return each([&](int i) { return x.at[i] + y.at[i]; });
    }
    METAEDIT_INLINE static V sub(V x, V y) {
        return each([&](int i) { return x.at[i] - y.at[i]; });
    }
    METAEDIT_INLINE static V mul(V x, V y) {
        return each([&](int i) { return x.at[i] * y.at[i]; });
    }
    METAEDIT_INLINE static V fma(V x, V y, V z) {
        return each([&](int i) { return x.at[i] * y.at[i] + z.at[i]; });
    }
    METAEDIT_INLINE static V div(V x, V y) {
        return each([&](int i) { return x.at[i] / y.at[i]; });
    }
    METAEDIT_INLINE static V sqrt(V x) {
        return each([&](int i) { return std::sqrt(x.at[i]); });
    }
    // As the instructions of x86 do: y where either is NaN.
    METAEDIT_INLINE static V min(V x, V y) {
        return each([&](int i) { return x.at[i] < y.at[i] ? x.at[i] : y.at[i]; });
    }
    METAEDIT_INLINE static V max(V x, V y) {
        return each([&](int i) { return x.at[i] > y.at[i] ? x.at[i] : y.at[i]; });
    }
    METAEDIT_INLINE static V abs(V x) {
        return each([&](int i) { return std::bit_cast<float>(bits(x.at[i]) & 0x7FFFFFFFU); });
    }
    METAEDIT_INLINE static V if_less(V x, V y, V a, V b) {
        return each([&](int i) { return x.at[i] < y.at[i] ? a.at[i] : b.at[i]; });
    }
    METAEDIT_INLINE static V if_equal(V x, V y, V a, V b) {
        return each([&](int i) { return x.at[i] == y.at[i] ? a.at[i] : b.at[i]; });
    }
    METAEDIT_INLINE static V scale(V x, V shift) {
        return each([&](int i) { return std::bit_cast<float>(bits(x.at[i]) + (bits(shift.at[i]) << 23U)); });
    }
    METAEDIT_INLINE static V split(V x, V& exponent) {
        exponent = each([&](int i) { return static_cast<float>(exponent_of(x.at[i])); });
        return each([&](int i) {
            return std::bit_cast<float>(bits(x.at[i]) - (static_cast<std::uint32_t>(exponent_of(x.at[i])) << 23U));
        });
    }
    METAEDIT_INLINE static float sum(V x) { return (x.at[0] + x.at[1]) + (x.at[2] + x.at[3]); }
    METAEDIT_INLINE static V sums_of(const V (&rows)[kLanes]) {
        return each([&](int i) { return sum(rows[i]); });
    }

  private:
    METAEDIT_INLINE static std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
    METAEDIT_INLINE static std::int32_t exponent_of(float x) {
        return static_cast<std::int32_t>(bits(x) - 0x3F400000U) >> 23;
    }
};

}  // namespace metaedit::serial
