#include "cpu/training/trainer.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/kernels_of.hpp"
#include "cpu/training/denormals.hpp"

namespace metaedit {

METAEDIT_KERNELS_OF(training, training_kernels)

}  // namespace metaedit

namespace metaedit::training {

namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kAdamEpsilon = 1e-8;

constexpr std::int64_t in_fours(std::int64_t n) {
    return (n + 3) / 4 * 4;
}

void clear(AlignedFloats& values) {
    std::fill_n(values.data(), values.size(), 0.0F);
}

}  // namespace

Rows::Rows(const float* x, const std::int64_t* labels, std::int64_t n_rows, std::int64_t n_features)
    : n_features_(n_features), values_(n_rows * to_columns(n_features)), labels_(static_cast<std::size_t>(n_rows)) {
    for (std::int64_t i = 0; i < n_rows; ++i) {
        std::copy_n(x + i * n_features, n_features, values_.data() + i * to_columns(n_features));
        labels_[static_cast<std::size_t>(i)] = static_cast<float>(labels[i]);
        n_labels_ = std::max(n_labels_, labels[i] + 1);
    }
}

Trainer::Trainer(MlpShape shape, const float* theta, const Settings& settings, std::span<const DropoutState> dropout,
                 Isa isa)
    : shape_(std::move(shape)),
      settings_(settings),
      kernels_(kernels_of(isa)),
      dropout_(dropout.begin(), dropout.end()) {
    for (const MlpLayer& of : shape_.layers) add_layer(of);
    allocate();
    for_each_parameter([&](std::int64_t from, std::int64_t to) { parameters_[to] = theta[from]; });
}

void Trainer::add_layer(const MlpLayer& of) {
    Layer layer{};
    layer.of = &of;
    layer.in_columns = to_columns(of.n_in);
    layer.out_columns = to_columns(of.n_out);
    layer.weight = n_weights_;
    if (&of == &shape_.layers.back()) {
        n_weights_ += of.n_out * layer.in_columns;
    } else {
        // Rows in fours, as a transposition takes them.
        n_weights_ += in_fours(of.n_in) * layer.out_columns;
        layer.features = n_features_;
        n_features_ += layer.out_columns;
    }
    for (const std::int64_t source : of.skips) {
        if (source > 0) layers_[static_cast<std::size_t>(source - 1)].feeds_skip = true;
    }
    layers_.push_back(layer);
}

void Trainer::allocate() {
    const bool has_norm = std::any_of(layers_.begin(), layers_.end(), [](const Layer& x) { return x.of->has_norm; });
    // Without batch norm, rows need not wait for the whole batch.
    chunk_rows_ = has_norm && settings_.batch_norm ? settings_.batch_size : std::min(settings_.batch_size, kBlockRows);
    const std::int64_t rows = (chunk_rows_ + kBlockRows - 1) / kBlockRows * kBlockRows;
    std::int64_t n_parameters = n_weights_, n_transposed = 0, n_rows = 0;
    for (Layer& layer : layers_) {
        for (std::int64_t* part : {&layer.bias, &layer.scale, &layer.shift}) {
            *part = n_parameters;
            if (part == &layer.bias || layer.of->has_norm) n_parameters += layer.out_columns;
        }
        layer.values = layer.features * rows;
        layer.inverse_std = n_rows;
        n_rows += rows;
        layer.transposed = n_transposed;
        n_transposed += layer.out_columns * layer.in_columns;
    }
    for (AlignedFloats* flat : {&parameters_, &gradient_, &first_, &second_}) *flat = AlignedFloats(n_parameters);
    for (AlignedFloats* values : {&outputs_, &slopes_, &gradients_}) *values = AlignedFloats(rows * n_features_);
    if (has_norm) standardised_ = AlignedFloats(rows * n_features_);
    for (AlignedFloats* of_features : {&running_mean_, &running_variance_, &mean_, &inverse_deviation_, &keeps_}) {
        *of_features = AlignedFloats(n_features_);
    }
    std::fill_n(running_variance_.data(), n_features_, 1.0F);
    for (const Layer& layer : hidden()) std::fill_n(keeps_.data() + layer.features, layer.of->n_out, 1.0F);
    scratch_ = AlignedFloats(3 * n_features_);
    transposed_ = AlignedFloats(n_transposed);
    inputs_ = AlignedFloats(rows * layers_.front().in_columns);
    inverse_std_ = AlignedFloats(n_rows);
    logits_ = AlignedFloats(kBlockRows * last().of->n_out);
}

