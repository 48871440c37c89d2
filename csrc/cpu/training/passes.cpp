// The way of a batch through the network, forward and backward.

#include <algorithm>
#include <cmath>

#include "cpu/training/trainer.hpp"

namespace metaedit::training {

namespace {

constexpr float kMomentum = 0.1F;  // of the running statistics

}  // namespace

template <class F>
void Trainer::for_each_block(std::int64_t rows, const F& work) {
    for (std::int64_t first = 0; first < rows; first += kBlockRows) work(first, std::min(kBlockRows, rows - first));
}

// What stands behind a layer's own columns becomes 0; usual widths have nothing there.
void Trainer::clear_padding(const Block& block, std::int64_t width) {
    if (width == block.n) return;
    for (std::int64_t i = 0; i < block.rows; ++i) {
        std::fill_n(block.values + i * block.n + width, block.n - width, 0.0F);
    }
}

const float* Trainer::outputs(std::size_t neuron_layer, std::int64_t first) const {
    if (neuron_layer == 0) return inputs_.data() + first * layers_.front().in_columns;
    const Layer& layer = layers_[neuron_layer - 1];
    return outputs_.data() + layer.values + first * layer.out_columns;
}

Block Trainer::block_of(AlignedFloats& values, const Layer& layer, std::int64_t first, std::int64_t rows) {
    return {values.data() + layer.values + first * layer.out_columns, rows, layer.out_columns};
}

void Trainer::forward(const Chunk& chunk) {
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
        const Layer& layer = layers_[i];
        for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t rows) {
            const Block z = block_of(outputs_, layer, first, rows);
            kernels_.matrix_product({.a = outputs(i, first),
                                     .row_stride = layer.in_columns,
                                     .column_stride = 1,
                                     .b = parameters_.data() + layer.weight,
                                     .b_stride = z.n,
                                     .bias = parameters_.data() + layer.bias,
                                     .c = z.values,
                                     .c_stride = z.n,
                                     .m = rows,
                                     .n = z.n,
                                     .k = layer.of->n_in,
                                     .add = false});
            if (has_batch_norm(layer)) return;
            if (layer.of->has_norm) kernels_.layer_norm(layer_norm_of(layer, z, first));
            finish_block(i, first, rows);
        });
        if (!has_batch_norm(layer)) continue;
        take_statistics(layer, chunk);
        for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t rows) {
            kernels_.batch_norm({.z = block_of(outputs_, layer, first, rows),
                                 .mean = mean_.data() + layer.features,
                                 .inverse_std = inverse_deviation_.data() + layer.features,
                                 .scale = parameters_.data() + layer.scale,
                                 .shift = parameters_.data() + layer.shift,
                                 .standardised = block_of(standardised_, layer, first, rows).values});
            finish_block(i, first, rows);
        });
    }
}

void Trainer::take_statistics(const Layer& layer, const Chunk& chunk) {
    const auto share = 1.0F / static_cast<float>(chunk.rows);
    const std::int64_t n = layer.out_columns;
    float *mean = mean_.data() + layer.features, *variance = scratch_.data();
    const auto sum_up = [&](const float* centre, float* out) {
        std::fill_n(out, n, 0.0F);
        for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t rows) {
            kernels_.column_sums({block_of(outputs_, layer, first, rows), centre, out});
        });
        for (std::int64_t j = 0; j < n; ++j) out[j] *= share;
    };
    sum_up(nullptr, mean);
    sum_up(mean, variance);
    const auto unbiased = static_cast<float>(chunk.rows) / static_cast<float>(chunk.rows - 1);
    float* running_mean = running_mean_.data() + layer.features;
    float* running_variance = running_variance_.data() + layer.features;
    for (std::int64_t j = 0; j < n; ++j) {
        running_mean[j] += kMomentum * (mean[j] - running_mean[j]);
        running_variance[j] += kMomentum * (variance[j] * unbiased - running_variance[j]);
        inverse_deviation_[layer.features + j] = 1.0F / std::sqrt(variance[j] + layer.of->epsilon);
    }
}

