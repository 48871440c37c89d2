// Features_v1(theta [P], layers, skips [, mean, std, gradient, fisher]) -> edge_features [W, Fe], saliency [W], rms
// [W], node_features [N, Fn], node_type [N]

#include <stdexcept>

#include "core/parallel.hpp"
#include "ort/batch.hpp"
#include "ort/editor.hpp"
#include "ort/operators.hpp"

namespace metaedit::ort {
namespace {

enum Inputs : std::size_t { kTheta, kLayers, kSkips, kStatistics, kInputs = kStatistics + 4 };

class FeaturesKernel : public Kernel {
  public:
    FeaturesKernel(const Attributes& attributes, const Settings& settings)
        : editor_(attributes), isa_(settings.arithmetic().isa), n_threads_(settings.threads()) {}

    void compute(Context& context) const override {
        const ModelBatch batch(context, kLayers, kSkips);
        batch.expect_fitting(editor_.n_inputs, editor_.n_classes);
        const float* theta = context.floats(kTheta, "theta", {batch.n_parameters()});
        if (!editor_.probe && context.has_input(kStatistics)) {
            throw std::invalid_argument("mean, std, gradient, fisher: expected none for an editor without a probe");
        }
        const BatchStatistics statistics(context, kStatistics, editor_.probe, batch);
        const std::int64_t n_weights = batch.n_weights(), n_nodes = batch.n_nodes();
        const std::int64_t edge_row = edge_feature_count(editor_.probe), node_row = node_feature_count(editor_.probe);

        std::vector<Task> tasks;
        Task next{.theta = theta,
                  .edge = context.output(0, {n_weights, edge_row}),
                  .saliency = context.output(1, {n_weights}),
                  .rms = context.output(2, {n_weights}),
                  .node = context.output(3, {n_nodes, node_row}),
                  .node_type = context.integer_output(4, {n_nodes})};
        for (const EditShape& shape : batch.shapes()) {
            tasks.push_back(next);
            next.theta += shape.mlp.n_parameters;
            next.edge += shape.mlp.n_weights * edge_row;
            next.saliency += shape.mlp.n_weights;
            next.rms += shape.mlp.n_weights;
            next.node += shape.n_nodes * node_row;
            next.node_type += shape.n_nodes;
        }
        for_each_item(tasks.size(), n_threads_,
                      [&](std::size_t m, int) { write_features(batch.shapes()[m], statistics.of(m), tasks[m]); });
    }

  private:
    // One model's part of input and outputs.
    struct Task {
        const float* theta;
        float *edge, *saliency, *rms, *node;
        std::int64_t* node_type;
    };

    void write_features(const EditShape& shape, const ProbeStatistics* statistics, const Task& task) const {
        std::vector<float> rms(shape.mlp.layers.size());
        const FeatureArrays out{task.edge, task.node, task.node_type, task.saliency, rms.data()};
        model_features(shape, editor_.n_node_types(), task.theta, statistics, out, isa_);
        for (std::size_t i = 0; i < rms.size(); ++i) {
            const MlpLayer& layer = shape.mlp.layers[i];
            std::fill_n(task.rms + layer.weight, layer.n_in * layer.n_out, rms[i]);
        }
    }

    EditorSizes editor_;
    Isa isa_;
    int n_threads_;
};

constexpr auto kFloat = ElementType::float32;
constexpr auto kInt = ElementType::int64;
constexpr Input kMeasured{kFloat, Characteristic::optional};
constexpr Input kInputTypes[kInputs] = {{kFloat}, {kInt}, {kInt}, kMeasured, kMeasured, kMeasured, kMeasured};
constexpr ElementType kOutputTypes[] = {kFloat, kFloat, kFloat, kFloat, kInt};

}  // namespace

const Operator kFeatures{"Features_v1", kInputTypes, kOutputTypes,
                         [](const Attributes& attributes, const Settings& settings) -> std::unique_ptr<Kernel> {
                             return std::make_unique<FeaturesKernel>(attributes, settings);
                         }};

}  // namespace metaedit::ort
