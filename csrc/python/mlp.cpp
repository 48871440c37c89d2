// MlpShape, PanelRows and what runs on them.

#include "python/mlp.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "python/runs.hpp"

namespace metaedit::python {
namespace {

using LayerTuple = std::tuple<std::int64_t, std::int64_t, float, bool, float>;
using SkipTuple = std::pair<std::int64_t, std::int64_t>;

MlpShape make_shape(std::int64_t n_inputs, const std::vector<LayerTuple>& layers, const std::vector<SkipTuple>& skips,
                    bool is_regressor) {
    std::vector<MlpLayerSizes> sizes;
    for (const auto& [width, activation, alpha, has_norm, epsilon] : layers) {
        sizes.push_back({width, activation, alpha, has_norm, epsilon});
    }
    std::vector<MlpSkip> joins;
    for (const auto& [source, target] : skips) joins.push_back({source, target});
    return mlp_shape(n_inputs, sizes, joins, is_regressor);
}

PanelRows make_rows(const py::object& x) {
    const py::array rows = expect_array<float>(x, "x", {kAny, kAny});
    if (rows.shape(1) < 1) throw py::value_error("x: expected at least one column");
    return PanelRows(floats(rows), rows.shape(0), rows.shape(1));
}

py::list logits(const py::sequence& models, bool log_probabilities, int num_threads,
                const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    const Runs runs(models, 3, false);
    std::vector<LogitsTask> tasks;
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const MlpShape& shape = *runs[i].shape;
        const std::int64_t n = log_probabilities ? shape.n_classes() : shape.n_outputs();
        py::array_t<float> out = poisoned({runs[i].rows->n_rows(), n});
        tasks.push_back({runs[i], log_probabilities, out.mutable_data()});
        found.append(out);
    }
    {
        const py::gil_scoped_release released;
        mlp_logits(tasks, level, num_threads);
    }
    return found;
}

py::list divergence(const py::sequence& models, int num_threads, const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    Runs runs(models, 4, true);
    std::vector<DivergenceTask> tasks;
    std::vector<double> values(runs.size(), std::numeric_limits<double>::quiet_NaN());
    std::vector<py::array_t<float>> gradients;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::string name = "models[" + std::to_string(i) + "].log_p";
        const py::array& log_p = runs.keep(
            expect_array<float>(runs.field(i, 3), name, {runs[i].rows->n_rows(), runs[i].shape->n_classes()}));
        gradients.push_back(poisoned({runs[i].shape->n_parameters}));
        tasks.push_back({runs[i], floats(log_p), &values[i], gradients[i].mutable_data()});
    }
    {
        const py::gil_scoped_release released;
        mlp_divergence(tasks, level, num_threads);
    }
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) found.append(py::make_tuple(values[i], gradients[i]));
    return found;
}

py::list gradient(const py::sequence& models, int num_threads, const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    Runs runs(models, 4, false);
    std::vector<GradientTask> tasks;
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::string name = "models[" + std::to_string(i) + "].at_outputs";
        const py::array& at_outputs = runs.keep(
            expect_array<float>(runs.field(i, 3), name, {runs[i].rows->n_rows(), runs[i].shape->n_outputs()}));
        py::array_t<float> out = poisoned({runs[i].shape->n_parameters});
        tasks.push_back({runs[i], floats(at_outputs), out.mutable_data()});
        found.append(out);
    }
    {
        const py::gil_scoped_release released;
        mlp_gradient(tasks, level, num_threads);
    }
    return found;
}

std::int64_t n_linear_of(const MlpShape& shape) {
    std::int64_t n = 0;
    for (const MlpLayer& layer : shape.layers) n += layer.n_out;
    return n;
}

py::list moments(const py::sequence& models, int num_threads, const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    const Runs runs(models, 3, true);
    std::vector<MomentsTask> tasks;
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::int64_t n_neurons = runs[i].shape->n_inputs() + n_linear_of(*runs[i].shape);
        py::array_t<float> mean = poisoned({n_neurons}), deviation = poisoned({n_neurons});
        tasks.push_back({runs[i], mean.mutable_data(), deviation.mutable_data()});
        found.append(py::make_tuple(mean, deviation));
    }
    {
        const py::gil_scoped_release released;
        mlp_moments(tasks, level, num_threads);
    }
    return found;
}

