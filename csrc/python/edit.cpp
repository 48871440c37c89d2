// EditShape and edit_models.

#include "python/edit.hpp"

#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <utility>

#include "core/edit.hpp"
#include "core/packed_editor.hpp"
#include "python/parameters.hpp"

namespace metaedit::python {
namespace {

EditShape make_shape(const MlpShape& mlp, const std::vector<std::pair<bool, bool>>& owned) {
    if (owned.size() != mlp.layers.size()) {
        throw py::value_error("owned: expected a pair for each of " + std::to_string(mlp.layers.size()) +
                              " layers, got " + std::to_string(owned.size()));
    }
    std::vector<EditShape::Owned> of_layers;
    for (const auto& [bias, norm] : owned) of_layers.push_back({bias, norm});
    return {mlp, std::move(of_layers)};
}

template <class T>
py::array_t<T> filled(py::ssize_t size, T value) {
    py::array_t<T> array(size);
    std::fill_n(array.mutable_data(), size, value);
    return array;
}

// What one call edits: its arrays, kept alive, and the tasks that point into them.
class Batch {
  public:
    Batch(const PackedEditor& editor, const py::sequence& shapes, const py::object& theta,
          const py::object& theta_offsets, const py::object& condition, const py::object& gain, const py::object& kept,
          std::int64_t n_inputs, const py::object& probe)
        : n_models_(static_cast<py::ssize_t>(py::len(shapes))), n_inputs_(n_inputs) {
        const MetanetWeights& weights = editor.weights();
        n_classes_ = class_count(n_inputs, weights.n_node_types);
        if (n_inputs < 1 || n_classes_ < 1) {
            throw py::value_error("n_inputs: expected 1 to " + std::to_string(n_inputs + n_classes_ - 1) + ", got " +
                                  std::to_string(n_inputs));
        }
        const bool reads = !probe.is_none();
        if (weights.n_edge_features != edge_feature_count(reads) ||
            weights.n_node_features != node_feature_count(reads)) {
            throw py::value_error(std::string("probe: expected ") + (reads ? "None" : "rows") + " for an editor with " +
                                  std::to_string(weights.n_edge_features) + " edge and " +
                                  std::to_string(weights.n_node_features) + " node features");
        }
        theta_ = expect_array<float>(theta, "theta", {kAny});
        offsets_ = expect_array<std::int64_t>(theta_offsets, "theta_offsets", {n_models_ + 1});
        condition_ = expect_array<float>(condition, "condition", {n_models_, kConditionSize});
        gain_ = expect_array<float>(gain, "gain", {n_models_});
        kept_ = expect_array<std::int64_t>(kept, "kept", {n_models_});
        edited_ = filled(theta_.size(), std::numeric_limits<float>::quiet_NaN());
        status_.resize(static_cast<std::size_t>(n_models_));
        seconds_ = filled(n_models_, 0.0);
        std::int64_t next = 0;
        for (py::ssize_t m = 0; m < n_models_; ++m) add_model(m, shapes[static_cast<std::size_t>(m)], next);
        if (integers(offsets_)[n_models_] != next || theta_.size() != next) {
            throw py::value_error("theta: expected " + std::to_string(next) + " parameters, got " +
                                  std::to_string(theta_.size()));
        }
        if (reads) set_probe(probe);
    }

    py::object want_scores() {
        std::int64_t size = 0;
        for (const EditTask& task : tasks_) size += task.shape->mlp.n_weights;
        auto scores = filled(size, std::numeric_limits<float>::quiet_NaN());
        float* score = scores.mutable_data();
        for (EditTask& task : tasks_) {
            task.score = score;
            score += task.shape->mlp.n_weights;
        }
        return scores;
    }

    std::span<const EditTask> tasks() const { return tasks_; }
    const py::array_t<float>& edited() const { return edited_; }
    py::array_t<std::int64_t> status() const {
        py::array_t<std::int64_t> codes(n_models_);
        std::int64_t* code = codes.mutable_data();
        for (const EditStatus status : status_) *code++ = static_cast<std::int64_t>(status);
        return codes;
    }
    const py::array_t<double>& seconds() const { return seconds_; }

