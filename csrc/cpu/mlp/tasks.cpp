// The passes of core/mlp.hpp, each in its rows' order.

#include <algorithm>
#include <cmath>

#include "cpu/kernels_of.hpp"
#include "cpu/mlp/fisher.hpp"
#include "cpu/mlp/share.hpp"

namespace metaedit {

METAEDIT_KERNELS_OF(mlp, mlp_kernels)

namespace {

using mlp::Features;
using mlp::for_each_chunk;
using mlp::kChunkPanels;
using mlp::Kernels;

// What one thread needs.
class Worker {
  public:
    explicit Worker(const Kernels& kernels) : kernels_(kernels), network_(kernels), fisher_(kernels) {}

    void run(const LogitsTask& task);
    void run(const DivergenceTask& task);
    void run(const GradientTask& task);
    void run(const MomentsTask& task);
    void run(const StatisticsTask& task);

  private:
    void add_moments(const MomentsTask& task, std::int64_t first_panel, std::int64_t n_panels);

    const Kernels& kernels_;
    mlp::Network network_;
    mlp::Fisher fisher_;
    mlp::Buffer log_p_, sums_;
};

// [features][64] of the panel that begins with row `first` to or from the rows [rows][n].
void rows_from_panel(const float* panel, std::int64_t n, std::int64_t first, std::int64_t n_rows, float* rows) {
    const std::int64_t end = std::min(kPanelRows, n_rows - first);
    for (std::int64_t row = 0; row < end; ++row) {
        for (std::int64_t f = 0; f < n; ++f) rows[(first + row) * n + f] = panel[f * kPanelRows + row];
    }
}

// Rows that do not exist are 0.
void panel_from_rows(const float* rows, std::int64_t n, std::int64_t first, std::int64_t n_rows, float* panel) {
    const std::int64_t end = std::min(kPanelRows, n_rows - first);
    for (std::int64_t f = 0; f < n; ++f) {
        float* to = panel + f * kPanelRows;
        for (std::int64_t row = 0; row < end; ++row) to[row] = rows[(first + row) * n + f];
        std::fill(to + end, to + kPanelRows, 0.0F);
    }
}

void Worker::run(const LogitsTask& task) {
    const PanelRows& rows = *task.run.rows;
    const std::int64_t n = task.log_probabilities ? task.run.shape->n_classes() : task.run.shape->n_outputs();
    network_.start(task.run, 1, false);
    for_each_chunk(rows, 1, [&](std::int64_t first, std::int64_t n_panels) {
        network_.forward(first, n_panels);
        const float* found = task.log_probabilities ? network_.log_probabilities(0) : network_.logits(0);
        rows_from_panel(found, n, first * kPanelRows, rows.n_rows(), task.out);
    });
}

void Worker::run(const DivergenceTask& task) {
    const PanelRows& rows = *task.run.rows;
    const MlpShape& shape = *task.run.shape;
    const std::int64_t n_classes = shape.n_classes();
    float* log_p = log_p_.of_size(n_classes * kPanelRows);
    std::fill_n(task.gradient, shape.n_parameters, 0.0F);
    double sum = 0.0;
    network_.start(task.run, kChunkPanels, true);
    for_each_chunk(rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        network_.forward(first, n_panels);
        for (std::int64_t panel = 0; panel < n_panels; ++panel) {
            panel_from_rows(task.log_p, n_classes, (first + panel) * kPanelRows, rows.n_rows(), log_p);
            kernels_.divergence({.log_p = log_p,
                                 .log_q = network_.log_probabilities(panel),
                                 .n_outputs = shape.n_outputs(),
                                 .n_classes = n_classes,
                                 .keeps = network_.keeps(first + panel),
                                 .weight = 1.0F / static_cast<float>(rows.n_rows()),
                                 .gradient = network_.output_gradient(panel),
                                 .sum = &sum});
        }
        network_.backward(task.gradient);
        network_.products(task.gradient, first > 0);
    });
    *task.value = sum / static_cast<double>(rows.n_rows());
}

void Worker::run(const GradientTask& task) {
    const PanelRows& rows = *task.run.rows;
    const std::int64_t n_outputs = task.run.shape->n_outputs();
    std::fill_n(task.gradient, task.run.shape->n_parameters, 0.0F);
    network_.start(task.run, kChunkPanels, true);
    for_each_chunk(rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        network_.forward(first, n_panels);
        for (std::int64_t panel = 0; panel < n_panels; ++panel) {
            panel_from_rows(task.at_outputs, n_outputs, (first + panel) * kPanelRows, rows.n_rows(),
                            network_.output_gradient(panel));
        }
        network_.backward(task.gradient);
        network_.products(task.gradient, first > 0);
    });
}

