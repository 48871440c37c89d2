#include "ort/batch.hpp"

#include <cstring>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace metaedit::ort {
namespace {

constexpr std::int64_t kLayerColumns = 6, kSkipColumns = 3;

// One row of a table, its columns by their names.
struct LayerRow {
    std::int64_t model, n_in, n_out, activation, norm, owned;
};
struct SkipRow {
    std::int64_t model, source, target;

    bool operator<(const SkipRow& other) const {
        return std::tie(model, source, target) < std::tie(other.model, other.source, other.target);
    }
};
static_assert(sizeof(LayerRow) == kLayerColumns * sizeof(std::int64_t));
static_assert(sizeof(SkipRow) == kSkipColumns * sizeof(std::int64_t));

// A copy: nobody can change a row between its check and its use.
template <class Row>
std::vector<Row> read_rows(const Context& context, std::size_t input, const char* name, std::int64_t columns) {
    const std::int64_t n_rows = context.extents(input, name, 2)[0];
    const std::int64_t* table = context.integers(input, name, {n_rows, columns});
    std::vector<Row> rows(static_cast<std::size_t>(n_rows));
    if (n_rows > 0) std::memcpy(rows.data(), table, rows.size() * sizeof(Row));
    return rows;
}

[[noreturn]] void refuse(const char* table, std::size_t row, const char* column, const std::string& expected,
                         std::int64_t got) {
    throw std::invalid_argument(std::string(table) + "[" + std::to_string(row) + "]: " + column + ": expected " +
                                expected + ", got " + std::to_string(got));
}

// Checks a row beside the one before; mlp_shape checks widths and activations.
void check_layer(std::span<const LayerRow> rows, std::size_t i) {
    const LayerRow& row = rows[i];
    const bool is_first = i == 0, starts = is_first || row.model != rows[i - 1].model;
    const std::int64_t next = is_first ? 0 : rows[i - 1].model + 1;
    if (starts && row.model != next) {
        refuse("layers", i, "model", is_first ? "0" : std::to_string(next - 1) + " or " + std::to_string(next),
               row.model);
    }
    if (!starts && row.n_in != rows[i - 1].n_out) {
        refuse("layers", i, "n_in", std::to_string(rows[i - 1].n_out) + ", the outputs of the layer before", row.n_in);
    }
    if (row.norm != 0 && row.norm != 1) refuse("layers", i, "norm", "0 (none) or 1 (layer)", row.norm);
    if (row.owned < 0 || row.owned > 3) refuse("layers", i, "owned", "0 to 3", row.owned);
}

void check_skip(std::span<const SkipRow> rows, std::size_t i, std::int64_t n_models) {
    const SkipRow& row = rows[i];
    if (row.model < 0 || row.model >= n_models) {
        refuse("skips", i, "model", "0 to " + std::to_string(n_models - 1), row.model);
    }
    if (i > 0 && !(rows[i - 1] < row)) {
        refuse("skips", i, "model", "rows in rising order, each once, but this one is not behind the one before; model",
               row.model);
    }
}

EditShape shape_of(std::span<const LayerRow> layers, std::span<const SkipRow> skips) {
    std::vector<MlpLayerSizes> sizes;
    std::vector<EditShape::Owned> owned;
    for (const LayerRow& row : layers) {
        sizes.push_back({row.n_out, row.activation, 0.0F, row.norm == 1, 0.0F});  // no edit reads the constants
        owned.push_back({(row.owned & 1) != 0, (row.owned & 2) != 0});
    }
    std::vector<MlpSkip> joins;
    for (const SkipRow& row : skips) {
        if (row.target >= static_cast<std::int64_t>(layers.size())) {
            throw std::invalid_argument("skips: target: expected a hidden layer, below " +
                                        std::to_string(layers.size()) + ", got " + std::to_string(row.target));
        }
        joins.push_back({row.source, row.target});
    }
    return {mlp_shape(layers[0].n_in, sizes, joins, false), std::move(owned)};
}

}  // namespace

ModelBatch::ModelBatch(const Context& context, std::size_t layers, std::size_t skips) {
    const auto layer_rows = read_rows<LayerRow>(context, layers, "layers", kLayerColumns);
    const auto skip_rows = read_rows<SkipRow>(context, skips, "skips", kSkipColumns);
    for (std::size_t i = 0; i < layer_rows.size(); ++i) check_layer(layer_rows, i);
    const std::int64_t n_models = layer_rows.empty() ? 0 : layer_rows.back().model + 1;
    for (std::size_t i = 0; i < skip_rows.size(); ++i) check_skip(skip_rows, i, n_models);

    std::span<const LayerRow> layers_left = layer_rows;
    std::span<const SkipRow> skips_left = skip_rows;
    const auto take_model = [](auto& left, std::int64_t model) {
        std::size_t n = 0;
        while (n < left.size() && left[n].model == model) ++n;
        const auto taken = left.first(n);
        left = left.subspan(n);
        return taken;
    };
    for (std::int64_t m = 0; m < n_models; ++m) {
        const auto own_layers = take_model(layers_left, m);
        const auto own_skips = take_model(skips_left, m);
        try {
            shapes_.push_back(shape_of(own_layers, own_skips));
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument("layers, skips of model " + std::to_string(m) + ": " + error.what());
        }
        const EditShape& shape = shapes_.back();
        n_nodes_ += shape.n_nodes;
        n_linear_ += shape.n_nodes - shape.mlp.n_inputs();
        n_weights_ += shape.mlp.n_weights;
        n_parameters_ += shape.mlp.n_parameters;
    }
}

void ModelBatch::expect_models(std::int64_t n_models, const std::string& name) const {
    if (n_models != this->n_models()) {
        throw std::invalid_argument(name + ": expected those of the " + std::to_string(this->n_models()) +
                                    " models of layers, got " + std::to_string(n_models));
    }
}

void ModelBatch::expect_fitting(std::int64_t n_inputs, std::int64_t n_classes) const {
    for (std::size_t m = 0; m < shapes_.size(); ++m) {
        metaedit::expect_fitting(shapes_[m], n_inputs, n_classes, "layers of model " + std::to_string(m));
    }
}

BatchStatistics::BatchStatistics(const Context& context, std::size_t first, bool reads, const ModelBatch& batch)
    : reads_(reads) {
    if (!reads) return;
    static constexpr const char* kNames[kInputs] = {"mean", "std", "gradient", "fisher"};
    const std::int64_t sizes[kInputs] = {batch.n_nodes(), batch.n_nodes(), batch.n_linear(), batch.n_weights()};
    const float* next[kInputs];
    for (std::size_t i = 0; i < kInputs; ++i) next[i] = context.floats(first + i, kNames[i], {sizes[i]});
    for (const EditShape& shape : batch.shapes()) {
        of_model_.push_back({next[0], next[1], next[2], next[3]});
        next[0] += shape.n_nodes;
        next[1] += shape.n_nodes;
        next[2] += shape.n_nodes - shape.mlp.n_inputs();
        next[3] += shape.mlp.n_weights;
    }
}

}  // namespace metaedit::ort
