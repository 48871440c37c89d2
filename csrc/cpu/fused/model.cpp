#include "cpu/fused/model.hpp"

#include <limits>

namespace metaedit::fused {
namespace {

// Numbers of edges [V][2]: in, out.
void set_degrees(const WeightGraph& graph, AlignedFloats& degree) {
    std::fill_n(degree.data(), 2 * graph.n_nodes, 0.0F);
    for (const Block& block : graph.blocks) {
        const bool dense = block.kind == BlockKind::dense;
        const float n_in = dense ? static_cast<float>(block.n_src) : 1.0F;
        const float n_out = dense ? static_cast<float>(block.n_dst) : 1.0F;
        for (std::int64_t v = 0; v < block.n_dst; ++v) degree[2 * (block.dst_offset + v)] += n_in;
        for (std::int64_t u = 0; u < block.n_src; ++u) degree[2 * (block.src_offset + u) + 1] += n_out;
    }
}

// The layers' common parts of one graph.
class Pass {
  public:
    Pass(const Kernels& kernels, const PackedSizes& sizes, const WeightGraph& graph, Workspace& work)
        : kernels_(kernels), sizes_(sizes), graph_(graph), work_(work) {
        set_degrees(graph, work.degree);
    }

    void dense(const PanelMatrix& matrix, const float* x, std::int64_t x_stride, float* out, Then then,
               std::int64_t rows) const {
        kernels_.dense({.matrix = matrix.view(),
                        .x = x,
                        .x_stride = x_stride,
                        .rows = rows,
                        .out = out,
                        .out_stride = matrix.n_out(),
                        .then = then});
    }

    // LayerNorm of the nodes, without scale and shift, into the front of `seen`.
    void normalise() const {
        kernels_.normalise({.x = work_.nodes.data(),
                            .keeps = work_.keeps.data(),
                            .scale = nullptr,
                            .shift = nullptr,
                            .rows = graph_.n_nodes,
                            .width = sizes_.node,
                            .size = sizes_.size_v,
                            .out = work_.seen.data(),
                            .out_stride = sizes_.seen()});
    }

    // `edges` is [E][sizes.edge].
    void layer(const PackedLayer& layer, float* edges) const {
        const std::int64_t n = graph_.n_nodes;
        normalise();
        clear_aggregates();
        dense(layer.terms, work_.seen.data(), sizes_.seen(), work_.terms.data(), Then::store, n);
        kernels_.pass_messages[sizes_.edge_index]({.edge = layer.edge.view(),
                                                   .update = layer.update.view(),
                                                   .blocks = graph_.blocks.data(),
                                                   .n_blocks = static_cast<std::int64_t>(graph_.blocks.size()),
                                                   .n_nodes = n,
                                                   .edges = edges,
                                                   .terms = work_.terms.data(),
                                                   .aggregates = work_.seen.data() + sizes_.node,
                                                   .aggregate_row = sizes_.seen()});
        finish_aggregates();
        dense(layer.node_in, work_.seen.data(), sizes_.seen(), work_.hidden.data(), Then::scaled_silu, n);
        dense(layer.node_out, work_.hidden.data(), layer.node_in.n_out(), work_.nodes.data(), Then::add, n);
    }

    // As above, but what reads the edges then has their update inside (update()).
    void layer(const PackedOfficialLayer& layer, float* edges) const {
        const std::int64_t n = graph_.n_nodes, row = sizes_.seen();
        fill_seen();
        dense(layer.terms, work_.seen.data(), row, work_.terms.data(), Then::store, n);
        kernels_.pass_official[sizes_.edge_index]({.edge = layer.edge.view(),
                                                   .scale = layer.scale.data(),
                                                   .shift = layer.shift.data(),
                                                   .size = static_cast<float>(sizes_.size_e),
                                                   .blocks = graph_.blocks.data(),
                                                   .n_blocks = static_cast<std::int64_t>(graph_.blocks.size()),
                                                   .n_nodes = n,
                                                   .edges = edges,
                                                   .terms = work_.terms.data(),
                                                   .sums = work_.seen.data() + sizes_.node,
                                                   .sums_row = row});
        dense(layer.node_in, work_.seen.data(), row, work_.hidden.data(), Then::store, n);
        kernels_.normalise({.x = work_.hidden.data(),
                            .keeps = work_.keeps.data(),
                            .scale = layer.node_scale.data(),
                            .shift = layer.node_shift.data(),
                            .rows = n,
                            .width = sizes_.node,
                            .size = sizes_.size_v,
                            .out = work_.hidden.data(),
                            .out_stride = sizes_.node});
        dense(layer.residual, work_.seen.data(), row, work_.nodes.data(), Then::store, n);
        dense(layer.node_out, work_.hidden.data(), sizes_.node, work_.nodes.data(), Then::add, n);
    }