py::list statistics(const py::sequence& models, int num_threads, const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    const Runs runs(models, 3, true);
    std::vector<StatisticsTask> tasks;
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::int64_t n_linear = n_linear_of(*runs[i].shape), n_neurons = runs[i].shape->n_inputs() + n_linear;
        py::array_t<float> mean = poisoned({n_neurons}), deviation = poisoned({n_neurons});
        py::array_t<float> gradient = poisoned({n_linear}), edge = poisoned({runs[i].shape->n_weights});
        tasks.push_back(
            {runs[i], mean.mutable_data(), deviation.mutable_data(), gradient.mutable_data(), edge.mutable_data()});
        found.append(py::make_tuple(mean, deviation, gradient, edge));
    }
    {
        const py::gil_scoped_release released;
        mlp_statistics(tasks, level, num_threads);
    }
    return found;
}

// The field `original` of a model of mlp_evaluate.
void set_original(Runs& runs, std::size_t i, const py::object& given, EvaluationTask& task) {
    const std::string name = "models[" + std::to_string(i) + "].original";
    if (py::isinstance<py::tuple>(given) && py::len(given) == 3) {
        task.original = original_of(runs, i, py::reinterpret_borrow<py::tuple>(given), 0, name);
        return;
    }
    if (!py::isinstance<PanelRows>(given)) {
        throw py::type_error(name + ": expected None, PanelRows or a tuple of 3, got " +
                             py::str(py::type::of(given)).cast<std::string>());
    }
    task.log_p = given.cast<const PanelRows*>();
    const Shape wanted{runs[i].rows->n_rows(), runs[i].shape->n_classes()};
    const Shape got{task.log_p->n_rows(), task.log_p->n_features()};
    if (got != wanted) throw py::value_error(name + ": expected shape " + text(wanted) + ", got " + text(got));
}

// Where the rows are counted; raises unless every count of every model falls into n_counts.
const std::int64_t* cells_of(Runs& runs, const py::object& cells, std::int64_t n_counts) {
    if (cells.is_none()) return nullptr;
    const py::array& array = runs.keep(expect_array<std::int64_t>(cells, "cells", {kAny}));
    const std::int64_t *begin = integers(array), *end = begin + array.size();
    std::int64_t n_classes = 1;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (runs[i].rows->n_rows() != array.size()) {
            throw py::value_error("cells: expected shape " + text({runs[i].rows->n_rows()}) + ", got " +
                                  text({array.size()}));
        }
        n_classes = std::max(n_classes, runs[i].shape->n_classes());
    }
    const auto bad =
        std::find_if(begin, end, [&](std::int64_t cell) { return cell < 0 || cell > n_counts - n_classes; });
    if (bad != end) {
        throw py::value_error("cells: expected 0 to n_counts - " + std::to_string(n_classes) + ", got " +
                              std::to_string(*bad));
    }
    return begin;
}

py::tuple evaluate(const py::sequence& models, const py::object& cells, std::int64_t n_counts, int num_threads,
                   const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    if (n_counts < 0) throw py::value_error("n_counts: expected 0 or more, got " + std::to_string(n_counts));
    Runs runs(models, 4, true);
    const std::int64_t* places = cells_of(runs, cells, n_counts);
    const auto n_models = static_cast<py::ssize_t>(runs.size());
    py::array_t<double> divergences(n_models);
    std::fill_n(divergences.mutable_data(), n_models, std::numeric_limits<double>::quiet_NaN());
    py::array_t<std::int64_t> counts(Shape{n_models, places == nullptr ? 0 : n_counts});
    std::vector<EvaluationTask> tasks;
    tasks.reserve(runs.size());
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const auto at = static_cast<py::ssize_t>(i);
        const auto original = py::reinterpret_borrow<py::object>(runs.field(i, 3));
        EvaluationTask task{.run = runs[i],
                            .log_p = nullptr,
                            .original = {},
                            .divergence = original.is_none() ? nullptr : divergences.mutable_data(at),
                            .cells = places,
                            .counts = places == nullptr ? nullptr : counts.mutable_data() + at * n_counts,
                            .n_counts = n_counts};
        if (!original.is_none()) set_original(runs, i, original, task);
        tasks.push_back(task);
    }
    {
        const py::gil_scoped_release released;
        mlp_evaluate(tasks, level, num_threads);
    }
    return py::make_tuple(divergences, counts);
}

