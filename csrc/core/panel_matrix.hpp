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

// y = x B + bias. Values are [n_out / 16][n_in][16]: a tile of sums reads a panel from front to back, and panels
// of a wide matrix do not compete for the same lines of the cache, as columns of a row-major one do.
struct Panels {
    const float* values;
    const float* bias;  // [n_out]
    std::int64_t n_in;
    std::int64_t n_out;  // a multiple of kPanel
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
    Panels view() const { return {values_.data(), bias_.data(), n_in_, n_out_}; }

  private:
    std::int64_t n_in_ = 0, n_out_ = 0;
    AlignedFloats values_, bias_;
};

}  // namespace metaedit