    // What a layer by itself leaves to do.
    void update(const PackedLayer&, float*) const {}
    void update(const PackedOfficialLayer& layer, float* edges) const {
        const AlignedFloats messages = copy_of(edges, graph_.n_edges * sizes_.edge);
        dense(layer.update, messages.data(), sizes_.edge, edges, Then::store, graph_.n_edges);
    }

  private:
    static AlignedFloats copy_of(const float* values, std::int64_t size) {
        AlignedFloats copy(size);
        std::copy_n(values, size, copy.data());
        return copy;
    }

    // For the official form: nodes, sums of 0, degrees.
    void fill_seen() const {
        for (std::int64_t v = 0; v <= graph_.n_nodes; ++v) {
            float* row = work_.seen.data() + v * sizes_.seen();
            std::fill_n(row, sizes_.seen_official(), 0.0F);
            if (v == graph_.n_nodes) return;
            std::copy_n(work_.nodes.data() + v * sizes_.node, sizes_.node, row);
            std::copy_n(work_.degree.data() + 2 * v, 2, row + sizes_.node + 2 * sizes_.edge);
        }
    }

    // Sums 0, minima infinite; also those of the row that fills up tiles.
    void clear_aggregates() const {
        float* row = work_.seen.data() + sizes_.node;
        for (std::int64_t v = 0; v <= graph_.n_nodes; ++v, row += sizes_.seen()) {
            for (std::int64_t side = 0; side < 2; ++side) {
                float* sum = row + 2 * side * sizes_.edge;
                std::fill_n(sum, sizes_.edge, 0.0F);
                std::fill_n(sum + sizes_.edge, sizes_.edge, std::numeric_limits<float>::infinity());
            }
        }
    }

    // Sums become means; a node without edges on one side has zeros there.
    void finish_aggregates() const {
        float* row = work_.seen.data() + sizes_.node;
        for (std::int64_t v = 0; v < graph_.n_nodes; ++v, row += sizes_.seen()) {
            for (std::int64_t side = 0; side < 2; ++side) {
                float* sum = row + 2 * side * sizes_.edge;
                const float degree = work_.degree[2 * v + side];
                const float scale = degree > 0.0F ? 1.0F / degree : 0.0F;
                for (std::int64_t i = 0; i < sizes_.edge; ++i) sum[i] *= scale;
                if (degree == 0.0F) std::fill_n(sum + sizes_.edge, sizes_.edge, 0.0F);
            }
        }
    }

