// The reference kernel: the formulas of docs/method.md in the order in which they are written, one tile of
// edges at a time.
// Two rewritings, both exact: the first linear of an MLP over a concatenation is a part per edge plus a part
// per node, which is computed once a node; the second linear of a summed message is applied to the sum.

#include "core/message_passing.hpp"

#include "cpu/serial/plain_math.hpp"
#include "cpu/serial/tiles.hpp"

namespace metaedit::serial {
namespace {

enum class End { source, target };

// How many edges have each node at that end, [V].
Floats degrees(const WeightGraph& graph, End end) {
    Floats degree = matrix(graph.n_nodes, 1);
    for (const Block& block : graph.blocks) {
        const bool at_target = end == End::target;
        const std::int64_t n_near = at_target ? block.n_dst : block.n_src;
        const std::int64_t n_far = block.kind == BlockKind::identity ? 1 : (at_target ? block.n_src : block.n_dst);
        float* near = row(degree, at_target ? block.dst_offset : block.src_offset, 1);
        for (std::int64_t v = 0; v < n_near; ++v) near[v] += static_cast<float>(n_far);
    }
    return degree;
}

// Sum and maximum of messages at every node, [V][d] each.
class Aggregates {
  public:
    Aggregates(std::int64_t n_nodes, std::int64_t d)
        : d_(d), sum_(matrix(n_nodes, d)), max_(matrix(n_nodes, d, -std::numeric_limits<float>::infinity())) {}

    void take(std::int64_t node, const float* message) {
        add(row(sum_, node, d_), message, d_);
        float* max = row(max_, node, d_);
        for (std::int64_t i = 0; i < d_; ++i) {
            // A NaN stays, as in torch, instead of vanishing in a comparison.
            if (message[i] > max[i] || std::isnan(message[i])) max[i] = message[i];
        }
    }

    // Writes [mean, max], each d wide, of a node that took `degree` messages; zeros for none.
    void write(std::int64_t node, float degree, float* out) const {
        for (std::int64_t i = 0; i < d_; ++i) {
            out[i] = degree > 0.0F ? row(sum_, node, d_)[i] / degree : 0.0F;
            out[d_ + i] = degree > 0.0F ? row(max_, node, d_)[i] : 0.0F;
        }
    }

  private:
    std::int64_t d_;
    Floats sum_, max_;
};

}  // namespace

void shipped_forward(const WeightGraph& graph, const ShippedLayer& layer, const LayerStates& states) {
    const std::int64_t n = graph.n_nodes, d_e = layer.d_e, d_v = layer.d_v;
    Floats normed = matrix(n, d_v);
    normalise(layer.norm, states.nodes, n, normed.data());
    const Floats at_source = apply(layer.source, normed.data(), n);
    const Floats at_target = apply(layer.target, normed.data(), n);

    const Weight edge(layer.edge), update(layer.update);
    Aggregates incoming(n, d_e), outgoing(n, d_e);
    Floats q = matrix(kTileEdges, d_e);
    for_each_tile(graph, [&](const Tile& tile) {
        const float* e = states.edges + tile.first_edge * d_e;
        float* e_out = states.edges_out + tile.first_edge * d_e;
        set_rows(q.data(), tile.size, d_e, layer.edge.bias);
        edge.add_product(e, tile.size, q.data());
        for (std::int64_t k = 0; k < tile.size; ++k) {
            add(row(q, k, d_e), row(at_source, tile.source[k], d_e), d_e);
            add(row(q, k, d_e), row(at_target, tile.target[k], d_e), d_e);
        }
        silu(q.data(), tile.size * d_e);
        for (std::int64_t k = 0; k < tile.size; ++k) {
            incoming.take(tile.target[k], row(q, k, d_e));
            outgoing.take(tile.source[k], row(q, k, d_e));
        }
        set_rows(e_out, tile.size, d_e, layer.update.bias);
        update.add_product(q.data(), tile.size, e_out);
        add(e_out, e, tile.size * d_e);
    });

    const Floats in_degree = degrees(graph, End::target), out_degree = degrees(graph, End::source);
    const std::int64_t width = layer.node_in.n_in;
    Floats seen = matrix(n, width);
    for (std::int64_t v = 0; v < n; ++v) {
        float* at = std::copy_n(row(normed, v, d_v), d_v, row(seen, v, width));
        incoming.write(v, *row(in_degree, v, 1), at);
        outgoing.write(v, *row(out_degree, v, 1), at + 2 * d_e);
    }
    Floats hidden = apply(layer.node_in, seen.data(), n);
    silu(hidden.data(), n * layer.node_in.n_out);
    const Floats change = apply(layer.node_out, hidden.data(), n);
    std::copy_n(states.nodes, n * d_v, states.nodes_out);
    add(states.nodes_out, change.data(), n * d_v);
}

namespace {

// SiLU(LN(first linear)) of one of the official form's three MLPs, for the edges of a tile.
class OfficialMessage {
  public:
    OfficialMessage(const Linear& first, const LayerNorm& norm, std::int64_t d_e)
        : d_e_(d_e), edge_part_(first, 0, d_e), norm_(norm), values_(matrix(kTileEdges, d_e)) {}