  private:
    // θ of the model begins at `next`, which moves behind it.
    void add_model(py::ssize_t m, const py::handle& given, std::int64_t& next) {
        const std::string which = "[" + std::to_string(m) + "]";
        const auto* shape = given.cast<const EditShape*>();
        if (shape == nullptr) throw py::type_error("shapes" + which + ": expected an EditShape, got None");
        expect_fitting(*shape, n_inputs_, n_classes_, "shapes" + which);
        if (integers(offsets_)[m] != next || shape->mlp.n_parameters > theta_.size() - next) {
            throw py::value_error("theta_offsets" + which + ": expected " + std::to_string(next) + " and " +
                                  std::to_string(shape->mlp.n_parameters) + " parameters from there on, got " +
                                  std::to_string(integers(offsets_)[m]));
        }
        const std::int64_t kept = integers(kept_)[m];
        if (kept < EditTask::kKeepAll || kept > shape->mlp.n_weights) {
            throw py::value_error("kept" + which + ": expected 0 to " + std::to_string(shape->mlp.n_weights) +
                                  ", or -1 for no mask, got " + std::to_string(kept));
        }
        shapes_.push_back(py::reinterpret_borrow<py::object>(given));
        tasks_.push_back({.shape = shape,
                          .theta = floats(theta_) + next,
                          .condition = floats(condition_) + m * kConditionSize,
                          .gain = floats(gain_)[m],
                          .kept = kept,
                          .probe = nullptr,
                          .statistics = nullptr,
                          .edited = edited_.mutable_data() + next,
                          .score = nullptr,
                          .status = &status_[static_cast<std::size_t>(m)],
                          .seconds = seconds_.mutable_data() + m});
        next += shape->mlp.n_parameters;
    }

    void set_probe(const py::object& probe) {
        const auto rows = probe.cast<py::sequence>();
        if (static_cast<py::ssize_t>(py::len(rows)) != n_models_) {
            throw py::value_error("probe: expected the rows of " + std::to_string(n_models_) + " models, got " +
                                  std::to_string(py::len(rows)));
        }
        for (std::size_t m = 0; m < tasks_.size(); ++m) {
            const py::object item = rows[m];
            const auto* panels = item.cast<const PanelRows*>();
            if (panels == nullptr || panels->n_features() != n_inputs_ || panels->n_rows() < 1) {
                throw py::value_error("probe[" + std::to_string(m) + "]: expected at least one row of " +
                                      std::to_string(n_inputs_) + " columns");
            }
            rows_.push_back(item);
            tasks_[m].probe = panels;
        }
    }

