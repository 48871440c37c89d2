#include "cpu/edit/features.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "cpu/kernels_of.hpp"

namespace metaedit {

METAEDIT_KERNELS_OF(edit, edit_kernels)

namespace edit {

namespace {

// The root mean square of n values with this sum of squares, plus 1e-6. A sum that float32 cannot hold is infinite.
double root_mean(double sum, std::int64_t n) {
    constexpr double kLargest = std::numeric_limits<float>::max();
    if (!(sum <= kLargest)) return std::numeric_limits<double>::infinity();
    return std::sqrt(sum / static_cast<double>(n)) + static_cast<double>(kTinyWeight);
}

float inverse(double x) {
    return static_cast<float>(1.0 / x);
}

// A NaN stays one.
float clamped(float x) {
    return x < -kLimit ? -kLimit : x > kLimit ? kLimit : x;
}

bool all_finite(const float* x, std::int64_t n) {
    constexpr std::uint32_t kExponent = 0x7F800000U;
    std::uint32_t found = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        found |= (std::bit_cast<std::uint32_t>(x[i]) & kExponent) == kExponent ? 1U : 0U;
    }
    return found == 0;
}

}  // namespace

Features::Features(Isa isa, std::int64_t n_inputs, std::int64_t n_node_types)
    : kernels_(kernels_of(isa)), n_inputs_(n_inputs), n_classes_(class_count(n_inputs, n_node_types)) {}

bool Features::compute(const EditShape& shape, const float* theta, const ProbeStatistics* statistics) {
    const MlpShape& mlp = shape.mlp;
    const bool probe = statistics != nullptr;
    edge_ = edge_buffer_.of_size(mlp.n_weights * edge_feature_count(probe));
    saliency_ = saliency_buffer_.of_size(mlp.n_weights);
    node_ = node_buffer_.of_size(shape.n_nodes * node_feature_count(probe));
    set_node_types(mlp);
    sum_squares(mlp, theta);
    set_edges(mlp, theta, statistics);
    set_nodes(mlp, theta, statistics);
    return all_finite(rms_.data(), static_cast<std::int64_t>(rms_.size())) &&
           all_finite(edge_, mlp.n_weights * edge_feature_count(probe)) && all_finite(saliency_, mlp.n_weights) &&
           all_finite(node_, shape.n_nodes * node_feature_count(probe));
}

// As MetanetConfig.node_types has them.
void Features::set_node_types(const MlpShape& shape) {
    node_type_.clear();
    for (std::int64_t i = 0; i < n_inputs_; ++i) node_type_.push_back(i);
    const std::int64_t first_output = n_inputs_ + (shape.n_outputs() == n_classes_ ? 0 : n_classes_);
    for (std::size_t i = 0; i + 1 < shape.layers.size(); ++i) {
        const MlpLayer& layer = shape.layers[i];
        const std::int64_t type = n_inputs_ + n_classes_ + 1 + static_cast<std::int64_t>(layer.activation);
        node_type_.insert(node_type_.end(), static_cast<std::size_t>(layer.n_out), type);
    }
    for (std::int64_t k = 0; k < shape.n_outputs(); ++k) node_type_.push_back(first_output + k);
}

void Features::sum_squares(const MlpShape& shape, const float* theta) {
    rms_.clear();
    rms_in_.clear();
    rms_out_.clear();
    inverse_in_.clear();
    inverse_out_.clear();
    for (const MlpLayer& layer : shape.layers) {
        row_sums_.resize(static_cast<std::size_t>(layer.n_in));
        column_sums_.resize(static_cast<std::size_t>(layer.n_out));
        kernels_.square_sums({.weight = theta + layer.weight,
                              .scale = nullptr,
                              .n_in = layer.n_in,
                              .n_out = layer.n_out,
                              .of_row = row_sums_.data(),
                              .of_column = column_sums_.data()});
        double sum = 0.0;
        for (const double of_row : row_sums_) {
            const double rms = root_mean(of_row, layer.n_out);
            sum += of_row;
            rms_out_.push_back(static_cast<float>(rms));
            inverse_out_.push_back(inverse(rms));
        }
        for (const double of_column : column_sums_) {
            const double rms = root_mean(of_column, layer.n_in);
            rms_in_.push_back(static_cast<float>(rms));
            inverse_in_.push_back(inverse(rms));
        }
        rms_.push_back(static_cast<float>(root_mean(sum, layer.n_in * layer.n_out)));
    }
}

// Returns their mean.
float Features::logarithms(LogOf of, const float* x, const float* fisher, std::int64_t n, mlp::Buffer& buffer,
                           float*& out) {
    double sum = 0.0;
    out = buffer.of_size(n);
    kernels_.logarithms({.of = of, .x = x, .fisher = fisher, .n = n, .out = out, .sum = &sum});
    return static_cast<float>(sum / static_cast<double>(n));
}

// One divided by the root of a target's sum of squares of w std(a), which is at least 1e-6.
const float* Features::inverse_moved(const MlpLayer& layer, const float* theta, const float* deviation) {
    row_sums_.resize(static_cast<std::size_t>(layer.n_in));
    column_sums_.resize(static_cast<std::size_t>(layer.n_out));
    kernels_.square_sums({.weight = theta + layer.weight,
                          .scale = deviation,
                          .n_in = layer.n_in,
                          .n_out = layer.n_out,
                          .of_row = row_sums_.data(),
                          .of_column = column_sums_.data()});
    inverse_moved_.clear();
    for (const double sum : column_sums_) {
        inverse_moved_.push_back(inverse(std::max(std::sqrt(sum), static_cast<double>(kTinyWeight))));
    }
    return inverse_moved_.data();
}

void Features::set_edges(const MlpShape& shape, const float* theta, const ProbeStatistics* statistics) {
    float *log_weight = nullptr, *log_saliency = nullptr, *log_sensitivity = nullptr;
    const std::int64_t n = shape.n_weights;
    const float mean_log_weight = logarithms(LogOf::magnitude, theta, nullptr, n, log_weight_buffer_, log_weight);
    float mean_log_saliency = 0.0F, mean_log_sensitivity = 0.0F;
    if (statistics != nullptr) {
        const float* fisher = statistics->edge;
        mean_log_saliency = logarithms(LogOf::saliency, theta, fisher, n, log_saliency_buffer_, log_saliency);
        mean_log_sensitivity = logarithms(LogOf::fisher, fisher, nullptr, n, log_sensitivity_buffer_, log_sensitivity);
    }
    const std::int64_t row = edge_feature_count(statistics != nullptr);
    const float *inverse_in = inverse_in_.data(), *inverse_out = inverse_out_.data();
    const float* deviation = statistics != nullptr ? statistics->deviation : nullptr;
    for (std::size_t i = 0; i < shape.layers.size(); ++i) {
        const MlpLayer& layer = shape.layers[i];
        const auto of_layer = [&](float* x) { return x == nullptr ? nullptr : x + layer.weight; };
        kernels_.edge_features(
            {.weight = theta + layer.weight,
             .n_in = layer.n_in,
             .n_out = layer.n_out,
             .inverse_rms = inverse(static_cast<double>(rms_[i])),
             .log_rms = clamped(std::log(rms_[i])),
             .inverse_rms_of_target = inverse_in,
             .inverse_rms_of_source = inverse_out,
             .log_weight = of_layer(log_weight),
             .mean_log_weight = mean_log_weight,
             .log_saliency = of_layer(log_saliency),
             .log_sensitivity = of_layer(log_sensitivity),
             .mean_log_saliency = mean_log_saliency,
             .mean_log_sensitivity = mean_log_sensitivity,
             .deviation = deviation,
             .inverse_moved = deviation != nullptr ? inverse_moved(layer, theta, deviation) : nullptr,
             .features = edge_ + layer.weight * row,
             .saliency = saliency_ + layer.weight});
        inverse_in += layer.n_out;
        inverse_out += layer.n_in;
        if (deviation != nullptr) deviation += layer.n_in;
    }
}

void Features::set_nodes(const MlpShape& shape, const float* theta, const ProbeStatistics* statistics) {
    const std::int64_t row = node_feature_count(statistics != nullptr);
    const std::size_t depth = shape.layers.size();
    float* log_gradient = nullptr;
    float mean_log_gradient = 0.0F;
    if (statistics != nullptr) {
        std::int64_t n_linear = 0;
        for (const MlpLayer& layer : shape.layers) n_linear += layer.n_out;
        mean_log_gradient =
            logarithms(LogOf::fisher, statistics->gradient, nullptr, n_linear, log_gradient_buffer_, log_gradient);
    }
    std::int64_t node = 0, from_linear = 0, to_linear = 0;
    for (std::size_t position = 0; position <= depth; ++position) {
        const MlpLayer* layer = position > 0 ? &shape.layers[position - 1] : nullptr;  // that ends here
        const std::int64_t width = layer != nullptr ? layer->n_out : shape.n_inputs();
        const bool has_norm = layer != nullptr && layer->has_norm;
        const double place = static_cast<double>(position) / static_cast<double>(depth);
        const float places[] = {static_cast<float>(place), static_cast<float>(1.0 - place),
                                static_cast<float>(static_cast<double>(depth) / 4.0),
                                static_cast<float>(std::log(static_cast<double>(width) / 16.0))};
        for (std::int64_t i = 0; i < width; ++i, ++node) {
            float* out = node_ + node * row;
            *out++ = layer != nullptr ? theta[layer->bias + i] : 0.0F;
            *out++ = layer != nullptr ? std::log(rms_in_[static_cast<std::size_t>(to_linear + i)]) : 0.0F;
            *out++ = position < depth ? std::log(rms_out_[static_cast<std::size_t>(from_linear + i)]) : 0.0F;
            *out++ = has_norm ? theta[layer->norm_scale + i] - 1.0F : 0.0F;
            *out++ = has_norm ? theta[layer->norm_shift + i] : 0.0F;
            *out++ = has_norm ? 1.0F : 0.0F;
            for (const float value : places) *out++ = value;
            if (statistics == nullptr) continue;
            *out++ = statistics->mean[node];
            *out++ = statistics->deviation[node];
            *out++ = layer != nullptr ? log_gradient[to_linear + i] - mean_log_gradient : 0.0F;
        }
        if (layer != nullptr) to_linear += width;
        if (position < depth) from_linear += width;
    }
    for (std::int64_t i = 0; i < node * row; ++i) node_[i] = clamped(node_[i]);
}

}  // namespace edit

void model_features(const EditShape& shape, std::int64_t n_node_types, const float* theta,
                    const ProbeStatistics* statistics, const FeatureArrays& out, Isa isa) {
    const bool probe = statistics != nullptr;
    edit::Features features(isa, shape.mlp.n_inputs(), n_node_types);
    features.compute(shape, theta, statistics);
    std::copy_n(features.edge(), shape.mlp.n_weights * edge_feature_count(probe), out.edge);
    std::copy_n(features.node(), shape.n_nodes * node_feature_count(probe), out.node);
    std::copy_n(features.node_type(), shape.n_nodes, out.node_type);
    std::copy_n(features.saliency(), shape.mlp.n_weights, out.saliency);
    std::copy_n(features.rms().data(), features.rms().size(), out.rms);
}

}  // namespace metaedit
