// The trainer of MLPs: every level beside the serial one; neither another trainer's thread nor the rows that two
// trainers share change a bit.

#include <thread>

#include "cases.hpp"
#include "check.hpp"
#include "cpu/training/trainer.hpp"

namespace metaedit::test {
namespace {

using training::DropoutState;
using training::Rows;
using training::Settings;
using training::Trainer;

constexpr double kGradientLimit = 1e-5;
// Adam divides by the size of a gradient, so that a small one's rounding errors come out as large as any.
constexpr double kStepsLimit = 1e-2;
constexpr std::int64_t kRows = 150;

std::vector<MlpCase> trained_cases() {
    std::vector<MlpCase> cases;
    for (const MlpCase& of : mlp_cases()) {
        if (of.name.starts_with("activation")) cases.push_back(of);
    }
    cases.push_back(mlp_case("one neuron", {{1, 1, 1, 2}, {{0, 1}, {1, 2}}}, Activation::tanh, true, false, 20));
    cases.push_back(mlp_case("linear", {{5, 3}, {}}, Activation::identity, false, false, 21));
    cases.push_back(mlp_case("wide", {{3, 512, 17, 3}, {{1, 2}}}, Activation::silu, true, false, 22));
    return cases;
}

Rows rows_for(const MlpShape& shape) {
    Random random(4);
    const Floats x = random.normal(kRows * shape.n_inputs(), 1.0F);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < kRows; ++i) labels.push_back(random.below(shape.n_outputs()));
    return {x.data(), labels.data(), kRows, shape.n_inputs()};
}

std::vector<DropoutState> dropout_states(const MlpShape& shape) {
    std::vector<DropoutState> states(shape.layers.size() - 1);
    Random random(6);
    for (DropoutState& state : states) {
        for (std::uint32_t& word : state) word = static_cast<std::uint32_t>(random.below(1LL << 32));
    }
    return states;
}

struct Trained {
    Floats gradient;    // of the first step
    Floats theta;       // behind the last
    Floats statistics;  // means, then variances
};

Trained train(const MlpCase& of, const Rows& rows, const Settings& settings, Isa isa) {
    const MlpShape& shape = of.shape;
    const std::vector<DropoutState> states = dropout_states(shape);
    Trainer trainer(shape, of.theta.data(), settings, states, isa);
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < 3 * settings.batch_size; ++i) order.push_back((7 * i + 3) % kRows);
    const std::span<const std::int64_t> all(order);
    const auto batch = static_cast<std::size_t>(settings.batch_size);
    std::int64_t n_hidden = -shape.n_outputs();
    for (const MlpLayer& layer : shape.layers) n_hidden += layer.n_out;
    Trained found{poisoned(shape.n_parameters), poisoned(shape.n_parameters), poisoned(2 * n_hidden)};
    // Less than a batch is no step.
    trainer.train(rows, all.first(batch - 1));
    trainer.copy_parameters(found.theta.data());
    EXPECT(same_bits(found.theta, of.theta), of.name + ": moved without a batch");
    trainer.train(rows, all.first(batch));
    trainer.copy_gradient(found.gradient.data());
    trainer.train(rows, all.subspan(batch));
    trainer.copy_parameters(found.theta.data());
    trainer.copy_statistics(found.statistics.data(), found.statistics.data() + n_hidden);
    return found;
}

Floats change(const Floats& to, const Floats& from) {
    Floats out = to;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] -= from[i];
    return out;
}

std::vector<Settings> settings_cases() {
    std::vector<Settings> cases;
    for (const std::int64_t batch_size : {std::int64_t{1}, std::int64_t{65}, std::int64_t{130}}) {
        for (const bool batch_norm : {false, true}) {
            if (batch_norm && batch_size < 2) continue;
            const std::uint32_t dropped = batch_size == 65 ? 64 : 0;
            cases.push_back({batch_size, 0.01F, 0.1F, dropped, batch_norm});
        }
    }
    return cases;
}

}  // namespace

TEST(training_on_every_level) {
    for (const MlpCase& of : trained_cases()) {
        const Rows rows = rows_for(of.shape);
        for (const Settings& settings : settings_cases()) {
            const Trained expected = train(of, rows, settings, Isa::serial);
            for (const Isa isa : isas()) {
                const std::string name = of.name + ", " + std::to_string(settings.batch_size) + " rows" +
                                         (settings.batch_norm ? ", batch norm, " : ", ") + name_of(isa);
                Trained found, other;
                std::thread beside([&] { other = train(of, rows, settings, isa); });
                found = train(of, rows, settings, isa);
                beside.join();
                expect_close(found.gradient, expected.gradient, kGradientLimit, name + ", gradient");
                expect_close(found.statistics, expected.statistics, kStepsLimit, name + ", statistics");
                expect_close(change(found.theta, of.theta), change(expected.theta, of.theta), kStepsLimit,
                             name + ", steps");
                EXPECT(same_bits(other.theta, found.theta) && same_bits(other.gradient, found.gradient), name);
            }
        }
    }
}

}  // namespace metaedit::test
