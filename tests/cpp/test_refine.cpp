// Refinement and evaluation of pruned MLPs: every level beside the serial one and beside the passes, any number of
// threads bit for bit.

#include <algorithm>
#include <cmath>

#include "cases.hpp"
#include "check.hpp"

namespace metaedit::test {
namespace {

constexpr double kLimit = 1e-5;
// A first step stands on quotients of sums, each as exact as a gradient.
constexpr double kStepLimit = 1e-3;
constexpr std::int64_t kRowCounts[] = {1, 65, 300};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A network, what pruning left of it, which parameters are free, and rows.
struct Pruned {
    MlpCase of;
    Floats theta;
    std::vector<std::uint8_t> free;
    PanelRows rows;

    Pruned(const MlpCase& mlp, std::int64_t removed_percent, std::int64_t n_rows)
        : of(mlp),
          theta(mlp.theta),
          free(mlp.theta.size(), 1),
          rows(Random(5).normal(n_rows * mlp.shape.n_inputs(), 1.0F).data(), n_rows, mlp.shape.n_inputs()) {
        Random random(8);
        for (std::size_t i = 0; i < theta.size(); ++i) {
            theta[i] *= 0.8F;
            const bool is_weight = static_cast<std::int64_t>(i) < mlp.shape.n_weights;
            if (is_weight && random.below(100) < removed_percent) {
                theta[i] = 0.0F;
                free[i] = 0;
            }
            if (i % 7 == 3) free[i] = 0;
        }
    }

