#include "core/mlp.hpp"

#include <limits>
#include <stdexcept>
#include <string>

namespace metaedit {
namespace {

void expect_width(std::int64_t width) {
    // Far beyond any network that fits a machine, and far from overflow when multiplied.
    constexpr std::int64_t kMaxWidth = std::int64_t{1} << 24;
    if (width < 1 || width > kMaxWidth) {
        throw std::invalid_argument("width: expected 1 to 2^24, got " + std::to_string(width));
    }
}

}  // namespace

MlpShape mlp_shape(std::int64_t n_inputs, std::span<const MlpLayerSizes> layers, std::span<const MlpSkip> skips,
                   bool is_regressor) {
    expect_width(n_inputs);
    if (layers.empty()) throw std::invalid_argument("layers: expected at least one");
    MlpShape shape{.layers = {}, .n_weights = 0, .n_parameters = 0, .is_regressor = is_regressor};
    std::int64_t n_in = n_inputs;
    const auto expect_room = [](std::int64_t n_parameters) {
        if (n_parameters > std::numeric_limits<std::int32_t>::max()) {
            throw std::invalid_argument("layers: expected under 2^31 parameters");
        }
    };
    for (const auto& [width, activation, alpha, has_norm, epsilon] : layers) {
        expect_width(width);
        if (activation < 0 || activation >= static_cast<std::int64_t>(Activation::count)) {
            throw std::invalid_argument("activation: expected an index into ACTIVATIONS, got " +
                                        std::to_string(activation));
        }
        shape.layers.push_back({.n_in = n_in,
                                .n_out = width,
                                .activation = static_cast<Activation>(activation),
                                .alpha = alpha,
                                .has_norm = has_norm,
                                .epsilon = epsilon,
                                .skips = {},
                                .weight = shape.n_weights,
                                .bias = 0,
                                .norm_scale = 0,
                                .norm_shift = 0});
        shape.n_weights += n_in * width;
        expect_room(shape.n_weights);
        n_in = width;
    }
    std::int64_t next = shape.n_weights;
    for (MlpLayer& layer : shape.layers) {
        layer.bias = next;
        next += layer.n_out;
    }
    for (MlpLayer& layer : shape.layers) {
        if (!layer.has_norm) continue;
        layer.norm_scale = next;
        layer.norm_shift = next + layer.n_out;
        next += 2 * layer.n_out;
    }
    expect_room(next);
    shape.n_parameters = next;
    for (const auto& [source, target] : skips) {
        if (source < 0 || source >= target || target > static_cast<std::int64_t>(shape.layers.size())) {
            throw std::invalid_argument("skips: expected source < target, target a layer, got (" +
                                        std::to_string(source) + ", " + std::to_string(target) + ")");
        }
        shape.layers[static_cast<std::size_t>(target - 1)].skips.push_back(source);
    }
    return shape;
}

PanelRows::PanelRows(const float* rows, std::int64_t n_rows, std::int64_t n_features)
    : n_rows_(n_rows), n_features_(n_features), values_(n_panels() * n_features * kPanelRows) {
    for (std::int64_t i = 0; i < n_panels() * kPanelRows; ++i) {
        const float* from = rows + std::min(i, n_rows - 1) * n_features;
        float* to = values_.data() + i / kPanelRows * n_features * kPanelRows + i % kPanelRows;
        for (std::int64_t f = 0; f < n_features; ++f) to[f * kPanelRows] = from[f];
    }
}

}  // namespace metaedit
