// Whole edits: every level beside the serial one, a mask beside the ranking of all scores, any sharing out to threads
// bit for bit.

#include <algorithm>
#include <limits>
#include <numeric>

#include "cases.hpp"
#include "check.hpp"
#include "core/edit.hpp"

namespace metaedit::test {
namespace {

// Features, network and write-back pass their errors on.
constexpr double kEditFactor = 10.0;
constexpr std::int64_t kInputs = 5, kClasses = 2;
constexpr std::int64_t kProbeRows = 70;

// A model to edit.
struct Edited {
    std::string name;
    EditShape shape;
    Floats theta, condition;
    float gain;

    Edited(const MlpCase& of, unsigned seed) : name(of.name), shape(of.shape, owned(of.shape)), theta(of.theta) {
        Random random(seed);
        for (std::int64_t i = 0; i < of.shape.n_weights; ++i) {
            if (random.below(10) == 0) theta[static_cast<std::size_t>(i)] = 0.0F;  // by an earlier edit
        }
        condition = random.normal(kConditionSize, 1.0F);
        gain = 0.3F + 0.1F * static_cast<float>(seed % 5);
    }

    std::size_t n_weights() const { return static_cast<std::size_t>(shape.mlp.n_weights); }

  private:
    static std::vector<EditShape::Owned> owned(const MlpShape& shape) {
        std::vector<EditShape::Owned> found;
        for (std::size_t i = 0; i < shape.layers.size(); ++i) found.push_back({i % 3 != 1, i % 2 == 0});
        return found;
    }
};

std::vector<Edited> models() {
    std::vector<Edited> found;
    unsigned seed = 0;
    const auto add = [&](const MlpCase& of) { found.emplace_back(of, ++seed); };
    // No norm: that of one neuron is all rounding.
    add(mlp_case("one neuron", {{5, 1, 1, 1}, {{0, 1}}}, Activation::tanh, false, false, 30));
    add(mlp_case("linear", {{5, 2}, {}}, Activation::identity, false, false, 31));
    add(mlp_case("wide", {{5, 512, 1}, {}}, Activation::silu, true, false, 32));
    for (const MlpCase& of : mlp_cases()) {
        if (of.name.starts_with("activation")) add(of);
    }
    return found;
}

// An editor, and the probe that it reads or none.
struct Editing {
    NetworkCase network;
    bool reads;
    std::unique_ptr<PackedEditor> editor;
    PanelRows probe;

    Editing(NetworkCase of, bool reads_probe)
        : network(std::move(of)),
          reads(reads_probe),
          editor(make_editor(network,
                             {.edge = edge_feature_count(reads),
                              .node = node_feature_count(reads),
                              .node_types = kInputs + kClasses + 1 + static_cast<std::int64_t>(Activation::count)})),
          probe(Random(12).normal(kProbeRows * kInputs, 1.0F).data(), kProbeRows, kInputs) {}
};

std::vector<Editing> editings() {
    std::vector<Editing> found;
    found.emplace_back(NetworkCase{"shipped", true, 16, 20, 32, 1, true}, true);
    found.emplace_back(NetworkCase{"official", false, 64, 16, 16, 1, true}, false);
    found.emplace_back(NetworkCase{"mask only", true, 16, 16, 16, 1, false}, true);
    found.emplace_back(NetworkCase{"too wide for the kernels", false, 129, 3, 16, 1, true}, false);
    return found;
}

struct Result {
    Floats theta, score;
    EditStatus status = EditStatus::too_large;
    double seconds = -1.0;
};

using Budgets = std::vector<std::int64_t>;

std::vector<Result> edit(const Editing& with, const std::vector<Edited>& of, const Budgets& kept,
                         const Arithmetic& arithmetic, int n_threads) {
    std::vector<Result> found(of.size());
    std::vector<EditTask> tasks;
    for (std::size_t i = 0; i < of.size(); ++i) {
        Result& out = found[i];
        out.theta = poisoned(of[i].shape.mlp.n_parameters);
        out.score = poisoned(of[i].shape.mlp.n_weights);
        tasks.push_back({.shape = &of[i].shape,
                         .theta = of[i].theta.data(),
                         .condition = of[i].condition.data(),
                         .gain = of[i].gain,
                         .kept = kept[i],
                         .probe = with.reads ? &with.probe : nullptr,
                         .statistics = nullptr,
                         .edited = out.theta.data(),
                         .score = i % 4 == 3 ? nullptr : out.score.data(),
                         .status = &out.status,
                         .seconds = &out.seconds});
    }
    edit_models(*with.editor, kInputs, tasks, arithmetic, n_threads);
    return found;
}

Budgets no_mask(const std::vector<Edited>& of) {
    return Budgets(of.size(), EditTask::kKeepAll);
}

// Few, all, none, and the one that is best.
Budgets budgets(const std::vector<Edited>& of) {
    Budgets found;
    for (std::size_t i = 0; i < of.size(); ++i) {
        const std::int64_t n = of[i].shape.mlp.n_weights;
        found.push_back(i == 3 ? n : i == 4 ? 0 : i == 5 ? 1 : n / 3);
    }
    return found;
}

// Whether each weight is among the highest scores; zeros rank last, of equals the first is kept.
std::vector<bool> mask(const Edited& of, const Floats& score, std::int64_t kept) {
    std::vector<std::size_t> order(of.n_weights());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto key = [&](std::size_t i) {
        return of.theta[i] == 0.0F ? -std::numeric_limits<float>::infinity() : score[i];
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) > key(b); });
    std::vector<bool> found(order.size());
    for (std::size_t i = 0; i < static_cast<std::size_t>(kept); ++i) found[order[i]] = true;
    return found;
}

