// The whole network in the order in which Metanetwork.forward states it, for every form and size.

#include "core/metanetwork.hpp"

#include "cpu/serial/plain_math.hpp"
#include "cpu/serial/tiles.hpp"

namespace metaedit::serial {
namespace {

struct States {
    Floats nodes, edges;
};

States embed(const MetanetWeights& w, const Model& model) {
    const std::int64_t n = model.graph.n_nodes, n_weights = model.n_weights;
    Floats budget = apply(w.condition_in, model.condition, 1);
    silu(budget.data(), kEmbed);
    const Floats at_node = apply(w.condition_node, budget.data(), 1);
    const Floats at_edge = apply(w.condition_edge, budget.data(), 1);

    Floats nodes = apply(w.node_in, model.node_features, n);
    for (std::int64_t v = 0; v < n; ++v) {
        add(row(nodes, v, w.d_v), w.node_type + model.node_type[v] * w.d_v, w.d_v);
        add(row(nodes, v, w.d_v), at_node.data(), w.d_v);
    }

    Floats edges = matrix(model.graph.n_edges, w.d_e);
    const Weight in(w.edge_in), out(w.edge_out);
    Floats hidden = matrix(kTileEdges, kEmbed);
    for (std::int64_t first = 0; first < n_weights; first += kTileEdges) {
        const std::int64_t size = std::min(kTileEdges, n_weights - first);
        set_rows(hidden.data(), size, kEmbed, w.edge_in.bias);
        in.add_product(model.edge_features + first * w.n_edge_features, size, hidden.data());
        for (std::int64_t k = 0; k < size; ++k) add(row(hidden, k, kEmbed), at_edge.data(), kEmbed);
        silu(hidden.data(), size * kEmbed);
        set_rows(row(edges, first, w.d_e), size, w.d_e, w.edge_out.bias);
        out.add_product(hidden.data(), size, row(edges, first, w.d_e));
    }
    for (std::int64_t k = n_weights; k < model.graph.n_edges; ++k)
        std::copy_n(w.skip_edge, w.d_e, row(edges, k, w.d_e));
    return {std::move(nodes), std::move(edges)};
}

// values[o][k] = output o of the head at weight k.
void read_head(const EdgeHead& head, const Model& model, const States& states, float* const* values) {
    const std::int64_t hidden = head.edge.n_out, n_out = head.out.n_out;
    const Floats at_source = apply(head.source, states.nodes.data(), model.graph.n_nodes);
    const Floats at_target = apply(head.target, states.nodes.data(), model.graph.n_nodes);
    const Weight edge(head.edge), out(head.out);
    Floats inner = matrix(kTileEdges, hidden), found = matrix(kTileEdges, n_out);
    for_each_tile(model.graph, [&](const Tile& tile) {
        if (tile.first_edge >= model.n_weights) return;  // identity edges have no weight
        set_rows(inner.data(), tile.size, hidden, head.edge.bias);
        edge.add_product(row(states.edges, tile.first_edge, head.edge.n_in), tile.size, inner.data());
        for (std::int64_t k = 0; k < tile.size; ++k) {
            add(row(inner, k, hidden), row(at_source, tile.source[k], hidden), hidden);
            add(row(inner, k, hidden), row(at_target, tile.target[k], hidden), hidden);
        }
        silu(inner.data(), tile.size * hidden);
        set_rows(found.data(), tile.size, n_out, head.out.bias);
        out.add_product(inner.data(), tile.size, found.data());
        for (std::int64_t k = 0; k < tile.size; ++k) {
            for (std::int64_t o = 0; o < n_out; ++o) values[o][tile.first_edge + k] = row(found, k, n_out)[o];
        }
    });
}

}  // namespace

void metanetwork_forward(const MetanetWeights& w, const Model& model) {
    const std::int64_t n = model.graph.n_nodes;
    States now = embed(w, model);
    States next{matrix(n, w.d_v), matrix(model.graph.n_edges, w.d_e)};
    const auto step = [&](auto* forward, const auto& layer) {
        forward(model.graph, layer, {now.nodes.data(), now.edges.data(), next.nodes.data(), next.edges.data()});
        std::swap(now, next);
    };
    for (const ShippedLayer& layer : w.shipped) step(&shipped_forward, layer);
    for (const OfficialLayer& layer : w.official) step(&official_forward, layer);

    normalise(w.final_norm, now.nodes.data(), n, now.nodes.data());
    read_head(w.score_head, model, now, &model.score);
    for (std::int64_t k = 0; k < model.n_weights; ++k) {
        model.score[k] = w.score_gain * model.score[k] + *w.saliency_gain * model.saliency[k];
    }
    if (!w.edits) {
        std::fill_n(model.relative, model.n_weights, 0.0F);
        std::fill_n(model.additive, model.n_weights, 0.0F);
        std::fill_n(model.node, n * kNodeOutputs, 0.0F);
        return;
    }
    float* const values[] = {model.relative, model.additive};
    read_head(w.edits->head, model, now, values);
    const Floats node = apply(w.edits->node_head, now.nodes.data(), n);
    std::copy(node.begin(), node.end(), model.node);
}

}  // namespace metaedit::serial
