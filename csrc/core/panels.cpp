#include "core/panels.hpp"

#include <bit>

namespace metaedit {
namespace {

// To the nearest bf16, ties to even, as the processor does it; what is not a number stays so.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

float from_bf16(std::uint16_t value) {
    return std::bit_cast<float>(std::uint32_t{value} << 16U);
}

}  // namespace

void round_to_pairs(const Panels& matrix, bool split, std::uint32_t* pairs) {
    const std::int64_t n_pairs = pairs_of(matrix.n_in), size = n_pairs * matrix.n_out;
    for (std::int64_t o = 0; o < matrix.n_out; ++o) {
        for (std::int64_t i = 0; i < matrix.n_in; ++i) {
            const float value = matrix.values[place_in_panels(matrix.n_in, i, o)];
            const std::uint16_t high = to_bf16(value);
            const std::int64_t place = place_in_panels(n_pairs, i / 2, o);
            const auto put = [&](std::int64_t where, std::uint16_t half) {
                pairs[where] |= std::uint32_t{half} << (i % 2 == 0 ? 0U : 16U);
            };
            put(place, high);
            if (split) put(place + size, to_bf16(value - from_bf16(high)));
        }
    }
}

}  // namespace metaedit
