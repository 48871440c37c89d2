// How a network's products are computed: what the caller allows, and what a level has for it.
#pragma once

#include <string_view>

#include "cpu/isa.hpp"

namespace metaedit {

// An upper bound on the error, norm-wise against float64: 1e-6 for a layer, 1e-5, 5e-3. bf16x3 writes each factor as
// the sum of two bf16 numbers and leaves out the product of the small ones.
enum class Precision { float32, bf16x3, bf16 };

std::string_view name_of(Precision precision);

// Throws std::invalid_argument, naming what is expected, for any other name.
Precision precision_named(std::string_view name);

// Which kernels run. An instruction set alone stands for its float32 kernels.
struct Arithmetic {
    Isa isa;
    Precision precision = Precision::float32;  // of the products
    Bf16 bf16 = Bf16::none;                    // what computes them where they are not float32

    Arithmetic(Isa float32) : isa(float32) {}  // NOLINT: meant to convert
    Arithmetic(const Level& level, Precision allowed);

    bool operator==(const Arithmetic&) const = default;
};

}  // namespace metaedit
