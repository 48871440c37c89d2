#include "core/folded_network.hpp"

#include "core/folding.hpp"
#include "core/parallel.hpp"

namespace metaedit {
namespace {

// ---- The rules ----

template <class Action>
void visit(const ShippedLayer& layer, const FoldedShipped& at, const PackedSizes& sizes, Action& action) {
    action.add(at.terms, Part{.linear = layer.source, .output_scale = kBefore, .norm = &layer.norm});
    action.add(at.terms,
               Part{.linear = layer.target, .column = sizes.edge, .output_scale = kBefore, .norm = &layer.norm});
    action.add(at.terms.bias, layer.edge.bias, layer.d_e, kBefore);  // the message's bias counts once
    action.add(at.edge, Part{.linear = layer.edge, .output_scale = kBefore, .bias = false});
    action.add(at.update, Part{.linear = layer.update, .input_scale = kBehind});
    action.add(at.node_in,
               Part{.linear = layer.node_in, .n_inputs = layer.d_v, .output_scale = kBefore, .norm = &layer.norm});
    for (std::int64_t i = 0; i < 4; ++i) {  // mean in, max in, mean out, max out
        action.add(at.node_in, Part{.linear = layer.node_in,
                                    .first_input = layer.d_v + i * layer.d_e,
                                    .n_inputs = layer.d_e,
                                    .row = sizes.node + i * sizes.edge,
                                    .input_scale = kBehind,
                                    .output_scale = kBefore,
                                    .bias = false});
    }
    action.add(at.node_out, Part{.linear = layer.node_out, .input_scale = kBehind});
}

// `before` is the linear that ends the edges' update in the layer before, or null.
template <class Action>
void visit(const OfficialLayer& layer, const Linear* before, const FoldedOfficial& at, const PackedSizes& sizes,
           Action& action) {
    const std::int64_t d_e = layer.d_e, d_v = layer.d_v, width = sizes.edge;
    const Linear* messages[] = {&layer.forward_in, &layer.backward_in, &layer.edge_in};
    const LayerNorm* norms[] = {&layer.forward_norm, &layer.backward_norm, &layer.edge_norm};
    constexpr std::int64_t kTerms[] = {0, 2, 1};  // where the slot's terms with the bias stand
    for (std::int64_t slot = 0; slot < 3; ++slot) {
        const Linear& message = *messages[slot];
        const std::int64_t terms = kTerms[slot] * width;
        if (before == nullptr) {
            action.add(at.edge[slot], Part{.linear = message, .n_inputs = d_e, .bias = false, .centred = true});
        } else {
            action.add(at.edge[slot], Product{.first = message,
                                              .first_input = 0,
                                              .centred = true,
                                              .second = *before,
                                              .row = 0,
                                              .column = 0,
                                              .input_scale = kBehind,
                                              .output_scale = 1.0,
                                              .bias_to = at.terms,
                                              .bias_row = kBiasRow,
                                              .bias_column = terms});
        }
        action.add(at.terms,
                   Part{.linear = message, .first_input = d_e, .n_inputs = d_v, .column = terms, .centred = true});
        action.add(at.scale + slot * width, norms[slot]->scale, d_e, kBefore);
        action.add(at.shift + slot * width, norms[slot]->shift, d_e, kBefore);
    }
    action.add(at.terms, Part{.linear = layer.edge_in,
                              .first_input = d_e + d_v,
                              .n_inputs = d_v,
                              .column = 3 * width,
                              .bias = false,
                              .centred = true});

    action.add(at.node_in, Part{.linear = layer.node_in, .n_inputs = d_v, .centred = true});
    const Linear* sums[] = {&layer.forward_out, &layer.backward_out};
    for (std::int64_t side = 0; side < 2; ++side) {  // a bias counts once for every message: it goes to the degree
        action.add(at.node_in, Product{.first = layer.node_in,
                                       .first_input = (1 + side) * d_v,
                                       .centred = true,
                                       .second = *sums[side],
                                       .row = sizes.node + side * width,
                                       .column = 0,
                                       .input_scale = kBehind,
                                       .output_scale = 1.0,
                                       .bias_to = at.node_in,
                                       .bias_row = sizes.node + 2 * width + side,
                                       .bias_column = 0});
    }
    action.add(at.node_scale, layer.node_norm.scale, d_v, kBefore);
    action.add(at.node_shift, layer.node_norm.shift, d_v, kBefore);
    action.add(at.node_out, Part{.linear = layer.node_out, .input_scale = kBehind});
    action.add(at.residual, Part{.linear = layer.residual});
}

template <class Action>
void visit(const EdgeHead& head, const MetanetWeights& w, const FoldedLayout& at, std::int64_t column, Action& action) {
    if (w.official.empty()) {
        action.add(at.head_edge, Part{.linear = head.edge, .column = column, .output_scale = kBefore, .bias = false});
    } else {
        action.add(at.head_edge, Product{.first = head.edge,
                                         .first_input = 0,
                                         .centred = false,
                                         .second = w.official.back().edge_out,
                                         .row = 0,
                                         .column = column,
                                         .input_scale = kBehind,
                                         .output_scale = kBefore,
                                         .bias_to = at.head_terms,
                                         .bias_row = kBiasRow,
                                         .bias_column = column});
    }
    const auto add_terms = [&](const Linear& linear, std::int64_t first) {
        action.add(at.head_terms,
                   Part{.linear = linear, .column = first + column, .output_scale = kBefore, .norm = &w.final_norm});
    };
    add_terms(head.source, 0);
    add_terms(head.target, at.hidden);
    action.add(at.head_terms.bias + column, head.edge.bias, head.edge.n_out, kBefore);
}

template <class Action>
void visit_ends(const NetworkParameters& p, const FoldedLayout& at, Action& action) {
    const MetanetWeights& w = p.weights;
    action.add(at.condition_in, Part{.linear = w.condition_in, .output_scale = kBefore});
    action.add(at.condition_node, Part{.linear = w.condition_node, .input_scale = kBehind});
    action.add(at.condition_edge, Part{.linear = w.condition_edge, .input_scale = kBehind, .output_scale = kBefore});
    action.add(at.condition_edge.bias, w.edge_in.bias, kEmbed, kBefore);
    action.add(at.edge_in, Part{.linear = w.edge_in, .output_scale = kBefore, .bias = false});
    action.add(at.edge_out, Part{.linear = w.edge_out, .input_scale = kBehind});
    action.add(at.node_in, Part{.linear = w.node_in});
    action.add(at.skip_edge, w.skip_edge, w.d_e, 1.0);
    for (std::int64_t type = 0; type < w.n_node_types; ++type) {
        action.add(at.node_type + type * at.sizes.node, w.node_type + type * w.d_v, w.d_v, 1.0);
    }
    visit(w.score_head, w, at, 0, action);
    action.add(at.readout, w.score_head.out.weight, w.score_head.out.n_in, double{w.score_gain} * kBehind);
    action.add(at.scalars, w.score_head.out.bias, 1, double{w.score_gain});
    action.add(at.scalars + 3, p.saliency_gain, 1, 1.0);
    if (!w.edits) return;
    const EdgeHead& head = w.edits->head;
    const std::int64_t first = at.score_panels * kPanel;
    visit(head, w, at, first, action);
    for (std::int64_t o = 0; o < 2; ++o) {
        action.add(at.readout + (1 + o) * at.hidden + first, head.out.weight + o * head.out.n_in, head.out.n_in,
                   kBehind);
    }
    action.add(at.scalars + 1, head.out.bias, 2, 1.0);
    action.add(at.node_head, Part{.linear = w.edits->node_head, .norm = &w.final_norm});
}

// Layers, and embeddings with heads, on threads: no two of these parts write to the same place, in either direction.
template <class Action>
void visit(const NetworkParameters& p, const FoldedLayout& at, int n_threads, Action& action) {
    const MetanetWeights& w = p.weights;
    const std::size_t n_shipped = w.shipped.size(), n_layers = n_shipped + w.official.size();
    const int n_workers = static_cast<int>(std::min(static_cast<std::size_t>(n_threads), n_layers + 1));
    for_each_item(n_layers + 1, n_workers, [&](std::size_t part, int) {
        if (part == n_layers) return visit_ends(p, at, action);
        if (n_shipped > 0) return visit(w.shipped[part], at.shipped[part], at.sizes, action);
        const Linear* before = part == 0 ? nullptr : &w.official[part - 1].edge_out;
        visit(w.official[part], before, at.official[part], at.sizes, action);
    });
}

}  // namespace

FoldedMatrix FoldedLayout::matrix(std::int64_t n_in, std::int64_t n_out) {
    FoldedMatrix matrix{.n_in = n_in, .n_out = to_panels(n_out)};
    matrix.values = vector(matrix.n_in * matrix.n_out);
    matrix.bias = vector(matrix.n_out);
    matrix.transposed = n_transposed;
    n_transposed += matrix.n_out * to_panels(n_in);
    matrices.push_back(matrix);
    return matrix;
}

std::int64_t FoldedLayout::vector(std::int64_t size) {
    const std::int64_t offset = n_values;
    n_values += to_panels(size);
    return offset;
}

FoldedLayout::FoldedLayout(const MetanetWeights& w)
    : sizes(w.d_e, w.d_v),
      n_edge_features(w.n_edge_features),
      n_node_features(w.n_node_features),
      n_node_types(w.n_node_types),
      condition_in(matrix(kConditionSize, kEmbed)),
      condition_node(matrix(kEmbed, sizes.node)),
      condition_edge(matrix(kEmbed, kEmbed)),
      edge_in(matrix(n_edge_features, kEmbed)),
      edge_out(matrix(kEmbed, sizes.edge)),
      node_in(matrix(n_node_features, sizes.node)),
      skip_edge(vector(sizes.edge)),
      node_type(vector(n_node_types * sizes.node)),
      score_panels(to_panels(w.score_head.edge.n_out) / kPanel),
      hidden(score_panels * kPanel + (w.edits ? to_panels(w.edits->head.edge.n_out) : 0)),
      edits(w.edits.has_value()) {
    const std::int64_t edge = sizes.edge, node = sizes.node;
    for (const ShippedLayer& layer : w.shipped) {
        const std::int64_t inner = to_panels(layer.node_in.n_out);
        shipped.push_back({.terms = matrix(node, 2 * edge),
                           .edge = matrix(edge, edge),
                           .update = matrix(edge, edge),
                           .node_in = matrix(sizes.seen(), inner),
                           .node_out = matrix(inner, node)});
    }
    for (std::size_t l = 0; l < w.official.size(); ++l) {
        official.push_back({.terms = matrix(node, 4 * edge),
                            .edge = {matrix(edge, edge), matrix(edge, edge), matrix(edge, edge)},
                            .scale = vector(3 * edge),
                            .shift = vector(3 * edge),
                            .node_in = matrix(sizes.seen_official(), node),
                            .node_scale = vector(node),
                            .node_shift = vector(node),
                            .node_out = matrix(node, node),
                            .residual = matrix(node, node)});
    }
    head_terms = matrix(node, 2 * hidden);
    head_edge = matrix(edge, hidden);
    readout = vector(3 * hidden);
    scalars = vector(kPanel);
    node_head = matrix(node, edits ? kNodeOutputs : 0);
}

FoldedNetwork::FoldedNetwork(const NetworkParameters& parameters, int n_threads)
    : parameters_(parameters), layout_(parameters.weights), values_(layout_.n_values) {
    Fold fold(layout_.n_values);
    visit(parameters, layout_, n_threads, fold);
    for (std::int64_t i = 0; i < layout_.n_values; ++i) {
        values_[i] = static_cast<float>(fold.values()[static_cast<std::size_t>(i)]);
    }
}

void FoldedNetwork::transpose() {
    transposed_ = AlignedFloats(layout_.n_transposed);
    std::int64_t widest = 0;
    for (const FoldedMatrix& matrix : layout_.matrices) {
        widest = std::max(widest, to_panels(matrix.n_in));
        float* to = transposed_.data() + matrix.transposed;
        for (std::int64_t i = 0; i < matrix.n_in; ++i) {
            for (std::int64_t o = 0; o < matrix.n_out; ++o) {
                to[(i / kPanel * matrix.n_out + o) * kPanel + i % kPanel] = values_[place(matrix, i, o)];
            }
        }
    }
    zeros_ = AlignedFloats(widest);
}

Panels FoldedNetwork::forward(const FoldedMatrix& matrix) const {
    return {values_.data() + matrix.values, values_.data() + matrix.bias, matrix.n_in, matrix.n_out};
}

Panels FoldedNetwork::backward(const FoldedMatrix& matrix) const {
    return {transposed_.data() + matrix.transposed, zeros_.data(), matrix.n_out, to_panels(matrix.n_in)};
}

std::vector<double> FoldedNetwork::unfold(const std::vector<double>& folded, int n_threads) const {
    std::vector<double> gradients(static_cast<std::size_t>(parameters_.n_values));
    Unfold unfolding(folded, parameters_.values, gradients);
    visit(parameters_, layout_, n_threads, unfolding);
    return gradients;
}

}  // namespace metaedit
