// A network as the vectorised kernels read it. Folded in, all exactly: scale and shift of a LayerNorm into the
// matrices behind it, its mean into those in front, the factors of the scaled SiLU (cpu/fused/kernels.hpp) into
// those on both sides, the second linear of a summed message into the node MLP, that of the official edge update
// into the next layer and the heads, matrices of terms per node into
// one, both heads into one, the gain of the score into its readout.
#pragma once

#include <vector>

#include "core/metanetwork.hpp"
#include "core/panel_matrix.hpp"

namespace metaedit {

// The edge kernels exist for these widths; others are filled up with zeros to the next.
inline constexpr std::int64_t kEdgeWidths[] = {16, 32, 64, 128};

// Sizes of states inside the kernels. `size_e` and `size_v` are the true ones, over which LayerNorm takes its mean.
struct PackedSizes {
    std::int64_t edge, node, size_e, size_v;
    std::size_t edge_index;  // of `edge` in kEdgeWidths

    PackedSizes(std::int64_t d_e, std::int64_t d_v);
    static bool fit(std::int64_t d_e);
    // A row of what the node MLP sees. Shipped: normalised node, then sum and minimum of messages in, and out.
    // Official, which needs no more room: node, sums received and returned, degrees in and out in a panel.
    std::int64_t seen() const { return node + 4 * edge; }
    std::int64_t seen_official() const { return node + 2 * edge + kPanel; }
};

struct PackedLayer {
    PanelMatrix terms;              // node -> 2 edge: the messages' part per source, and per target
    PanelMatrix edge, update;       // edge -> edge
    PanelMatrix node_in, node_out;  // seen -> hidden -> node

    PackedLayer(const ShippedLayer& layer, const PackedSizes& sizes);
    void add_pairs(Precision precision);
};

struct PackedOfficialLayer {
    PanelMatrix terms;           // node -> 4 edge: source's for forward and edge, target's for backward and edge
    PanelMatrix edge;            // edge -> 3 edge: forward, backward, edge
    PanelMatrix update;          // edge -> edge, after the pass, for a layer by itself
    AlignedFloats scale, shift;  // [3 edge], of the three norms
    PanelMatrix node_in;         // seen_official -> node
    AlignedFloats node_scale, node_shift;
    PanelMatrix node_out, residual;  // node -> node

    // `before` is edge_out of the layer before, which then is part of `edge` and `terms`.
    PackedOfficialLayer(const OfficialLayer& layer, const PackedSizes& sizes, const Linear* before = nullptr);
    void add_pairs(Precision precision);
};

struct PackedNetwork {
    PackedSizes sizes;
    PanelMatrix condition_in, condition_node, condition_edge;
    PanelMatrix edge_in, edge_out, node_in;
    std::int64_t n_node_types;
    AlignedFloats skip_edge, node_type;  // [edge], [n_node_types][node]
    std::vector<PackedLayer> shipped;    // of the two lists one is empty
    std::vector<PackedOfficialLayer> official;
    PanelMatrix head_terms, head_edge;  // node -> 2 hidden, edge -> hidden; hidden: first score's, then edit's
    std::int64_t score_panels;
    AlignedFloats readout[3];  // [hidden]: score, relative, additive
    float readout_bias[3];
    bool edits;
    PanelMatrix node_head;
    float saliency_gain;

    explicit PackedNetwork(const MetanetWeights& weights);
    // In bf16 too the matrices whose products may be rounded; none for float32. Kernels of bf16 take the others as
    // they are.
    void add_pairs(Precision precision);
};

}  // namespace metaedit