    // at_source and at_target: the parts per node, [V][d_e]; null for an MLP that does not see that end.
    const Floats& compute(const Tile& tile, const float* edges, const float* at_source, const float* at_target) {
        set_rows(values_.data(), tile.size, d_e_, nullptr);
        edge_part_.add_product(edges + tile.first_edge * d_e_, tile.size, values_.data());
        for (std::int64_t k = 0; k < tile.size; ++k) {
            if (at_source != nullptr) add(row(values_, k, d_e_), at_source + tile.source[k] * d_e_, d_e_);
            if (at_target != nullptr) add(row(values_, k, d_e_), at_target + tile.target[k] * d_e_, d_e_);
        }
        normalise(norm_, values_.data(), tile.size, values_.data());
        silu(values_.data(), tile.size * d_e_);
        return values_;
    }

  private:
    std::int64_t d_e_;
    Weight edge_part_;
    LayerNorm norm_;
    Floats values_;
};

struct MessageSums {
    Floats received, returned;  // at each node from its sources and from its targets, [V][d_e]
};

// Writes the edges' new states and sums the messages, before the messages' second linear.
MessageSums official_edges(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states) {
    const std::int64_t n = graph.n_nodes, d_e = layer.d_e, d_v = layer.d_v;
    const float* h = states.nodes;
    const Floats forward_part = apply_part(layer.forward_in, d_e, d_v, h, n);
    const Floats backward_part = apply_part(layer.backward_in, d_e, d_v, h, n);
    const Floats source_part = apply_part(without_bias(layer.edge_in), d_e, d_v, h, n);
    const Floats target_part = apply_part(layer.edge_in, d_e + d_v, d_v, h, n);

    OfficialMessage forward(layer.forward_in, layer.forward_norm, d_e);
    OfficialMessage backward(layer.backward_in, layer.backward_norm, d_e);
    OfficialMessage edge(layer.edge_in, layer.edge_norm, d_e);
    const Weight edge_out(layer.edge_out);
    MessageSums sums{matrix(n, d_e), matrix(n, d_e)};
    for_each_tile(graph, [&](const Tile& tile) {
        const Floats& m_f = forward.compute(tile, states.edges, forward_part.data(), nullptr);
        const Floats& m_b = backward.compute(tile, states.edges, nullptr, backward_part.data());
        for (std::int64_t k = 0; k < tile.size; ++k) {
            add(row(sums.received, tile.target[k], d_e), row(m_f, k, d_e), d_e);
            add(row(sums.returned, tile.source[k], d_e), row(m_b, k, d_e), d_e);
        }
        const Floats& inner = edge.compute(tile, states.edges, source_part.data(), target_part.data());
        float* e_out = states.edges_out + tile.first_edge * d_e;
        set_rows(e_out, tile.size, d_e, layer.edge_out.bias);
        edge_out.add_product(inner.data(), tile.size, e_out);
    });
    return sums;
}

// A message's second linear applied to the sum over `degree` messages: its bias counts once for each.
Floats apply_to_sum(const Linear& second, const Floats& sum, const Floats& degree, std::int64_t n) {
    Floats y = apply(without_bias(second), sum.data(), n);
    for (std::int64_t v = 0; v < n; ++v) {
        float* at = row(y, v, second.n_out);
        for (std::int64_t i = 0; i < second.n_out; ++i) at[i] += second.bias[i] * *row(degree, v, 1);
    }
    return y;
}

}  // namespace

void official_forward(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states) {
    const std::int64_t n = graph.n_nodes, d_v = layer.d_v;
    const MessageSums sums = official_edges(graph, layer, states);
    const Floats received = apply_to_sum(layer.forward_out, sums.received, degrees(graph, End::target), n);
    const Floats returned = apply_to_sum(layer.backward_out, sums.returned, degrees(graph, End::source), n);

    Floats seen = matrix(n, 3 * d_v);
    for (std::int64_t v = 0; v < n; ++v) {
        float* at = std::copy_n(states.nodes + v * d_v, d_v, row(seen, v, 3 * d_v));
        at = std::copy_n(row(received, v, d_v), d_v, at);
        std::copy_n(row(returned, v, d_v), d_v, at);
    }
    Floats hidden = apply(layer.node_in, seen.data(), n);
    normalise(layer.node_norm, hidden.data(), n, hidden.data());
    silu(hidden.data(), n * d_v);
    const Floats update = apply(layer.node_out, hidden.data(), n);
    const Floats residual = apply(layer.residual, states.nodes, n);
    std::copy(update.begin(), update.end(), states.nodes_out);
    add(states.nodes_out, residual.data(), n * d_v);
}

}  // namespace metaedit::serial
