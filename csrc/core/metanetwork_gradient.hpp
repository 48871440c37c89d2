// The metanetwork forward and backward for training: heads, and the gradient of all its parameters. Equivalent to
// Metanetwork.forward of metaedit_fast/metanet/metanetwork.py and its derivative; what a maximum gives goes to the
// first edge that has it.
//
// The forward pass keeps a tape of node and edge states; the backward pass computes the rest again. The bits of a
// gradient depend on the models, their order, the parameters and the instruction set, not on the number of threads:
// models are dealt to a fixed number of slots, and the slots' sums are added in order.
#pragma once

#include "core/folded_network.hpp"

namespace metaedit {

// Features of an edge that the kernels have room for.
inline constexpr std::int64_t kMaxEdgeFeatures = 32;

// What the forward pass keeps of one model.
struct Tape {
    float* edges;  // [layers + 1][E][edge]
    float* nodes;  // [V + 1] rows for every layer, one layer after the other, and for the heads
};

// Floats of a tape, per edge, and per node of V + 1.
struct TapeSizes {
    std::int64_t per_edge, per_node;

    explicit TapeSizes(const FoldedLayout& layout);
};

// Upstream gradients of what Model names alike.
struct HeadGradients {
    const float *score, *relative, *additive, *node;
};

// All models, on up to n_threads threads of this call's own (one of them the caller's). Fills the models' heads and
// tapes.
void metanetwork_record(const FoldedNetwork& network, std::span<const Model> models, std::span<const Tape> tapes,
                        Isa isa, int n_threads);

// The gradient of the parameters, which stand in one array, in their order there, from the tapes that
// metanetwork_record left. The models' heads are not looked at.
std::vector<double> metanetwork_gradient(const FoldedNetwork& network, std::span<const float> parameters,
                                         std::span<const Model> models, std::span<const Tape> tapes,
                                         std::span<const HeadGradients> gradients, Isa isa, int n_threads);

}  // namespace metaedit
