// PackedEditor and metanetwork_forward.

#include "python/metanetwork.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "core/packed_editor.hpp"
#include "python/parameters.hpp"

namespace metaedit::python {
namespace {

// The sizes of a network, as MetanetConfig has them.
struct Sizes {
    std::string form;
    py::ssize_t d_e, d_v, n_layers, head_hidden, n_edge_features, n_node_features, n_node_types;
    bool edits_parameters;
};

EdgeHead edge_head(Parameters& p, const std::string& name, const Sizes& sizes, py::ssize_t n_out) {
    return {.edge = p.linear(name + ".edge", sizes.head_hidden, sizes.d_e),
            .source = p.linear(name + ".source", sizes.head_hidden, sizes.d_v, false),
            .target = p.linear(name + ".target", sizes.head_hidden, sizes.d_v, false),
            .out = p.linear(name + ".out", n_out, sizes.head_hidden)};
}

MetanetWeights network_weights(Parameters& p, const Sizes& sizes, float score_gain) {
    const py::ssize_t d_e = sizes.d_e, d_v = sizes.d_v;
    MetanetWeights w{.d_e = d_e,
                     .d_v = d_v,
                     .n_edge_features = sizes.n_edge_features,
                     .n_node_features = sizes.n_node_features,
                     .n_node_types = sizes.n_node_types,
                     .condition_in = p.linear("condition_in", kEmbed, kConditionSize),
                     .condition_node = p.linear("condition_node", d_v, kEmbed),
                     .condition_edge = p.linear("condition_edge", kEmbed, kEmbed),
                     .edge_in = p.linear("edge_in", kEmbed, sizes.n_edge_features),
                     .edge_out = p.linear("edge_out", d_e, kEmbed),
                     .node_in = p.linear("node_in", d_v, sizes.n_node_features),
                     .skip_edge = p.take("skip_edge", {d_e}),
                     .node_type = p.take("node_type.weight", {sizes.n_node_types, d_v}),
                     .shipped = {},
                     .official = {},
                     .final_norm = p.norm("final_norm", d_v),
                     .score_head = edge_head(p, "score_head", sizes, 1),
                     .score_gain = score_gain,
                     .saliency_gain = *p.take("saliency_gain", {}),
                     .edits = {}};
    if (sizes.edits_parameters) {
        w.edits = {.head = edge_head(p, "edit_head", sizes, 2), .node_head = p.linear("node_head", kNodeOutputs, d_v)};
    }
    for (py::ssize_t i = 0; i < sizes.n_layers; ++i) {
        p.set_prefix("layers." + std::to_string(i) + ".");
        if (sizes.form == "shipped") {
            w.shipped.push_back(shipped_layer(p, d_e, d_v));
        } else {
            w.official.push_back(official_layer(p, d_e, d_v));
        }
    }
    p.expect_no_more();
    return w;
}

std::unique_ptr<PackedEditor> pack(const py::dict& values, const Sizes& sizes, float score_gain) {
    if (sizes.form != "shipped" && sizes.form != "official") {
        throw py::value_error("form: expected 'shipped' or 'official', got '" + sizes.form + "'");
    }
    for (const py::ssize_t size : {sizes.d_e, sizes.d_v, sizes.n_layers, sizes.head_hidden, sizes.n_edge_features,
                                   sizes.n_node_features, sizes.n_node_types}) {
        if (size < 1) throw py::value_error("sizes: expected at least 1 each, got " + std::to_string(size));
    }
    std::vector<std::vector<float>> storage;
    Parameters parameters(values, &storage);
    MetanetWeights weights = network_weights(parameters, sizes, score_gain);
    return std::make_unique<PackedEditor>(std::move(weights), std::move(storage));
}

// ---- The batch ----

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

// The arrays of a call, kept alive, and the models that point into them.
class Batch {
  public:
    Batch(const MetanetWeights& weights, const py::object& blocks, const py::object& block_model,
          const py::object& node_offsets, const py::sequence& features, const py::object& condition)
        : weights_(weights) {
        const std::vector<Block> table = copy_blocks(expect_array<std::int64_t>(blocks, "blocks", {kAny, 6}));
        const auto n_blocks = static_cast<py::ssize_t>(table.size());
        const auto n_models = static_cast<py::ssize_t>(py::len(features));
        const std::int64_t* owner = integers(expect_array<std::int64_t>(block_model, "block_model", {n_blocks}));
        offsets_ = expect_array<std::int64_t>(node_offsets, "node_offsets", {n_models + 1});
        const std::int64_t* offsets = integers(offsets_);
        n_nodes_ = offsets[n_models];
        bool rises = offsets[0] == 0;
        for (py::ssize_t m = 0; m < n_models; ++m) rises = rises && offsets[m] <= offsets[m + 1];
        if (!rises) throw py::value_error("node_offsets: expected a rising sequence that begins with 0");
        check(WeightGraph{table, n_nodes_, count_edges(table)});
        const float* conditions = floats(keep(expect_array<float>(condition, "condition", {n_models, kConditionSize})));
        local_.emplace(table, owner, offsets, static_cast<std::size_t>(n_models));
        for (py::ssize_t m = 0; m < n_models; ++m) {
            add_model(static_cast<std::size_t>(m), offsets[m + 1] - offsets[m], features[static_cast<std::size_t>(m)],
                      conditions + m * kConditionSize);
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

  private:
    const py::array& keep(py::array array) {
        kept_.push_back(std::move(array));
        return kept_.back();
    }

    void add_model(std::size_t m, std::int64_t n_nodes, const py::handle& given, const float* condition) {
        const std::string name = "features[" + std::to_string(m) + "]";
        if (!py::isinstance<py::tuple>(given) || py::len(given) != 4) {
            throw py::type_error(name + ": expected a tuple (edge, node, node_type, saliency), got " +
                                 py::str(py::type::of(given)).cast<std::string>());
        }
        const auto arrays = py::reinterpret_borrow<py::tuple>(given);
        const std::int64_t n_weights = local_->n_weights[m];
        const float* edge =
            floats(keep(expect_array<float>(arrays[0], name + ".edge", {n_weights, weights_.n_edge_features})));
        const float* node =
            floats(keep(expect_array<float>(arrays[1], name + ".node", {n_nodes, weights_.n_node_features})));
        const std::int64_t* type =
            integers(keep(expect_array<std::int64_t>(arrays[2], name + ".node_type", {n_nodes})));
        const float* saliency = floats(keep(expect_array<float>(arrays[3], name + ".saliency", {n_weights})));
        for (std::int64_t v = 0; v < n_nodes; ++v) {
            if (type[v] < 0 || type[v] >= weights_.n_node_types) {
                throw py::value_error(name + ".node_type: expected 0 to " + std::to_string(weights_.n_node_types - 1) +
                                      ", got " + std::to_string(type[v]));
            }
        }
        models_.push_back({.graph = {local_->of_model[m], n_nodes, local_->n_edges[m]},
                           .n_weights = n_weights,
                           .edge_features = edge,
                           .saliency = saliency,
                           .node_features = node,
                           .node_type = type,
                           .condition = condition,
                           .score = nullptr,
                           .relative = nullptr,
                           .additive = nullptr,
                           .node = nullptr});
        n_weights_ += n_weights;
    }

    const MetanetWeights& weights_;
    py::array offsets_;
    std::vector<py::array> kept_;
    std::optional<LocalBlocks> local_;
    std::vector<Model> models_;
    std::int64_t n_nodes_ = 0, n_weights_ = 0;
};

py::tuple forward(const PackedEditor& editor, const py::object& blocks, const py::object& block_model,
                  const py::object& node_offsets, const py::sequence& features, const py::object& condition,
                  int num_threads, const std::optional<std::string>& isa, const std::string& precision,
                  const py::object& out) {
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    const Arithmetic arithmetic = arithmetic_of(precision, isa);
    Batch batch(editor.weights(), blocks, block_model, node_offsets, features, condition);
    py::tuple outputs = batch.set_outputs(out);
    {
        const py::gil_scoped_release released;
        metanetwork_forward(editor, batch.models(), arithmetic, num_threads);
    }
    return outputs;
}

constexpr const char* kPackDoc =
    "The parameters of a metanetwork, copied and laid out for the kernels; use it from any number of threads.\n\n"
    "parameters maps the names of Metanetwork.state_dict() to float32 arrays. Raises TypeError for a wrong type or\n"
    "dtype, ValueError for an unknown form, a wrong shape, or a name that is missing or unknown.";

constexpr const char* kArithmeticDoc =
    "The precision that metanetwork_forward runs where this one is asked for: the same, or \"float32\" where that is\n"
    "no slower or all there is. isa as there. Raises ValueError for an unknown precision or instruction set.";

constexpr const char* kForwardDoc =
    "The metanetwork's heads for a batch: (score [W], relative [W], additive [W], node [V, 3]), models one after\n"
    "the other, W their weights in all.\n\n"
    "blocks int64 [B, 6], block_model int64 [B] and node_offsets int64 [M + 1] are those of a WeightGraphBatch with\n"
    "order=\"model\"; features is a tuple (edge, node, node_type, saliency) for each model, as ModelFeatures has\n"
    "them; condition float32 [M, 4]. isa: an instruction set by name instead of the active one. precision: what the\n"
    "products may be rounded to, \"float32\", \"bf16x3\" or \"bf16\"; PackedEditor.arithmetic tells what runs. out:\n"
    "four arrays to write to instead of new ones. The bits of a model's result depend on the model, the editor and\n"
    "the arithmetic alone. Raises TypeError for a wrong type or dtype, ValueError for anything else that is wrong.";

}  // namespace

void bind_metanetwork(py::module_& m) {
    py::class_<PackedEditor>(m, "PackedEditor", kPackDoc)
        .def(py::init([](const py::dict& parameters, const std::string& form, py::ssize_t d_e, py::ssize_t d_v,
                         py::ssize_t n_layers, py::ssize_t head_hidden, py::ssize_t n_edge_features,
                         py::ssize_t n_node_features, py::ssize_t n_node_types, bool edits_parameters,
                         float score_gain) {
                 return pack(parameters,
                             {form, d_e, d_v, n_layers, head_hidden, n_edge_features, n_node_features, n_node_types,
                              edits_parameters},
                             score_gain);
             }),
             py::arg("parameters"), py::kw_only(), py::arg("form"), py::arg("d_e"), py::arg("d_v"), py::arg("n_layers"),
             py::arg("head_hidden"), py::arg("n_edge_features"), py::arg("n_node_features"), py::arg("n_node_types"),
             py::arg("edits_parameters"), py::arg("score_gain"))
        .def(
            "arithmetic",
            [](const PackedEditor& editor, const std::string& precision, const std::optional<std::string>& isa) {
                return std::string(name_of(editor.precision_of(arithmetic_of(precision, isa))));
            },
            py::arg("precision"), py::arg("isa") = py::none(), kArithmeticDoc);
    m.def("metanetwork_forward", &forward, py::arg("editor"), py::arg("blocks"), py::arg("block_model"),
          py::arg("node_offsets"), py::arg("features"), py::arg("condition"), py::kw_only(), py::arg("num_threads"),
          py::arg("isa") = py::none(), py::arg("precision") = "float32", py::arg("out") = py::none(), kForwardDoc);
}

}  // namespace metaedit::python
