#include "cpu/arithmetic.hpp"

#include <stdexcept>
#include <string>

namespace metaedit {
namespace {

constexpr std::string_view kNames[] = {"float32", "bf16x3", "bf16"};

}  // namespace

std::string_view name_of(Precision precision) {
    return kNames[static_cast<std::size_t>(precision)];
}

Precision precision_named(std::string_view name) {
    for (const Precision precision : {Precision::float32, Precision::bf16x3, Precision::bf16}) {
        if (name_of(precision) == name) return precision;
    }
    throw std::invalid_argument("precision: expected 'float32', 'bf16x3' or 'bf16', got '" + std::string(name) + "'");
}

// vdpbf16ps does two multiply-adds in the time of one in float32, so three products for one would lose.
Arithmetic::Arithmetic(const Level& level, Precision allowed) : isa(level.isa) {
    const bool faster = allowed == Precision::bf16     ? level.bf16 != Bf16::none
                        : allowed == Precision::bf16x3 ? level.bf16 == Bf16::amx
                                                       : false;
    if (!faster) return;
    precision = allowed;
    bf16 = level.bf16;
}

}  // namespace metaedit