    py::ssize_t n_models_;
    std::int64_t n_inputs_, n_classes_;
    py::array theta_, offsets_, condition_, gain_, kept_;
    py::array_t<float> edited_;
    std::vector<EditStatus> status_;
    py::array_t<double> seconds_;
    std::vector<py::object> shapes_, rows_;
    std::vector<EditTask> tasks_;
};

py::tuple edit(const PackedEditor& editor, const py::sequence& shapes, const py::object& theta,
               const py::object& theta_offsets, const py::object& condition, const py::object& gain,
               const py::object& kept, std::int64_t n_inputs, const py::object& probe, bool scores, int num_threads,
               const std::optional<std::string>& isa, const std::string& precision) {
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    const Arithmetic arithmetic = arithmetic_of(precision, isa);
    Batch batch(editor, shapes, theta, theta_offsets, condition, gain, kept, n_inputs, probe);
    const py::object wanted = scores ? batch.want_scores() : py::none();
    {
        const py::gil_scoped_release released;
        edit_models(editor, n_inputs, batch.tasks(), arithmetic, num_threads);
    }
    return py::make_tuple(batch.edited(), wanted, batch.status(), batch.seconds());
}

py::tuple features(const EditShape& shape, const py::object& theta, std::int64_t n_node_types,
                   const py::object& statistics, const std::optional<std::string>& isa) {
    const Isa level = isa ? available_isa(*isa, "isa") : active_isa();
    const MlpShape& mlp = shape.mlp;
    expect_fitting(shape, mlp.n_inputs(), class_count(mlp.n_inputs(), n_node_types), "shape");
    const py::array parameters = expect_array<float>(theta, "theta", {mlp.n_parameters});
    const bool probe = !statistics.is_none();
    if (probe && (!py::isinstance<py::tuple>(statistics) || py::len(statistics) != 4)) {
        throw py::type_error("statistics: expected a tuple (mean, std, gradient, edge) or None, got " +
                             py::str(py::type::of(statistics)).cast<std::string>());
    }
    ProbeStatistics found{};
    std::vector<py::array> given;
    if (probe) {
        const std::int64_t sizes[] = {shape.n_nodes, shape.n_nodes, shape.n_nodes - mlp.n_inputs(), mlp.n_weights};
        for (std::size_t i = 0; i < 4; ++i) {
            const py::object item = py::reinterpret_borrow<py::tuple>(statistics)[i];
            given.push_back(expect_array<float>(item, "statistics[" + std::to_string(i) + "]", {sizes[i]}));
        }
        found = {floats(given[0]), floats(given[1]), floats(given[2]), floats(given[3])};
    }
    py::array_t<float> edge(Shape{mlp.n_weights, edge_feature_count(probe)});
    py::array_t<float> node(Shape{shape.n_nodes, node_feature_count(probe)});
    py::array_t<std::int64_t> node_type(shape.n_nodes);
    py::array_t<float> saliency(mlp.n_weights), rms(static_cast<py::ssize_t>(mlp.layers.size()));
    const FeatureArrays out{edge.mutable_data(), node.mutable_data(), node_type.mutable_data(), saliency.mutable_data(),
                            rms.mutable_data()};
    {
        const py::gil_scoped_release released;
        model_features(shape, n_node_types, floats(parameters), probe ? &found : nullptr, out, level);
    }
    return py::make_tuple(edge, node, node_type, saliency, rms);
}

constexpr const char* kShapeDoc =
    "An architecture for edit_models: an MlpShape, and a pair (bias, norm) for each layer that says whether the model\n"
    "owns these parameters, so that an edit may change them.";

constexpr const char* kFeaturesDoc =
    "The features of a model with parameters theta, float32 [n_parameters]: (edge, node, node_type, saliency) as\n"
    "ModelFeatures has them, and the rms of every layer's weights. n_node_types is the editor's. statistics is what\n"
    "mlp_statistics gave, exactly for editors that read a probe. isa: an instruction set by name instead of the\n"
    "active one. Raises TypeError for a wrong type or dtype, ValueError for anything else that is wrong.";

constexpr const char* kEditDoc =
    "A whole edit of a batch: (theta' [P], scores [W] or None, status int64 [M], seconds float64 [M]).\n\n"
    "shapes holds an EditShape a model; theta float32 [P] and theta_offsets int64 [M + 1] are those of a\n"
    "WeightGraphBatch; condition float32 [M, 4]; gain float32 [M], of the residual; kept int64 [M], how many weights\n"
    "of the highest score the mask keeps, or -1 for no mask; n_inputs of the editor's models; probe a PanelRows a\n"
    "model, exactly for editors with probe features. isa: an instruction set by name instead of the active one.\n"
    "precision: as for metanetwork_forward.\n"
    "status is 0 for an edited model; 1 where float32 cannot hold its features and 2 where a score is NaN: then its\n"
    "theta' is theta. seconds is the time that a thread worked on the model. The bits of a model's result depend on\n"
    "the model, the editor, the instruction set and the precision alone. Raises TypeError for a wrong type or dtype,\n"
    "ValueError for anything else that is wrong.";

}  // namespace

void bind_edit(py::module_& m) {
    py::class_<EditShape>(m, "EditShape", kShapeDoc).def(py::init(&make_shape), py::arg("mlp"), py::arg("owned"));
    m.def("model_features", &features, py::arg("shape"), py::arg("theta"), py::kw_only(), py::arg("n_node_types"),
          py::arg("statistics") = py::none(), py::arg("isa") = py::none(), kFeaturesDoc);
    m.def("edit_models", &edit, py::arg("editor"), py::arg("shapes"), py::arg("theta"), py::arg("theta_offsets"),
          py::arg("condition"), py::arg("gain"), py::arg("kept"), py::kw_only(), py::arg("n_inputs"), py::arg("probe"),
          py::arg("scores") = false, py::arg("num_threads"), py::arg("isa") = py::none(),
          py::arg("precision") = "float32", kEditDoc);
}

}  // namespace metaedit::python
