#include "core/folded_layout.hpp"

#include <iterator>

namespace metaedit {

bool StateSizes::fit(std::int64_t d_e) {
    return d_e <= *std::prev(std::end(kEdgeWidths));
}

StateSizes::StateSizes(std::int64_t d_e, std::int64_t d_v) : node(to_panels(d_v)), size_e(d_e), size_v(d_v) {
    const auto* width = std::lower_bound(std::begin(kEdgeWidths), std::end(kEdgeWidths), d_e);
    edge = *width;
    edge_index = static_cast<std::size_t>(width - std::begin(kEdgeWidths));
}

FoldedMatrix FoldedPlaces::matrix(std::int64_t n_in, std::int64_t n_out, Rounding rounding) {
    FoldedMatrix matrix{.n_in = n_in, .n_out = to_panels(n_out)};
    matrix.values = vector(matrix.n_in * matrix.n_out);
    matrix.bias = vector(matrix.n_out);
    matrix.transposed = n_transposed;
    n_transposed += matrix.n_out * to_panels(n_in);
    matrix.pairs = FoldedMatrix::kNoPairs;
    if (rounding == Rounding::allowed) {
        matrix.pairs = n_pairs;
        n_pairs += pairs_of(n_in) * matrix.n_out;
    }
    matrices.push_back(matrix);
    return matrix;
}

std::int64_t FoldedPlaces::vector(std::int64_t size) {
    const std::int64_t offset = n_values;
    n_values += to_panels(size);
    return offset;
}

FoldedShipped FoldedPlaces::place(const ShippedLayer& layer, const StateSizes& sizes) {
    const std::int64_t edge = sizes.edge, node = sizes.node, inner = to_panels(layer.node_in.n_out);
    return {.terms = matrix(node, 2 * edge, Rounding::allowed),
            .edge = matrix(edge, edge, Rounding::allowed),
            .update = matrix(edge, edge, Rounding::allowed),
            .node_in = matrix(sizes.seen(), inner, Rounding::allowed),
            .node_out = matrix(inner, node, Rounding::allowed)};
}

// The node MLP stays in float32: it has 3 % of the work, and its rounding would add half of all error, because
// states of nodes have no residual path around it as those of the shipped form do.
FoldedOfficial FoldedPlaces::place(const OfficialLayer&, const StateSizes& sizes) {
    const std::int64_t edge = sizes.edge, node = sizes.node;
    return {.terms = matrix(node, 4 * edge, Rounding::allowed),
            .edge = matrix(edge, 3 * edge, Rounding::allowed),
            .scale = vector(3 * edge),
            .shift = vector(3 * edge),
            .node_in = matrix(sizes.seen_official(), node, Rounding::never),
            .node_scale = vector(node),
            .node_shift = vector(node),
            .node_out = matrix(node, node, Rounding::never),
            .residual = matrix(node, node, Rounding::never)};
}

ShippedPlaces::ShippedPlaces(const ShippedLayer& from, const StateSizes& sizes) : layer(place(from, sizes)) {}

OfficialPlaces::OfficialPlaces(const OfficialLayer& from, const StateSizes& sizes)
    : layer(place(from, sizes)), update(matrix(sizes.edge, sizes.edge, Rounding::allowed)) {}

// Of what runs once for a network the edges' part may be rounded; the nodes' and the budget's part is a hundredth of
// the work and would double the error of the outputs.
FoldedLayout::FoldedLayout(const MetanetWeights& w)
    : sizes(w.d_e, w.d_v),
      n_edge_features(w.n_edge_features),
      n_node_features(w.n_node_features),
      n_node_types(w.n_node_types),
      condition_in(matrix(kConditionSize, kEmbed, Rounding::never)),
      condition_node(matrix(kEmbed, sizes.node, Rounding::never)),
      condition_edge(matrix(kEmbed, kEmbed, Rounding::never)),
      edge_in(matrix(n_edge_features, kEmbed, Rounding::allowed)),
      edge_out(matrix(kEmbed, sizes.edge, Rounding::allowed)),
      node_in(matrix(n_node_features, sizes.node, Rounding::never)),
      skip_edge(vector(sizes.edge)),
      node_type(vector(n_node_types * sizes.node)),
      score_panels(to_panels(w.score_head.edge.n_out) / kPanel),
      hidden(score_panels * kPanel + (w.edits ? to_panels(w.edits->head.edge.n_out) : 0)),
      edits(w.edits.has_value()) {
    for (const ShippedLayer& layer : w.shipped) shipped.push_back(place(layer, sizes));
    for (const OfficialLayer& layer : w.official) official.push_back(place(layer, sizes));
    head_terms = matrix(sizes.node, 2 * hidden, Rounding::never);
    head_edge = matrix(sizes.edge, hidden, Rounding::allowed);
    readout = vector(3 * hidden);
    scalars = vector(kPanel);
    node_head = matrix(sizes.node, edits ? kNodeOutputs : 0, Rounding::never);
}

}  // namespace metaedit