// Joins the mean and the squared distances of `more` rows to those of `n` rows before (Chan, Golub & LeVeque 1983).
void join(float more_mean, float more_squares, double more, double n, float& mean, float& squares) {
    const double step = static_cast<double>(more_mean) - static_cast<double>(mean), all = n + more;
    mean = static_cast<float>(static_cast<double>(mean) + step * (more / all));
    squares = static_cast<float>(static_cast<double>(squares) + static_cast<double>(more_squares) +
                                 step * step * (n * more / all));
}

std::int64_t n_linear_of(const MlpShape& shape) {
    std::int64_t n = 0;
    for (const MlpLayer& layer : shape.layers) n += layer.n_out;
    return n;
}

void clear(const MomentsTask& task) {
    const std::int64_t n = task.run.shape->n_inputs() + n_linear_of(*task.run.shape);
    std::fill_n(task.mean, n, 0.0F);
    std::fill_n(task.deviation, n, 0.0F);
}

// From sums of squares to standard deviations.
void finish(const MomentsTask& task) {
    const std::int64_t n = task.run.shape->n_inputs() + n_linear_of(*task.run.shape);
    const float share = 1.0F / static_cast<float>(task.run.rows->n_rows());
    for (std::int64_t i = 0; i < n; ++i) task.deviation[i] = std::sqrt(task.deviation[i] * share);
}

void Worker::add_moments(const MomentsTask& task, std::int64_t first_panel, std::int64_t n_panels) {
    const std::int64_t first = first_panel * kPanelRows;
    const std::int64_t n_rows = std::min(n_panels * kPanelRows, task.run.rows->n_rows() - first);
    float *mean = task.mean, *squares = task.deviation;
    for (std::size_t t = 0; t <= task.run.shape->layers.size(); ++t) {
        const Features x = network_.outputs(static_cast<std::int64_t>(t));
        float* found = sums_.of_size(2 * x.n);
        kernels_.moments({x, n_rows, network_.keeps(first_panel + n_panels - 1), found, found + x.n});
        for (std::int64_t i = 0; i < x.n; ++i) {
            join(found[i], found[x.n + i], static_cast<double>(n_rows), static_cast<double>(first), mean[i],
                 squares[i]);
        }
        mean += x.n;
        squares += x.n;
    }
}

void Worker::run(const MomentsTask& task) {
    clear(task);
    network_.start(task.run, kChunkPanels, false);
    for_each_chunk(*task.run.rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        network_.forward(first, n_panels);
        add_moments(task, first, n_panels);
    });
    finish(task);
}

void Worker::run(const StatisticsTask& task) {
    const PanelRows& rows = *task.run.rows;
    const MlpShape& shape = *task.run.shape;
    const MomentsTask moments{task.run, task.mean, task.deviation};
    clear(moments);
    network_.start(task.run, kChunkPanels, true);
    for_each_chunk(rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        network_.forward(first, n_panels);
        add_moments(moments, first, n_panels);
        fisher_.sums(task.run, network_, first, n_panels, task.edge, task.gradient, first > 0);
    });
    finish(moments);
    const float share = 1.0F / static_cast<float>(rows.n_rows());
    const std::int64_t n_linear = n_linear_of(shape);
    for (std::int64_t i = 0; i < n_linear; ++i) task.gradient[i] *= share;
    for (std::int64_t i = 0; i < shape.n_weights; ++i) task.edge[i] *= share;
}

}  // namespace

struct MlpStatisticsRunner::Memory {
    Worker worker;
};

MlpStatisticsRunner::MlpStatisticsRunner(Isa isa) : memory_(new Memory{Worker(mlp::kernels_of(isa))}) {}
MlpStatisticsRunner::~MlpStatisticsRunner() = default;
MlpStatisticsRunner::MlpStatisticsRunner(MlpStatisticsRunner&&) noexcept = default;

void MlpStatisticsRunner::run(const StatisticsTask& task) {
    memory_->worker.run(task);
}

void mlp_logits(std::span<const LogitsTask> tasks, Isa isa, int n_threads) {
    mlp::share_out<Worker>(tasks, isa, n_threads);
}

void mlp_divergence(std::span<const DivergenceTask> tasks, Isa isa, int n_threads) {
    mlp::share_out<Worker>(tasks, isa, n_threads);
}

void mlp_gradient(std::span<const GradientTask> tasks, Isa isa, int n_threads) {
    mlp::share_out<Worker>(tasks, isa, n_threads);
}

void mlp_moments(std::span<const MomentsTask> tasks, Isa isa, int n_threads) {
    mlp::share_out<Worker>(tasks, isa, n_threads);
}

void mlp_statistics(std::span<const StatisticsTask> tasks, Isa isa, int n_threads) {
    mlp::share_out<Worker>(tasks, isa, n_threads);
}

}  // namespace metaedit
