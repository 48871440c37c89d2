// The operators for ONNX Runtime, on a fake one: whole edits beside edit_models, tables of any content, many threads.

#include <limits>
#include <thread>

#include "check.hpp"
#include "core/edit.hpp"
#include "core/parameters.hpp"
#include "fake_ort.hpp"

namespace metaedit::test {
namespace {

constexpr std::int64_t kInputs = 5, kClasses = 2;
constexpr float kGain = 0.3F;

// Random parameters in the order of the operators' inputs.
class RandomReader : public ParameterReader<RandomReader> {
  public:
    explicit RandomReader(unsigned seed) : random_(seed) {}

    const float* take_named(const std::string&, const Extents& shape) {
        std::int64_t size = 1;
        for (const std::int64_t n : shape) size *= n;
        inputs.push_back(FakeTensor{shape, random_.normal(size, 0.3F)});
        storage.push_back(std::get<Floats>(inputs.back()->values));
        return storage.back().data();
    }
    void expect_no_more() const {}

    std::vector<std::optional<FakeTensor>> inputs;
    std::vector<Floats> storage;

  private:
    Random random_;
};

MetanetSizes sizes_of(const std::string& form) {
    return {.form = form,
            .d_e = 16,
            .d_v = 12,
            .n_layers = 2,
            .head_hidden = 8,
            .n_edge_features = edge_feature_count(false),
            .n_node_features = node_feature_count(false),
            .n_node_types = kInputs + kClasses + 1 + static_cast<std::int64_t>(Activation::count),
            .edits_parameters = true};
}

FakeAttributes attributes_of(const MetanetSizes& sizes) {
    return {{"form", sizes.form},
            {"d_e", sizes.d_e},
            {"d_v", sizes.d_v},
            {"n_layers", sizes.n_layers},
            {"head_hidden", sizes.head_hidden},
            {"n_edge_features", sizes.n_edge_features},
            {"n_node_features", sizes.n_node_features},
            {"n_node_types", sizes.n_node_types},
            {"edits_parameters", std::int64_t{1}},
            {"score_gain", 4.0F},
            {"n_inputs", kInputs},
            {"n_classes", kClasses},
            {"probe", std::int64_t{0}}};
}

// An editor, and models with all that PrunedEdit_v1 reads.
struct EditCase {
    MetanetSizes sizes;
    std::unique_ptr<PackedEditor> editor;
    std::vector<MlpCase> models;
    std::vector<std::optional<FakeTensor>> inputs;  // theta, layers, skips, condition, gain, kept, weights...

    EditCase(const std::string& form, unsigned seed) : sizes(sizes_of(form)) {
        // No norm: these cases have its parameters elsewhere in theta than MLPSpec.
        models.push_back(mlp_case("a", {{5, 7, 9, 2}, {{0, 1}, {1, 2}}}, Activation::gelu, false, false, seed));
        models.push_back(mlp_case("b", {{5, 1}, {}}, Activation::identity, false, false, seed + 1));
        Floats theta;
        std::vector<std::int64_t> layers, skips, kept;
        for (std::size_t m = 0; m < models.size(); ++m) {
            const MlpShape& shape = models[m].shape;
            theta.insert(theta.end(), models[m].theta.begin(), models[m].theta.end());
            for (std::size_t i = 0; i < shape.layers.size(); ++i) {
                const MlpLayer& layer = shape.layers[i];
                const auto activation = static_cast<std::int64_t>(layer.activation);
                const auto model = static_cast<std::int64_t>(m);
                layers.insert(layers.end(),
                              {model, layer.n_in, layer.n_out, activation, layer.has_norm ? 1 : 0, std::int64_t{3}});
            }
            kept.push_back(shape.n_weights / 2);
        }
        skips = {0, 0, 1, 0, 1, 2};
        const auto n = static_cast<std::int64_t>(models.size());
        inputs.push_back(FakeTensor{{static_cast<std::int64_t>(theta.size())}, theta});
        inputs.push_back(FakeTensor{{static_cast<std::int64_t>(layers.size()) / 6, 6}, layers});
        inputs.push_back(FakeTensor{{static_cast<std::int64_t>(skips.size()) / 3, 3}, skips});
        inputs.push_back(FakeTensor{{n, kConditionSize}, Random(seed).normal(n * kConditionSize, 1.0F)});
        inputs.push_back(FakeTensor{{n}, Floats(models.size(), kGain)});
        inputs.push_back(FakeTensor{{n}, kept});
        RandomReader reader(seed);
        MetanetWeights weights = network_weights(reader, sizes, 4.0F);
        inputs.insert(inputs.end(), reader.inputs.begin(), reader.inputs.end());
        editor = std::make_unique<PackedEditor>(std::move(weights), std::move(reader.storage));
    }

