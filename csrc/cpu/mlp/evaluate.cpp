// What many models predict, compared with their originals and with labels, a panel of rows at a time.

#include "cpu/mlp/compact.hpp"
#include "cpu/mlp/share.hpp"

namespace metaedit {
namespace {

using namespace mlp;

// From this share of zeros on a pass without them is quicker, though each weight that is left takes longer.
constexpr double kWorthCompacting = 0.45;

// What one thread needs.
class Evaluator {
  public:
    explicit Evaluator(const Kernels& kernels) : kernels_(kernels), network_(kernels), original_(kernels) {}

    void run(const EvaluationTask& task);

  private:
    void start(const MlpRun& run);
    double divergence(const EvaluationTask& task, std::int64_t panel);
    void count(const EvaluationTask& task, std::int64_t panel);

    const Kernels& kernels_;
    Network network_, original_;
    Compact compact_;
    Buffer theta_;
};

// Pruned models are taken without what they lack; logits are the same to the bit, as long as they are finite.
void Evaluator::start(const MlpRun& run) {
    const std::int64_t n_zeros = std::count(run.theta, run.theta + run.shape->n_weights, 0.0F);
    if (static_cast<double>(n_zeros) < kWorthCompacting * static_cast<double>(run.shape->n_weights)) {
        return network_.start(run, 1, false);
    }
    compact_ = compact(*run.shape, run.theta, nullptr);
    float* theta = theta_.of_size(compact_.shape.n_parameters);
    for (std::size_t i = 0; i < compact_.from.size(); ++i) theta[i] = run.theta[compact_.from[i]];
    network_.start({&compact_.shape, theta, run.rows}, 1, false, compact_.kept);
}

void Evaluator::run(const EvaluationTask& task) {
    const bool compares = task.divergence != nullptr;
    start(task.run);
    if (compares && task.log_p == nullptr) original_.start(task.original, 1, false);
    if (task.counts != nullptr) std::fill_n(task.counts, task.n_counts, 0);
    double sum = 0.0;
    for_each_chunk(*task.run.rows, 1, [&](std::int64_t panel, std::int64_t) {
        network_.forward(panel, 1);
        if (compares) sum += divergence(task, panel);
        if (task.counts != nullptr) count(task, panel);
    });
    if (compares) *task.divergence = sum / static_cast<double>(task.run.rows->n_rows());
}

double Evaluator::divergence(const EvaluationTask& task, std::int64_t panel) {
    const float* log_p = nullptr;
    if (task.log_p != nullptr) {
        log_p = task.log_p->panel(panel);
    } else {
        original_.forward(panel, 1);
        log_p = original_.log_probabilities(0);
    }
    double sum = 0.0;
    kernels_.divergence({.log_p = log_p,
                         .log_q = network_.log_probabilities(0),
                         .n_outputs = task.run.shape->n_outputs(),
                         .n_classes = task.run.shape->n_classes(),
                         .keeps = network_.keeps(panel),
                         .weight = 1.0F,
                         .gradient = nullptr,
                         .sum = &sum});
    return sum;
}

void Evaluator::count(const EvaluationTask& task, std::int64_t panel) {
    float classes[kPanelRows];
    kernels_.predict({network_.logits(0), task.run.shape->n_outputs(), classes});
    const std::int64_t first = panel * kPanelRows, end = std::min(first + kPanelRows, task.run.rows->n_rows());
    for (std::int64_t row = first; row < end; ++row) {
        ++task.counts[task.cells[row] + static_cast<std::int64_t>(classes[row - first])];
    }
}

}  // namespace

void mlp_evaluate(std::span<const EvaluationTask> tasks, Isa isa, int n_threads) {
    share_out<Evaluator>(tasks, isa, n_threads);
}

}  // namespace metaedit
