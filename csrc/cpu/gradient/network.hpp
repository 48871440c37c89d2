// One model forward and backward on the gradient kernels: ordinary code that calls one instruction set's functions.
#pragma once

#include "core/metanetwork_gradient.hpp"
#include "cpu/gradient/kernels.hpp"

namespace metaedit::gradient {

// Memory for one model at a time, of up to that many nodes and edges.
struct Workspace {
    Workspace(const FoldedLayout& layout, std::int64_t n_nodes, std::int64_t n_edges, bool backward);

    AlignedFloats keeps;   // [node]: 1 for true columns
    AlignedFloats degree;  // [V][2]: in, out
    AlignedFloats nodes;   // [V][node]
    AlignedFloats terms;   // [V + 1][widest terms]
    AlignedFloats hidden;  // [V][widest hidden]
    // For the way back: gradients of the above, of the edges, of what the node MLP sees, and room for the heads.
    AlignedFloats edges_gradient, terms_gradient, hidden_gradient, seen_gradient, head_rows;
};

// One model on its way through the network.
class Pass {
  public:
    Pass(const Kernels& kernels, const FoldedNetwork& network, const Model& model, const Tape& tape, Workspace& work);

    void forward();
    // Adds to the gradients of the folded values.
    void backward(const HeadGradients& upstream, float* gradients);

  private:
    // Where a layer's rows lie on the tape: what the node MLP sees, 1 / standard deviation, then its hidden values
    // (shipped: before SiLU; official: normalised).
    struct Rows {
        float* seen;
        std::int64_t stride, n_in;
        float* inverse() const { return seen + n_in; }
        float* inner() const { return seen + n_in + kPanel; }
    };
    Rows rows_of(std::size_t layer) const;
    float* edge_states(std::size_t layer) const;
    Edges edges(std::int64_t n_blocks) const;
    std::int64_t n_dense_blocks() const;
    std::size_t n_layers() const;

    void clear_tape();
    void embed_nodes();
    void embed_edges();
    void layer_forward(const FoldedShipped& layer, std::size_t index);
    void layer_forward(const FoldedOfficial& layer, std::size_t index);
    void read_heads();

    void heads_backward(const HeadGradients& upstream);
    void layer_backward(const FoldedShipped& layer, std::size_t index);
    void layer_backward(const FoldedOfficial& layer, std::size_t index);
    void embed_backward();

    Heads heads_of(float* score, float* relative, float* additive) const;
    void normalise(const Rows& to);
    void terms(const FoldedMatrix& matrix, const Rows& from);
    void dense(const Panels& matrix, const float* x, std::int64_t x_stride, float* out, std::int64_t out_stride,
               fused::Then then, std::int64_t rows) const;
    // Adds to the matrix's gradient, and to its bias's.
    void weight_gradient(const FoldedMatrix& matrix, const float* x, std::int64_t x_stride, const float* g,
                         std::int64_t rows) const;
    void clear(AlignedFloats& values, std::int64_t size) const;

    const Kernels& kernels_;
    const FoldedNetwork& network_;
    const FoldedLayout& layout_;
    const StateSizes& sizes_;
    const Model& model_;
    const Tape& tape_;
    Workspace& work_;
    float* gradients_ = nullptr;
    AlignedFloats budget_, at_node_, at_edge_;  // the condition's hidden values before SiLU, and what comes of them
};

}  // namespace metaedit::gradient
