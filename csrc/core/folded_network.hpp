// The metanetwork's parameters as the vectorised kernels read them, and the way of a gradient back to them. Every
// folding rule is stated once (folded_network.cpp) and runs both ways.
#pragma once

#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "core/folded_layout.hpp"

namespace metaedit {

// Parameters folded, in their places, each value rounded once, from double.
class FoldedValues {
  public:
    // Below float32 the matrices that may be rounded are there in bf16 too; kernels of bf16 take the others as they
    // are.
    FoldedValues(const FoldedPlaces& places, const std::vector<double>& values, Precision precision);

    const float* vector(std::int64_t offset) const { return values_.data() + offset; }
    Panels panels(const FoldedMatrix& matrix) const;

  private:
    AlignedFloats values_;
    AlignedArray<std::uint32_t> pairs_;
    std::int64_t n_halves_ = 0;  // 2 for split pairs, 0 where there are none
};

// One layer by itself. d_e must fit (StateSizes::fit).
template <class Places>
struct FoldedLayer {
    StateSizes sizes;
    Places places;
    FoldedValues values;
};
FoldedLayer<ShippedPlaces> fold(const ShippedLayer& layer, Precision precision);
FoldedLayer<OfficialPlaces> fold(const OfficialLayer& layer, Precision precision);

// A whole network. The parameters must outlive this; d_e must fit.
class FoldedNetwork {
  public:
    FoldedNetwork(const MetanetWeights& weights, int n_threads, Precision precision = Precision::float32);
    // Call it before `backward`.
    void transpose();

    const FoldedLayout& layout() const { return layout_; }
    const FoldedValues& values() const { return values_; }
    const float* vector(std::int64_t offset) const { return values_.vector(offset); }
    Panels forward(const FoldedMatrix& matrix) const { return values_.panels(matrix); }
    // x B^T, without a bias: the way of a gradient through a product.
    Panels backward(const FoldedMatrix& matrix) const;

    // The gradient of the parameters, which stand in one array, in their order there, given that of the folded values
    // [layout().n_values].
    std::vector<double> unfold(const std::vector<double>& folded, std::span<const float> parameters,
                               int n_threads) const;

  private:
    const MetanetWeights& weights_;
    FoldedLayout layout_;
    FoldedValues values_;
    AlignedFloats transposed_, zeros_;
};

}  // namespace metaedit
