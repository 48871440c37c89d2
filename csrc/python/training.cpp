// TrainingRows and MlpTrainer.

#include "python/training.hpp"

#include <pybind11/stl.h>

#include <cmath>
#include <mutex>
#include <optional>

#include "cpu/training/trainer.hpp"
#include "python/arrays.hpp"

namespace metaedit::python {
namespace {

using training::DropoutState;
using training::Rows;
using training::Settings;
using training::Trainer;

constexpr std::int64_t kMaxBatch = std::int64_t{1} << 20;

Rows make_rows(const py::object& x, const py::object& labels) {
    const py::array values = expect_array<float>(x, "x", {kAny, kAny});
    if (values.shape(1) < 1) throw py::value_error("x: expected at least one column");
    const py::array classes = expect_array<std::int64_t>(labels, "labels", {values.shape(0)});
    for (py::ssize_t i = 0; i < classes.shape(0); ++i) {
        const std::int64_t label = integers(classes)[i];
        if (label < 0 || label >= (std::int64_t{1} << 24)) {
            throw py::value_error("labels: expected 0 to 2^24 - 1, got " + std::to_string(label));
        }
    }
    return Rows(floats(values), integers(classes), values.shape(0), values.shape(1));
}

void expect_trainable(const MlpShape& shape) {
    if (shape.n_outputs() < 2) {
        throw py::value_error("shape: expected at least two outputs, got " + std::to_string(shape.n_outputs()));
    }
    const MlpLayer& last = shape.layers.back();
    if (last.has_norm || last.activation != Activation::identity || !last.skips.empty()) {
        throw py::value_error("shape: expected a last layer without norm, activation and skips");
    }
}

void expect_finite(float value, const char* name) {
    if (!(value >= 0.0F) || std::isinf(value)) {
        throw py::value_error(std::string(name) + ": expected a finite number from 0 on, got " + std::to_string(value));
    }
}

// What a run is; one thread at a time works on it.
class MlpTrainer {
  public:
    MlpTrainer(const MlpShape& shape, const py::object& theta, bool batch_norm, std::int64_t batch_size,
               float learning_rate, float weight_decay, int dropped_bytes, const py::object& dropout_state,
               const std::optional<std::string>& isa) {
        expect_trainable(shape);
        const py::array start = expect_array<float>(theta, "theta", {shape.n_parameters});
        const std::int64_t smallest = batch_norm ? 2 : 1;
        if (batch_size < smallest || batch_size > kMaxBatch) {
            throw py::value_error("batch_size: expected " + std::to_string(smallest) + " to 2^20, got " +
                                  std::to_string(batch_size));
        }
        expect_finite(learning_rate, "learning_rate");
        expect_finite(weight_decay, "weight_decay");
        if (dropped_bytes < 0 || dropped_bytes > 255) {
            throw py::value_error("dropped_bytes: expected 0 to 255, got " + std::to_string(dropped_bytes));
        }
        const auto n_hidden = static_cast<py::ssize_t>(shape.layers.size()) - 1;
        const py::array words =
            expect_array<std::uint32_t>(dropout_state, "dropout_state", {n_hidden, 4, py::ssize_t{training::kColumns}});
        std::vector<DropoutState> states(static_cast<std::size_t>(n_hidden));
        if (n_hidden > 0) std::memcpy(states.data(), words.data(), states.size() * sizeof(DropoutState));
        const Settings settings{.batch_size = batch_size,
                                .learning_rate = learning_rate,
                                .weight_decay = weight_decay,
                                .dropped_bytes = static_cast<std::uint32_t>(dropped_bytes),
                                .batch_norm = batch_norm};
        trainer_.emplace(shape, floats(start), settings, states, isa ? available_isa(*isa, "isa") : active_isa());
    }

