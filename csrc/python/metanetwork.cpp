// PackedEditor and metanetwork_forward.

#include "python/metanetwork.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "core/packed_editor.hpp"
#include "python/metanetwork_arguments.hpp"

namespace metaedit::python {
namespace {

std::unique_ptr<PackedEditor> pack(const py::dict& values, const MetanetSizes& sizes, float score_gain) {
    std::vector<std::vector<float>> storage;
    Parameters parameters(values, &storage);
    MetanetWeights weights = network_weights(parameters, sizes, score_gain);
    return std::make_unique<PackedEditor>(std::move(weights), std::move(storage));
}

py::tuple forward(const PackedEditor& editor, const py::object& blocks, const py::object& block_model,
                  const py::object& node_offsets, const py::sequence& features, const py::object& condition,
                  int num_threads, const std::optional<std::string>& isa, const std::string& precision,
                  const py::object& out) {
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    const Arithmetic arithmetic = arithmetic_of(precision, isa);
    MetanetBatch batch(editor.weights(), blocks, block_model, node_offsets, features, condition);
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
