// A weight matrix as the vectorised kernels read it.
#pragma once

#include "core/aligned.hpp"

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

// Panels with memory of their own; zeros at first.
class PanelMatrix {
  public:
    PanelMatrix() = default;
    PanelMatrix(std::int64_t n_in, std::int64_t n_out)
        : n_in_(n_in), n_out_(to_panels(n_out)), values_(n_in_ * n_out_), bias_(n_out_) {}

    float& at(std::int64_t input, std::int64_t output) {
        return values_[(output / kPanel * n_in_ + input) * kPanel + output % kPanel];
    }
    float& bias(std::int64_t output) { return bias_[output]; }
    std::int64_t n_out() const { return n_out_; }
    // From now on views have the values in bf16 too. Values that are set later are not in them.
    void add_pairs(bool split);
    Panels view() const { return {values_.data(), bias_.data(), n_in_, n_out_, pairs_.data()}; }

  private:
    std::int64_t n_in_ = 0, n_out_ = 0;
    AlignedFloats values_, bias_;
    AlignedArray<std::uint32_t> pairs_;
};

}  // namespace metaedit
