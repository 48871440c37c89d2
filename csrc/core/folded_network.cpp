#include "core/folded_network.hpp"

#include "core/folding.hpp"
#include "core/parallel.hpp"

namespace metaedit {
namespace {

// ---- The rules ----

template <class Action>
void visit(const ShippedLayer& layer, const FoldedShipped& at, const StateSizes& sizes, Action& action) {
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
void visit(const OfficialLayer& layer, const Linear* before, const FoldedOfficial& at, const StateSizes& sizes,
           Action& action) {
    const std::int64_t d_e = layer.d_e, d_v = layer.d_v, width = sizes.edge;
    const Linear* messages[] = {&layer.forward_in, &layer.backward_in, &layer.edge_in};
    const LayerNorm* norms[] = {&layer.forward_norm, &layer.backward_norm, &layer.edge_norm};
    constexpr std::int64_t kTerms[] = {0, 2, 1};  // where the slot's terms with the bias stand
    for (std::int64_t slot = 0; slot < 3; ++slot) {
        const Linear& message = *messages[slot];
        const std::int64_t terms = kTerms[slot] * width;
        if (before == nullptr) {
            action.add(
                at.edge,
                Part{.linear = message, .n_inputs = d_e, .column = slot * width, .bias = false, .centred = true});
        } else {
            action.add(at.edge, Product{.first = message,
                                        .first_input = 0,
                                        .centred = true,
                                        .second = *before,
                                        .row = 0,
                                        .column = slot * width,
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
void visit_ends(const MetanetWeights& w, const FoldedLayout& at, Action& action) {
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
    action.add(at.scalars + 3, w.saliency_gain, 1, 1.0);
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
void visit(const MetanetWeights& w, const FoldedLayout& at, int n_threads, Action& action) {
    const std::size_t n_shipped = w.shipped.size(), n_layers = n_shipped + w.official.size();
    const int n_workers = static_cast<int>(std::min(static_cast<std::size_t>(n_threads), n_layers + 1));
    for_each_item(n_layers + 1, n_workers, [&](std::size_t part, int) {
        if (part == n_layers) return visit_ends(w, at, action);
        if (n_shipped > 0) return visit(w.shipped[part], at.shipped[part], at.sizes, action);
        const Linear* before = part == 0 ? nullptr : &w.official[part - 1].edge_out;
        visit(w.official[part], before, at.official[part], at.sizes, action);
    });
}

std::vector<double> folded(const MetanetWeights& weights, const FoldedLayout& layout, int n_threads) {
    Fold fold(layout.n_values);
    visit(weights, layout, n_threads, fold);
    return fold.take();
}

}  // namespace

FoldedValues::FoldedValues(const FoldedPlaces& places, const std::vector<double>& values, Precision precision)
    : values_(places.n_values) {
    std::transform(values.begin(), values.end(), values_.data(), [](double x) { return static_cast<float>(x); });
    if (precision == Precision::float32) return;
    const bool split = precision == Precision::bf16x3;
    n_halves_ = split ? 2 : 1;
    pairs_ = AlignedArray<std::uint32_t>(n_halves_ * places.n_pairs);
    for (const FoldedMatrix& matrix : places.matrices) {
        if (matrix.pairs == FoldedMatrix::kNoPairs) continue;
        round_to_pairs(panels(matrix), split, pairs_.data() + n_halves_ * matrix.pairs);
    }
}

Panels FoldedValues::panels(const FoldedMatrix& matrix) const {
    const bool has_pairs = n_halves_ > 0 && matrix.pairs != FoldedMatrix::kNoPairs;
    return {vector(matrix.values), vector(matrix.bias), matrix.n_in, matrix.n_out,
            has_pairs ? pairs_.data() + n_halves_ * matrix.pairs : nullptr};
}

FoldedLayer<ShippedPlaces> fold(const ShippedLayer& layer, Precision precision) {
    const StateSizes sizes(layer.d_e, layer.d_v);
    const ShippedPlaces places(layer, sizes);
    Fold fold(places.n_values);
    visit(layer, places.layer, sizes, fold);
    return {sizes, places, FoldedValues(places, fold.take(), precision)};
}

FoldedLayer<OfficialPlaces> fold(const OfficialLayer& layer, Precision precision) {
    const StateSizes sizes(layer.d_e, layer.d_v);
    const OfficialPlaces places(layer, sizes);
    Fold fold(places.n_values);
    visit(layer, nullptr, places.layer, sizes, fold);
    fold.add(places.update, Part{.linear = layer.edge_out, .input_scale = kBehind});
    return {sizes, places, FoldedValues(places, fold.take(), precision)};
}

FoldedNetwork::FoldedNetwork(const MetanetWeights& weights, int n_threads, Precision precision)
    : weights_(weights), layout_(weights), values_(layout_, folded(weights, layout_, n_threads), precision) {}

void FoldedNetwork::transpose() {
    transposed_ = AlignedFloats(layout_.n_transposed);
    std::int64_t widest = 0;
    const float* values = values_.vector(0);
    for (const FoldedMatrix& matrix : layout_.matrices) {
        widest = std::max(widest, to_panels(matrix.n_in));
        float* to = transposed_.data() + matrix.transposed;
        for (std::int64_t i = 0; i < matrix.n_in; ++i) {
            for (std::int64_t o = 0; o < matrix.n_out; ++o) {
                to[place_in_panels(matrix.n_out, o, i)] = values[place(matrix, i, o)];
            }
        }
    }
    zeros_ = AlignedFloats(widest);
}

Panels FoldedNetwork::backward(const FoldedMatrix& matrix) const {
    return {transposed_.data() + matrix.transposed, zeros_.data(), matrix.n_out, to_panels(matrix.n_in)};
}

std::vector<double> FoldedNetwork::unfold(const std::vector<double>& folded, std::span<const float> parameters,
                                          int n_threads) const {
    std::vector<double> gradients(parameters.size());
    Unfold unfolding(folded, parameters.data(), gradients);
    visit(weights_, layout_, n_threads, unfolding);
    return gradients;
}

}  // namespace metaedit
