// mlp_refine.

#include "python/refinement.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <tuple>

#include "python/runs.hpp"

namespace metaedit::python {
namespace {

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

constexpr const char* kRefineDoc =
    "(θ, trials float64 [trials, 3], index of the lowest) of each model (MlpShape, θ, PanelRows, and the same of its\n"
    "original, bool [parameters]: which may change). The columns of the trials, the first of which is the start, are\n"
    "the objective, the mean JSD and the largest gap of soft rates. `odds` is None, which gives NaN for a gap, or\n"
    "(label · groups + group int64 [rows], groups, strength, limit, temperature, noise); see "
    "metaedit_fast.editing.refine.\n"
    "Raises ValueError for no rows, negative steps, an original with other rows or outputs, odds out of range.";

}  // namespace

void bind_refinement(py::module_& m) {
    m.def("mlp_refine", &refine, py::arg("models"), py::kw_only(), py::arg("steps"), py::arg("odds") = py::none(),
          py::arg("num_threads"), py::arg("isa") = py::none(), kRefineDoc);
}

}  // namespace metaedit::python