template <class F>
void Trainer::for_each_parameter(const F& work) const {
    for (const Layer& layer : layers_) {
        const MlpLayer& of = *layer.of;
        const bool is_last = &layer == &last();
        for (std::int64_t i = 0; i < of.n_in; ++i) {
            for (std::int64_t j = 0; j < of.n_out; ++j) {
                const std::int64_t at = is_last ? j * layer.in_columns + i : i * layer.out_columns + j;
                work(of.weight + i * of.n_out + j, layer.weight + at);
            }
        }
        for (std::int64_t j = 0; j < of.n_out; ++j) {
            work(of.bias + j, layer.bias + j);
            if (!of.has_norm) continue;
            work(of.norm_scale + j, layer.scale + j);
            work(of.norm_shift + j, layer.shift + j);
        }
    }
}

void Trainer::copy_parameters(float* theta) const {
    for_each_parameter([&](std::int64_t to, std::int64_t from) { theta[to] = parameters_.data()[from]; });
}

void Trainer::copy_gradient(float* theta) const {
    for_each_parameter([&](std::int64_t to, std::int64_t from) { theta[to] = gradient_.data()[from]; });
}

void Trainer::copy_statistics(float* mean, float* variance) const {
    for (const Layer& layer : hidden()) {
        mean = std::copy_n(running_mean_.data() + layer.features, layer.of->n_out, mean);
        variance = std::copy_n(running_variance_.data() + layer.features, layer.of->n_out, variance);
    }
}

void Trainer::train(const Rows& rows, std::span<const std::int64_t> order) {
    // Adam's second moments of dead neurons decay into denormal numbers, which are very slow to compute with.
    const FlushDenormals flush;
    const auto size = static_cast<std::size_t>(settings_.batch_size);
    for (std::size_t first = 0; first + size <= order.size(); first += size) step(rows, order.data() + first);
}

void Trainer::step(const Rows& rows, const std::int64_t* order) {
    clear(gradient_);
    for (std::size_t i = 1; i + 1 < layers_.size(); ++i) {
        const Layer& layer = layers_[i];
        kernels_.transpose({.from = parameters_.data() + layer.weight,
                            .n_rows = in_fours(layer.of->n_in),
                            .n_columns = layer.out_columns,
                            .from_stride = layer.out_columns,
                            .to = transposed_.data() + layer.transposed,
                            .to_stride = layer.in_columns});
    }
    for (std::int64_t first = 0; first < settings_.batch_size; first += chunk_rows_) {
        const Chunk chunk{first, std::min(chunk_rows_, settings_.batch_size - first)};
        const std::int64_t columns = layers_.front().in_columns;
        for (std::int64_t i = 0; i < chunk.rows; ++i) {
            std::copy_n(rows.row(order[first + i]), columns, inputs_.data() + i * columns);
        }
        forward(chunk);
        backward(rows, order, chunk);
    }
    update();
}

void Trainer::update() {
    ++steps_;
    const auto step = static_cast<double>(steps_);
    const double root = std::sqrt(1.0 - std::pow(kBeta2, step)), gain = 1.0 - std::pow(kBeta1, step);
    const float decay = settings_.learning_rate * settings_.weight_decay;
    const auto take = [&](std::int64_t first, std::int64_t end, float keep) {
        kernels_.adam({.parameters = parameters_.data() + first,
                       .gradient = gradient_.data() + first,
                       .first = first_.data() + first,
                       .second = second_.data() + first,
                       .n = end - first,
                       .keep = keep,
                       .beta1 = static_cast<float>(kBeta1),
                       .beta2 = static_cast<float>(kBeta2),
                       .epsilon = static_cast<float>(kAdamEpsilon * root),
                       .rate = static_cast<float>(static_cast<double>(settings_.learning_rate) * root / gain)});
    };
    take(0, n_weights_, 1.0F - decay);
    take(n_weights_, parameters_.size(), 1.0F);
}

}  // namespace metaedit::training
