#include "core/packed_network.hpp"

#include <iterator>
#include <numbers>

namespace metaedit {
namespace {

// In front of a scaled SiLU, and behind it.
constexpr double kBefore = -std::numbers::log2e;
constexpr double kBehind = -std::numbers::ln2;

// Some columns of a linear on the way into a matrix in panels.
struct Part {
    const Linear& linear;
    std::int64_t first_input = 0, n_inputs = 0;  // of the linear; 0 inputs: all
    std::int64_t row = 0, column = 0;            // where they go
    double input_scale = 1.0, output_scale = 1.0;
    const LayerNorm* norm = nullptr;  // its scale and shift apply to these inputs
    bool bias = true;
};

// Products are rounded once, from double.
void add(PanelMatrix& matrix, const Part& part) {
    const Linear& linear = part.linear;
    const std::int64_t n = part.n_inputs == 0 ? linear.n_in : part.n_inputs;
    for (std::int64_t o = 0; o < linear.n_out; ++o) {
        double bias = part.bias && linear.bias != nullptr ? double{linear.bias[o]} : 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
            const double weight = double{linear.weight[o * linear.n_in + part.first_input + i]} * part.input_scale;
            const double scale = part.norm == nullptr ? 1.0 : double{part.norm->scale[i]};
            if (part.norm != nullptr) bias += weight * double{part.norm->shift[i]};
            matrix.at(part.row + i, part.column + o) = static_cast<float>(weight * scale * part.output_scale);
        }
        matrix.bias(part.column + o) += static_cast<float>(bias * part.output_scale);
    }
}

PanelMatrix packed(std::int64_t n_in, std::int64_t n_out, const Part& part) {
    PanelMatrix matrix(n_in, n_out);
    add(matrix, part);
    return matrix;
}

AlignedFloats padded_rows(const float* values, std::int64_t rows, std::int64_t size, std::int64_t width) {
    AlignedFloats result(rows * width);
    for (std::int64_t r = 0; r < rows; ++r) std::copy_n(values + r * size, size, result.data() + r * width);
    return result;
}

}  // namespace

bool PackedSizes::fit(std::int64_t d_e) {
    return d_e <= *std::prev(std::end(kEdgeWidths));
}

PackedSizes::PackedSizes(std::int64_t d_e, std::int64_t d_v) : node(to_panels(d_v)), size_v(d_v) {
    const auto* width = std::lower_bound(std::begin(kEdgeWidths), std::end(kEdgeWidths), d_e);
    edge = *width;
    edge_index = static_cast<std::size_t>(width - std::begin(kEdgeWidths));
}

PackedLayer::PackedLayer(const ShippedLayer& layer, const PackedSizes& sizes)
    : terms(sizes.node, 2 * sizes.edge),
      edge(packed(sizes.edge, sizes.edge, {.linear = layer.edge, .output_scale = kBefore, .bias = false})),
      update(packed(sizes.edge, sizes.edge, {.linear = layer.update, .input_scale = kBehind})),
      node_in(sizes.seen(), layer.node_in.n_out),
      node_out(packed(node_in.n_out(), sizes.node, {.linear = layer.node_out, .input_scale = kBehind})) {
    add(terms, {.linear = layer.source, .output_scale = kBefore, .norm = &layer.norm});
    add(terms, {.linear = layer.target, .column = sizes.edge, .output_scale = kBefore, .norm = &layer.norm});
    for (std::int64_t o = 0; o < layer.d_e; ++o) {  // the message's bias counts once
        terms.bias(o) += static_cast<float>(double{layer.edge.bias[o]} * kBefore);
    }
    add(node_in, {.linear = layer.node_in, .n_inputs = layer.d_v, .output_scale = kBefore, .norm = &layer.norm});
    for (std::int64_t i = 0; i < 4; ++i) {  // mean in, max in, mean out, max out
        add(node_in, {.linear = layer.node_in,
                      .first_input = layer.d_v + i * layer.d_e,
                      .n_inputs = layer.d_e,
                      .row = sizes.node + i * sizes.edge,
                      .input_scale = kBehind,
                      .output_scale = kBefore,
                      .bias = false});
    }
}

PackedNetwork::PackedNetwork(const MetanetWeights& w)
    : sizes(w.d_e, w.d_v),
      condition_in(packed(kConditionSize, kEmbed, {.linear = w.condition_in, .output_scale = kBefore})),
      condition_node(packed(kEmbed, sizes.node, {.linear = w.condition_node, .input_scale = kBehind})),
      condition_edge(
          packed(kEmbed, kEmbed, {.linear = w.condition_edge, .input_scale = kBehind, .output_scale = kBefore})),
      edge_in(packed(w.n_edge_features, kEmbed, {.linear = w.edge_in, .output_scale = kBefore, .bias = false})),
      edge_out(packed(kEmbed, sizes.edge, {.linear = w.edge_out, .input_scale = kBehind})),
      node_in(packed(w.n_node_features, sizes.node, {.linear = w.node_in})),
      n_node_types(w.n_node_types),
      skip_edge(padded_rows(w.skip_edge, 1, w.d_e, sizes.edge)),
      node_type(padded_rows(w.node_type, n_node_types, w.d_v, sizes.node)),
      score_panels(to_panels(w.score_head.edge.n_out) / kPanel),
      readout_bias{w.score_gain * w.score_head.out.bias[0], 0.0F, 0.0F},
      edits(w.edits.has_value()),
      saliency_gain(w.saliency_gain) {
    for (std::int64_t o = 0; o < kEmbed; ++o) {
        condition_edge.bias(o) += static_cast<float>(double{w.edge_in.bias[o]} * kBefore);
    }
    for (const ShippedLayer& layer : w.shipped) layers.emplace_back(layer, sizes);

    const std::int64_t hidden = score_panels * kPanel + (edits ? to_panels(w.edits->head.edge.n_out) : 0);
    head_terms = PanelMatrix(sizes.node, 2 * hidden);
    head_edge = PanelMatrix(sizes.edge, hidden);
    const auto add_head = [&](const EdgeHead& head, std::int64_t column) {
        add(head_edge, {.linear = head.edge, .column = column, .output_scale = kBefore, .bias = false});
        add(head_terms, {.linear = head.source, .column = column, .output_scale = kBefore, .norm = &w.final_norm});
        add(head_terms,
            {.linear = head.target, .column = hidden + column, .output_scale = kBefore, .norm = &w.final_norm});
        for (std::int64_t o = 0; o < head.edge.n_out; ++o) {
            head_terms.bias(column + o) += static_cast<float>(double{head.edge.bias[o]} * kBefore);
        }
    };
    const auto fill_readout = [&](AlignedFloats& values, const float* weight, std::int64_t n, std::int64_t column,
                                  double scale) {
        values = AlignedFloats(hidden);
        for (std::int64_t i = 0; i < n; ++i) {
            values[column + i] = static_cast<float>(double{weight[i]} * scale * kBehind);
        }
    };
    add_head(w.score_head, 0);
    fill_readout(readout[0], w.score_head.out.weight, w.score_head.out.n_in, 0, double{w.score_gain});
    if (!edits) return;
    const std::int64_t first = score_panels * kPanel;
    const EdgeHead& head = w.edits->head;
    add_head(head, first);
    for (std::int64_t o = 0; o < 2; ++o) {
        fill_readout(readout[1 + o], head.out.weight + o * head.out.n_in, head.out.n_in, first, 1.0);
        readout_bias[1 + o] = head.out.bias[o];
    }
    node_head = packed(sizes.node, kNodeOutputs, {.linear = w.edits->node_head, .norm = &w.final_norm});
}

}  // namespace metaedit
