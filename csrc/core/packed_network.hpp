// A network of the shipped form as the vectorised kernels read it. Folded in, all exactly: scale and shift of each
// LayerNorm into the matrices behind it, the factors of the scaled SiLU (cpu/fused/kernels.hpp) into those on both
// sides, the two matrices of terms per node into one, both heads into one, the gain of the score into its readout.
#pragma once

#include <vector>

#include "core/metanetwork.hpp"
#include "core/panel_matrix.hpp"

namespace metaedit {

// The edge kernels exist for these widths; others are filled up with zeros to the next.
inline constexpr std::int64_t kEdgeWidths[] = {16, 32, 64, 128};

// Sizes of states inside the kernels. `size_v` is the true d_v, over which LayerNorm takes its mean.
struct PackedSizes {
    std::int64_t edge, node, size_v;
    std::size_t edge_index;  // of `edge` in kEdgeWidths

    PackedSizes(std::int64_t d_e, std::int64_t d_v);
    static bool fit(std::int64_t d_e);
    // A row of what the node MLP sees: normalised node, then sum and minimum of messages in, and out.
    std::int64_t seen() const { return node + 4 * edge; }
};

struct PackedLayer {
    PanelMatrix terms;              // node -> 2 edge: the messages' part per source, and per target
    PanelMatrix edge, update;       // edge -> edge
    PanelMatrix node_in, node_out;  // seen -> hidden -> node

    PackedLayer(const ShippedLayer& layer, const PackedSizes& sizes);
};

struct PackedNetwork {
    PackedSizes sizes;
    PanelMatrix condition_in, condition_node, condition_edge;
    PanelMatrix edge_in, edge_out, node_in;
    std::int64_t n_node_types;
    AlignedFloats skip_edge, node_type;  // [edge], [n_node_types][node]
    std::vector<PackedLayer> layers;
    PanelMatrix head_terms, head_edge;  // node -> 2 hidden, edge -> hidden; hidden: first score's, then edit's
    std::int64_t score_panels;
    AlignedFloats readout[3];  // [hidden]: score, relative, additive
    float readout_bias[3];
    bool edits;
    PanelMatrix node_head;
    float saliency_gain;

    explicit PackedNetwork(const MetanetWeights& weights);
};

}  // namespace metaedit
