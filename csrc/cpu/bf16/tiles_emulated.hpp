// The tiles of AMX in plain C++, for tests on machines without them; see tiles_amx.hpp. An operation on a tile whose
// shape was not configured for it ends the process: the processor would raise there.
#pragma once

#include <cstdint>

#include "cpu/fused/inline.hpp"

namespace metaedit::bf16 {

void emulated_configure(std::int64_t pairs);
void emulated_release();
void emulated_zero(int tile);
void emulated_load(int tile, const std::uint32_t* from, std::int64_t stride);
void emulated_store(int tile, float* to, std::int64_t stride);
void emulated_dot(int sum, int x, int w);

struct Tiles {
    METAEDIT_INLINE static void configure(std::int64_t pairs) { emulated_configure(pairs); }
    METAEDIT_INLINE static void release() { emulated_release(); }
    template <int kTile>
    METAEDIT_INLINE static void zero() {
        emulated_zero(kTile);
    }
    template <int kTile>
    METAEDIT_INLINE static void load(const std::uint32_t* from, std::int64_t stride) {
        emulated_load(kTile, from, stride);
    }
    template <int kTile>
    METAEDIT_INLINE static void store(float* to, std::int64_t stride) {
        emulated_store(kTile, to, stride);
    }
    template <int kSum, int kX, int kW>
    METAEDIT_INLINE static void dot() {
        emulated_dot(kSum, kX, kW);
    }
};

}  // namespace metaedit::bf16
