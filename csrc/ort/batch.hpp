// A ragged batch of models as two tables of integers, the inputs `layers` and `skips` of every operator.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/edit.hpp"
#include "ort/context.hpp"

namespace metaedit::ort {

// The models of one run. Throws std::invalid_argument, naming table, row and column, unless
//   `layers` [L, 6] holds the weight matrices, models in order, of each model from its inputs to its outputs: model
//   (from 0 on, none left out), n_in, n_out, activation, norm (0 none, 1 layer), owned (bit 0 bias, bit 1 norm);
//   `skips` [K, 3] holds model, source and target neuron layer, in rising order, 0 <= source < target < layers.
class ModelBatch {
  public:
    ModelBatch(const Context& context, std::size_t layers, std::size_t skips);

    std::span<const EditShape> shapes() const { return shapes_; }
    std::int64_t n_models() const { return static_cast<std::int64_t>(shapes_.size()); }
    std::int64_t n_nodes() const { return n_nodes_; }
    std::int64_t n_linear() const { return n_linear_; }  // outputs of all layers
    std::int64_t n_weights() const { return n_weights_; }
    std::int64_t n_parameters() const { return n_parameters_; }

    // Throws std::invalid_argument unless there are that many models.
    void expect_models(std::int64_t n_models, const std::string& name) const;
    // Throws std::invalid_argument unless every model fits an editor for these.
    void expect_fitting(std::int64_t n_inputs, std::int64_t n_classes) const;

  private:
    std::vector<EditShape> shapes_;
    std::int64_t n_nodes_ = 0, n_linear_ = 0, n_weights_ = 0, n_parameters_ = 0;
};

// What was measured on a probe, of all models one after the other: mean [N], deviation [N], gradient [sum of n_out]
// and fisher [W], four inputs from `first` on.
class BatchStatistics {
  public:
    // Nothing where the editor does not read them. Throws std::invalid_argument, naming the input.
    BatchStatistics(const Context& context, std::size_t first, bool reads, const ModelBatch& batch);

    std::size_t input_count() const { return reads_ ? kInputs : 0; }

    // Of every model; null where none are read.
    const ProbeStatistics* of(std::size_t model) const { return reads_ ? &of_model_[model] : nullptr; }

  private:
    static constexpr std::size_t kInputs = 4;

    bool reads_;
    std::vector<ProbeStatistics> of_model_;
};

}  // namespace metaedit::ort
