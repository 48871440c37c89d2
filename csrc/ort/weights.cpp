#include "ort/weights.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <stdexcept>

namespace metaedit::ort {
namespace {

// Far beyond any network; what shapes are made of then stays far from overflow.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 24, kMaxLayers = 4096;

std::size_t count_of(const Extents& shape) {
    return static_cast<std::size_t>(std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()));
}

// Notes the names and shapes that are asked for.
class NameReader : public ParameterReader<NameReader> {
  public:
    explicit NameReader(std::vector<std::pair<std::string, Extents>>& names) : names_(names) {}

    const float* take_named(const std::string& name, const Extents& shape) {
        static constexpr float kNothing = 0.0F;
        names_.emplace_back(name, shape);
        return &kNothing;
    }
    void expect_no_more() const {}

  private:
    std::vector<std::pair<std::string, Extents>>& names_;
};

// Copies of parameters that lie one after the other, in the order in which they are asked for.
class ValueReader : public ParameterReader<ValueReader> {
  public:
    ValueReader(std::span<const float* const> values, std::vector<std::vector<float>>& storage)
        : values_(values), storage_(storage) {}

    const float* take_named(const std::string&, const Extents& shape) {
        const float* values = values_[storage_.size()];
        storage_.emplace_back(values, values + count_of(shape));
        return storage_.back().data();
    }
    void expect_no_more() const {}

  private:
    std::span<const float* const> values_;
    std::vector<std::vector<float>>& storage_;
};

}  // namespace

MetanetSizes sizes_of(const Attributes& attributes) {
    const auto size = [&](const char* name, std::int64_t most) {
        const std::int64_t value = attributes.integer(name);
        if (value < 1 || value > most) {
            throw std::invalid_argument(std::string("attribute ") + name + ": expected 1 to " + std::to_string(most) +
                                        ", got " + std::to_string(value));
        }
        return value;
    };
    MetanetSizes sizes{.form = attributes.text("form"),
                       .d_e = size("d_e", kMaxSize),
                       .d_v = size("d_v", kMaxSize),
                       .n_layers = size("n_layers", kMaxLayers),
                       .head_hidden = size("head_hidden", kMaxSize),
                       .n_edge_features = size("n_edge_features", kMaxSize),
                       .n_node_features = size("n_node_features", kMaxSize),
                       .n_node_types = size("n_node_types", kMaxSize),
                       .edits_parameters = attributes.flag("edits_parameters")};
    check(sizes);
    return sizes;
}

// `values` points into the memory of `editor`.
struct Weights::Packed {
    std::vector<std::span<const float>> values;
    PackedEditor editor;

    static std::shared_ptr<const Packed> of(const MetanetSizes& sizes, float score_gain,
                                            std::span<const float* const> given) {
        std::vector<std::vector<float>> storage;
        ValueReader reader(given, storage);
        MetanetWeights weights = network_weights(reader, sizes, score_gain);
        return std::make_shared<const Packed>(std::move(weights), std::move(storage));
    }

    Packed(MetanetWeights weights, std::vector<std::vector<float>> storage)
        : values(storage.begin(), storage.end()), editor(std::move(weights), std::move(storage)) {}

    bool has_bits_of(std::span<const float* const> given) const {
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (std::memcmp(values[i].data(), given[i], values[i].size_bytes()) != 0) return false;
        }
        return true;
    }
};

Weights::Weights(const Attributes& attributes)
    : sizes_(sizes_of(attributes)), score_gain_(attributes.number("score_gain")) {
    NameReader reader(expected_);
    network_weights(reader, sizes_, score_gain_);
}

std::shared_ptr<const PackedEditor> Weights::packed(const Context& context, std::size_t first) const {
    const std::size_t count = context.input_count() - std::min(first, context.input_count());
    if (count != expected_.size()) {
        throw std::invalid_argument("weights: expected " + std::to_string(expected_.size()) + " inputs, got " +
                                    std::to_string(count));
    }
    std::vector<const float*> given;
    for (std::size_t i = 0; i < count; ++i) {
        const auto& [name, shape] = expected_[i];
        given.push_back(context.floats(first + i, "weights[" + std::to_string(i) + "] (" + name + ")", shape));
    }
    std::shared_ptr<const Packed> found;
    {
        const std::lock_guard<std::mutex> guard(lock_);
        found = last_;
    }
    if (found == nullptr || !found->has_bits_of(given)) {
        found = Packed::of(sizes_, score_gain_, given);  // no lock: at worst two threads pack the same
        const std::lock_guard<std::mutex> guard(lock_);
        last_ = found;
    }
    const PackedEditor* editor = &found->editor;
    return {std::move(found), editor};
}

}  // namespace metaedit::ort
