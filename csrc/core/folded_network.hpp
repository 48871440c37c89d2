// The metanetwork's parameters as the gradient kernels read them, and the way of a gradient back to them.
//
// What is folded into the matrices is what core/packed_network.hpp says, and in the official form one thing more:
// the second linear of an edge's update goes into the matrices that read the edge behind it, so that an edge's state
// behind a layer is the hidden vector of its update. All folded values stand in one array, so that gradients in
// slots are summed by one loop; every folding rule is stated once (folded_network.cpp) and runs both ways.
#pragma once

#include <vector>

#include "core/metanetwork.hpp"
#include "core/packed_network.hpp"
#include "core/panel_matrix.hpp"

namespace metaedit {

// Where a matrix stands: panels (core/panel_matrix.hpp) and a bias, as offsets into the array of folded values.
struct FoldedMatrix {
    std::int64_t n_in = 0, n_out = 0;  // n_out is a multiple of kPanel
    std::int64_t values = 0, bias = 0;
    std::int64_t transposed = 0;  // offset into the array of transposed values, in panels too
};

struct FoldedShipped {
    FoldedMatrix terms;              // node -> 2 edge: source, target
    FoldedMatrix edge, update;       // edge -> edge
    FoldedMatrix node_in, node_out;  // seen -> hidden -> node
};

struct FoldedOfficial {
    FoldedMatrix terms;         // node -> 4 edge: source's for forward and edge, target's for backward and edge
    FoldedMatrix edge[3];       // edge -> edge: forward, backward, edge
    std::int64_t scale, shift;  // [3 edge]
    FoldedMatrix node_in;       // seen_official -> node
    std::int64_t node_scale, node_shift;
    FoldedMatrix node_out, residual;
};

struct FoldedLayout {
    std::int64_t n_values = 0, n_transposed = 0;
    std::vector<FoldedMatrix> matrices;  // all of them
    PackedSizes sizes;
    std::int64_t n_edge_features, n_node_features, n_node_types;
    FoldedMatrix condition_in, condition_node, condition_edge, edge_in, edge_out, node_in;
    std::int64_t skip_edge, node_type;
    std::vector<FoldedShipped> shipped;  // of the two lists one is empty
    std::vector<FoldedOfficial> official;
    FoldedMatrix head_terms, head_edge;  // node -> 2 hidden, edge -> hidden: first the score's, then the edits'
    std::int64_t score_panels, hidden;
    bool edits;
    std::int64_t readout;  // [3][hidden]: score, relative, additive
    std::int64_t scalars;  // [kPanel]: the three biases of the readouts, the saliency's gain
    FoldedMatrix node_head;

    explicit FoldedLayout(const MetanetWeights& weights);

  private:
    FoldedMatrix matrix(std::int64_t n_in, std::int64_t n_out);
    std::int64_t vector(std::int64_t size);
};

// All parameters in one array, and where they are in it.
struct NetworkParameters {
    const float* values;
    std::int64_t n_values;
    MetanetWeights weights;
    const float* saliency_gain;
};

// Parameters folded for one step of training; they must outlive this. d_e must fit (PackedSizes::fit).
class FoldedNetwork {
  public:
    FoldedNetwork(const NetworkParameters& parameters, int n_threads);
    // Call it before `backward`.
    void transpose();

    const FoldedLayout& layout() const { return layout_; }
    const float* vector(std::int64_t offset) const { return values_.data() + offset; }
    Panels forward(const FoldedMatrix& matrix) const;
    // x B^T, without a bias: the way of a gradient through a product.
    Panels backward(const FoldedMatrix& matrix) const;

    // The gradient of the parameters, in their order, given that of the folded values [layout().n_values].
    std::vector<double> unfold(const std::vector<double>& folded, int n_threads) const;

  private:
    const NetworkParameters& parameters_;
    FoldedLayout layout_;
    AlignedFloats values_, transposed_, zeros_;
};

}  // namespace metaedit
