// MlpShape, PanelRows and what runs on them.

#include "python/mlp.hpp"

#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "core/mlp.hpp"
#include "python/arrays.hpp"

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

// The models of a call, and what keeps their memory alive.
class Runs {
  public:
    // `fields` is the number of entries of each tuple.
    Runs(const py::sequence& models, std::size_t fields, bool needs_rows) : models_(models) {
        for (std::size_t i = 0; i < models_.size(); ++i) {
            const std::string name = "models[" + std::to_string(i) + "]";
            const py::object given = models_[i];
            if (!py::isinstance<py::tuple>(given) || py::len(given) != fields) {
                throw py::type_error(name + ": expected a tuple of " + std::to_string(fields) + ", got " +
                                     py::str(py::type::of(given)).cast<std::string>());
            }
            const auto model = py::reinterpret_borrow<py::tuple>(given);
            kept_.push_back(model);
            const auto* shape = model[0].cast<const MlpShape*>();
            const auto* rows = model[2].cast<const PanelRows*>();
            if (shape == nullptr || rows == nullptr)
                throw py::type_error(name + ": expected a shape and rows, got None");
            const py::array theta = keep(expect_array<float>(model[1], name + ".theta", {shape->n_parameters}));
            if (rows->n_features() != shape->n_inputs()) {
                throw py::value_error(name + ".rows: expected " + std::to_string(shape->n_inputs()) + " columns, got " +
                                      std::to_string(rows->n_features()));
            }
            if (needs_rows && rows->n_rows() == 0) throw py::value_error("x: expected at least one row, got none");
            runs_.push_back({shape, floats(theta), rows});
        }
    }

    std::size_t size() const { return runs_.size(); }
    const MlpRun& operator[](std::size_t i) const { return runs_[i]; }
    const py::tuple& fields(std::size_t i) const { return kept_[i]; }
    py::handle field(std::size_t i, std::size_t which) const { return kept_[i][which]; }
    const py::array& keep(py::array array) {
        arrays_.push_back(std::move(array));
        return arrays_.back();
    }

  private:
    py::sequence models_;
    std::vector<py::tuple> kept_;
    std::vector<py::array> arrays_;
    std::vector<MlpRun> runs_;
};

// A new array, full of NaN: what a kernel forgets to write shows.
py::array_t<float> poisoned(const Shape& shape) {
    py::array_t<float> array(shape);
    std::fill_n(array.mutable_data(), array.size(), std::numeric_limits<float>::quiet_NaN());
    return array;
}

