// The loops of one instruction set's object file: include this once, behind the definition of METAEDIT_LEVEL (a
// namespace that holds Simd) and METAEDIT_SECTION (see cpu/entry.hpp).
#pragma once

#include "cpu/entry.hpp"
#include "cpu/peaks/loops.hpp"

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_ENTRY_OF(std::int64_t) multiply_add(std::int64_t rounds, float* buffer) {
    return peaks::multiply_add<Simd>(rounds, buffer);
}
METAEDIT_ENTRY_OF(std::int64_t) with_additions(std::int64_t rounds, float* buffer) {
    return peaks::with_additions<Simd>(rounds, buffer);
}
METAEDIT_ENTRY_OF(std::int64_t) silu(std::int64_t rounds, float* buffer) {
    return peaks::silu<Simd>(rounds, buffer);
}
#ifdef METAEDIT_BF16_PRODUCT
METAEDIT_ENTRY_OF(std::int64_t) bf16_product(std::int64_t rounds, float* buffer) {
    return METAEDIT_BF16_PRODUCT(rounds, buffer);
}
#else
constexpr peaks::Loop bf16_product = nullptr;
#endif

extern const peaks::Loops peak_loops;
constinit const peaks::Loops peak_loops = {
    .multiply_add = &multiply_add, .with_additions = &with_additions, .silu = &silu, .bf16_product = bf16_product};

}  // namespace metaedit::METAEDIT_LEVEL
