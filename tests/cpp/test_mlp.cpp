// Passes of MLPs over rows: every level beside the serial one, any number of threads bit for bit.

#include <cmath>

#include "cases.hpp"
#include "check.hpp"

namespace metaedit::test {
namespace {

constexpr double kLimit = 1e-5;
constexpr std::int64_t kRowCounts[] = {1, 63, 64, 65, 300};

// A case with rows, and log-probabilities to diverge from.
struct OnRows {
    const MlpCase& of;
    PanelRows rows;
    Floats log_p;

    OnRows(const MlpCase& mlp, std::int64_t n_rows)
        : of(mlp), rows(draw(mlp, n_rows).data(), n_rows, mlp.shape.n_inputs()) {
        const std::int64_t classes = mlp.shape.n_classes();
        log_p = Random(6).normal(n_rows * classes, 1.0F);
        for (std::int64_t row = 0; row < n_rows; ++row) {
            float* at = log_p.data() + row * classes;
            at[0] += 4.0F;  // far from the model's own: where both agree, the gradient is all rounding
            float sum = 0.0F;
            for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(at[c]);
            for (std::int64_t c = 0; c < classes; ++c) at[c] -= std::log(sum);
        }
    }

    MlpRun run() const { return {&of.shape, of.theta.data(), &rows}; }

  private:
    static Floats draw(const MlpCase& mlp, std::int64_t n_rows) {
        return Random(5).normal(n_rows * mlp.shape.n_inputs(), 1.0F);
    }
};

// Results of each case, all outputs of a task in one array.
using Results = std::vector<Floats>;

Results logits(const std::vector<OnRows>& cases, Isa isa, int n_threads) {
    Results found;
    std::vector<LogitsTask> tasks;
    for (const bool log_probabilities : {false, true}) {
        for (const OnRows& on : cases) {
            const MlpShape& shape = on.of.shape;
            found.push_back(poisoned(on.rows.n_rows() * (log_probabilities ? shape.n_classes() : shape.n_outputs())));
            tasks.push_back({on.run(), log_probabilities, found.back().data()});
        }
    }
    mlp_logits(tasks, isa, n_threads);
    return found;
}

Results divergence(const std::vector<OnRows>& cases, Isa isa, int n_threads) {
    std::vector<double> values(cases.size(), std::nan(""));
    Results found;
    std::vector<DivergenceTask> tasks;
    for (std::size_t i = 0; i < cases.size(); ++i) {
        found.push_back(poisoned(cases[i].of.shape.n_parameters));
        tasks.push_back({cases[i].run(), cases[i].log_p.data(), &values[i], found[i].data()});
    }
    mlp_divergence(tasks, isa, n_threads);
    for (std::size_t i = 0; i < cases.size(); ++i) found[i].push_back(static_cast<float>(values[i]));
    return found;
}

// Of the sum of w z over rows and outputs, w being drawn.
Results gradient(const std::vector<OnRows>& cases, Isa isa, int n_threads) {
    Results weights, found;
    std::vector<GradientTask> tasks;
    for (const OnRows& on : cases) {
        weights.push_back(Random(7).normal(on.rows.n_rows() * on.of.shape.n_outputs(), 1.0F));
        found.push_back(poisoned(on.of.shape.n_parameters));
        tasks.push_back({on.run(), weights.back().data(), found.back().data()});
    }
    mlp_gradient(tasks, isa, n_threads);
    return found;
}

Results statistics(const std::vector<OnRows>& cases, Isa isa, int n_threads) {
    std::vector<std::vector<Floats>> parts;
    std::vector<StatisticsTask> tasks;
    for (const OnRows& on : cases) {
        std::int64_t n_linear = 0;
        for (const MlpLayer& layer : on.of.shape.layers) n_linear += layer.n_out;
        const std::int64_t n_neurons = on.of.shape.n_inputs() + n_linear;
        parts.push_back(
            {poisoned(n_neurons), poisoned(n_neurons), poisoned(n_linear), poisoned(on.of.shape.n_weights)});
        std::vector<Floats>& of = parts.back();
        tasks.push_back({on.run(), of[0].data(), of[1].data(), of[2].data(), of[3].data()});
    }
    mlp_statistics(tasks, isa, n_threads);
    Results found;
    for (const std::vector<Floats>& of : parts) {
        found.insert(found.end(), of.begin(), of.end());
    }
    return found;
}

Results moments(const std::vector<OnRows>& cases, Isa isa, int n_threads) {
    Results found;
    std::vector<MomentsTask> tasks;
    for (const OnRows& on : cases) {
        std::int64_t n_neurons = on.of.shape.n_inputs();
        for (const MlpLayer& layer : on.of.shape.layers) n_neurons += layer.n_out;
        found.push_back(poisoned(2 * n_neurons));
        tasks.push_back({on.run(), found.back().data(), found.back().data() + n_neurons});
    }
    mlp_moments(tasks, isa, n_threads);
    return found;
}

void compare(const std::vector<OnRows>& cases, const std::string& name,
             Results (*run)(const std::vector<OnRows>&, Isa, int)) {
    const Results expected = run(cases, Isa::serial, 1);
    for (const Isa isa : isas()) {
        const Results alone = run(cases, isa, 1), together = run(cases, isa, 5);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const std::string of = name + ", " + cases[i % cases.size()].of.name + ", " +
                                   std::to_string(cases[0].rows.n_rows()) + " rows, " + name_of(isa);
            expect_close(alone[i], expected[i], kLimit, of);
            EXPECT(same_bits(together[i], alone[i]), of);
        }
    }
}

}  // namespace

TEST(passes_on_every_level) {
    const std::vector<MlpCase> mlps = mlp_cases();
    for (const std::int64_t n_rows : kRowCounts) {
        std::vector<OnRows> cases;
        for (const MlpCase& mlp : mlps) cases.emplace_back(mlp, n_rows);
        compare(cases, "logits", &logits);
        compare(cases, "divergence", &divergence);
        compare(cases, "gradient", &gradient);
        compare(cases, "moments", &moments);
        compare(cases, "statistics", &statistics);
    }
}

TEST(no_rows_give_no_logits_and_no_gradient) {
    const std::vector<MlpCase> mlps = mlp_cases();
    std::vector<OnRows> cases;
    for (const MlpCase& mlp : mlps) cases.emplace_back(mlp, 0);
    for (const Isa isa : isas()) {
        for (const Floats& found : logits(cases, isa, 2)) EXPECT(found.empty(), name_of(isa));
        for (const Floats& found : gradient(cases, isa, 2)) EXPECT(found == Floats(found.size()), name_of(isa));
    }
}

}  // namespace metaedit::test