// What an edit without a mask adds.
Floats step(const Edited& from, const Result& to) {
    Floats out = to.theta;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] -= from.theta[i];
    return out;
}

void expect_masked(const Edited& from, const Result& whole, const Result& masked, std::int64_t kept,
                   const std::string& name) {
    const std::vector<bool> keeps = mask(from, whole.score, kept);
    bool right = true;
    for (std::size_t k = 0; k < masked.theta.size(); ++k) {
        const bool stays = k >= from.n_weights() || keeps[k];
        right = right && masked.theta[k] == (stays ? whole.theta[k] : 0.0F);
        right = right && (k >= from.n_weights() || from.theta[k] != 0.0F || masked.theta[k] == 0.0F);
    }
    EXPECT(right, name + ", mask");
}

// One for each way through the code: editors that the kernels lack run the serial network everywhere.
std::vector<ArithmeticCase> arithmetic_for(const Editing& with) {
    std::vector<ArithmeticCase> cases = arithmetic_cases();
    if (with.network.d_e > 128) cases.erase(cases.begin() + 1, cases.end() - 1);
    return cases;
}

}  // namespace

TEST(edits_on_every_level) {
    for (const Editing& with : editings()) {
        std::vector<Edited> of = models();
        if (with.network.d_e > 128) of.erase(of.begin() + 2, of.end() - 1);
        const Budgets some = budgets(of);
        const std::vector<Result> expected = edit(with, of, no_mask(of), Isa::serial, 1);
        for (const ArithmeticCase& on : arithmetic_for(with)) {
            const std::vector<Result> whole = edit(with, of, no_mask(of), on.arithmetic, 2);
            const std::vector<Result> masked = edit(with, of, some, on.arithmetic, 1);
            const std::vector<Result> shared = edit(with, of, some, on.arithmetic, 3);
            for (std::size_t i = 0; i < of.size(); ++i) {
                const std::string name = with.network.name + ", " + of[i].name + ", " + on.name;
                EXPECT(masked[i].status == EditStatus::edited && masked[i].seconds >= 0.0, name);
                expect_close(step(of[i], whole[i]), step(of[i], expected[i]), kEditFactor * on.limit, name + ", step");
                EXPECT(same_bits(shared[i].theta, masked[i].theta), name + ", 3 threads");
                if (i % 4 == 3) continue;  // no scores
                expect_close(whole[i].score, expected[i].score, kEditFactor * on.limit, name + ", score");
                EXPECT(same_bits(masked[i].score, whole[i].score), name + ", score");
                expect_masked(of[i], whole[i], masked[i], some[i], name);
            }
        }
    }
}

TEST(an_edit_does_not_depend_on_neighbours) {
    for (const Editing& with : editings()) {
        if (with.network.d_e > 128) continue;
        const std::vector<Edited> of = models();
        const Budgets some = budgets(of);
        const Arithmetic best = arithmetic_cases().back().arithmetic;
        const std::vector<Result> together = edit(with, of, some, best, 1);
        for (std::size_t i = 0; i < 4; ++i) {
            const std::vector<Result> alone = edit(with, {of[i]}, {some[i]}, best, 4);
            EXPECT(same_bits(alone[0].theta, together[i].theta), with.network.name + ", " + of[i].name);
        }
    }
}

TEST(what_cannot_be_edited_stays) {
    const std::vector<Editing> with = editings();
    std::vector<Edited> of = models();
    of.resize(4, of[0]);
    of[1].theta[2] = std::numeric_limits<float>::infinity();
    of[2].condition[1] = std::numeric_limits<float>::quiet_NaN();
    for (const ArithmeticCase& on : arithmetic_cases()) {
        const std::vector<Result> found = edit(with[0], of, {1, 1, 1, 1}, on.arithmetic, 2);
        EXPECT(found[0].status == EditStatus::edited && found[3].status == EditStatus::edited, on.name);
        EXPECT(found[1].status == EditStatus::too_large && same_bits(found[1].theta, of[1].theta), on.name);
        EXPECT(found[2].status == EditStatus::nan_score && same_bits(found[2].theta, of[2].theta), on.name);
        edit_models(*with[0].editor, kInputs, {}, on.arithmetic, 3);
    }
}

}  // namespace metaedit::test
