// One network on a few panels of rows, forward and backward, in the memory of one worker.
#pragma once

#include "cpu/mlp/kernels.hpp"

namespace metaedit::mlp {

// Grows to what it is asked for and stays; its contents do not.
class Buffer {
  public:
    float* of_size(std::int64_t size) {
        if (values_.size() < size) values_ = AlignedFloats(size);
        return values_.data();
    }

  private:
    AlignedFloats values_;
};

// The weights of a layer that are worked with, where these are few; empty where all are. Their values stand at the
// layer's offset in θ, by output neuron: from starts[j] to starts[j + 1] those that lead to j, from inputs[k].
struct KeptWeights {
    std::vector<std::int32_t> starts, inputs;
    // The same ones by input neuron, for the way back: the k-th leads to outputs[k] and has the value order[k].
    std::vector<std::int32_t> back_starts, outputs, order;

    bool empty() const { return starts.empty(); }
};

// The values of one network on up to kChunkPanels panels. Call start, then forward for a chunk, then what reads it.
class Network {
  public:
    explicit Network(const Kernels& kernels) : kernels_(kernels) {}

    // Of the rows of `run`; `keeps_slopes` where a backward pass will follow. `kept` has an entry a layer, or none.
    void start(const MlpRun& run, std::int64_t chunk_panels, bool keeps_slopes, std::span<const KeptWeights> kept = {});
    void forward(std::int64_t first_panel, std::int64_t n_panels);

    // From what output_gradient() holds, for every panel of the chunk, to gradients of every linear output. Those
    // of the norms' parameters are added to what lies at `theta_gradient`.
    void backward(float* theta_gradient);
    // Gradients of weights and biases, or adds to them.
    void products(float* theta_gradient, bool add);
    // The same of other values, and one layer alone: sums over rows of a_i g_j at `weights`, of g_j at `biases`.
    void products(std::int64_t layer, const Features& a, const Features& g, float* weights, float* biases, bool add);

    // Neuron layer 0 is the inputs; values are [panel][feature][64].
    Features outputs(std::int64_t neuron_layer) const;
    Features linear_gradient(std::int64_t layer) const;
    const float* logits(std::int64_t panel) const;
    float* output_gradient(std::int64_t panel);
    // ln of the class probabilities of a panel of the chunk, [classes][64]; valid until the next call, and free to
    // overwrite.
    float* log_probabilities(std::int64_t panel);
    // 1 for the rows of a panel, counted from the first of all, that exist.
    const float* keeps(std::int64_t panel);

  private:
    void forward_panel(std::int64_t panel);
    void order_for_way_back();
    bool is_gate(std::size_t layer) const;
    const KeptWeights* kept(std::size_t layer) const;  // null: all
    void multiply_back(std::size_t layer, std::int64_t panel);
    void backward_panel(std::int64_t panel, float* theta_gradient);
    const float* output(std::int64_t neuron_layer, std::int64_t panel) const;
    float* at(float* values, std::int64_t layer, std::int64_t panel) const;
    Norm norm_of(std::size_t layer, std::int64_t panel) const;

    const Kernels& kernels_;
    MlpRun run_{};
    std::int64_t first_panel_ = 0, n_panels_ = 0, chunk_panels_ = 0;
    bool keeps_slopes_ = false;
    std::span<const KeptWeights> kept_;
    std::vector<bool> feeds_skip_;       // a layer's outputs
    std::vector<std::int64_t> offsets_;  // where a layer's values begin in the buffers below
    Buffer output_buffer_, slope_buffer_, gradient_buffer_, standardised_buffer_, inverse_buffer_, class_buffer_,
        back_buffer_;
    float *outputs_ = nullptr, *slopes_ = nullptr, *gradients_ = nullptr, *standardised_ = nullptr,
          *inverse_std_ = nullptr;
    std::vector<float*> back_values_;  // of a layer
    float keeps_[kPanelRows] = {};
};

}  // namespace metaedit::mlp
