#include "cpu/mlp/network.hpp"

#include <algorithm>

namespace metaedit::mlp {

void Network::start(const MlpRun& run, std::int64_t chunk_panels, bool keeps_slopes,
                    std::span<const KeptWeights> kept) {
    run_ = run;
    kept_ = kept;
    chunk_panels_ = chunk_panels;
    keeps_slopes_ = keeps_slopes;
    offsets_.clear();
    feeds_skip_.assign(run.shape->layers.size(), false);
    std::int64_t size = 0, n_layers = 0;
    bool has_norm = false;
    for (const MlpLayer& layer : run.shape->layers) {
        for (const std::int64_t source : layer.skips) {
            if (source > 0) feeds_skip_[static_cast<std::size_t>(source - 1)] = true;
        }
        offsets_.push_back(size);
        size += layer.n_out * chunk_panels * kPanelRows;
        has_norm = has_norm || layer.has_norm;
        ++n_layers;
    }
    outputs_ = output_buffer_.of_size(size);
    if (keeps_slopes) {
        slopes_ = slope_buffer_.of_size(size);
        gradients_ = gradient_buffer_.of_size(size);
    }
    if (has_norm) {
        standardised_ = standardised_buffer_.of_size(size);
        inverse_std_ = inverse_buffer_.of_size(n_layers * chunk_panels * kPanelRows);
    }
    if (keeps_slopes && !kept.empty()) order_for_way_back();
}

void Network::order_for_way_back() {
    std::size_t size = 0;
    for (const KeptWeights& kept : kept_) size += kept.order.size();
    float* values = back_buffer_.of_size(static_cast<std::int64_t>(size));
    back_values_.clear();
    for (std::size_t i = 0; i < kept_.size(); ++i) {
        back_values_.push_back(values);
        const float* weights = run_.theta + run_.shape->layers[i].weight;
        for (const std::int32_t k : kept_[i].order) *values++ = weights[k];
    }
}

const KeptWeights* Network::kept(std::size_t layer) const {
    return kept_.empty() || kept_[layer].empty() ? nullptr : &kept_[layer];
}

const float* Network::output(std::int64_t neuron_layer, std::int64_t panel) const {
    if (neuron_layer == 0) return run_.rows->panel(first_panel_ + panel);
    return at(outputs_, neuron_layer - 1, panel);
}

float* Network::at(float* values, std::int64_t layer, std::int64_t panel) const {
    const auto i = static_cast<std::size_t>(layer);
    return values + offsets_[i] + panel * run_.shape->layers[i].n_out * kPanelRows;
}

Norm Network::norm_of(std::size_t layer, std::int64_t panel) const {
    const MlpLayer& of = run_.shape->layers[layer];
    const auto i = static_cast<std::int64_t>(layer);
    return {.scale = run_.theta + of.norm_scale,
            .shift = run_.theta + of.norm_shift,
            .epsilon = of.epsilon,
            .n = of.n_out,
            .standardised = at(standardised_, i, panel),
            .inverse_std = inverse_std_ + (i * chunk_panels_ + panel) * kPanelRows};
}

void Network::forward(std::int64_t first_panel, std::int64_t n_panels) {
    first_panel_ = first_panel;
    n_panels_ = n_panels;
    for (std::int64_t panel = 0; panel < n_panels; ++panel) forward_panel(panel);
}

void Network::forward_panel(std::int64_t panel) {
    const std::vector<MlpLayer>& layers = run_.shape->layers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const MlpLayer& layer = layers[i];
        const auto index = static_cast<std::int64_t>(i);
        float* z = at(outputs_, index, panel);
        const bool rectify = is_gate(i) && !layer.has_norm && layer.skips.empty();
        const Target to{.bias = run_.theta + layer.bias,
                        .add = false,
                        .rectify = rectify,
                        .factor = nullptr,
                        .gate = nullptr,
                        .c = z,
                        .n = layer.n_out};
        if (const KeptWeights* weights = kept(i)) {
            kernels_.sparse_product({.values = run_.theta + layer.weight,
                                     .starts = weights->starts.data(),
                                     .columns = weights->inputs.data(),
                                     .b = output(index, panel),
                                     .to = to});
        } else {
            kernels_.product({.a = run_.theta + layer.weight,
                              .row_stride = 1,
                              .column_stride = layer.n_out,
                              .b = output(index, panel),
                              .n_b = layer.n_in,
                              .to = to});
        }
        if (layer.has_norm) kernels_.norm(norm_of(i, panel), z);
        for (const std::int64_t source : layer.skips) {
            const std::int64_t width =
                source == 0 ? run_.shape->n_inputs() : layers[static_cast<std::size_t>(source - 1)].n_out;
            kernels_.add(output(source, panel), z, std::min(width, layer.n_out));
        }
        if (layer.activation == Activation::identity || rectify) continue;
        kernels_.activate({.activation = layer.activation,
                           .alpha = layer.alpha,
                           .z = z,
                           .slope = keeps_slopes_ && !is_gate(i) ? at(slopes_, index, panel) : nullptr,
                           .n = layer.n_out});
    }
}

// A rectifier's derivative is read off its values. The last layer's gradient is not a product's.
bool Network::is_gate(std::size_t layer) const {
    return run_.shape->layers[layer].activation == Activation::relu && layer + 1 < run_.shape->layers.size();
}