// What follows the norm: skips, activation, dropout.
void Trainer::finish_block(std::size_t index, std::int64_t first, std::int64_t rows) {
    const Layer& layer = layers_[index];
    const Block z = block_of(outputs_, layer, first, rows);
    for (const std::int64_t source : layer.of->skips) {
        const auto from = static_cast<std::size_t>(source);
        const std::int64_t width = source == 0 ? layers_[0].in_columns : layers_[from - 1].out_columns;
        kernels_.add_columns({outputs(from, first), width, z.values, z.n, rows, std::min(width, z.n)});
    }
    float* slopes = block_of(slopes_, layer, first, rows).values;
    const std::int64_t n_panels = (rows * z.n + kPanelRows - 1) / kPanelRows;
    kernels_.activate(
        {.activation = layer.of->activation, .alpha = layer.of->alpha, .z = z.values, .slope = slopes, .n = n_panels});
    clear_padding(z, layer.of->n_out);
    if (settings_.dropped_bytes == 0) return;
    const std::uint32_t dropped = settings_.dropped_bytes;
    kernels_.dropout({.values = z.values,
                      .slopes = slopes,
                      .n = n_panels * kPanelRows,
                      .threshold = dropped,
                      .factor = 256.0F / static_cast<float>(256 - dropped),
                      .state = dropout_[index].data()});
}

LayerNorm Trainer::layer_norm_of(const Layer& layer, const Block& z, std::int64_t first) {
    return {.z = z,
            .width = layer.of->n_out,
            .keeps = keeps_.data() + layer.features,
            .epsilon = layer.of->epsilon,
            .scale = parameters_.data() + layer.scale,
            .shift = parameters_.data() + layer.shift,
            .standardised = block_of(standardised_, layer, first, z.rows).values,
            .inverse_std = inverse_std_.data() + layer.inverse_std + first};
}

void Trainer::backward(const Rows& rows, const std::int64_t* order, const Chunk& chunk) {
    for (const Layer& layer : layers_) {
        // Additions only, so that several skips from one layer need no case of their own.
        if (layer.feeds_skip) {
            std::fill_n(gradients_.data() + layer.values, chunk.rows * layer.out_columns, 0.0F);
        }
    }
    for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t n) {
        float labels[kBlockRows];
        for (std::int64_t i = 0; i < kBlockRows; ++i) {
            labels[i] = i < n ? rows.label(order[chunk.first + first + i]) : 0.0F;
        }
        last_backward(labels, first, n);
    });
    for (std::size_t i = layers_.size() - 1; i-- > 0;) {
        const Layer& layer = layers_[i];
        for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t n) { through_activation(layer, first, n); });
        if (has_batch_norm(layer)) prepare_batch_norm_backward(layer, chunk);
        for_each_block(chunk.rows, [&](std::int64_t first, std::int64_t n) { linear_backward(i, first, n); });
    }
}

void Trainer::last_backward(const float* labels, std::int64_t first, std::int64_t rows) {
    const Layer& layer = last();
    const std::size_t source = layers_.size() - 1;
    const std::int64_t n_outputs = layer.of->n_out, columns = layer.in_columns;
    const float* weight = parameters_.data() + layer.weight;
    kernels_.logits({.h = outputs(source, first),
                     .rows = rows,
                     .n = columns,
                     .weight = weight,
                     .bias = parameters_.data() + layer.bias,
                     .n_outputs = n_outputs,
                     .out = logits_.data()});
    kernels_.cross_entropy({.logits = logits_.data(),
                            .rows = rows,
                            .n_outputs = n_outputs,
                            .labels = labels,
                            .weight = 1.0F / static_cast<float>(settings_.batch_size),
                            .bias_gradient = gradient_.data() + layer.bias});
    kernels_.matrix_product({.a = logits_.data(),
                             .row_stride = kBlockRows,
                             .column_stride = 1,
                             .b = outputs(source, first),
                             .b_stride = columns,
                             .bias = nullptr,
                             .c = gradient_.data() + layer.weight,
                             .c_stride = columns,
                             .m = n_outputs,
                             .n = columns,
                             .k = rows,
                             .add = true});
    if (source == 0) return;
    const Layer& before = layers_[source - 1];
    kernels_.matrix_product({.a = logits_.data(),
                             .row_stride = 1,
                             .column_stride = kBlockRows,
                             .b = weight,
                             .b_stride = columns,
                             .bias = nullptr,
                             .c = block_of(gradients_, before, first, rows).values,
                             .c_stride = columns,
                             .m = rows,
                             .n = columns,
                             .k = n_outputs,
                             .add = before.feeds_skip});
}

