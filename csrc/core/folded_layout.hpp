// Where the metanetwork's parameters stand once they are folded for the vectorised kernels. Folded in, all exactly:
// scale and shift of a LayerNorm into the matrices behind it, its mean into those in front, the factors of the scaled
// SiLU (cpu/fused/kernels.hpp) into those on both sides, the second linear of a summed message into the node MLP,
// that of the official edge update into the next layer and the heads (so that an edge's state behind a layer is the
// hidden vector of its update), matrices of terms per node into one, both heads into one, the gain of the score into
// its readout. The rules are in folded_network.cpp.
#pragma once

#include <vector>

#include "core/metanetwork.hpp"
#include "core/panels.hpp"

namespace metaedit {

// The edge kernels exist for these widths; others are filled up with zeros to the next.
inline constexpr std::int64_t kEdgeWidths[] = {16, 32, 64, 128};

// Sizes of states inside the kernels. `size_e` and `size_v` are the true ones, over which LayerNorm takes its mean.
struct StateSizes {
    std::int64_t edge, node, size_e, size_v;
    std::size_t edge_index;  // of `edge` in kEdgeWidths

    StateSizes(std::int64_t d_e, std::int64_t d_v);
    static bool fit(std::int64_t d_e);
    // A row of what the node MLP sees. Shipped: normalised node, then sum and minimum of messages in, and out.
    // Official, which needs no more room: node, sums received and returned, degrees in and out in a panel.
    std::int64_t seen() const { return node + 4 * edge; }
    std::int64_t seen_official() const { return node + 2 * edge + kPanel; }
};

// Where a matrix stands: panels and a bias, as offsets into the array of folded values.
struct FoldedMatrix {
    std::int64_t n_in = 0, n_out = 0;  // n_out is a multiple of kPanel
    std::int64_t values = 0, bias = 0;
    std::int64_t transposed = 0;  // offset into the array of transposed values, in panels too
    std::int64_t pairs = 0;       // offset into the array of pairs, or kNoPairs

    static constexpr std::int64_t kNoPairs = -1;
};

struct FoldedShipped {
    FoldedMatrix terms;              // node -> 2 edge: the messages' part per source, and per target
    FoldedMatrix edge, update;       // edge -> edge
    FoldedMatrix node_in, node_out;  // seen -> hidden -> node
};

struct FoldedOfficial {
    FoldedMatrix terms;         // node -> 4 edge: source's for forward and edge, target's for backward and edge
    FoldedMatrix edge;          // edge -> 3 edge: forward, backward, edge
    std::int64_t scale, shift;  // [3 edge], of the three norms
    FoldedMatrix node_in;       // seen_official -> node
    std::int64_t node_scale, node_shift;
    FoldedMatrix node_out, residual;  // node -> node
};

// Places in one array of values, so that gradients in slots are summed by one loop; and in those made from it.
class FoldedPlaces {
  public:
    std::int64_t n_values = 0, n_transposed = 0, n_pairs = 0;
    std::vector<FoldedMatrix> matrices;  // all of them

  protected:
    // Of a matrix's products, to bf16, where the caller's precision allows it.
    enum class Rounding { never, allowed };

    FoldedMatrix matrix(std::int64_t n_in, std::int64_t n_out, Rounding rounding);
    std::int64_t vector(std::int64_t size);
    FoldedShipped place(const ShippedLayer& layer, const StateSizes& sizes);
    FoldedOfficial place(const OfficialLayer& layer, const StateSizes& sizes);
};

// One layer by itself.
struct ShippedPlaces : FoldedPlaces {
    FoldedShipped layer;

    ShippedPlaces(const ShippedLayer& from, const StateSizes& sizes);
};

struct OfficialPlaces : FoldedPlaces {
    FoldedOfficial layer;
    FoldedMatrix update;  // edge -> edge, after the pass

    OfficialPlaces(const OfficialLayer& from, const StateSizes& sizes);
};

struct FoldedLayout : FoldedPlaces {
    StateSizes sizes;
    std::int64_t n_edge_features, n_node_features, n_node_types;
    FoldedMatrix condition_in, condition_node, condition_edge, edge_in, edge_out, node_in;
    std::int64_t skip_edge, node_type;   // [edge], [n_node_types][node]
    std::vector<FoldedShipped> shipped;  // of the two lists one is empty
    std::vector<FoldedOfficial> official;
    FoldedMatrix head_terms, head_edge;  // node -> 2 hidden, edge -> hidden: first the score's, then the edits'
    std::int64_t score_panels, hidden;
    bool edits;
    std::int64_t readout;  // [3][hidden]: score, relative, additive
    std::int64_t scalars;  // [kPanel]: the three biases of the readouts, the saliency's gain
    FoldedMatrix node_head;

    explicit FoldedLayout(const MetanetWeights& weights);
};

}  // namespace metaedit
