// PrunedEdit_v1(theta [P], layers, skips, condition [M, 4], gain [M], kept [M] [, mean, std, gradient, fisher],
// weights...) -> edited [P], score [W]
//
// A model whose features float32 cannot hold, or whose scores have a NaN, stays as it is, and all its scores are NaN.

#include <limits>
#include <stdexcept>

#include "ort/batch.hpp"
#include "ort/editor.hpp"
#include "ort/operators.hpp"
#include "ort/weights.hpp"

namespace metaedit::ort {
namespace {

enum Inputs : std::size_t {
    kTheta,
    kLayers,
    kSkips,
    kCondition,
    kGain,
    kKept,
    kMeasured,  // where a probe is read, its statistics; then the weights
    kInputs
};

class PrunedEditKernel : public Kernel {
  public:
    PrunedEditKernel(const Attributes& attributes, const Settings& settings)
        : editor_(attributes),
          weights_(attributes),
          arithmetic_(settings.arithmetic()),
          n_threads_(settings.threads()) {
        const MetanetSizes& sizes = weights_.sizes();
        expect("n_node_types", editor_.n_node_types(), sizes.n_node_types);
        expect("n_edge_features", edge_feature_count(editor_.probe), sizes.n_edge_features);
        expect("n_node_features", node_feature_count(editor_.probe), sizes.n_node_features);
    }

    void compute(Context& context) const override {
        const ModelBatch batch(context, kLayers, kSkips);
        batch.expect_fitting(editor_.n_inputs, editor_.n_classes);
        const std::int64_t n_models = batch.n_models();
        const BatchStatistics statistics(context, kMeasured, editor_.probe, batch);
        const float* gain = context.floats(kGain, "gain", {n_models});
        const std::int64_t* kept = context.integers(kKept, "kept", {n_models});
        EditTask next{.shape = nullptr,
                      .theta = context.floats(kTheta, "theta", {batch.n_parameters()}),
                      .condition = context.floats(kCondition, "condition", {n_models, kConditionSize}),
                      .gain = 0.0F,
                      .kept = 0,
                      .probe = nullptr,
                      .statistics = nullptr,
                      .edited = context.output(0, {batch.n_parameters()}),
                      .score = context.output(1, {batch.n_weights()}),
                      .status = nullptr,
                      .seconds = nullptr};
        const std::shared_ptr<const PackedEditor> editor =
            weights_.packed(context, kMeasured + statistics.input_count());
        const auto count = static_cast<std::size_t>(n_models);
        std::vector<EditStatus> status(count);
        std::vector<double> seconds(count);
        std::vector<EditTask> tasks;
        for (std::size_t m = 0; m < count; ++m) {
            const EditShape& shape = batch.shapes()[m];
            next.shape = &shape;
            next.gain = gain[m];
            next.kept = checked_kept(kept[m], m, shape.mlp.n_weights);
            next.statistics = statistics.of(m);
            next.status = &status[m];
            next.seconds = &seconds[m];
            tasks.push_back(next);
            next.theta += shape.mlp.n_parameters;
            next.condition += kConditionSize;
            next.edited += shape.mlp.n_parameters;
            next.score += shape.mlp.n_weights;
        }
        edit_models(*editor, editor_.n_inputs, tasks, arithmetic_, n_threads_);
        for (const EditTask& task : tasks) {
            if (*task.status == EditStatus::edited) continue;
            std::fill_n(task.score, task.shape->mlp.n_weights, std::numeric_limits<float>::quiet_NaN());
        }
    }

  private:
    static void expect(const std::string& name, std::int64_t expected, std::int64_t got) {
        if (expected == got) return;
        throw std::invalid_argument("attribute " + name + ": expected " + std::to_string(expected) +
                                    " for these n_inputs, n_classes and probe, got " + std::to_string(got));
    }

    static std::int64_t checked_kept(std::int64_t kept, std::size_t model, std::int64_t n_weights) {
        if (kept < 0 || kept > n_weights) {
            throw std::invalid_argument("kept[" + std::to_string(model) + "]: expected 0 to " +
                                        std::to_string(n_weights) + ", got " + std::to_string(kept));
        }
        return kept;
    }

    EditorSizes editor_;
    Weights weights_;
    Arithmetic arithmetic_;
    int n_threads_;
};

constexpr auto kFloat = ElementType::float32;
constexpr auto kInt = ElementType::int64;
constexpr Input kInputTypes[kInputs] = {
    {kFloat}, {kInt}, {kInt}, {kFloat}, {kFloat}, {kInt}, {kFloat, Characteristic::variadic}};
constexpr ElementType kOutputTypes[] = {kFloat, kFloat};

}  // namespace

const Operator kPrunedEdit{"PrunedEdit_v1", kInputTypes, kOutputTypes,
                           [](const Attributes& attributes, const Settings& settings) -> std::unique_ptr<Kernel> {
                               return std::make_unique<PrunedEditKernel>(attributes, settings);
                           }};

}  // namespace metaedit::ort
