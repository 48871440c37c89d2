// Training of one MLP on mini-batches: cross-entropy, AdamW, batch or layer norm, skips, dropout. Equivalent to the
// torch modules in tests/population/test_trainer.py in float32.
//
// What a network becomes depends on what it was made of, the rows with their order, and the instruction set.
#pragma once

#include <array>
#include <span>

#include "cpu/training/kernels.hpp"

namespace metaedit::training {

// Labelled rows, [rows][features rounded up to kColumns] with zeros behind.
class Rows {
  public:
    // Labels are whole numbers from 0 on.
    Rows(const float* x, const std::int64_t* labels, std::int64_t n_rows, std::int64_t n_features);

    std::int64_t n_rows() const { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t n_features() const { return n_features_; }
    std::int64_t n_labels() const { return n_labels_; }  // the largest, plus one
    const float* row(std::int64_t i) const { return values_.data() + i * to_columns(n_features_); }
    float label(std::int64_t i) const { return labels_[static_cast<std::size_t>(i)]; }

  private:
    std::int64_t n_features_, n_labels_ = 0;
    AlignedFloats values_;
    std::vector<float> labels_;
};

struct Settings {
    std::int64_t batch_size;
    float learning_rate;
    float weight_decay;           // of weights alone
    std::uint32_t dropped_bytes;  // of 256: the rate of dropout
    bool batch_norm;              // the layers that have a norm have batch norm, not layer norm
};

// The state of a layer's random numbers, a word for each of 16 lanes four times.
using DropoutState = std::array<std::uint32_t, 4 * kColumns>;

class Trainer {
  public:
    // θ is in the order of `shape`; `dropout` holds a state for each hidden layer. At least two outputs; skips come
    // from hidden layers or the inputs, and end in hidden layers; the last layer has neither norm nor activation.
    Trainer(MlpShape shape, const float* theta, const Settings& settings, std::span<const DropoutState> dropout,
            Isa isa);
    Trainer(const Trainer&) = delete;
    Trainer& operator=(const Trainer&) = delete;

    // A step for each full batch of `order`, which holds numbers of rows.
    void train(const Rows& rows, std::span<const std::int64_t> order);

    const MlpShape& shape() const { return shape_; }
    void copy_parameters(float* theta) const;
    void copy_gradient(float* theta) const;  // of the last step
    // The running statistics of batch norm, [all hidden layers]; 0 and 1 for layers without.
    void copy_statistics(float* mean, float* variance) const;

  private:
    struct Layer {
        const MlpLayer* of;
        std::int64_t in_columns, out_columns;
        // In the flat vectors below. A hidden layer's weight is [n_in][out_columns], the last one's, which has few
        // outputs, [n_out][in_columns].
        std::int64_t weight, bias, scale, shift;
        std::int64_t transposed;  // [n_out][in_columns] of hidden layers behind the first
        // Where the layer begins in the buffers of a chunk, of a number for each row, for each hidden neuron.
        std::int64_t values, inverse_std, features;
        bool feeds_skip;
    };
    // Rows that go through the network together, forward and backward.
    struct Chunk {
        std::int64_t first, rows;  // in the batch
    };

    void add_layer(const MlpLayer& of);
    void allocate();
    void step(const Rows& rows, const std::int64_t* order);
    void forward(const Chunk& chunk);
    void take_statistics(const Layer& layer, const Chunk& chunk);
    void finish_block(std::size_t index, std::int64_t first, std::int64_t rows);
    void backward(const Rows& rows, const std::int64_t* order, const Chunk& chunk);
    void last_backward(const float* labels, std::int64_t first, std::int64_t rows);
    void through_activation(const Layer& layer, std::int64_t first, std::int64_t rows);
    void prepare_batch_norm_backward(const Layer& layer, const Chunk& chunk);
    void linear_backward(std::size_t index, std::int64_t first, std::int64_t rows);
    void update();

    const Layer& last() const { return layers_.back(); }
    std::span<const Layer> hidden() const { return std::span(layers_).first(layers_.size() - 1); }
    bool has_batch_norm(const Layer& layer) const { return layer.of->has_norm && settings_.batch_norm; }
    // Outputs of a neuron layer from row `first` of the chunk on; layer 0 is the inputs.
    const float* outputs(std::size_t neuron_layer, std::int64_t first) const;
    static Block block_of(AlignedFloats& values, const Layer& layer, std::int64_t first, std::int64_t rows);
    LayerNorm layer_norm_of(const Layer& layer, const Block& z, std::int64_t first);
    static void clear_padding(const Block& block, std::int64_t width);
    template <class F>
    static void for_each_block(std::int64_t rows, const F& work);
    template <class F>
    void for_each_parameter(const F& work) const;  // work(index in θ, index in the flat vectors)

    MlpShape shape_;
    Settings settings_;
    const Kernels& kernels_;
    std::vector<DropoutState> dropout_;
    std::vector<Layer> layers_;
    std::int64_t n_weights_ = 0, n_features_ = 0, chunk_rows_ = 0, steps_ = 0;
    // Flat vectors, the weights first.
    AlignedFloats parameters_, gradient_, first_, second_;
    AlignedFloats transposed_;
    AlignedFloats inputs_, outputs_, slopes_, gradients_, standardised_, inverse_std_, logits_;
    AlignedFloats running_mean_, running_variance_, mean_, inverse_deviation_, keeps_, scratch_;
};

}  // namespace metaedit::training