    // By edit_models: edited, score.
    std::vector<Floats> expected() const {
        std::vector<Floats> found(2);
        for (std::size_t m = 0; m < models.size(); ++m) {
            const EditShape shape(models[m].shape,
                                  std::vector<EditShape::Owned>(models[m].shape.layers.size(), {true, true}));
            Floats edited = poisoned(shape.mlp.n_parameters), score = poisoned(shape.mlp.n_weights);
            EditStatus status{};
            double seconds = 0.0;
            const EditTask task{
                .shape = &shape,
                .theta = models[m].theta.data(),
                .condition = std::get<Floats>(inputs[3]->values).data() + m * kConditionSize,
                .gain = kGain,
                .kept = shape.mlp.n_weights / 2,
                .probe = nullptr,
                .statistics = nullptr,
                .edited = edited.data(),
                .score = score.data(),
                .status = &status,
                .seconds = &seconds,
            };
            edit_models(*editor, kInputs, std::span(&task, 1), Arithmetic(active_level(), Precision::float32), 1);
            found[0].insert(found[0].end(), edited.begin(), edited.end());
            found[1].insert(found[1].end(), score.begin(), score.end());
        }
        return found;
    }
};

}  // namespace

TEST(the_operator_edits_as_edit_models_does) {
    for (const char* form : {"shipped", "official"}) {
        const EditCase of(form, 40);
        const std::vector<Floats> expected = of.expected();
        for (const char* threads : {"1", "3"}) {
            const FakeKernel kernel(registered("PrunedEdit_v1", {{"metaedit.num_threads", threads}}),
                                    attributes_of(of.sizes));
            for (const std::size_t n_outputs : {2U, 1U, 0U}) {
                const std::vector<FakeTensor> found = kernel.run(of.inputs, n_outputs);
                for (std::size_t i = 0; i < n_outputs; ++i) {
                    EXPECT(same_bits(std::get<Floats>(found[i].values), expected[i]), form);
                }
            }
        }
    }
}

TEST(threads_run_one_kernel_with_weights_of_their_own) {
    const EditCase cases[] = {{"shipped", 40}, {"shipped", 50}};
    const std::vector<Floats> expected[] = {cases[0].expected(), cases[1].expected()};
    const FakeKernel kernel(registered("PrunedEdit_v1"), attributes_of(cases[0].sizes));
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t turn = 0; turn < 6; ++turn) {
                const std::size_t i = (t + turn) % 2;
                const std::vector<FakeTensor> found = kernel.run(cases[i].inputs, 2);
                EXPECT(same_bits(std::get<Floats>(found[0].values), expected[i][0]), std::to_string(i));
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
}

// Features and network take any table that describes models, and refuse others: nothing is read beside an input.
TEST(tables_of_any_content_are_run_or_refused) {
    Random random(1);
    const EditCase of("shipped", 40);
    const FakeKernel features(registered("Features_v1"), attributes_of(of.sizes));
    const std::int64_t odd[] = {std::numeric_limits<std::int64_t>::min(), -1, 0, 1, 2, 3, std::int64_t{1} << 24,
                                std::numeric_limits<std::int64_t>::max()};
    int n_run = 0, n_refused = 0;
    for (int turn = 0; turn < 3000; ++turn) {
        std::vector<std::optional<FakeTensor>> inputs(of.inputs.begin(), of.inputs.begin() + 3);
        const std::size_t table = 1 + static_cast<std::size_t>(random.below(2));
        auto& values = std::get<std::vector<std::int64_t>>(inputs[table]->values);
        const auto place = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(values.size())));
        values[place] = odd[random.below(std::size(odd))];
        // As many parameters as these layers may have.
        const std::int64_t size = random.below(2) == 0 ? inputs[0]->extents[0] : random.below(300);
        inputs[0] = FakeTensor{{size}, random.normal(size, 1.0F)};
        try {
            features.run(inputs, 5);
            ++n_run;
        } catch (const std::runtime_error& error) {
            EXPECT(std::string(error.what()).starts_with("metaedit, Features_v1: "), error.what());
            ++n_refused;
        }
    }
    EXPECT(n_run > 50 && n_refused > 50, std::to_string(n_run) + " and " + std::to_string(n_refused));
}

TEST(what_is_missing_or_of_another_type_is_named) {
    const EditCase of("official", 40);
    const FakeKernel kernel(registered("PrunedEdit_v1"), attributes_of(of.sizes));
    auto inputs = of.inputs;
    inputs[0].reset();
    EXPECT_THROWS(kernel.run(inputs, 2), std::runtime_error, "theta: expected an input, got none");
    inputs = of.inputs;
    inputs[5] = FakeTensor{{2}, Floats(2)};
    EXPECT_THROWS(kernel.run(inputs, 2), std::runtime_error, "kept: expected int64 of shape [2], got float32");
    inputs = of.inputs;
    inputs.pop_back();
    EXPECT_THROWS(kernel.run(inputs, 2), std::runtime_error, "weights: expected ");
    inputs.resize(2);
    EXPECT_THROWS(kernel.run(inputs, 2), std::runtime_error, "skips: expected an input, got none");
    FakeAttributes wrong = attributes_of(of.sizes);
    wrong["d_e"] = 16.0F;
    EXPECT_THROWS(FakeKernel(registered("PrunedEdit_v1"), wrong), std::runtime_error, "attribute d_e: expected an");
    EXPECT_THROWS(registered("PrunedEdit_v1", {{"metaedit.precision", "half"}}), std::runtime_error, "precision: ");
    EXPECT(old_runtime_is_left_alone(), "version 16");
}

}  // namespace metaedit::test
