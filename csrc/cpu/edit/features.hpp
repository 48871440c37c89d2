// The features of one model at a time, in memory that is reused. Equivalent to model_features of
// metaedit_fast/metanet/features.py, with sums in double.
#pragma once

#include <span>

#include "core/edit.hpp"
#include "cpu/edit/kernels.hpp"
#include "cpu/mlp/network.hpp"

namespace metaedit::edit {

class Features {
  public:
    Features(Isa isa, std::int64_t n_inputs, std::int64_t n_node_types);

    // With the statistics of a probe or, where the editor reads none, null. Returns whether all are finite.
    bool compute(const EditShape& shape, const float* theta, const ProbeStatistics* statistics);

    // All valid until the next call; shapes as in Model.
    const float* edge() const { return edge_; }
    const float* saliency() const { return saliency_; }
    const float* node() const { return node_; }
    const std::int64_t* node_type() const { return node_type_.data(); }
    // The unit of additive edits, of every layer.
    std::span<const float> rms() const { return rms_; }

  private:
    void set_node_types(const MlpShape& shape);
    void sum_squares(const MlpShape& shape, const float* theta);
    float logarithms(LogOf of, const float* x, const float* fisher, std::int64_t n, mlp::Buffer& buffer, float*& out);
    void set_edges(const MlpShape& shape, const float* theta, const ProbeStatistics* statistics);
    void set_nodes(const MlpShape& shape, const float* theta, const ProbeStatistics* statistics);
    const float* inverse_moved(const MlpLayer& layer, const float* theta, const float* deviation);

    const Kernels& kernels_;
    std::int64_t n_inputs_, n_classes_;
    std::vector<std::int64_t> node_type_;
    std::vector<float> rms_, rms_in_, rms_out_;  // of every layer; of every linear output; of every layer's sources
    std::vector<float> inverse_in_, inverse_out_, inverse_moved_;
    std::vector<double> row_sums_, column_sums_;
    mlp::Buffer edge_buffer_, saliency_buffer_, node_buffer_;
    mlp::Buffer log_weight_buffer_, log_saliency_buffer_, log_sensitivity_buffer_, log_gradient_buffer_;
    float *edge_ = nullptr, *saliency_ = nullptr, *node_ = nullptr;
};

}  // namespace metaedit::edit