// From the gradient at a hidden layer's outputs to that in front of its activation, where skips end.
void Trainer::through_activation(const Layer& layer, std::int64_t first, std::int64_t rows) {
    const Block gradient = block_of(gradients_, layer, first, rows);
    clear_padding(gradient, layer.of->n_out);  // where a skip from a wider layer left something
    const bool has_norm = layer.of->has_norm;
    kernels_.through_activation(
        {.gradient = gradient,
         .slope = block_of(slopes_, layer, first, rows).values,
         .standardised = has_norm ? block_of(standardised_, layer, first, rows).values : nullptr,
         .sums = gradient_.data() + (has_norm ? layer.shift : layer.bias),
         .products = has_norm ? gradient_.data() + layer.scale : nullptr});
    for (const std::int64_t source : layer.of->skips) {
        if (source == 0) continue;  // nobody asks for the gradient of the inputs
        const Block to = block_of(gradients_, layers_[static_cast<std::size_t>(source - 1)], first, rows);
        kernels_.add_columns({gradient.values, gradient.n, to.values, to.n, rows, std::min(gradient.n, to.n)});
    }
}

// The gradients of scale and shift are those of the whole batch by now.
void Trainer::prepare_batch_norm_backward(const Layer& layer, const Chunk& chunk) {
    const auto share = 1.0F / static_cast<float>(chunk.rows);
    const std::int64_t n = layer.out_columns;
    float* out = scratch_.data();
    for (std::int64_t j = 0; j < n; ++j) {
        out[j] = parameters_[layer.scale + j] * inverse_deviation_[layer.features + j];
        out[n + j] = gradient_[layer.shift + j] * share;
        out[2 * n + j] = gradient_[layer.scale + j] * share;
    }
}

// Through the norm to the gradients of weights and bias, and to that at the outputs of the layer before. A bias in
// front of batch norm changes nothing; its gradient stays 0, where sums would leave rounding noise.
void Trainer::linear_backward(std::size_t index, std::int64_t first, std::int64_t rows) {
    const Layer& layer = layers_[index];
    const Block gradient = block_of(gradients_, layer, first, rows);
    const std::int64_t n = gradient.n;
    if (has_batch_norm(layer)) {
        kernels_.batch_norm_backward({.gradient = gradient,
                                      .standardised = block_of(standardised_, layer, first, rows).values,
                                      .factor = scratch_.data(),
                                      .mean = scratch_.data() + n,
                                      .slope = scratch_.data() + 2 * n});
    } else if (layer.of->has_norm) {
        kernels_.layer_norm_backward(layer_norm_of(layer, gradient, first));
        kernels_.column_sums({gradient, nullptr, gradient_.data() + layer.bias});
    }
    kernels_.matrix_product({.a = outputs(index, first),
                             .row_stride = 1,
                             .column_stride = layer.in_columns,
                             .b = gradient.values,
                             .b_stride = n,
                             .bias = nullptr,
                             .c = gradient_.data() + layer.weight,
                             .c_stride = n,
                             .m = layer.of->n_in,
                             .n = n,
                             .k = rows,
                             .add = true});
    if (index == 0) return;
    const Layer& before = layers_[index - 1];
    kernels_.matrix_product({.a = gradient.values,
                             .row_stride = n,
                             .column_stride = 1,
                             .b = transposed_.data() + layer.transposed,
                             .b_stride = layer.in_columns,
                             .bias = nullptr,
                             .c = block_of(gradients_, before, first, rows).values,
                             .c_stride = layer.in_columns,
                             .m = rows,
                             .n = layer.in_columns,
                             .k = layer.of->n_out,
                             .add = before.feeds_skip});
}

}  // namespace metaedit::training
