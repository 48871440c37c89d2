#include "cpu/mlp/compact.hpp"

namespace metaedit::mlp {
namespace {

// Where fewer of a layer's weights than this share are kept, only those are stored: a dense product is about so much
// quicker for each weight, most of all in the gradient of the weights.
constexpr double kSparseBelow = 0.7;

using Neurons = std::vector<std::int32_t>;

bool keeps(const float* theta, const std::uint8_t* free, std::int64_t weight) {
    return theta[weight] != 0.0F || (free != nullptr && free[weight] != 0);
}

// The neurons of every neuron layer that a later one reads. Norms and skips tie the neurons of a layer together.
std::vector<Neurons> live_neurons(const MlpShape& shape, const float* theta, const std::uint8_t* free) {
    const std::size_t n_layers = shape.layers.size();
    std::vector<bool> whole(n_layers + 1, false);
    whole.front() = whole.back() = true;
    for (std::size_t t = 1; t <= n_layers; ++t) {
        const MlpLayer& layer = shape.layers[t - 1];
        if (layer.has_norm || !layer.skips.empty()) whole[t] = true;
        for (const std::int64_t source : layer.skips) whole[static_cast<std::size_t>(source)] = true;
    }
    std::vector<Neurons> live(n_layers + 1);
    for (std::size_t t = n_layers + 1; t-- > 0;) {
        const std::int64_t n = t == 0 ? shape.n_inputs() : shape.layers[t - 1].n_out;
        for (std::int32_t i = 0; i < n; ++i) {
            bool read = whole[t];
            if (!read) {
                const MlpLayer& next = shape.layers[t];
                for (const std::int32_t j : live[t + 1]) {
                    if ((read = keeps(theta, free, next.weight + i * next.n_out + j))) break;
                }
            }
            if (read) live[t].push_back(i);
        }
        if (live[t].empty()) live[t].push_back(0);  // a layer has a neuron
    }
    return live;
}

// By output neuron; with the order for the way back.
KeptWeights kept_weights(const MlpLayer& layer, const Neurons& inputs, const Neurons& outputs, const float* theta,
                         const std::uint8_t* free, std::vector<std::int32_t>& from) {
    KeptWeights kept;
    kept.back_starts.assign(inputs.size() + 1, 0);
    std::vector<std::int32_t> outputs_of;
    for (std::size_t j = 0; j < outputs.size(); ++j) {
        kept.starts.push_back(static_cast<std::int32_t>(kept.inputs.size()));
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const std::int64_t weight = layer.weight + inputs[i] * layer.n_out + outputs[j];
            if (!keeps(theta, free, weight)) continue;
            kept.inputs.push_back(static_cast<std::int32_t>(i));
            outputs_of.push_back(static_cast<std::int32_t>(j));
            ++kept.back_starts[i + 1];
            from.push_back(static_cast<std::int32_t>(weight));
        }
    }
    kept.starts.push_back(static_cast<std::int32_t>(kept.inputs.size()));
    for (std::size_t i = 0; i < inputs.size(); ++i) kept.back_starts[i + 1] += kept.back_starts[i];
    std::vector<std::int32_t> next(kept.back_starts.begin(), kept.back_starts.end() - 1);
    kept.outputs.resize(kept.inputs.size());
    kept.order.resize(kept.inputs.size());
    for (std::size_t k = 0; k < kept.inputs.size(); ++k) {
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(kept.inputs[k])]++);
        kept.outputs[at] = outputs_of[k];
        kept.order[at] = static_cast<std::int32_t>(k);
    }
    return kept;
}

}  // namespace

Compact compact(const MlpShape& shape, const float* theta, const std::uint8_t* free) {
    const std::vector<Neurons> live = live_neurons(shape, theta, free);
    Compact made{.shape = shape, .kept = std::vector<KeptWeights>(shape.layers.size()), .from = {}};
    const auto size = [&] { return static_cast<std::int64_t>(made.from.size()); };
    for (std::size_t l = 0; l < shape.layers.size(); ++l) {
        const MlpLayer& layer = shape.layers[l];
        const Neurons &inputs = live[l], &outputs = live[l + 1];
        MlpLayer& to = made.shape.layers[l];
        to.n_in = static_cast<std::int64_t>(inputs.size());
        to.n_out = static_cast<std::int64_t>(outputs.size());
        to.weight = size();
        std::int64_t n_kept = 0;
        for (const std::int32_t i : inputs) {
            for (const std::int32_t j : outputs) n_kept += keeps(theta, free, layer.weight + i * layer.n_out + j);
        }
        if (static_cast<double>(n_kept) < kSparseBelow * static_cast<double>(to.n_in * to.n_out)) {
            made.kept[l] = kept_weights(layer, inputs, outputs, theta, free, made.from);
        } else {
            for (const std::int32_t i : inputs) {
                for (const std::int32_t j : outputs) {
                    made.from.push_back(static_cast<std::int32_t>(layer.weight + i * layer.n_out + j));
                }
            }
        }
    }
    made.shape.n_weights = size();
    for (std::size_t l = 0; l < shape.layers.size(); ++l) {
        made.shape.layers[l].bias = size();
        for (const std::int32_t j : live[l + 1]) {
            made.from.push_back(static_cast<std::int32_t>(shape.layers[l].bias + j));
        }
    }
    for (std::size_t l = 0; l < shape.layers.size(); ++l) {
        const MlpLayer& layer = shape.layers[l];
        if (!layer.has_norm) continue;
        made.shape.layers[l].norm_scale = size();
        made.shape.layers[l].norm_shift = size() + layer.n_out;
        for (std::int64_t j = 0; j < 2 * layer.n_out; ++j) {
            made.from.push_back(static_cast<std::int32_t>(layer.norm_scale + j));
        }
    }
    made.shape.n_parameters = size();
    return made;
}

}  // namespace metaedit::mlp
