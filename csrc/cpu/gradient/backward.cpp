// The way back. work_.nodes holds the gradient of the node states, work_.edges_gradient that of the edge states.

#include "cpu/gradient/network.hpp"

namespace metaedit::gradient {

using fused::Then;

void Pass::heads_backward(const HeadGradients& upstream) {
    const std::int64_t n = model_.graph.n_nodes, node = sizes_.node;
    const Rows rows = rows_of(n_layers());
    terms(layout_.head_terms, rows);
    clear(work_.terms_gradient, (n + 1) * layout_.head_terms.n_out);
    clear(work_.edges_gradient, model_.graph.n_edges * sizes_.edge);  // identity edges have no heads
    HeadsGradient op{.forward = heads_of(const_cast<float*>(upstream.score), const_cast<float*>(upstream.relative),
                                         const_cast<float*>(upstream.additive)),
                     .edge_back = network_.backward(layout_.head_edge),
                     .hidden = work_.head_rows.data(),
                     .gradient = work_.edges_gradient.data(),
                     .terms_gradient = work_.terms_gradient.data(),
                     .edge_values = gradients_ + layout_.head_edge.values,
                     .readouts = {}};
    for (std::int64_t o = 0; o < Heads::kOutputs; ++o) {
        op.readouts[o] = gradients_ + layout_.readout + o * layout_.hidden;
    }
    kernels_.heads_gradient[sizes_.edge_index](op);
    double of_scalars[4] = {};  // the biases of the readouts, the saliency's gain
    for (std::int64_t k = 0; k < model_.n_weights; ++k) {
        of_scalars[0] += double{upstream.score[k]};
        of_scalars[3] += double{upstream.score[k]} * double{model_.saliency[k]};
        if (!layout_.edits) continue;
        of_scalars[1] += double{upstream.relative[k]};
        of_scalars[2] += double{upstream.additive[k]};
    }
    for (std::int64_t i = 0; i < 4; ++i) gradients_[layout_.scalars + i] += static_cast<float>(of_scalars[i]);

    weight_gradient(layout_.head_terms, rows.seen, rows.stride, work_.terms_gradient.data(), n);
    dense(network_.backward(layout_.head_terms), work_.terms_gradient.data(), layout_.head_terms.n_out,
          work_.nodes.data(), node, Then::store, n);
    if (layout_.edits) {
        float* padded = work_.hidden.data();
        std::fill_n(padded, n * kPanel, 0.0F);
        for (std::int64_t v = 0; v < n; ++v) {
            std::copy_n(upstream.node + v * kNodeOutputs, kNodeOutputs, padded + v * kPanel);
        }
        weight_gradient(layout_.node_head, rows.seen, rows.stride, padded, n);
        dense(network_.backward(layout_.node_head), padded, kPanel, work_.nodes.data(), node, Then::add, n);
    }
    kernels_.normalise_gradient({.normed = rows.seen,
                                 .normed_stride = rows.stride,
                                 .inverse = rows.inverse(),
                                 .inverse_stride = rows.stride,
                                 .g = work_.nodes.data(),
                                 .g_stride = node,
                                 .keeps = work_.keeps.data(),
                                 .rows = n,
                                 .width = node,
                                 .size = sizes_.size_v,
                                 .out = work_.nodes.data(),
                                 .add = false});
}

void Pass::layer_backward(const FoldedShipped& layer, std::size_t index) {
    const std::int64_t n = model_.graph.n_nodes, node = sizes_.node, width = sizes_.edge;
    const std::int64_t inner = layer.node_in.n_out, seen = layer.node_in.n_in;
    const Rows rows = rows_of(index);
    dense(network_.backward(layer.node_out), work_.nodes.data(), node, work_.hidden_gradient.data(), inner, Then::store,
          n);
    kernels_.activate({rows.inner(), rows.stride, n, inner, work_.hidden.data(), work_.hidden_gradient.data()});
    weight_gradient(layer.node_out, work_.hidden.data(), inner, work_.nodes.data(), n);
    weight_gradient(layer.node_in, rows.seen, rows.stride, work_.hidden_gradient.data(), n);
    dense(network_.backward(layer.node_in), work_.hidden_gradient.data(), inner, work_.seen_gradient.data(), seen,
          Then::store, n);
    std::fill_n(work_.seen_gradient.data() + n * seen, seen, 0.0F);
    for (std::int64_t v = 0; v < n; ++v) {  // a mean's gradient becomes that of each message
        for (std::int64_t side = 0; side < 2; ++side) {
            float* mean = work_.seen_gradient.data() + v * seen + node + 2 * side * width;
            const float degree = work_.degree[2 * v + side];
            const float scale = degree > 0.0F ? 1.0F / degree : 0.0F;
            for (std::int64_t i = 0; i < width; ++i) mean[i] *= scale;
        }
    }
    terms(layer.terms, rows);
    clear(work_.terms_gradient, (n + 1) * layer.terms.n_out);
    kernels_.messages_gradient[sizes_.edge_index](
        {.edges = edges(static_cast<std::int64_t>(model_.graph.blocks.size())),
         .edge = network_.forward(layer.edge),
         .edge_back = network_.backward(layer.edge),
         .update_back = network_.backward(layer.update),
         .e = edge_states(index),
         .gradient = work_.edges_gradient.data(),
         .terms = work_.terms.data(),
         .aggregates = rows.seen + node,
         .aggregates_row = rows.stride,
         .aggregates_gradient = work_.seen_gradient.data() + node,
         .aggregates_gradient_row = seen,
         .terms_gradient = work_.terms_gradient.data(),
         .edge_values = gradients_ + layer.edge.values,
         .update_values = gradients_ + layer.update.values,
         .update_bias = gradients_ + layer.update.bias});
    weight_gradient(layer.terms, rows.seen, rows.stride, work_.terms_gradient.data(), n);
    dense(network_.backward(layer.terms), work_.terms_gradient.data(), layer.terms.n_out, work_.seen_gradient.data(),
          seen, Then::add, n);
    kernels_.normalise_gradient({.normed = rows.seen,
                                 .normed_stride = rows.stride,
                                 .inverse = rows.inverse(),
                                 .inverse_stride = rows.stride,
                                 .g = work_.seen_gradient.data(),
                                 .g_stride = seen,
                                 .keeps = work_.keeps.data(),
                                 .rows = n,
                                 .width = node,
                                 .size = sizes_.size_v,
                                 .out = work_.nodes.data(),
                                 .add = true});
}

void Pass::layer_backward(const FoldedOfficial& layer, std::size_t index) {
    const std::int64_t n = model_.graph.n_nodes, node = sizes_.node, seen = layer.node_in.n_in;
    const Rows rows = rows_of(index);
    float* const of_hidden = work_.hidden_gradient.data();
    dense(network_.backward(layer.node_out), work_.nodes.data(), node, of_hidden, node, Then::store, n);
    kernels_.scaled_activate({.normed = rows.inner(),
                              .normed_stride = rows.stride,
                              .rows = n,
                              .width = node,
                              .scale = network_.vector(layer.node_scale),
                              .shift = network_.vector(layer.node_shift),
                              .out = work_.hidden.data(),
                              .gradient = of_hidden,
                              .scale_gradient = gradients_ + layer.node_scale,
                              .shift_gradient = gradients_ + layer.node_shift});
    weight_gradient(layer.node_out, work_.hidden.data(), node, work_.nodes.data(), n);
    weight_gradient(layer.residual, rows.seen, rows.stride, work_.nodes.data(), n);
    kernels_.normalise_gradient({.normed = rows.inner(),
                                 .normed_stride = rows.stride,
                                 .inverse = rows.inverse(),
                                 .inverse_stride = rows.stride,
                                 .g = of_hidden,
                                 .g_stride = node,
                                 .keeps = work_.keeps.data(),
                                 .rows = n,
                                 .width = node,
                                 .size = sizes_.size_v,
                                 .out = of_hidden,
                                 .add = false});
    weight_gradient(layer.node_in, rows.seen, rows.stride, of_hidden, n);
    dense(network_.backward(layer.node_in), of_hidden, node, work_.seen_gradient.data(), seen, Then::store, n);
    std::fill_n(work_.seen_gradient.data() + n * seen, seen, 0.0F);
    terms(layer.terms, rows);
    clear(work_.terms_gradient, (n + 1) * layer.terms.n_out);
    const OfficialGradient op{.edges = edges(static_cast<std::int64_t>(model_.graph.blocks.size())),
                              .edge = network_.forward(layer.edge),
                              .edge_back = network_.backward(layer.edge),
                              .scale = network_.vector(layer.scale),
                              .shift = network_.vector(layer.shift),
                              .size = static_cast<float>(sizes_.size_e),
                              .a = edge_states(index),
                              .gradient = work_.edges_gradient.data(),
                              .terms = work_.terms.data(),
                              .sums_gradient = work_.seen_gradient.data() + node,
                              .sums_gradient_row = seen,
                              .terms_gradient = work_.terms_gradient.data(),
                              .edge_values = gradients_ + layer.edge.values,
                              .scale_gradient = gradients_ + layer.scale,
                              .shift_gradient = gradients_ + layer.shift};
    kernels_.official_gradient[sizes_.edge_index](op);
    weight_gradient(layer.terms, rows.seen, rows.stride, work_.terms_gradient.data(), n);
    // The node states were seen by the node MLP, the residual and the terms.
    dense(network_.backward(layer.residual), work_.nodes.data(), node, work_.seen_gradient.data(), seen, Then::add, n);
    dense(network_.backward(layer.terms), work_.terms_gradient.data(), layer.terms.n_out, work_.seen_gradient.data(),
          seen, Then::add, n);
    for (std::int64_t v = 0; v < n; ++v) {
        std::copy_n(work_.seen_gradient.data() + v * seen, node, work_.nodes.data() + v * node);
    }
}

void Pass::embed_backward() {
    const std::int64_t n = model_.graph.n_nodes, node = sizes_.node;
    const float* of_nodes = work_.nodes.data();
    weight_gradient(layout_.node_in, model_.node_features, layout_.n_node_features, of_nodes, n);
    AlignedFloats of_at_node(node), of_at_edge(kEmbed), hidden(kEmbed), of_hidden(kEmbed);
    for (std::int64_t v = 0; v < n; ++v) {
        float* of_type = gradients_ + layout_.node_type + model_.node_type[v] * node;
        for (std::int64_t i = 0; i < node; ++i) {
            of_type[i] += of_nodes[v * node + i];
            of_at_node[i] += of_nodes[v * node + i];
        }
    }
    float* const of_edges = work_.edges_gradient.data();
    kernels_.embed_gradient[sizes_.edge_index]({.forward = {.in = network_.forward(layout_.edge_in),
                                                            .out = network_.forward(layout_.edge_out),
                                                            .hidden_bias = at_edge_.data(),
                                                            .features = model_.edge_features,
                                                            .n = model_.n_weights,
                                                            .edges = of_edges},
                                                .out_back = network_.backward(layout_.edge_out),
                                                .in_values = gradients_ + layout_.edge_in.values,
                                                .hidden_bias = of_at_edge.data(),
                                                .out_values = gradients_ + layout_.edge_out.values,
                                                .out_bias = gradients_ + layout_.edge_out.bias});
    for (std::int64_t k = model_.n_weights; k < model_.graph.n_edges; ++k) {
        for (std::int64_t i = 0; i < sizes_.edge; ++i) {
            gradients_[layout_.skip_edge + i] += of_edges[k * sizes_.edge + i];
        }
    }
    dense(network_.backward(layout_.condition_node), of_at_node.data(), node, of_hidden.data(), kEmbed, Then::store, 1);
    dense(network_.backward(layout_.condition_edge), of_at_edge.data(), kEmbed, of_hidden.data(), kEmbed, Then::add, 1);
    kernels_.activate({budget_.data(), kEmbed, 1, kEmbed, hidden.data(), of_hidden.data()});
    weight_gradient(layout_.condition_node, hidden.data(), kEmbed, of_at_node.data(), 1);
    weight_gradient(layout_.condition_edge, hidden.data(), kEmbed, of_at_edge.data(), 1);
    weight_gradient(layout_.condition_in, model_.condition, kConditionSize, of_hidden.data(), 1);
}

void Pass::backward(const HeadGradients& upstream, float* gradients) {
    gradients_ = gradients;
    heads_backward(upstream);
    for (std::size_t l = layout_.shipped.size(); l-- > 0;) layer_backward(layout_.shipped[l], l);
    for (std::size_t l = layout_.official.size(); l-- > 0;) layer_backward(layout_.official[l], l);
    embed_backward();
}

}  // namespace metaedit::gradient
