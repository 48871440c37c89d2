#include "core/packed_network.hpp"

#include <initializer_list>
#include <iterator>
#include <numbers>
#include <optional>

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
    bool centred = false;            // minus the mean over outputs, for a LayerNorm behind
    const Linear* before = nullptr;  // what gives these inputs: its own are the matrix's, and its bias goes in too
};

// Weight and bias of a linear in double, minus their mean over outputs where wanted.
class Centred {
  public:
    Centred(const Linear& linear, bool centred)
        : linear_(linear), weight_means_(static_cast<std::size_t>(linear.n_in)) {
        if (!centred) return;
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            for (std::int64_t i = 0; i < linear.n_in; ++i) {
                weight_means_[static_cast<std::size_t>(i)] += double{linear.weight[o * linear.n_in + i]};
            }
            bias_mean_ += double{linear.bias[o]};
        }
        const double n = static_cast<double>(linear.n_out);
        for (double& mean : weight_means_) mean /= n;
        bias_mean_ /= n;
    }

    double weight(std::int64_t o, std::int64_t i) const {
        return double{linear_.weight[o * linear_.n_in + i]} - weight_means_[static_cast<std::size_t>(i)];
    }
    double bias(std::int64_t o) const { return double{linear_.bias[o]} - bias_mean_; }

  private:
    const Linear& linear_;
    std::vector<double> weight_means_;
    double bias_mean_ = 0.0;
};

// Output o of a linear, as weights and bias over the inputs of `before`, which gives the inputs from `first` on.
struct Composed {
    std::vector<double> weights;
    double bias = 0.0;

    Composed(const Centred& linear, std::int64_t o, std::int64_t first, const Linear& before)
        : weights(static_cast<std::size_t>(before.n_in)) {
        for (std::int64_t m = 0; m < before.n_out; ++m) {
            const double weight = linear.weight(o, first + m);
            for (std::int64_t i = 0; i < before.n_in; ++i) {
                weights[static_cast<std::size_t>(i)] += weight * double{before.weight[m * before.n_in + i]};
            }
            bias += weight * double{before.bias[m]};
        }
    }
};