void Network::backward(float* theta_gradient) {
    for (std::int64_t panel = 0; panel < n_panels_; ++panel) backward_panel(panel, theta_gradient);
}

void Network::backward_panel(std::int64_t panel, float* theta_gradient) {
    const std::vector<MlpLayer>& layers = run_.shape->layers;
    for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
        if (!feeds_skip_[i]) continue;  // the others' gradients are written before they are added to
        std::fill_n(at(gradients_, static_cast<std::int64_t>(i), panel), layers[i].n_out * kPanelRows, 0.0F);
    }
    for (std::size_t i = layers.size(); i-- > 0;) {
        const MlpLayer& layer = layers[i];
        const auto index = static_cast<std::int64_t>(i);
        float* gradient = at(gradients_, index, panel);
        if (i + 1 == layers.size() && layer.activation != Activation::identity) {
            kernels_.multiply(at(slopes_, index, panel), gradient, gradient, layer.n_out);
        }
        for (const std::int64_t source : layer.skips) {
            if (source == 0) continue;  // nobody asks for the gradient of the inputs
            const std::int64_t width = layers[static_cast<std::size_t>(source - 1)].n_out;
            kernels_.add(gradient, at(gradients_, source - 1, panel), std::min(width, layer.n_out));
        }
        if (layer.has_norm) {
            kernels_.norm_backward({.norm = norm_of(i, panel),
                                    .gradient = gradient,
                                    .scale_gradient = theta_gradient + layer.norm_scale,
                                    .shift_gradient = theta_gradient + layer.norm_shift});
        }
        if (i > 0) multiply_back(i, panel);
    }
}

// The last to reach the gradient of the layer before, it also takes that through the activation.
void Network::multiply_back(std::size_t i, std::int64_t panel) {
    const MlpLayer &layer = run_.shape->layers[i], &before = run_.shape->layers[i - 1];
    const auto index = static_cast<std::int64_t>(i);
    const bool by_slope = before.activation != Activation::identity && !is_gate(i - 1);
    const Target to{.bias = nullptr,
                    .add = feeds_skip_[i - 1],
                    .rectify = false,
                    .factor = by_slope ? at(slopes_, index - 1, panel) : nullptr,
                    .gate = is_gate(i - 1) ? at(outputs_, index - 1, panel) : nullptr,
                    .c = at(gradients_, index - 1, panel),
                    .n = layer.n_in};
    if (const KeptWeights* weights = kept(i)) {
        kernels_.sparse_product({.values = back_values_[i],
                                 .starts = weights->back_starts.data(),
                                 .columns = weights->outputs.data(),
                                 .b = at(gradients_, index, panel),
                                 .to = to});
    } else {
        kernels_.product({.a = run_.theta + layer.weight,
                          .row_stride = layer.n_out,
                          .column_stride = 1,
                          .b = at(gradients_, index, panel),
                          .n_b = layer.n_out,
                          .to = to});
    }
}

void Network::products(float* theta_gradient, bool add) {
    for (std::size_t i = 0; i < run_.shape->layers.size(); ++i) {
        const auto index = static_cast<std::int64_t>(i);
        const MlpLayer& layer = run_.shape->layers[i];
        products(index, outputs(index), linear_gradient(index), theta_gradient + layer.weight,
                 theta_gradient + layer.bias, add);
    }
}

void Network::products(std::int64_t layer, const Features& a, const Features& g, float* weights, float* biases,
                       bool add) {
    if (const KeptWeights* only = kept(static_cast<std::size_t>(layer))) {
        kernels_.sparse_row_products({a, g, only->starts.data(), only->inputs.data(), weights, add});
    } else {
        kernels_.row_products({a, g, weights, add});
    }
    kernels_.row_sums({g, biases, add});
}

Features Network::outputs(std::int64_t neuron_layer) const {
    const std::int64_t n = neuron_layer == 0 ? run_.shape->n_inputs()
                                             : run_.shape->layers[static_cast<std::size_t>(neuron_layer - 1)].n_out;
    return {output(neuron_layer, 0), n, n_panels_};
}

Features Network::linear_gradient(std::int64_t layer) const {
    return {at(gradients_, layer, 0), run_.shape->layers[static_cast<std::size_t>(layer)].n_out, n_panels_};
}

const float* Network::logits(std::int64_t panel) const {
    return output(static_cast<std::int64_t>(run_.shape->layers.size()), panel);
}

float* Network::output_gradient(std::int64_t panel) {
    return at(gradients_, static_cast<std::int64_t>(run_.shape->layers.size()) - 1, panel);
}

float* Network::log_probabilities(std::int64_t panel) {
    float* log_p = class_buffer_.of_size(run_.shape->n_classes() * kPanelRows);
    kernels_.log_softmax({logits(panel), run_.shape->n_outputs(), log_p});
    return log_p;
}

const float* Network::keeps(std::int64_t panel) {
    const std::int64_t n = run_.rows->n_rows() - panel * kPanelRows;
    for (std::int64_t row = 0; row < kPanelRows; ++row) keeps_[row] = row < n ? 1.0F : 0.0F;
    return keeps_;
}

}  // namespace metaedit::mlp
