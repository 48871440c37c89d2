#include <limits>

#include "cpu/gradient/network.hpp"

namespace metaedit::gradient {

using fused::Then;

Workspace::Workspace(const FoldedLayout& layout, std::int64_t n_nodes, std::int64_t n_edges, bool backward)
    : keeps(layout.sizes.node), degree(2 * n_nodes), nodes(n_nodes * layout.sizes.node) {
    std::fill_n(keeps.data(), layout.sizes.size_v, 1.0F);
    std::int64_t widest_terms = layout.head_terms.n_out, widest = std::max(kPanel, layout.sizes.node), seen = 0;
    for (const FoldedShipped& layer : layout.shipped) {
        widest_terms = std::max(widest_terms, layer.terms.n_out);
        widest = std::max(widest, layer.node_in.n_out);
        seen = layer.node_in.n_in;
    }
    for (const FoldedOfficial& layer : layout.official) {
        widest_terms = std::max(widest_terms, layer.terms.n_out);
        seen = layer.node_in.n_in;
    }
    terms = AlignedFloats((n_nodes + 1) * widest_terms);
    hidden = AlignedFloats(n_nodes * widest);
    if (!backward) return;
    edges_gradient = AlignedFloats(n_edges * layout.sizes.edge);
    terms_gradient = AlignedFloats((n_nodes + 1) * widest_terms);
    hidden_gradient = AlignedFloats(n_nodes * widest);
    seen_gradient = AlignedFloats((n_nodes + 1) * seen);
    head_rows = AlignedFloats(kMaxChunk * layout.hidden);
}

Pass::Pass(const Kernels& kernels, const FoldedNetwork& network, const Model& model, const Tape& tape, Workspace& work)
    : kernels_(kernels),
      network_(network),
      layout_(network.layout()),
      sizes_(network.layout().sizes),
      model_(model),
      tape_(tape),
      work_(work),
      budget_(kEmbed),
      at_node_(sizes_.node),
      at_edge_(kEmbed) {
    count_degrees(model_.graph, work_.degree.data());
    AlignedFloats hidden(kEmbed);
    dense(network_.forward(layout_.condition_in), model_.condition, kConditionSize, budget_.data(), kEmbed, Then::store,
          1);
    kernels_.activate({budget_.data(), kEmbed, 1, kEmbed, hidden.data(), nullptr});
    dense(network_.forward(layout_.condition_node), hidden.data(), kEmbed, at_node_.data(), sizes_.node, Then::store,
          1);
    dense(network_.forward(layout_.condition_edge), hidden.data(), kEmbed, at_edge_.data(), kEmbed, Then::store, 1);
}

// ---- Places ----

std::size_t Pass::n_layers() const {
    return layout_.shipped.size() + layout_.official.size();
}

namespace {

const FoldedMatrix& node_in_of(const FoldedLayout& layout, std::size_t layer) {
    return layout.shipped.empty() ? layout.official[layer].node_in : layout.shipped[layer].node_in;
}

}  // namespace

Pass::Rows Pass::rows_of(std::size_t layer) const {
    std::int64_t offset = 0;
    for (std::size_t l = 0; l < layer; ++l) {
        const FoldedMatrix& node_in = node_in_of(layout_, l);
        offset += (model_.graph.n_nodes + 1) * (node_in.n_in + kPanel + node_in.n_out);
    }
    if (layer == n_layers()) return {tape_.nodes + offset, sizes_.node + kPanel, sizes_.node};
    const FoldedMatrix& node_in = node_in_of(layout_, layer);
    return {tape_.nodes + offset, node_in.n_in + kPanel + node_in.n_out, node_in.n_in};
}

float* Pass::edge_states(std::size_t layer) const {
    return tape_.edges + static_cast<std::int64_t>(layer) * model_.graph.n_edges * sizes_.edge;
}

Edges Pass::edges(std::int64_t n_blocks) const {
    return {model_.graph.blocks.data(), n_blocks, model_.graph.n_nodes};
}

std::int64_t Pass::n_dense_blocks() const {
    return std::count_if(model_.graph.blocks.begin(), model_.graph.blocks.end(),
                         [](const Block& block) { return block.kind == BlockKind::dense; });
}

void Pass::clear(AlignedFloats& values, std::int64_t size) const {
    std::fill_n(values.data(), size, 0.0F);
}

// ---- Products ----

void Pass::dense(const Panels& matrix, const float* x, std::int64_t x_stride, float* out, std::int64_t out_stride,
                 Then then, std::int64_t rows) const {
    kernels_.dense({.matrix = matrix,
                    .x = x,
                    .x_stride = x_stride,
                    .rows = rows,
                    .out = out,
                    .out_stride = out_stride,
                    .then = then});
}

void Pass::weight_gradient(const FoldedMatrix& matrix, const float* x, std::int64_t x_stride, const float* g,
                           std::int64_t rows) const {
    kernels_.weight_gradient({.x = x,
                              .x_stride = x_stride,
                              .n_in = matrix.n_in,
                              .g = g,
                              .g_stride = matrix.n_out,
                              .n_out = matrix.n_out,
                              .rows = rows,
                              .values = gradients_ + matrix.values,
                              .bias = gradients_ + matrix.bias});
}

void Pass::normalise(const Rows& to) {
    kernels_.normalise({.x = work_.nodes.data(),
                        .keeps = work_.keeps.data(),
                        .scale = nullptr,
                        .shift = nullptr,
                        .rows = model_.graph.n_nodes,
                        .width = sizes_.node,
                        .size = sizes_.size_v,
                        .out = to.seen,
                        .out_stride = to.stride,
                        .inverse = to.inverse(),
                        .inverse_stride = to.stride});
}

// Terms of every node, and zeros for what fills up tiles.
void Pass::terms(const FoldedMatrix& matrix, const Rows& from) {
    const std::int64_t n = model_.graph.n_nodes;
    dense(network_.forward(matrix), from.seen, from.stride, work_.terms.data(), matrix.n_out, Then::store, n);
    std::fill_n(work_.terms.data() + n * matrix.n_out, matrix.n_out, 0.0F);
}

// ---- Forward ----

void Pass::embed_nodes() {
    const std::int64_t n = model_.graph.n_nodes, width = sizes_.node;
    dense(network_.forward(layout_.node_in), model_.node_features, layout_.n_node_features, work_.nodes.data(), width,
          Then::store, n);
    for (std::int64_t v = 0; v < n; ++v) {
        float* h = work_.nodes.data() + v * width;
        const float* type = network_.vector(layout_.node_type) + model_.node_type[v] * width;
        for (std::int64_t i = 0; i < width; ++i) h[i] += type[i] + at_node_.data()[i];
    }
}

void Pass::embed_edges() {
    kernels_.embed[sizes_.edge_index]({.in = network_.forward(layout_.edge_in),
                                       .out = network_.forward(layout_.edge_out),
                                       .hidden_bias = at_edge_.data(),
                                       .features = model_.edge_features,
                                       .n = model_.n_weights,
                                       .edges = edge_states(0)});
    for (std::int64_t k = model_.n_weights; k < model_.graph.n_edges; ++k) {
        std::copy_n(network_.vector(layout_.skip_edge), sizes_.edge, edge_states(0) + k * sizes_.edge);
    }
}

void Pass::layer_forward(const FoldedShipped& layer, std::size_t index) {
    const std::int64_t n = model_.graph.n_nodes, width = sizes_.edge;
    const Rows rows = rows_of(index);
    normalise(rows);
    for (std::int64_t v = 0; v <= n; ++v) {
        for (std::int64_t side = 0; side < 2; ++side) {
            float* sum = rows.seen + v * rows.stride + sizes_.node + 2 * side * width;
            std::fill_n(sum, width, 0.0F);
            std::fill_n(sum + width, width, std::numeric_limits<float>::infinity());
        }
    }
    terms(layer.terms, rows);
    kernels_.messages[sizes_.edge_index]({.edges = edges(static_cast<std::int64_t>(model_.graph.blocks.size())),
                                          .edge = network_.forward(layer.edge),
                                          .update = network_.forward(layer.update),
                                          .e = edge_states(index),
                                          .e_out = edge_states(index + 1),
                                          .terms = work_.terms.data(),
                                          .aggregates = rows.seen + sizes_.node,
                                          .aggregates_row = rows.stride});
    for (std::int64_t v = 0; v < n; ++v) {  // sums become means; a node without edges on one side has zeros there
        for (std::int64_t side = 0; side < 2; ++side) {
            float* sum = rows.seen + v * rows.stride + sizes_.node + 2 * side * width;
            const float degree = work_.degree[2 * v + side];
            const float scale = degree > 0.0F ? 1.0F / degree : 0.0F;
            for (std::int64_t i = 0; i < width; ++i) sum[i] *= scale;
            if (degree == 0.0F) std::fill_n(sum + width, width, 0.0F);
        }
    }
    dense(network_.forward(layer.node_in), rows.seen, rows.stride, rows.inner(), rows.stride, Then::store, n);
    kernels_.activate({rows.inner(), rows.stride, n, layer.node_in.n_out, work_.hidden.data(), nullptr});
    dense(network_.forward(layer.node_out), work_.hidden.data(), layer.node_in.n_out, work_.nodes.data(), sizes_.node,
          Then::add, n);
}

void Pass::layer_forward(const FoldedOfficial& layer, std::size_t index) {
    const std::int64_t n = model_.graph.n_nodes, width = sizes_.edge, node = sizes_.node;
    const Rows rows = rows_of(index);
    for (std::int64_t v = 0; v <= n; ++v) {  // nodes, sums of 0, degrees
        float* row = rows.seen + v * rows.stride;
        std::fill_n(row, rows.n_in, 0.0F);
        if (v == n) break;
        std::copy_n(work_.nodes.data() + v * node, node, row);
        std::copy_n(work_.degree.data() + 2 * v, 2, row + node + 2 * width);
    }
    terms(layer.terms, rows);
    const Official op{.edges = edges(static_cast<std::int64_t>(model_.graph.blocks.size())),
                      .edge = network_.forward(layer.edge),
                      .scale = network_.vector(layer.scale),
                      .shift = network_.vector(layer.shift),
                      .size = static_cast<float>(sizes_.size_e),
                      .a = edge_states(index),
                      .a_out = edge_states(index + 1),
                      .terms = work_.terms.data(),
                      .sums = rows.seen + node,
                      .sums_row = rows.stride};
    kernels_.official[sizes_.edge_index](op);
    dense(network_.forward(layer.node_in), rows.seen, rows.stride, work_.hidden.data(), node, Then::store, n);
    kernels_.normalise({.x = work_.hidden.data(),
                        .keeps = work_.keeps.data(),
                        .scale = nullptr,
                        .shift = nullptr,
                        .rows = n,
                        .width = node,
                        .size = sizes_.size_v,
                        .out = rows.inner(),
                        .out_stride = rows.stride,
                        .inverse = rows.inverse(),
                        .inverse_stride = rows.stride});
    kernels_.scaled_activate({.normed = rows.inner(),
                              .normed_stride = rows.stride,
                              .rows = n,
                              .width = node,
                              .scale = network_.vector(layer.node_scale),
                              .shift = network_.vector(layer.node_shift),
                              .out = work_.hidden.data(),
                              .gradient = nullptr,
                              .scale_gradient = nullptr,
                              .shift_gradient = nullptr});
    dense(network_.forward(layer.residual), rows.seen, rows.stride, work_.nodes.data(), node, Then::store, n);
    dense(network_.forward(layer.node_out), work_.hidden.data(), node, work_.nodes.data(), node, Then::add, n);
}

Heads Pass::heads_of(float* score, float* relative, float* additive) const {
    float* const values[] = {score, relative, additive};
    const std::int64_t last = layout_.hidden / kPanel;
    Heads heads{.edges = edges(n_dense_blocks()),
                .edge = network_.forward(layout_.head_edge),
                .e = edge_states(n_layers()),
                .terms = work_.terms.data(),
                .outputs = {}};
    for (std::int64_t o = 0; o < Heads::kOutputs; ++o) {
        if (o > 0 && !layout_.edits) continue;
        heads.outputs[o] = {.readout = network_.vector(layout_.readout) + o * layout_.hidden,
                            .first_panel = o == 0 ? 0 : layout_.score_panels,
                            .last_panel = o == 0 ? layout_.score_panels : last,
                            .bias = network_.vector(layout_.scalars)[o],
                            .values = values[o]};
    }
    return heads;
}

void Pass::read_heads() {
    const std::int64_t n = model_.graph.n_nodes;
    const Rows rows = rows_of(n_layers());
    normalise(rows);
    terms(layout_.head_terms, rows);
    kernels_.heads[sizes_.edge_index](heads_of(model_.score, model_.relative, model_.additive));
    const float saliency_gain = network_.vector(layout_.scalars)[3];
    for (std::int64_t k = 0; k < model_.n_weights; ++k) model_.score[k] += saliency_gain * model_.saliency[k];
    if (!layout_.edits) {
        std::fill_n(model_.relative, model_.n_weights, 0.0F);
        std::fill_n(model_.additive, model_.n_weights, 0.0F);
        std::fill_n(model_.node, n * kNodeOutputs, 0.0F);
        return;
    }
    dense(network_.forward(layout_.node_head), rows.seen, rows.stride, work_.hidden.data(), kPanel, Then::store, n);
    for (std::int64_t v = 0; v < n; ++v) {
        std::copy_n(work_.hidden.data() + v * kPanel, kNodeOutputs, model_.node + v * kNodeOutputs);
    }
}

// What no kernel writes: behind 1 / standard deviation, and in rows of the node behind the last. An operator's
// outputs must be the same in every call, all of them.
void Pass::clear_tape() {
    const std::int64_t n = model_.graph.n_nodes;
    for (std::size_t layer = 0; layer <= n_layers(); ++layer) {
        const Rows rows = rows_of(layer);
        for (std::int64_t v = 0; v < n; ++v) std::fill_n(rows.inverse() + v * rows.stride, kPanel, 0.0F);
        std::fill_n(rows.seen + n * rows.stride, rows.stride, 0.0F);
    }
}

void Pass::forward() {
    clear_tape();
    embed_nodes();
    embed_edges();
    for (std::size_t l = 0; l < layout_.shipped.size(); ++l) layer_forward(layout_.shipped[l], l);
    for (std::size_t l = 0; l < layout_.official.size(); ++l) layer_forward(layout_.official[l], l);
    read_heads();
}

}  // namespace metaedit::gradient
