#include "cpu/fused/model.hpp"

#include "cpu/fused/pass.hpp"

namespace metaedit::fused {
namespace {

// Rows of nodes, or edges, that a thread of a team embeds at a time.
constexpr std::int64_t kNodesAtATime = 48, kEdgesAtATime = 2048;

void embed(const Kernels& kernels, const Pass& pass, const FoldedNetwork& network, const Model& model,
           Workspace& work) {
    const FoldedLayout& layout = network.layout();
    const std::int64_t n = model.graph.n_nodes, d_v = layout.sizes.node, d_e = layout.sizes.edge;
    AlignedFloats budget(kEmbed), at_node(d_v), at_edge(kEmbed);
    pass.dense(layout.condition_in, model.condition, kConditionSize, budget.data(), Then::scaled_silu, {0, 1});
    pass.dense(layout.condition_node, budget.data(), kEmbed, at_node.data(), Then::store, {0, 1});
    pass.dense(layout.condition_edge, budget.data(), kEmbed, at_edge.data(), Then::store, {0, 1});

    pass.share(n, kNodesAtATime, [&](Range nodes) {
        pass.dense(layout.node_in, model.node_features, layout.n_node_features, work.nodes.data(), Then::store, nodes);
        for (std::int64_t v = nodes.first; v < nodes.last; ++v) {
            float* h = work.nodes.data() + v * d_v;
            const float* type = network.vector(layout.node_type) + model.node_type[v] * d_v;
            for (std::int64_t i = 0; i < d_v; ++i) h[i] += type[i] + at_node[i];
        }
    });
    pass.share(model.n_weights, kEdgesAtATime, [&](Range edges) {
        const Panels in = network.forward(layout.edge_in);
        kernels.embed_edges[layout.sizes.edge_index]({.in = in,
                                                      .out = network.forward(layout.edge_out),
                                                      .hidden_bias = at_edge.data(),
                                                      .features = model.edge_features + edges.first * in.n_in,
                                                      .n = edges.size(),
                                                      .edges = work.edges.data() + edges.first * d_e});
    });
    for (std::int64_t k = model.n_weights; k < model.graph.n_edges; ++k) {
        std::copy_n(network.vector(layout.skip_edge), d_e, work.edges.data() + k * d_e);
    }
}

// With no edges yet.
EdgeHeads heads_of(const FoldedNetwork& network, Workspace& work, std::int64_t n_nodes, float* score, float* relative,
                   float* additive) {
    const FoldedLayout& layout = network.layout();
    const Panels edge = network.forward(layout.head_edge);
    const std::int64_t last = edge.n_out / kPanel;
    float* const values[] = {score, relative, additive};
    EdgeHeads heads{.edge = edge,
                    .size = layout.sizes.size_e,
                    .blocks = nullptr,
                    .n_blocks = 0,
                    .n_nodes = n_nodes,
                    .edges = work.edges.data(),
                    .terms = work.terms.data(),
                    .outputs = {},
                    .listed = {}};
    for (std::size_t o = 0; o < EdgeHeads::kOutputs; ++o) {
        if (o > 0 && !layout.edits) continue;
        heads.outputs[o] = {.readout = network.vector(layout.readout) + static_cast<std::int64_t>(o) * layout.hidden,
                            .first_panel = o == 0 ? 0 : layout.score_panels,
                            .last_panel = o == 0 ? layout.score_panels : last,
                            .bias = network.vector(layout.scalars)[o],
                            .values = values[o]};
    }
    return heads;
}

void read_heads(const Kernels& kernels, const Pass& pass, const FoldedNetwork& network, const Model& model,
                Workspace& work) {
    const FoldedLayout& layout = network.layout();
    const std::int64_t n = model.graph.n_nodes, seen = layout.sizes.seen();
    pass.share(n, kNodesAtATime, [&](Range nodes) {
        pass.normalise(nodes);
        pass.dense(layout.head_terms, work.seen.data(), seen, work.terms.data(), Then::store, nodes);
        if (!layout.edits) return;
        pass.dense(layout.node_head, work.seen.data(), seen, work.hidden.data(), Then::store, nodes);
        for (std::int64_t v = nodes.first; v < nodes.last; ++v) {
            const float* found = work.hidden.data() + v * layout.node_head.n_out;
            std::copy_n(found, kNodeOutputs, model.node + v * kNodeOutputs);
        }
    });
    const EdgeHeads heads = heads_of(network, work, n, model.score, model.relative, model.additive);
    pass.share_dense_blocks([&](const Block* blocks, std::int64_t n_blocks) {
        EdgeHeads some = heads;
        some.blocks = blocks;
        some.n_blocks = n_blocks;
        kernels.edge_heads[layout.sizes.edge_index](some);
    });
    const float saliency_gain = network.vector(layout.scalars)[3];
    for (std::int64_t k = 0; k < model.n_weights; ++k) model.score[k] += saliency_gain * model.saliency[k];
    if (layout.edits) return;
    if (model.relative != nullptr) {
        std::fill_n(model.relative, model.n_weights, 0.0F);
        std::fill_n(model.additive, model.n_weights, 0.0F);
    }
    std::fill_n(model.node, n * kNodeOutputs, 0.0F);
}

template <class Layer>
void run_layer(const Kernels& kernels, const WeightGraph& graph, const Layer& layer, const LayerStates& states,
               Precision precision) {
    const auto folded = fold(layer, precision);
    const StateSizes& sizes = folded.sizes;
    const bool is_padded = sizes.edge != layer.d_e;  // else the output itself is where the edges are updated
    Workspace work(sizes, graph.n_nodes, is_padded ? graph.n_edges : 0, folded.places.layer.node_in.n_out,
                   4 * sizes.edge);
    float* edges = is_padded ? work.edges.data() : states.edges_out;
    for (std::int64_t k = 0; k < graph.n_edges; ++k) {
        std::copy_n(states.edges + k * layer.d_e, layer.d_e, edges + k * sizes.edge);
    }
    for (std::int64_t v = 0; v < graph.n_nodes; ++v) {
        std::copy_n(states.nodes + v * layer.d_v, layer.d_v, work.nodes.data() + v * sizes.node);
    }
    const Pass pass(kernels, sizes, folded.values, graph, work, nullptr);
    pass.layer(folded.places.layer, edges);
    pass.update(folded.places, edges);
    for (std::int64_t k = 0; is_padded && k < graph.n_edges; ++k) {
        std::copy_n(edges + k * sizes.edge, layer.d_e, states.edges_out + k * layer.d_e);
    }
    for (std::int64_t v = 0; v < graph.n_nodes; ++v) {
        std::copy_n(work.nodes.data() + v * sizes.node, layer.d_v, states.nodes_out + v * layer.d_v);
    }
}

}  // namespace

Workspace::Workspace(const StateSizes& sizes, std::int64_t n_nodes, std::int64_t n_edges, std::int64_t hidden_width,
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

void Workspace::expect_partial(std::int64_t size) {
    if (partial.size() < size) partial = AlignedFloats(size);
}

Workspace workspace_for(const FoldedNetwork& network, std::int64_t n_nodes, std::int64_t n_edges) {
    const FoldedLayout& layout = network.layout();
    std::int64_t hidden = std::max(kPanel, layout.sizes.node);  // the node head's, the official node MLP's
    for (const FoldedShipped& layer : layout.shipped) hidden = std::max(hidden, layer.node_in.n_out);
    const std::int64_t terms = std::max(4 * layout.sizes.edge, layout.head_terms.n_out);
    return {layout.sizes, n_nodes, n_edges, hidden, terms};
}

void forward(const Kernels& kernels, const FoldedNetwork& network, const Model& model, Workspace& work, Team* team) {
    const Pass pass(kernels, network.layout().sizes, network.values(), model.graph, work, team);
    embed(kernels, pass, network, model, work);
    for (const FoldedShipped& layer : network.layout().shipped) pass.layer(layer, work.edges.data());
    for (const FoldedOfficial& layer : network.layout().official) pass.layer(layer, work.edges.data());
    read_heads(kernels, pass, network, model, work);
}

void read_edits(const Kernels& kernels, const FoldedNetwork& network, const EdgeList& list, Workspace& work,
                float* relative, float* additive, Team* team) {
    const FoldedLayout& layout = network.layout();
    if (!layout.edits) {
        std::fill_n(relative, list.n, 0.0F);
        std::fill_n(additive, list.n, 0.0F);
        return;
    }
    const auto read = [&](std::int64_t first, std::int64_t n) {
        EdgeHeads heads = heads_of(network, work, 0, nullptr, relative + first, additive + first);
        heads.listed = {list.edges + first, list.sources + first, list.targets + first, n};
        kernels.edge_heads[layout.sizes.edge_index](heads);
    };
    if (team == nullptr) return read(0, list.n);
    team->run(static_cast<std::size_t>((list.n + kEdgesAtATime - 1) / kEdgesAtATime), [&](std::size_t item) {
        const std::int64_t first = static_cast<std::int64_t>(item) * kEdgesAtATime;
        read(first, std::min(kEdgesAtATime, list.n - first));
    });
}

void layer_forward(const Kernels& kernels, const WeightGraph& graph, const ShippedLayer& layer,
                   const LayerStates& states, Precision precision) {
    run_layer(kernels, graph, layer, states, precision);
}

void layer_forward(const Kernels& kernels, const WeightGraph& graph, const OfficialLayer& layer,
                   const LayerStates& states, Precision precision) {
    run_layer(kernels, graph, layer, states, precision);
}

}  // namespace metaedit::fused