    const Kernels& kernels_;
    const PackedSizes& sizes_;
    const WeightGraph& graph_;
    Workspace& work_;
};

void embed(const Kernels& kernels, const Pass& pass, const PackedNetwork& network, const Model& model,
           Workspace& work) {
    const std::int64_t n = model.graph.n_nodes, d_v = network.sizes.node, d_e = network.sizes.edge;
    AlignedFloats budget(kEmbed), at_node(d_v), at_edge(kEmbed);
    pass.dense(network.condition_in, model.condition, kConditionSize, budget.data(), Then::scaled_silu, 1);
    pass.dense(network.condition_node, budget.data(), kEmbed, at_node.data(), Then::store, 1);
    pass.dense(network.condition_edge, budget.data(), kEmbed, at_edge.data(), Then::store, 1);

    const Panels node_in = network.node_in.view();
    pass.dense(network.node_in, model.node_features, node_in.n_in, work.nodes.data(), Then::store, n);
    for (std::int64_t v = 0; v < n; ++v) {
        float* h = work.nodes.data() + v * d_v;
        const float* type = network.node_type.data() + model.node_type[v] * d_v;
        for (std::int64_t i = 0; i < d_v; ++i) h[i] += type[i] + at_node[i];
    }

    kernels.embed_edges[network.sizes.edge_index]({.in = network.edge_in.view(),
                                                   .out = network.edge_out.view(),
                                                   .hidden_bias = at_edge.data(),
                                                   .features = model.edge_features,
                                                   .n = model.n_weights,
                                                   .edges = work.edges.data()});
    for (std::int64_t k = model.n_weights; k < model.graph.n_edges; ++k) {
        std::copy_n(network.skip_edge.data(), d_e, work.edges.data() + k * d_e);
    }
}

void read_heads(const Kernels& kernels, const Pass& pass, const PackedNetwork& network, const Model& model,
                Workspace& work) {
    const std::int64_t n = model.graph.n_nodes, seen = network.sizes.seen();
    pass.normalise();
    pass.dense(network.head_terms, work.seen.data(), seen, work.terms.data(), Then::store, n);
    std::int64_t n_dense = 0;
    for (const Block& block : model.graph.blocks) n_dense += block.kind == BlockKind::dense ? 1 : 0;
    const Panels edge = network.head_edge.view();
    const std::int64_t last = edge.n_out / kPanel;
    float* const values[] = {model.score, model.relative, model.additive};
    EdgeHeads heads{.edge = edge,
                    .blocks = model.graph.blocks.data(),
                    .n_blocks = n_dense,
                    .n_nodes = n,
                    .edges = work.edges.data(),
                    .terms = work.terms.data(),
                    .outputs = {}};
    for (std::size_t o = 0; o < EdgeHeads::kOutputs; ++o) {
        if (o > 0 && !network.edits) continue;
        heads.outputs[o] = {.readout = network.readout[o].data(),
                            .first_panel = o == 0 ? 0 : network.score_panels,
                            .last_panel = o == 0 ? network.score_panels : last,
                            .bias = network.readout_bias[o],
                            .values = values[o]};
    }
    kernels.edge_heads[network.sizes.edge_index](heads);
    for (std::int64_t k = 0; k < model.n_weights; ++k) model.score[k] += network.saliency_gain * model.saliency[k];

    if (!network.edits) {
        std::fill_n(model.relative, model.n_weights, 0.0F);
        std::fill_n(model.additive, model.n_weights, 0.0F);
        std::fill_n(model.node, n * kNodeOutputs, 0.0F);
        return;
    }
    pass.dense(network.node_head, work.seen.data(), seen, work.hidden.data(), Then::store, n);
    for (std::int64_t v = 0; v < n; ++v) {
        std::copy_n(work.hidden.data() + v * network.node_head.n_out(), kNodeOutputs, model.node + v * kNodeOutputs);
    }
}

template <class Packed, class Layer>
void forward_layer(const Kernels& kernels, const WeightGraph& graph, const Layer& layer, const LayerStates& states,
                   Precision precision) {
    const PackedSizes sizes(layer.d_e, layer.d_v);
    Packed packed(layer, sizes);
    packed.add_pairs(precision);
    const bool is_padded = sizes.edge != layer.d_e;  // else the output itself is where the edges are updated
    Workspace work(sizes, graph.n_nodes, is_padded ? graph.n_edges : 0, packed.node_in.n_out(), 4 * sizes.edge);
    float* edges = is_padded ? work.edges.data() : states.edges_out;
    for (std::int64_t k = 0; k < graph.n_edges; ++k) {
        std::copy_n(states.edges + k * layer.d_e, layer.d_e, edges + k * sizes.edge);
    }
    for (std::int64_t v = 0; v < graph.n_nodes; ++v) {
        std::copy_n(states.nodes + v * layer.d_v, layer.d_v, work.nodes.data() + v * sizes.node);
    }
    const Pass pass(kernels, sizes, graph, work);
    pass.layer(packed, edges);
    pass.update(packed, edges);
    for (std::int64_t k = 0; is_padded && k < graph.n_edges; ++k) {
        std::copy_n(edges + k * sizes.edge, layer.d_e, states.edges_out + k * layer.d_e);
    }
    for (std::int64_t v = 0; v < graph.n_nodes; ++v) {
        std::copy_n(work.nodes.data() + v * sizes.node, layer.d_v, states.nodes_out + v * layer.d_v);
    }
}

}  // namespace

Workspace::Workspace(const PackedSizes& sizes, std::int64_t n_nodes, std::int64_t n_edges, std::int64_t hidden_width,
                     std::int64_t terms_width)
    : edges(n_edges * sizes.edge),
      nodes(n_nodes * sizes.node),
      seen((n_nodes + 1) * sizes.seen()),
      terms((n_nodes + 1) * terms_width),
      hidden(n_nodes * hidden_width),
      degree(2 * n_nodes),
      keeps(sizes.node) {
    std::fill_n(keeps.data(), sizes.size_v, 1.0F);
}

Workspace workspace_for(const PackedNetwork& network, std::int64_t n_nodes, std::int64_t n_edges) {
    std::int64_t hidden = std::max(kPanel, network.sizes.node);  // the node head's, the official node MLP's
    for (const PackedLayer& layer : network.shipped) hidden = std::max(hidden, layer.node_in.n_out());
    const std::int64_t terms = std::max(4 * network.sizes.edge, network.head_terms.n_out());
    return {network.sizes, n_nodes, n_edges, hidden, terms};
}

void forward(const Kernels& kernels, const PackedNetwork& network, const Model& model, Workspace& work) {
    const Pass pass(kernels, network.sizes, model.graph, work);
    embed(kernels, pass, network, model, work);
    for (const PackedLayer& layer : network.shipped) pass.layer(layer, work.edges.data());
    for (const PackedOfficialLayer& layer : network.official) pass.layer(layer, work.edges.data());
    read_heads(kernels, pass, network, model, work);
}

void shipped_forward(const Kernels& kernels, const WeightGraph& graph, const ShippedLayer& layer,
                     const LayerStates& states, Precision precision) {
    forward_layer<PackedLayer>(kernels, graph, layer, states, precision);
}

void official_forward(const Kernels& kernels, const WeightGraph& graph, const OfficialLayer& layer,
                      const LayerStates& states, Precision precision) {
    forward_layer<PackedOfficialLayer>(kernels, graph, layer, states, precision);
}

}  // namespace metaedit::fused
