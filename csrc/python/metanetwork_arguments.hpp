// What a call on the metanetwork is given by Python: a batch of models.
#pragma once

#include <numeric>
#include <optional>

#include "core/metanetwork.hpp"
#include "python/parameters.hpp"

namespace metaedit::python {

// Blocks of each model, counted from its own first node and edge.
struct LocalBlocks {
    std::vector<std::vector<Block>> of_model;
    std::vector<std::int64_t> n_weights, n_edges;

    LocalBlocks(const std::vector<Block>& blocks, const std::int64_t* owner, const std::int64_t* node_offsets,
                std::size_t n_models)
        : of_model(n_models), n_weights(n_models), n_edges(n_models) {
        for (std::size_t b = 0; b < blocks.size(); ++b) {
            const std::string where = "blocks[" + std::to_string(b) + "]: ";
            if (owner[b] < 0 || owner[b] >= static_cast<std::int64_t>(n_models) || (b > 0 && owner[b] < owner[b - 1])) {
                throw py::value_error(where + "expected the blocks of the " + std::to_string(n_models) +
                                      " models one model after the other (order=\"model\"), got model " +
                                      std::to_string(owner[b]));
            }
            const auto m = static_cast<std::size_t>(owner[b]);
            const std::int64_t first = node_offsets[m], last = node_offsets[m + 1];
            Block block = blocks[b];
            if (block.src_offset < first || block.src_offset + block.n_src > last || block.dst_offset < first ||
                block.dst_offset + block.n_dst > last) {
                throw py::value_error(where + "expected nodes of its model, " + std::to_string(first) + " to " +
                                      std::to_string(last - 1));
            }
            if (block.kind == BlockKind::dense && n_edges[m] > n_weights[m]) {
                throw py::value_error(where + "expected a model's dense blocks in front of its identity blocks");
            }
            block.src_offset -= first;
            block.dst_offset -= first;
            block.edge_offset = n_edges[m];
            of_model[m].push_back(block);
            n_edges[m] += block.n_edges();
            if (block.kind == BlockKind::dense) n_weights[m] += block.n_edges();
        }
    }
};

// Features of many models, one after the other.
struct JoinedFeatures {
    py::object edge, node, node_type, saliency;
};

// The arrays of a call, kept alive, and the models that point into them.
class MetanetBatch {
  public:
    // `features` holds a tuple (edge, node, node_type, saliency) for each model.
    MetanetBatch(const MetanetWeights& weights, const py::object& blocks, const py::object& block_model,
                 const py::object& node_offsets, const py::sequence& features, const py::object& condition)
        : MetanetBatch(weights, blocks, block_model, node_offsets, condition,
                       static_cast<py::ssize_t>(py::len(features))) {
        for (std::size_t m = 0; m < local_->of_model.size(); ++m) {
            const std::string name = "features[" + std::to_string(m) + "]";
            const py::object given = features[m];
            if (!py::isinstance<py::tuple>(given) || py::len(given) != 4) {
                throw py::type_error(name + ": expected a tuple (edge, node, node_type, saliency), got " +
                                     py::str(py::type::of(given)).cast<std::string>());
            }
            const auto arrays = py::reinterpret_borrow<py::tuple>(given);
            const FeatureArrays found = check_features({arrays[0], arrays[1], arrays[2], arrays[3]}, name + ".",
                                                       local_->n_weights[m], node_count(m));
            add_model(m, found);
        }
    }

    MetanetBatch(const MetanetWeights& weights, const py::object& blocks, const py::object& block_model,
                 const py::object& node_offsets, const JoinedFeatures& features, const py::object& condition)
        : MetanetBatch(weights, blocks, block_model, node_offsets, condition,
                       expect_array<float>(condition, "condition", {kAny, kConditionSize}).shape(0)) {
        const std::int64_t n_weights =
            std::accumulate(local_->n_weights.begin(), local_->n_weights.end(), std::int64_t{0});
        FeatureArrays next = check_features(features, "", n_weights, n_nodes_);
        for (std::size_t m = 0; m < local_->of_model.size(); ++m) {
            add_model(m, next);
            next.edge += local_->n_weights[m] * weights_.n_edge_features;
            next.saliency += local_->n_weights[m];
            next.node += node_count(m) * weights_.n_node_features;
            next.node_type += node_count(m);
        }
    }

