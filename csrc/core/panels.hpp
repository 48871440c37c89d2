// Weight matrices as the vectorised kernels read them.
#pragma once

#include <cstdint>

namespace metaedit {

// Columns of a panel: the widest vector. Every width inside the kernels is a multiple of it; what is added to
// reach one is zero and stays zero.
inline constexpr std::int64_t kPanel = 16;

constexpr std::int64_t to_panels(std::int64_t width) {
    return (width + kPanel - 1) / kPanel * kPanel;
}

// Pairs of inputs in a panel of bf16 numbers: 8, or a multiple of 16, as tiles have them; zeros fill up.
constexpr std::int64_t pairs_of(std::int64_t n_in) {
    return n_in <= 16 ? 8 : (n_in + 31) / 32 * 16;
}

// y = x B + bias. Values are [n_out / 16][n_in][16]: a tile of sums reads a panel from front to back, and panels
// of a wide matrix do not compete for the same lines of the cache, as columns of a row-major one do.
struct Panels {
    const float* values;
    const float* bias;  // [n_out]
    std::int64_t n_in;
    std::int64_t n_out;  // a multiple of kPanel
    // The same rounded to bf16, [n_out / 16][pairs_of(n_in)][16], the even input of a pair in the lower half; behind
    // it, for split matrices, what the rounding left, also in bf16. Null where only float32 is wanted.
    const std::uint32_t* pairs = nullptr;
};

// Where a value stands in panels.
constexpr std::int64_t place_in_panels(std::int64_t n_in, std::int64_t input, std::int64_t output) {
    return (output / kPanel * n_in + input) * kPanel + output % kPanel;
}

// Fills the pairs of a matrix (Panels::pairs): pairs_of(n_in) * n_out of them, zeros at first, or twice as many for
// split ones.
void round_to_pairs(const Panels& matrix, bool split, std::uint32_t* pairs);

}  // namespace metaedit
