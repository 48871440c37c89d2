// What a core can do at its best, measured: the units that the bounds of the benchmarks are counted in
// (docs/performance.md).
#pragma once

#include <string_view>

#include "cpu/isa.hpp"

namespace metaedit {

enum class Peak {
    multiply_add,  // float32, in registers
    addition,      // what one costs more beside multiply-adds, which may be nothing: a minimum is one too
    silu,          // the kernels' own, scaled, on values in the first-level cache
    bf16_product,  // a multiply-add of bf16 numbers to a float32 sum, in registers
    bf16_silu,     // the one that goes with it
    copy,          // a byte, from memory to memory
};

// Throws std::invalid_argument, naming what is expected, for any other name.
Peak peak_named(std::string_view name);

// Seconds for one value (one byte for `copy`) on each of n_threads threads of this call's own that all do the same
// for `seconds`: the median over short stretches. 0 where the level has no such instruction: the serial one has
// only `copy`.
double seconds_per_value(Peak peak, const Level& level, int n_threads, double seconds);

}  // namespace metaedit