    // Points the models to the outputs: the caller's, or new ones.
    py::tuple set_outputs(const py::object& given) {
        std::vector<py::array> outputs;
        const std::vector<Shape> shapes{{n_weights_}, {n_weights_}, {n_weights_}, {n_nodes_, kNodeOutputs}};
        if (!given.is_none() && (!py::isinstance<py::tuple>(given) || py::len(given) != shapes.size())) {
            throw py::type_error("out: expected a tuple (score, relative, additive, node) or None, got " +
                                 py::repr(given).cast<std::string>());
        }
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            if (given.is_none()) {
                outputs.emplace_back(py::array_t<float>(shapes[i]));
                continue;
            }
            const std::string name = "out[" + std::to_string(i) + "]";
            outputs.push_back(expect_array<float>(py::reinterpret_borrow<py::tuple>(given)[i], name, shapes[i]));
            for (const py::array& input : kept_) expect_apart(input, outputs[i], name.c_str());
            for (std::size_t other = 0; other < i; ++other) expect_apart(outputs[other], outputs[i], name.c_str());
        }
        float* values[4];
        for (std::size_t i = 0; i < 4; ++i) values[i] = static_cast<float*>(outputs[i].mutable_data());
        for (Model& model : models_) {
            model.score = values[0];
            model.relative = values[1];
            model.additive = values[2];
            model.node = values[3];
            for (std::size_t i = 0; i < 3; ++i) values[i] += model.n_weights;
            values[3] += model.graph.n_nodes * kNodeOutputs;
        }
        return py::make_tuple(outputs[0], outputs[1], outputs[2], outputs[3]);
    }

    std::span<const Model> models() const { return models_; }

    std::int64_t n_nodes() const { return n_nodes_; }
    std::int64_t n_edges() const {
        return std::accumulate(local_->n_edges.begin(), local_->n_edges.end(), std::int64_t{0});
    }

  private:
    struct FeatureArrays {
        const float *edge, *node, *saliency;
        const std::int64_t* node_type;
    };

    MetanetBatch(const MetanetWeights& weights, const py::object& blocks, const py::object& block_model,
                 const py::object& node_offsets, const py::object& condition, py::ssize_t n_models)
        : weights_(weights) {
        const std::vector<Block> table = copy_blocks(expect_array<std::int64_t>(blocks, "blocks", {kAny, 6}));
        const auto n_blocks = static_cast<py::ssize_t>(table.size());
        const std::int64_t* owner = integers(expect_array<std::int64_t>(block_model, "block_model", {n_blocks}));
        offsets_ = expect_array<std::int64_t>(node_offsets, "node_offsets", {n_models + 1});
        const std::int64_t* offsets = integers(offsets_);
        n_nodes_ = offsets[n_models];
        bool rises = offsets[0] == 0;
        for (py::ssize_t m = 0; m < n_models; ++m) rises = rises && offsets[m] <= offsets[m + 1];
        if (!rises) throw py::value_error("node_offsets: expected a rising sequence that begins with 0");
        check(WeightGraph{table, n_nodes_, count_edges(table)});
        conditions_ = floats(keep(expect_array<float>(condition, "condition", {n_models, kConditionSize})));
        local_.emplace(table, owner, offsets, static_cast<std::size_t>(n_models));
    }

    const py::array& keep(py::array array) {
        kept_.push_back(std::move(array));
        return kept_.back();
    }

    std::int64_t node_count(std::size_t m) const { return integers(offsets_)[m + 1] - integers(offsets_)[m]; }

    FeatureArrays check_features(const JoinedFeatures& given, const std::string& name, std::int64_t n_weights,
                                 std::int64_t n_nodes) {
        const FeatureArrays found{
            .edge = floats(keep(expect_array<float>(given.edge, name + "edge", {n_weights, weights_.n_edge_features}))),
            .node = floats(keep(expect_array<float>(given.node, name + "node", {n_nodes, weights_.n_node_features}))),
            .saliency = floats(keep(expect_array<float>(given.saliency, name + "saliency", {n_weights}))),
            .node_type = integers(keep(expect_array<std::int64_t>(given.node_type, name + "node_type", {n_nodes})))};
        for (std::int64_t v = 0; v < n_nodes; ++v) {
            if (found.node_type[v] < 0 || found.node_type[v] >= weights_.n_node_types) {
                throw py::value_error(name + "node_type: expected 0 to " + std::to_string(weights_.n_node_types - 1) +
                                      ", got " + std::to_string(found.node_type[v]));
            }
        }
        return found;
    }

    void add_model(std::size_t m, const FeatureArrays& features) {
        models_.push_back({.graph = {local_->of_model[m], node_count(m), local_->n_edges[m]},
                           .n_weights = local_->n_weights[m],
                           .edge_features = features.edge,
                           .saliency = features.saliency,
                           .node_features = features.node,
                           .node_type = features.node_type,
                           .condition = conditions_ + static_cast<std::int64_t>(m) * kConditionSize,
                           .score = nullptr,
                           .relative = nullptr,
                           .additive = nullptr,
                           .node = nullptr});
        n_weights_ += local_->n_weights[m];
    }

    const MetanetWeights& weights_;
    py::array offsets_;
    const float* conditions_ = nullptr;
    std::vector<py::array> kept_;
    std::optional<LocalBlocks> local_;
    std::vector<Model> models_;
    std::int64_t n_nodes_ = 0, n_weights_ = 0;
};

}  // namespace metaedit::python
