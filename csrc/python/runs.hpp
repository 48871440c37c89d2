// What a call on trained MLPs is given by Python: models, each on rows of its own.
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/mlp.hpp"
#include "python/arrays.hpp"

namespace metaedit::python {

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
inline py::array_t<float> poisoned(const Shape& shape) {
    py::array_t<float> array(shape);
    std::fill_n(array.mutable_data(), array.size(), std::numeric_limits<float>::quiet_NaN());
    return array;
}

inline Isa level_of(const std::optional<std::string>& isa, int num_threads) {
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    return isa ? available_isa(*isa, "isa") : active_isa();
}

// What a model of the call is compared with: entries `first` to `first` + 2 of a tuple are a shape, θ and rows.
inline MlpRun original_of(Runs& runs, std::size_t i, const py::tuple& fields, std::size_t first,
                          const std::string& name) {
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

}  // namespace metaedit::python
