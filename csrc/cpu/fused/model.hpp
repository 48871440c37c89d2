// The network on the vectorised kernels: ordinary code that calls one instruction set's table of functions.
#pragma once

#include "core/folded_network.hpp"
#include "core/parallel.hpp"
#include "cpu/fused/kernels.hpp"

namespace metaedit::fused {

// Memory for one model at a time, reused from model to model: it stays in the cache.
class Workspace {
  public:
    // For graphs of up to that many nodes and edges; terms_width is the widest row of terms per node.
    Workspace(const StateSizes& sizes, std::int64_t n_nodes, std::int64_t n_edges, std::int64_t hidden_width,
              std::int64_t terms_width);

    AlignedFloats edges;    // [E][edge]
    AlignedFloats nodes;    // [V][node]
    AlignedFloats seen;     // [V + 1][seen]
    AlignedFloats terms;    // [V + 1][terms_width]
    AlignedFloats hidden;   // [V][hidden_width]
    AlignedFloats degree;   // [V][2]: in, out
    AlignedFloats keeps;    // [node]: 1 for true columns, 0 for those that fill up
    AlignedFloats partial;  // tables of chunks of blocks

    // Makes room in `partial`; what it held is lost then.
    void expect_partial(std::int64_t size);
};

Workspace workspace_for(const FoldedNetwork& network, std::int64_t n_nodes, std::int64_t n_edges);

// team: threads that share the model, or null for the caller's alone; the same bits.
void forward(const Kernels& kernels, const FoldedNetwork& network, const Model& model, Workspace& work,
             Team* team = nullptr);

// Edits of listed weights of the model that ran last in this memory: relative and additive, [list.n].
void read_edits(const Kernels& kernels, const FoldedNetwork& network, const EdgeList& list, Workspace& work,
                float* relative, float* additive, Team* team = nullptr);

// One layer, shipped or official; folds it for this call. d_e must fit (StateSizes::fit), and the precision be that of
// the kernels.
void layer_forward(const Kernels& kernels, const WeightGraph& graph, const ShippedLayer& layer,
                   const LayerStates& states, Precision precision);
void layer_forward(const Kernels& kernels, const WeightGraph& graph, const OfficialLayer& layer,
                   const LayerStates& states, Precision precision);

}  // namespace metaedit::fused