    void train(const Rows& rows, const py::object& order) {
        const MlpShape& shape = trainer_->shape();
        if (rows.n_features() != shape.n_inputs()) {
            throw py::value_error("rows: expected " + std::to_string(shape.n_inputs()) + " columns, got " +
                                  std::to_string(rows.n_features()));
        }
        if (rows.n_labels() > shape.n_outputs()) {
            throw py::value_error("rows: expected labels below " + std::to_string(shape.n_outputs()) + ", got " +
                                  std::to_string(rows.n_labels() - 1));
        }
        const py::array given = expect_array<std::int64_t>(order, "order", {kAny});
        // A copy, so that nobody can change it between its check and its use.
        const std::vector<std::int64_t> numbers(integers(given), integers(given) + given.shape(0));
        for (const std::int64_t number : numbers) {
            if (number < 0 || number >= rows.n_rows()) {
                throw py::value_error("order: expected numbers of rows, 0 to " + std::to_string(rows.n_rows() - 1) +
                                      ", got " + std::to_string(number));
            }
        }
        const py::gil_scoped_release released;
        const std::lock_guard<std::mutex> guard(lock_);
        trainer_->train(rows, numbers);
    }

    py::array_t<float> parameters() { return copied(trainer_->shape().n_parameters, &Trainer::copy_parameters); }
    py::array_t<float> gradient() { return copied(trainer_->shape().n_parameters, &Trainer::copy_gradient); }

    py::tuple statistics() {
        std::int64_t n = 0;
        for (const MlpLayer& layer : trainer_->shape().layers) n += layer.n_out;
        n -= trainer_->shape().n_outputs();
        py::array_t<float> mean(n), variance(n);
        float *to_mean = mean.mutable_data(), *to_variance = variance.mutable_data();
        {
            const py::gil_scoped_release released;
            const std::lock_guard<std::mutex> guard(lock_);
            trainer_->copy_statistics(to_mean, to_variance);
        }
        return py::make_tuple(mean, variance);
    }

  private:
    py::array_t<float> copied(std::int64_t n, void (Trainer::*copy)(float*) const) {
        py::array_t<float> array(n);
        float* to = array.mutable_data();
        {
            const py::gil_scoped_release released;
            const std::lock_guard<std::mutex> guard(lock_);
            (*trainer_.*copy)(to);
        }
        return array;
    }

    std::optional<Trainer> trainer_;
    std::mutex lock_;
};

constexpr const char* kRowsDoc =
    "A copy of float32 rows [rows, features] and int64 labels [rows], from 0 on, laid out for MlpTrainer; use it for\n"
    "any number of trainers, from any number of threads. Raises ValueError for a label out of range.";
constexpr const char* kTrainerDoc =
    "One MLP in training, from theta (float32, in the order of shape) on: mean cross-entropy of a batch, AdamW with\n"
    "decay of the weights alone. Layers with a norm in shape have batch norm where batch_norm is set, else layer\n"
    "norm. dropped_bytes is the rate of dropout in 256ths; dropout_state uint32 [hidden layers, 4, 16] seeds its\n"
    "random bytes. The result depends on these, the rows in their order, and the instruction set alone.\n"
    "Raises ValueError for fewer than two outputs, a last layer with norm, activation or skips, or a number out of\n"
    "range.";
constexpr const char* kTrainDoc =
    "A step for each full batch of order, int64 numbers of rows; what fills no batch is left out. Raises ValueError\n"
    "for rows of another number of columns, or a label or row out of range.";
constexpr const char* kStatisticsDoc =
    "The running mean and variance of batch norm, [all hidden neurons]; 0 and 1 for layers without.";

}  // namespace

void bind_training(py::module_& m) {
    py::class_<Rows>(m, "TrainingRows", kRowsDoc).def(py::init(&make_rows), py::arg("x"), py::arg("labels"));
    py::class_<MlpTrainer>(m, "MlpTrainer", kTrainerDoc)
        .def(py::init<const MlpShape&, const py::object&, bool, std::int64_t, float, float, int, const py::object&,
                      const std::optional<std::string>&>(),
             py::arg("shape"), py::arg("theta"), py::kw_only(), py::arg("batch_norm"), py::arg("batch_size"),
             py::arg("learning_rate"), py::arg("weight_decay"), py::arg("dropped_bytes"), py::arg("dropout_state"),
             py::arg("isa") = py::none())
        .def("train", &MlpTrainer::train, py::arg("rows"), py::arg("order"), kTrainDoc)
        .def("parameters", &MlpTrainer::parameters, "The parameters, in the order of the shape; batch norm apart.")
        .def("gradient", &MlpTrainer::gradient, "The gradient of the last step's loss, in the same order.")
        .def("statistics", &MlpTrainer::statistics, kStatisticsDoc);
}

}  // namespace metaedit::python