constexpr const char* kShapeDoc =
    "An architecture for the kernels: layers are tuples (width, index into ACTIVATIONS, alpha, layer norm or not,\n"
    "epsilon), skips pairs of neuron layers (source, target). Raises ValueError for a width, activation or skip out\n"
    "of range.";
constexpr const char* kRowsDoc =
    "A copy of float32 rows [rows, features] in the order in which the kernels read them; use it for any number of\n"
    "models, from any number of threads.";
constexpr const char* kLogitsDoc =
    "Logits [rows, outputs], or log-probabilities [rows, classes], of each model (MlpShape, θ float32, PanelRows).";
constexpr const char* kDivergenceDoc =
    "(mean JSD to log_p in nats, its gradient [parameters]) of each model (MlpShape, θ, PanelRows, log_p float32\n"
    "[rows, classes]). Raises ValueError for no rows.";
constexpr const char* kGradientDoc =
    "The gradient [parameters] of each model (MlpShape, θ, PanelRows, at_outputs float32 [rows, outputs]): that of a\n"
    "function of its outputs, whose own gradient in these is at_outputs.";
constexpr const char* kMomentsDoc =
    "(mean [neurons], std [neurons]) of each model (MlpShape, θ, PanelRows): the first two of mlp_statistics, to the\n"
    "bit, in a forward pass alone. Raises ValueError for no rows.";
constexpr const char* kStatisticsDoc =
    "(mean [neurons], std [neurons], E[g²] [linear outputs], E[a² g²] [weights]) of each model (MlpShape, θ,\n"
    "PanelRows); see metaedit_fast.models.statistics. Raises ValueError for no rows.";
constexpr const char* kEvaluateDoc =
    "(mean JSD in nats [models], counts int64 [models, n_counts]) of models (MlpShape, θ, PanelRows, original); an\n"
    "original is another (MlpShape, θ, PanelRows), the PanelRows of its log-probabilities, or None, which gives NaN.\n"
    "A row is counted at cells[row] (int64) plus the class that is predicted for it; without cells there are no\n"
    "counts. Raises ValueError for no rows, other shapes, or cells beyond n_counts.";

}  // namespace

void bind_mlp(py::module_& m) {
    py::class_<MlpShape>(m, "MlpShape", kShapeDoc)
        .def(py::init(&make_shape), py::arg("n_inputs"), py::arg("layers"), py::arg("skips"), py::kw_only(),
             py::arg("is_regressor"));
    py::class_<PanelRows>(m, "PanelRows", kRowsDoc).def(py::init(&make_rows), py::arg("x"));
    m.def("mlp_logits", &logits, py::arg("models"), py::kw_only(), py::arg("log_probabilities"), py::arg("num_threads"),
          py::arg("isa") = py::none(), kLogitsDoc);
    m.def("mlp_divergence", &divergence, py::arg("models"), py::kw_only(), py::arg("num_threads"),
          py::arg("isa") = py::none(), kDivergenceDoc);
    m.def("mlp_gradient", &gradient, py::arg("models"), py::kw_only(), py::arg("num_threads"),
          py::arg("isa") = py::none(), kGradientDoc);
    m.def("mlp_moments", &moments, py::arg("models"), py::kw_only(), py::arg("num_threads"),
          py::arg("isa") = py::none(), kMomentsDoc);
    m.def("mlp_statistics", &statistics, py::arg("models"), py::kw_only(), py::arg("num_threads"),
          py::arg("isa") = py::none(), kStatisticsDoc);
    m.def("mlp_evaluate", &evaluate, py::arg("models"), py::kw_only(), py::arg("cells"), py::arg("n_counts"),
          py::arg("num_threads"), py::arg("isa") = py::none(), kEvaluateDoc);
}

}  // namespace metaedit::python