// Products are rounded once, from double.
void add(PanelMatrix& matrix, const Part& part) {
    const Linear& linear = part.linear;
    const Centred from(linear, part.centred);
    const std::int64_t all = part.before == nullptr ? linear.n_in : part.before->n_in;
    const std::int64_t n = part.n_inputs == 0 ? all : part.n_inputs;
    for (std::int64_t o = 0; o < linear.n_out; ++o) {
        double bias = part.bias && linear.bias != nullptr ? from.bias(o) : 0.0;
        std::optional<Composed> composed;
        if (part.before != nullptr) bias += composed.emplace(from, o, part.first_input, *part.before).bias;
        for (std::int64_t i = 0; i < n; ++i) {
            const double given =
                composed ? composed->weights[static_cast<std::size_t>(i)] : from.weight(o, part.first_input + i);
            const double weight = given * part.input_scale;
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

// A norm's scale or shift in front of a scaled SiLU.
AlignedFloats scaled(const float* values, std::int64_t size, std::int64_t width) {
    AlignedFloats result(width);
    for (std::int64_t i = 0; i < size; ++i) result[i] = static_cast<float>(double{values[i]} * kBefore);
    return result;
}

void add_pairs_to(Precision precision, std::initializer_list<PanelMatrix*> matrices) {
    if (precision == Precision::float32) return;
    for (PanelMatrix* matrix : matrices) matrix->add_pairs(precision == Precision::bf16x3);
}

}  // namespace

bool PackedSizes::fit(std::int64_t d_e) {
    return d_e <= *std::prev(std::end(kEdgeWidths));
}

PackedSizes::PackedSizes(std::int64_t d_e, std::int64_t d_v) : node(to_panels(d_v)), size_e(d_e), size_v(d_v) {
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

PackedOfficialLayer::PackedOfficialLayer(const OfficialLayer& layer, const PackedSizes& sizes, const Linear* before)
    : terms(sizes.node, 4 * sizes.edge),
      edge(sizes.edge, 3 * sizes.edge),
      update(packed(sizes.edge, sizes.edge, {.linear = layer.edge_out, .input_scale = kBehind})),
      scale(3 * sizes.edge),
      shift(3 * sizes.edge),
      node_in(sizes.seen_official(), sizes.node),
      node_scale(scaled(layer.node_norm.scale, layer.d_v, sizes.node)),
      node_shift(scaled(layer.node_norm.shift, layer.d_v, sizes.node)),
      node_out(packed(sizes.node, sizes.node, {.linear = layer.node_out, .input_scale = kBehind})),
      residual(packed(sizes.node, sizes.node, {.linear = layer.residual})) {
    const std::int64_t d_e = layer.d_e, d_v = layer.d_v, width = sizes.edge;
    const Linear* messages[] = {&layer.forward_in, &layer.backward_in, &layer.edge_in};
    const LayerNorm* norms[] = {&layer.forward_norm, &layer.backward_norm, &layer.edge_norm};
    for (std::int64_t slot = 0; slot < 3; ++slot) {
        add(edge, {.linear = *messages[slot],
                   .n_inputs = d_e,
                   .column = slot * width,
                   .input_scale = before == nullptr ? 1.0 : kBehind,
                   .bias = false,
                   .centred = true,
                   .before = before});
        for (std::int64_t i = 0; i < d_e; ++i) {
            scale[slot * width + i] = static_cast<float>(double{norms[slot]->scale[i]} * kBefore);
            shift[slot * width + i] = static_cast<float>(double{norms[slot]->shift[i]} * kBefore);
        }
    }
    const auto add_terms = [&](const Linear& linear, std::int64_t first_input, std::int64_t slot, bool bias) {
        add(terms, {.linear = linear,
                    .first_input = first_input,
                    .n_inputs = d_v,
                    .column = slot * width,
                    .bias = bias,
                    .centred = true});
    };
    add_terms(layer.forward_in, d_e, 0, true);
    add_terms(layer.edge_in, d_e, 1, true);
    add_terms(layer.backward_in, d_e, 2, true);
    add_terms(layer.edge_in, d_e + d_v, 3, false);  // its bias counts once
    const std::int64_t terms_of_slot[] = {0, 2, 1};
    for (std::int64_t i = 0; i < 3 * width; ++i) {  // what `before` adds to every edge
        terms.bias(terms_of_slot[i / width] * width + i % width) += edge.bias(i);
    }

    add(node_in, {.linear = layer.node_in, .n_inputs = d_v, .centred = true});
    const Linear* sums[] = {&layer.forward_out, &layer.backward_out};
    const Centred from(layer.node_in, true);
    for (std::int64_t side = 0; side < 2; ++side) {
        const Linear& second = *sums[side];
        for (std::int64_t o = 0; o < d_v; ++o) {
            const Composed row(from, o, (1 + side) * d_v, second);
            for (std::int64_t i = 0; i < d_e; ++i) {
                node_in.at(sizes.node + side * width + i, o) =
                    static_cast<float>(row.weights[static_cast<std::size_t>(i)] * kBehind);
            }
            // The second linear's bias: once for every message, so it goes to the degree.
            node_in.at(sizes.node + 2 * width + side, o) = static_cast<float>(row.bias);
        }
    }
}

void PackedLayer::add_pairs(Precision precision) {
    add_pairs_to(precision, {&terms, &edge, &update, &node_in, &node_out});
}

// The node MLP stays in float32: it has 3 % of the work, and its rounding would add half of all error, because
// states of nodes have no residual path around it as those of the shipped form do.
void PackedOfficialLayer::add_pairs(Precision precision) {
    add_pairs_to(precision, {&terms, &edge, &update});
}

// Of what runs once for a network the edges' part; the nodes' and the budget's part is a hundredth of the work and
// would double the error of the outputs.
void PackedNetwork::add_pairs(Precision precision) {
    add_pairs_to(precision, {&edge_in, &edge_out, &head_edge});
    for (PackedLayer& layer : shipped) layer.add_pairs(precision);
    for (PackedOfficialLayer& layer : official) layer.add_pairs(precision);
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
    for (const ShippedLayer& layer : w.shipped) shipped.emplace_back(layer, sizes);
    const Linear* update = nullptr;  // of the layer before
    for (const OfficialLayer& layer : w.official) {
        official.emplace_back(layer, sizes, update);
        update = &layer.edge_out;
    }

    const std::int64_t hidden = score_panels * kPanel + (edits ? to_panels(w.edits->head.edge.n_out) : 0);
    head_terms = PanelMatrix(sizes.node, 2 * hidden);
    head_edge = PanelMatrix(sizes.edge, hidden);
    const auto add_head = [&](const EdgeHead& head, std::int64_t column) {
        add(head_edge, {.linear = head.edge,
                        .column = column,
                        .input_scale = update == nullptr ? 1.0 : kBehind,
                        .output_scale = kBefore,
                        .before = update});
        add(head_terms, {.linear = head.source, .column = column, .output_scale = kBefore, .norm = &w.final_norm});
        add(head_terms,
            {.linear = head.target, .column = hidden + column, .output_scale = kBefore, .norm = &w.final_norm});
        for (std::int64_t o = 0; o < head.edge.n_out; ++o) {
            head_terms.bias(column + o) += head_edge.bias(column + o);
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
