// The loops of one instruction set's object file: include this once, behind the definition of METAEDIT_LEVEL (a
// namespace that holds Simd) and METAEDIT_SECTION (see fused/entry_points.hpp).
#pragma once

#include "cpu/peaks/loops.hpp"

#ifdef __ELF__
#define METAEDIT_LOOP __attribute__((section(METAEDIT_SECTION))) static std::int64_t
#else
#define METAEDIT_LOOP static std::int64_t
#endif

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_LOOP multiply_add(std::int64_t rounds, float* buffer) {
    return peaks::multiply_add<Simd>(rounds, buffer);
}
METAEDIT_LOOP with_additions(std::int64_t rounds, float* buffer) {
    return peaks::with_additions<Simd>(rounds, buffer);
}
METAEDIT_LOOP silu(std::int64_t rounds, float* buffer) {
    return peaks::silu<Simd>(rounds, buffer);
}
#ifdef METAEDIT_BF16_PRODUCT
METAEDIT_LOOP bf16_product(std::int64_t rounds, float* buffer) {
    return METAEDIT_BF16_PRODUCT(rounds, buffer);
}
#else
constexpr peaks::Loop bf16_product = nullptr;
#endif

extern const peaks::Loops peak_loops;
constinit const peaks::Loops peak_loops = {
    .multiply_add = &multiply_add, .with_additions = &with_additions, .silu = &silu, .bf16_product = bf16_product};

}  // namespace metaedit::METAEDIT_LEVEL
