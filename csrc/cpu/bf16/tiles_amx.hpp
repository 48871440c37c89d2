// The eight tile registers of AMX. Strides count dwords.
//
// In assembly because GCC's intrinsics paste the number of a tile into the instruction's text, so that it can't be
// the argument of a template.
#pragma once

#include <cstdint>

#include "cpu/fused/inline.hpp"

namespace metaedit::bf16 {

struct Tiles {
    // Tiles 0 to 3 have 16 rows of 16 dwords, tiles 4 and 5 rows of `pairs` dwords, tiles 6 and 7 as many rows.
    METAEDIT_INLINE static void configure(std::int64_t pairs) {
        struct alignas(64) {
            std::uint8_t palette, start_row, reserved[14];
            std::uint16_t row_bytes[16];
            std::uint8_t rows[16];
        } shapes = {};
        static_assert(sizeof(shapes) == 64);
        shapes.palette = 1;
        for (int i = 0; i < 8; ++i) {
            shapes.row_bytes[i] = static_cast<std::uint16_t>(i == 4 || i == 5 ? 4 * pairs : 64);
            shapes.rows[i] = static_cast<std::uint8_t>(i < 6 ? 16 : pairs);
        }
        __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
    }
    METAEDIT_INLINE static void release() { __asm__ volatile("tilerelease"); }

    template <int kTile>
    METAEDIT_INLINE static void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
    }
    template <int kTile>
    METAEDIT_INLINE static void load(const std::uint32_t* from, std::int64_t stride) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(4 * stride), "i"(kTile) : "memory");
    }
    template <int kTile>
    METAEDIT_INLINE static void store(float* to, std::int64_t stride) {
        __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(4 * stride), "i"(kTile) : "memory");
    }
    // sum[r][c] += the products of row r of x and column c of w, pair by pair.
    template <int kSum, int kX, int kW>
    METAEDIT_INLINE static void dot() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
    }
};

}  // namespace metaedit::bf16
