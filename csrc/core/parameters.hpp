// A metanetwork's learned parameters by name and shape, in the order of export/weights.py (weight_shapes): the one list
// that every reader of them walks.
#pragma once

#include <stdexcept>
#include <string>

#include "core/extents.hpp"
#include "core/metanetwork.hpp"

namespace metaedit {

// The sizes of a network, as MetanetConfig has them.
struct MetanetSizes {
    std::string form;
    std::int64_t d_e, d_v, n_layers, head_hidden, n_edge_features, n_node_features, n_node_types;
    bool edits_parameters;
};

// Takes parameters by their names; `Source` has take_named(full name, shape).
template <class Source>
class ParameterReader {
  public:
    // Goes in front of the names from now on.
    void set_prefix(const std::string& prefix) { prefix_ = prefix; }

    Linear linear(const std::string& name, std::int64_t n_out, std::int64_t n_in, bool has_bias = true) {
        const float* weight = take(name + ".weight", {n_out, n_in});
        return {weight, has_bias ? take(name + ".bias", {n_out}) : nullptr, n_out, n_in};
    }

    LayerNorm norm(const std::string& name, std::int64_t size) {
        const float* scale = take(name + ".weight", {size});
        return {scale, take(name + ".bias", {size}), size};
    }

    const float* take(const std::string& name, const Extents& shape) {
        return static_cast<Source*>(this)->take_named(prefix_ + name, shape);
    }

  private:
    std::string prefix_;
};

template <class Reader>
ShippedLayer shipped_layer(Reader& p, std::int64_t d_e, std::int64_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .edge = p.linear("edge", d_e, d_e),
            .source = p.linear("source", d_e, d_v, false),
            .target = p.linear("target", d_e, d_v, false),
            .update = p.linear("update", d_e, d_e),
            .norm = p.norm("norm", d_v),
            .node_in = p.linear("node_in", 2 * d_v, d_v + 4 * d_e),
            .node_out = p.linear("node_out", d_v, 2 * d_v)};
}

template <class Reader>
OfficialLayer official_layer(Reader& p, std::int64_t d_e, std::int64_t d_v) {
    OfficialLayer layer{};
    layer.d_e = d_e;
    layer.d_v = d_v;
    const auto read = [&](const std::string& name, std::int64_t n_in, std::int64_t n_out, Linear& in, LayerNorm& norm,
                          Linear& out) {
        in = p.linear(name + "_in", d_e, n_in);
        norm = p.norm(name + "_norm", d_e);
        out = p.linear(name + "_out", n_out, d_e);
    };
    read("forward", d_e + d_v, d_v, layer.forward_in, layer.forward_norm, layer.forward_out);
    read("backward", d_e + d_v, d_v, layer.backward_in, layer.backward_norm, layer.backward_out);
    read("edge", d_e + 2 * d_v, d_e, layer.edge_in, layer.edge_norm, layer.edge_out);
    layer.node_in = p.linear("node_in", d_v, 3 * d_v);
    layer.node_norm = p.norm("node_norm", d_v);
    layer.node_out = p.linear("node_out", d_v, d_v);
    layer.residual = p.linear("residual", d_v, d_v);
    return layer;
}

template <class Reader>
EdgeHead edge_head(Reader& p, const std::string& name, const MetanetSizes& sizes, std::int64_t n_out) {
    return {.edge = p.linear(name + ".edge", sizes.head_hidden, sizes.d_e),
            .source = p.linear(name + ".source", sizes.head_hidden, sizes.d_v, false),
            .target = p.linear(name + ".target", sizes.head_hidden, sizes.d_v, false),
            .out = p.linear(name + ".out", n_out, sizes.head_hidden)};
}

// Throws std::invalid_argument for sizes that no network has.
inline void check(const MetanetSizes& sizes) {
    if (sizes.form != "shipped" && sizes.form != "official") {
        throw std::invalid_argument("form: expected 'shipped' or 'official', got '" + sizes.form + "'");
    }
    for (const std::int64_t size : {sizes.d_e, sizes.d_v, sizes.n_layers, sizes.head_hidden, sizes.n_edge_features,
                                    sizes.n_node_features, sizes.n_node_types}) {
        if (size < 1) throw std::invalid_argument("sizes: expected at least 1 each, got " + std::to_string(size));
    }
}

template <class Reader>
MetanetWeights network_weights(Reader& p, const MetanetSizes& sizes, float score_gain) {
    check(sizes);
    const std::int64_t d_e = sizes.d_e, d_v = sizes.d_v;
    MetanetWeights w{};
    w.d_e = d_e;
    w.d_v = d_v;
    w.n_edge_features = sizes.n_edge_features;
    w.n_node_features = sizes.n_node_features;
    w.n_node_types = sizes.n_node_types;
    w.score_gain = score_gain;
    w.condition_in = p.linear("condition_in", kEmbed, kConditionSize);
    w.condition_node = p.linear("condition_node", d_v, kEmbed);
    w.condition_edge = p.linear("condition_edge", kEmbed, kEmbed);
    w.edge_in = p.linear("edge_in", kEmbed, sizes.n_edge_features);
    w.edge_out = p.linear("edge_out", d_e, kEmbed);
    w.skip_edge = p.take("skip_edge", {d_e});
    w.node_in = p.linear("node_in", d_v, sizes.n_node_features);
    w.node_type = p.take("node_type.weight", {sizes.n_node_types, d_v});
    for (std::int64_t i = 0; i < sizes.n_layers; ++i) {
        p.set_prefix("layers." + std::to_string(i) + ".");
        if (sizes.form == "shipped") {
            w.shipped.push_back(shipped_layer(p, d_e, d_v));
        } else {
            w.official.push_back(official_layer(p, d_e, d_v));
        }
    }
    p.set_prefix("");
    w.final_norm = p.norm("final_norm", d_v);
    w.score_head = edge_head(p, "score_head", sizes, 1);
    w.saliency_gain = p.take("saliency_gain", {});
    if (sizes.edits_parameters) {
        const EdgeHead head = edge_head(p, "edit_head", sizes, 2);
        w.edits = {.head = head, .node_head = p.linear("node_head", kNodeOutputs, d_v)};
    }
    p.expect_no_more();
    return w;
}

}  // namespace metaedit