    MlpRun run() const { return {&of.shape, theta.data(), &rows}; }
    MlpRun original() const { return {&of.shape, of.theta.data(), &rows}; }
    std::string name() const { return of.name + ", " + std::to_string(rows.n_rows()) + " rows"; }
};

// A layer of which nothing is left among them.
std::vector<Pruned> pruned_cases(std::int64_t n_rows) {
    std::vector<Pruned> cases;
    for (const MlpCase& mlp : mlp_cases()) {
        for (const std::int64_t percent : {20, 70}) cases.emplace_back(mlp, percent, n_rows);
    }
    cases.emplace_back(mlp_case("all removed", {{5, 9, 2}, {}}, Activation::tanh, true, false, 9), 100, n_rows);
    return cases;
}

struct Refined {
    Floats theta;
    std::vector<RefineTrial> trials;
    std::int64_t n_trials = -1, best_step = -1;
};

// `odds` is empty or has a term a case.
std::vector<Refined> refine(const std::vector<Pruned>& cases, const std::vector<OddsTerm>& odds, std::int64_t n_steps,
                            Isa isa, int n_threads) {
    std::vector<Refined> found(cases.size());
    std::vector<RefineTask> tasks;
    for (std::size_t i = 0; i < cases.size(); ++i) {
        Refined& out = found[i];
        out.theta = poisoned(cases[i].of.shape.n_parameters);
        out.trials.assign(static_cast<std::size_t>(n_steps) + 1, {kNan, kNan, kNan});
        tasks.push_back({.run = cases[i].run(),
                         .original = cases[i].original(),
                         .odds = odds.empty() ? nullptr : &odds[i],
                         .free = cases[i].free.data(),
                         .n_steps = n_steps,
                         .theta = out.theta.data(),
                         .trials = out.trials.data(),
                         .n_trials = &out.n_trials,
                         .best_step = &out.best_step});
    }
    mlp_refine(tasks, isa, n_threads);
    for (Refined& out : found) out.trials.resize(static_cast<std::size_t>(std::max(out.n_trials, std::int64_t{0})));
    return found;
}

bool same(const Refined& a, const Refined& b) {
    const auto equal = [](const RefineTrial& x, const RefineTrial& y) {
        return x.objective == y.objective && x.divergence == y.divergence &&
               (x.gap == y.gap || (std::isnan(x.gap) && std::isnan(y.gap)));
    };
    return same_bits(a.theta, b.theta) && a.best_step == b.best_step &&
           std::equal(a.trials.begin(), a.trials.end(), b.trials.begin(), b.trials.end(), equal);
}

Floats minus(const Floats& a, const Floats& b) {
    Floats out = a;
    for (std::size_t i = 0; i < a.size(); ++i) out[i] -= b[i];
    return out;
}

bool near(double got, double expected) {
    return std::abs(got - expected) < 1e-4 * expected + 1e-7;
}

// ln p [rows][classes] of one network, by the passes.
Floats log_probabilities(const MlpRun& run, Isa isa) {
    Floats out = poisoned(run.rows->n_rows() * run.shape->n_classes());
    const LogitsTask task{run, true, out.data()};
    mlp_logits({&task, 1}, isa, 1);
    return out;
}

// By its definition.
double mean_divergence(const Floats& log_p, const Floats& log_q, std::int64_t n_rows) {
    double sum = 0.0;
    for (std::size_t i = 0; i < log_p.size(); ++i) {
        const double lp = double{log_p[i]}, lq = double{log_q[i]}, p = std::exp(lp), q = std::exp(lq);
        const double lm = std::log(0.5 * (p + q));
        sum += 0.5 * (p > 0.0 ? p * (lp - lm) : 0.0) + 0.5 * (q > 0.0 ? q * (lq - lm) : 0.0);
    }
    return sum / static_cast<double>(n_rows);
}

constexpr std::int64_t kGroups = 3;

// Where a row is counted: drawn, but no row of class 1 is in the last group.
std::vector<std::int64_t> odds_cells(const Pruned& of) {
    Random random(12);
    std::vector<std::int64_t> cells;
    for (std::int64_t row = 0; row < of.rows.n_rows(); ++row) {
        const std::int64_t label = random.below(of.of.shape.n_classes());
        cells.push_back(label * kGroups + random.below(label == 1 ? kGroups - 1 : kGroups));
    }
    return cells;
}

struct Rate {
    double mean, variance;  // the variance of the mean of so many decisions
};

// Rate of class c among the rows that `counts`, by the definition; NaN if there is none.
template <class F>
Rate soft_rate(const Floats& log_q, std::int64_t n_classes, std::int64_t c, double temperature, const F& counts) {
    double sum = 0.0, n = 0.0;
    for (std::size_t row = 0; row * static_cast<std::size_t>(n_classes) < log_q.size(); ++row) {
        if (!counts(row)) continue;
        const float* at = log_q.data() + row * static_cast<std::size_t>(n_classes);
        double all = 0.0;
        for (std::int64_t k = 0; k < n_classes; ++k) all += std::exp(double{at[k]} / temperature);
        sum += std::exp(double{at[c]} / temperature) / all;
        n += 1.0;
    }
    const double mean = sum / n;
    return {mean, mean * (1.0 - mean) / n};
}

// Penalty and largest gap, from ln q.
std::pair<double, double> odds_of(const Floats& log_q, std::int64_t n_classes, const OddsTerm& term) {
    double penalty = 0.0, gap = 0.0;
    for (std::int64_t c = n_classes == 2 ? 1 : 0; c < n_classes; ++c) {
        for (const bool positive : {true, false}) {
            std::vector<Rate> rates;
            for (std::int64_t group = 0; group < kGroups; ++group) {
                const Rate rate = soft_rate(log_q, n_classes, c, double{term.temperature}, [&](std::size_t row) {
                    return (term.cells[row] / kGroups == c) == positive && term.cells[row] % kGroups == group;
                });
                for (const Rate& other : rates) {
                    if (std::isnan(rate.mean) || std::isnan(other.mean)) continue;
                    const double difference = rate.mean - other.mean;
                    gap = std::max(gap, std::abs(difference));
                    const double variance = term.noise * (rate.variance + other.variance);
                    const double excess = std::max(std::sqrt(difference * difference + variance) - term.limit, 0.0);
                    penalty += term.strength * excess * excess;
                }
                rates.push_back(rate);
            }
        }
    }
    return {penalty, gap};
}

struct Evaluated {
    double divergence = kNan, by_original = kNan;
    std::vector<std::int64_t> counts;
};

// Against ln p and with counts, and against the original's parameters.
std::vector<Evaluated> evaluate(const std::vector<Pruned>& cases, const std::vector<PanelRows>& log_p,
                                const std::vector<std::vector<std::int64_t>>& cells, Isa isa, int n_threads) {
    std::vector<Evaluated> found(cases.size());
    std::vector<EvaluationTask> tasks;
    for (std::size_t i = 0; i < cases.size(); ++i) {
        Evaluated& out = found[i];
        out.counts.assign(static_cast<std::size_t>(2 * cases[i].of.shape.n_classes()), -1);
        tasks.push_back({.run = cases[i].run(),
                         .log_p = &log_p[i],
                         .original = {},
                         .divergence = i % 3 == 2 ? nullptr : &out.divergence,
                         .cells = cells[i].data(),
                         .counts = out.counts.data(),
                         .n_counts = static_cast<std::int64_t>(out.counts.size())});
        tasks.push_back({.run = cases[i].run(),
                         .log_p = nullptr,
                         .original = cases[i].original(),
                         .divergence = &out.by_original,
                         .cells = nullptr,
                         .counts = nullptr,
                         .n_counts = 0});
    }
    mlp_evaluate(tasks, isa, n_threads);
    return found;
}

// How often each cell's class is predicted, from the logits.
std::vector<std::int64_t> count(const Pruned& of, const std::vector<std::int64_t>& cells, Isa isa) {
    const MlpShape& shape = of.of.shape;
    const std::int64_t n_classes = shape.n_classes();
    const Floats log_q = log_probabilities(of.run(), isa);
    std::vector<std::int64_t> counts(static_cast<std::size_t>(2 * n_classes));
    for (std::size_t row = 0; row < cells.size(); ++row) {
        const float* first = log_q.data() + static_cast<std::int64_t>(row) * n_classes;
        ++counts[static_cast<std::size_t>(cells[row] + (std::max_element(first, first + n_classes) - first))];
    }
    return counts;
}

}  // namespace

TEST(refinement_on_every_level) {
    constexpr std::int64_t kSteps = 6;
    for (const std::int64_t n_rows : kRowCounts) {
        const std::vector<Pruned> cases = pruned_cases(n_rows);
        const std::vector<Refined> expected = refine(cases, {}, 1, Isa::serial, 1);
        for (const Isa isa : isas()) {
            const std::vector<Refined> one = refine(cases, {}, 1, isa, 1), all = refine(cases, {}, kSteps, isa, 1);
            const std::vector<Refined> together = refine(cases, {}, kSteps, isa, 3);
            int n_improved = 0;
            for (std::size_t i = 0; i < cases.size(); ++i) {
                const Pruned& from = cases[i];
                const Refined& to = all[i];
                const std::string name = from.name() + ", " + name_of(isa);
                EXPECT(to.n_trials >= 1 && to.n_trials <= kSteps + 1, name);
                EXPECT(to.best_step >= 0 && to.best_step < to.n_trials, name);
                EXPECT(near(to.trials[0].objective, expected[i].trials[0].objective), name);
                expect_close(minus(one[i].theta, from.theta), minus(expected[i].theta, from.theta), kStepLimit, name);
                for (std::size_t k = 0; k < to.theta.size(); ++k) {
                    EXPECT(from.free[k] != 0 || to.theta[k] == from.theta[k], name);
                }
                const double best = to.trials[static_cast<std::size_t>(to.best_step)].objective;
                EXPECT(best <= to.trials[0].objective, name);
                n_improved += best < 0.9 * to.trials[0].objective ? 1 : 0;
                const MlpRun result{&from.of.shape, to.theta.data(), &from.rows};
                EXPECT(near(best, mean_divergence(log_probabilities(from.original(), Isa::serial),
                                                  log_probabilities(result, Isa::serial), n_rows)),
                       name);
                EXPECT(same(together[i], to), name + ", 3 threads");
            }
            EXPECT(2 * n_improved > static_cast<int>(cases.size()), std::to_string(n_improved) + " improved");
        }
    }
}

TEST(refinement_with_odds_on_every_level) {
    constexpr std::int64_t kSteps = 6;
    for (const std::int64_t n_rows : kRowCounts) {
        const std::vector<Pruned> cases = pruned_cases(n_rows);
        std::vector<std::vector<std::int64_t>> cells;
        std::vector<OddsTerm> odds;
        for (const Pruned& of : cases) cells.push_back(odds_cells(of));
        for (std::size_t i = 0; i < cases.size(); ++i) {
            odds.push_back({.cells = cells[i].data(),
                            .n_groups = kGroups,
                            .strength = i % 2 == 0 ? 0.3 : 20.0,
                            .limit = 0.01 * static_cast<double>(i % 3),
                            .noise = i % 4 < 2 ? 0.0 : 3.0,
                            .temperature = 0.3F});
        }
        const std::vector<Refined> expected = refine(cases, odds, 1, Isa::serial, 1);
        for (const Isa isa : isas()) {
            const std::vector<Refined> one = refine(cases, odds, 1, isa, 1), all = refine(cases, odds, kSteps, isa, 1);
            const std::vector<Refined> together = refine(cases, odds, kSteps, isa, 3);
            int n_improved = 0;
            for (std::size_t i = 0; i < cases.size(); ++i) {
                const Pruned& from = cases[i];
                const Refined& to = all[i];
                const std::string name = from.name() + ", " + name_of(isa);
                expect_close(minus(one[i].theta, from.theta), minus(expected[i].theta, from.theta), kStepLimit, name);
                const RefineTrial& best = to.trials[static_cast<std::size_t>(to.best_step)];
                EXPECT(best.objective <= to.trials[0].objective, name);
                n_improved += best.objective < 0.9 * to.trials[0].objective ? 1 : 0;
                const MlpRun result{&from.of.shape, to.theta.data(), &from.rows};
                const Floats log_q = log_probabilities(result, Isa::serial);
                const auto [penalty, gap] = odds_of(log_q, from.of.shape.n_classes(), odds[i]);
                const double divergence =
                    mean_divergence(log_probabilities(from.original(), Isa::serial), log_q, n_rows);
                EXPECT(near(best.gap, gap) && near(best.divergence, divergence), name);
                EXPECT(near(best.objective, divergence + penalty), name);
                EXPECT(same(together[i], to), name + ", 3 threads");
            }
            EXPECT(2 * n_improved > static_cast<int>(cases.size()), std::to_string(n_improved) + " improved");
        }
    }
}

TEST(refinement_without_steps_or_models) {
    const std::vector<Pruned> cases = pruned_cases(65);
    for (const Isa isa : isas()) {
        EXPECT(refine({}, {}, 3, isa, 3).empty(), name_of(isa));
        const std::vector<Refined> found = refine(cases, {}, 0, isa, 2);
        for (std::size_t i = 0; i < cases.size(); ++i) {
            EXPECT(same_bits(found[i].theta, cases[i].theta) && found[i].n_trials == 1, cases[i].name());
        }
    }
}

TEST(evaluation_on_every_level) {
    for (const std::int64_t n_rows : kRowCounts) {
        const std::vector<Pruned> cases = pruned_cases(n_rows);
        std::vector<PanelRows> panels;
        std::vector<std::vector<std::int64_t>> cells;
        std::vector<double> expected;
        Random random(11);
        for (const Pruned& of : cases) {
            const Floats log_p = log_probabilities(of.original(), Isa::serial);
            panels.emplace_back(log_p.data(), n_rows, of.of.shape.n_classes());
            expected.push_back(mean_divergence(log_p, log_probabilities(of.run(), Isa::serial), n_rows));
            cells.emplace_back();
            for (std::int64_t row = 0; row < n_rows; ++row) {
                cells.back().push_back(random.below(2) * of.of.shape.n_classes());
            }
        }
        for (const Isa isa : isas()) {
            const std::vector<Evaluated> alone = evaluate(cases, panels, cells, isa, 1);
            const std::vector<Evaluated> together = evaluate(cases, panels, cells, isa, 3);
            for (std::size_t i = 0; i < cases.size(); ++i) {
                const std::string name = cases[i].name() + ", " + name_of(isa);
                EXPECT(i % 3 == 2 ? std::isnan(alone[i].divergence) : near(alone[i].divergence, expected[i]), name);
                EXPECT(near(alone[i].by_original, expected[i]), name);
                EXPECT(alone[i].counts == count(cases[i], cells[i], isa), name);
                EXPECT(together[i].counts == alone[i].counts && together[i].by_original == alone[i].by_original, name);
            }
        }
    }
    for (const Isa isa : isas()) mlp_evaluate({}, isa, 3);
}

}  // namespace metaedit::test
