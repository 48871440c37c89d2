// Metanetwork_v1(layers, skips, edge_features [W, Fe], saliency [W], node_features [N, Fn], node_type [N],
// condition [M, 4], weights...) -> score [W], relative [W], additive [W], node [N, 3]

#include <stdexcept>

#include "ort/batch.hpp"
#include "ort/operators.hpp"
#include "ort/weights.hpp"

namespace metaedit::ort {
namespace {

enum Inputs : std::size_t {
    kLayers,
    kSkips,
    kEdgeFeatures,
    kSaliency,
    kNodeFeatures,
    kNodeType,
    kCondition,
    kWeights,
    kInputs
};

class MetanetworkKernel : public Kernel {
  public:
    MetanetworkKernel(const Attributes& attributes, const Settings& settings)
        : weights_(attributes), arithmetic_(settings.arithmetic()), n_threads_(settings.threads()) {}

    void compute(Context& context) const override {
        const MetanetSizes& sizes = weights_.sizes();
        const ModelBatch batch(context, kLayers, kSkips);
        const std::int64_t n_weights = batch.n_weights(), n_nodes = batch.n_nodes();
        batch.expect_models(context.extents(kCondition, "condition", 2)[0], "condition");
        const auto* condition = context.floats(kCondition, "condition", {batch.n_models(), kConditionSize});
        const auto* edge = context.floats(kEdgeFeatures, "edge_features", {n_weights, sizes.n_edge_features});
        const auto* saliency = context.floats(kSaliency, "saliency", {n_weights});
        const auto* node = context.floats(kNodeFeatures, "node_features", {n_nodes, sizes.n_node_features});
        const std::vector<std::int64_t> node_type = read_node_types(context, n_nodes);
        const std::shared_ptr<const PackedEditor> editor = weights_.packed(context, kWeights);

        Model next{.graph = {},
                   .n_weights = 0,
                   .edge_features = edge,
                   .saliency = saliency,
                   .node_features = node,
                   .node_type = node_type.data(),
                   .condition = condition,
                   .score = context.output(0, {n_weights}),
                   .relative = context.output(1, {n_weights}),
                   .additive = context.output(2, {n_weights}),
                   .node = context.output(3, {n_nodes, kNodeOutputs})};
        std::vector<Model> models;
        for (const EditShape& shape : batch.shapes()) {
            next.graph = shape.graph();
            next.n_weights = shape.mlp.n_weights;
            models.push_back(next);
            next.edge_features += next.n_weights * sizes.n_edge_features;
            next.node_features += shape.n_nodes * sizes.n_node_features;
            next.node_type += shape.n_nodes;
            next.condition += kConditionSize;
            next.saliency += next.n_weights;
            for (float** values : {&next.score, &next.relative, &next.additive}) *values += next.n_weights;
            next.node += shape.n_nodes * kNodeOutputs;
        }
        metanetwork_forward(*editor, models, arithmetic_, n_threads_);
    }

  private:
    // A copy, so that nobody can change a type between its check and its use.
    std::vector<std::int64_t> read_node_types(const Context& context, std::int64_t n_nodes) const {
        const std::int64_t* given = context.integers(kNodeType, "node_type", {n_nodes});
        std::vector<std::int64_t> types(given, given + n_nodes);
        for (std::size_t i = 0; i < types.size(); ++i) {
            if (types[i] < 0 || types[i] >= weights_.sizes().n_node_types) {
                throw std::invalid_argument("node_type[" + std::to_string(i) + "]: expected 0 to " +
                                            std::to_string(weights_.sizes().n_node_types - 1) + ", got " +
                                            std::to_string(types[i]));
            }
        }
        return types;
    }

    Weights weights_;
    Arithmetic arithmetic_;
    int n_threads_;
};

constexpr auto kFloat = ElementType::float32;
constexpr auto kInt = ElementType::int64;
constexpr Input kInputTypes[kInputs] = {{kInt},   {kInt}, {kFloat}, {kFloat},
                                        {kFloat}, {kInt}, {kFloat}, {kFloat, Characteristic::variadic}};
constexpr ElementType kOutputTypes[] = {kFloat, kFloat, kFloat, kFloat};

}  // namespace

const Operator kMetanetwork{"Metanetwork_v1", kInputTypes, kOutputTypes,
                            [](const Attributes& attributes, const Settings& settings) -> std::unique_ptr<Kernel> {
                                return std::make_unique<MetanetworkKernel>(attributes, settings);
                            }};

}  // namespace metaedit::ort