Isa level_of(const std::optional<std::string>& isa, int num_threads) {
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    return isa ? available_isa(*isa, "isa") : active_isa();
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

// What a model of the call is compared with: entries `first` to `first` + 2 of a tuple are a shape, θ and rows.
MlpRun original_of(Runs& runs, std::size_t i, const py::tuple& fields, std::size_t first, const std::string& name) {
    const MlpRun& run = runs[i];
    const auto* shape = fields[first].cast<const MlpShape*>();
    const auto* rows = fields[first + 2].cast<const PanelRows*>();
    if (shape == nullptr || rows == nullptr) throw py::type_error(name + ": expected a shape and rows, got None");
    const py::array& theta = runs.keep(expect_array<float>(fields[first + 1], name + ".theta", {shape->n_parameters}));
    if (shape->n_outputs() != run.shape->n_outputs()) {
        throw py::value_error(name + ": expected " + std::to_string(run.shape->n_outputs()) + " outputs, got " +
                              std::to_string(shape->n_outputs()));
    }
    if (rows->n_features() != shape->n_inputs() || rows->n_rows() != run.rows->n_rows()) {
        throw py::value_error(name + ".rows: expected shape " + text({run.rows->n_rows(), shape->n_inputs()}) +
                              ", got " + text({rows->n_rows(), rows->n_features()}));
    }
    return {shape, floats(theta), rows};
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

using OddsTuple = std::tuple<py::object, std::int64_t, double, double, float, double>;

// Raises unless the term fits the rows and classes of every model.
std::optional<OddsTerm> odds_of(Runs& runs, const std::optional<OddsTuple>& given) {
    if (!given) return std::nullopt;
    const auto& [cells, n_groups, strength, limit, temperature, noise] = *given;
    const py::array& array = runs.keep(expect_array<std::int64_t>(cells, "odds.cells", {kAny}));
    const auto expect = [](bool holds, const char* name, const char* expected, double got) {
        if (!holds)
            throw py::value_error(std::string("odds.") + name + ": expected " + expected + ", got " +
                                  std::to_string(got));
    };
    expect(n_groups >= 1 && n_groups <= array.size(), "n_groups", "1 to the number of rows",
           static_cast<double>(n_groups));
    expect(std::isfinite(strength) && strength >= 0.0, "strength", "a finite number, 0 or more", strength);
    expect(limit >= 0.0, "limit", "0 or more", limit);
    expect(std::isfinite(noise) && noise >= 0.0, "noise", "a finite number, 0 or more", noise);
    expect(temperature >= 1e-3F && temperature <= 1e3F, "temperature", "0.001 to 1000",
           static_cast<double>(temperature));
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (array.size() != runs[i].rows->n_rows()) {
            throw py::value_error("odds.cells: expected shape " + text({runs[i].rows->n_rows()}) + ", got " +
                                  text({array.size()}));
        }
        const std::int64_t n_cells = runs[i].shape->n_classes() * n_groups;
        const std::int64_t *begin = integers(array), *end = begin + array.size();
        const auto bad = std::find_if(begin, end, [&](std::int64_t cell) { return cell < 0 || cell >= n_cells; });
        if (bad != end) {
            throw py::value_error("odds.cells: expected 0 to " + std::to_string(n_cells - 1) + ", got " +
                                  std::to_string(*bad));
        }
    }
    return OddsTerm{integers(array), n_groups, strength, limit, noise, temperature};
}

py::list refine(const py::sequence& models, std::int64_t steps, const std::optional<OddsTuple>& odds, int num_threads,
                const std::optional<std::string>& isa) {
    const Isa level = level_of(isa, num_threads);
    if (steps < 0) throw py::value_error("steps: expected 0 or more, got " + std::to_string(steps));
    Runs runs(models, 7, true);
    const std::optional<OddsTerm> term = odds_of(runs, odds);
    std::vector<RefineTask> tasks;
    std::vector<std::array<std::int64_t, 2>> counts(runs.size());
    std::vector<py::array_t<float>> thetas;
    std::vector<std::vector<RefineTrial>> trials;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::string name = "models[" + std::to_string(i) + "]";
        const MlpRun& run = runs[i];
        const MlpRun original = original_of(runs, i, runs.fields(i), 3, name + ".original");
        const py::array& free =
            runs.keep(expect_array<bool>(runs.field(i, 6), name + ".free", {run.shape->n_parameters}));
        thetas.push_back(poisoned({run.shape->n_parameters}));
        trials.emplace_back(static_cast<std::size_t>(steps) + 1);
        tasks.push_back({.run = run,
                         .original = original,
                         .odds = term ? &*term : nullptr,
                         .free = static_cast<const std::uint8_t*>(free.data()),
                         .n_steps = steps,
                         .theta = thetas[i].mutable_data(),
                         .trials = trials[i].data(),
                         .n_trials = &counts[i][0],
                         .best_step = &counts[i][1]});
    }
    {
        const py::gil_scoped_release released;
        mlp_refine(tasks, level, num_threads);
    }
    py::list found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        py::array_t<double> history(Shape{counts[i][0], 3});
        for (std::int64_t trial = 0; trial < counts[i][0]; ++trial) {
            const RefineTrial& from = trials[i][static_cast<std::size_t>(trial)];
            double* to = history.mutable_data(trial);
            to[0] = from.objective;
            to[1] = from.divergence;
            to[2] = from.gap;
        }
        found.append(py::make_tuple(thetas[i], history, counts[i][1]));
    }
    return found;
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
constexpr const char* kRefineDoc =
    "(θ, trials float64 [trials, 3], index of the lowest) of each model (MlpShape, θ, PanelRows, and the same of its\n"
    "original, bool [parameters]: which may change). The columns of the trials, the first of which is the start, are\n"
    "the objective, the mean JSD and the largest gap of soft rates. `odds` is None, which gives NaN for a gap, or\n"
    "(label · groups + group int64 [rows], groups, strength, limit, temperature, noise); see "
    "metaedit_fast.editing.refine.\n"
    "Raises ValueError for no rows, negative steps, an original with other rows or outputs, odds out of range.";

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
    m.def("mlp_refine", &refine, py::arg("models"), py::kw_only(), py::arg("steps"), py::arg("odds") = py::none(),
          py::arg("num_threads"), py::arg("isa") = py::none(), kRefineDoc);
}

}  // namespace metaedit::python
