// The three tasks of core/mlp.hpp, each in its rows' order, and the sharing out of many to threads.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.hpp"
#include "cpu/mlp/network.hpp"

namespace metaedit {

#ifdef METAEDIT_X86_KERNELS
namespace avx2 {
extern const mlp::Kernels mlp_kernels;
}
namespace avx512 {
extern const mlp::Kernels mlp_kernels;
}
#endif
namespace serial {
extern const mlp::Kernels mlp_kernels;
}

const mlp::Kernels& mlp::kernels_of([[maybe_unused]] Isa isa) {
#ifdef METAEDIT_X86_KERNELS
    if (isa == Isa::avx2) return avx2::mlp_kernels;
    if (isa == Isa::avx512) return avx512::mlp_kernels;
#endif
    return serial::mlp_kernels;
}

namespace {

using mlp::Features;
using mlp::kChunkPanels;
using mlp::Kernels;

// What one thread needs.
struct Worker {
    explicit Worker(const Kernels& of) : kernels(of), network(of) {}

    const Kernels& kernels;
    mlp::Network network;
    mlp::Buffer log_p, squared_output, squared_gradients, sums, norm_gradient;
};

// Calls work(first panel, panels) for every chunk of the rows.
template <class F>
void for_each_chunk(const PanelRows& rows, std::int64_t chunk_panels, const F& work) {
    for (std::int64_t first = 0; first < rows.n_panels(); first += chunk_panels) {
        work(first, std::min(chunk_panels, rows.n_panels() - first));
    }
}

// [features][64] of the panel that begins with row `first` to or from the rows [rows][n].
void rows_from_panel(const float* panel, std::int64_t n, std::int64_t first, std::int64_t n_rows, float* rows) {
    const std::int64_t end = std::min(kPanelRows, n_rows - first);
    for (std::int64_t row = 0; row < end; ++row) {
        for (std::int64_t f = 0; f < n; ++f) rows[(first + row) * n + f] = panel[f * kPanelRows + row];
    }
}

void panel_from_rows(const float* rows, std::int64_t n, std::int64_t first, std::int64_t n_rows, float* panel) {
    for (std::int64_t row = 0; row < kPanelRows; ++row) {
        const float* from = rows + std::min(first + row, n_rows - 1) * n;
        for (std::int64_t f = 0; f < n; ++f) panel[f * kPanelRows + row] = from[f];
    }
}

void run(const LogitsTask& task, Worker& worker) {
    const PanelRows& rows = *task.run.rows;
    const std::int64_t n = task.log_probabilities ? task.run.shape->n_classes() : task.run.shape->n_outputs();
    worker.network.start(task.run, 1, false);
    for_each_chunk(rows, 1, [&](std::int64_t first, std::int64_t n_panels) {
        worker.network.forward(first, n_panels);
        const float* found = task.log_probabilities ? worker.network.log_probabilities(0) : worker.network.logits(0);
        rows_from_panel(found, n, first * kPanelRows, rows.n_rows(), task.out);
    });
}

void run(const DivergenceTask& task, Worker& worker) {
    const PanelRows& rows = *task.run.rows;
    const MlpShape& shape = *task.run.shape;
    const std::int64_t n_classes = shape.n_classes();
    float* log_p = worker.log_p.of_size(n_classes * kPanelRows);
    std::fill_n(task.gradient, shape.n_parameters, 0.0F);
    double sum = 0.0;
    worker.network.start(task.run, kChunkPanels, true);
    for_each_chunk(rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        worker.network.forward(first, n_panels);
        for (std::int64_t panel = 0; panel < n_panels; ++panel) {
            panel_from_rows(task.log_p, n_classes, (first + panel) * kPanelRows, rows.n_rows(), log_p);
            worker.kernels.divergence({.log_p = log_p,
                                       .log_q = worker.network.log_probabilities(panel),
                                       .n_outputs = shape.n_outputs(),
                                       .n_classes = n_classes,
                                       .keeps = worker.network.keeps(first + panel),
                                       .weight = 1.0F / static_cast<float>(rows.n_rows()),
                                       .gradient = worker.network.output_gradient(panel),
                                       .sum = &sum});
        }
        worker.network.backward(task.gradient);
        worker.network.add_products(task.gradient);
    });
    *task.value = sum / static_cast<double>(rows.n_rows());
}

// Joins the mean and the squared distances of `more` rows to those of `n` rows before (Chan, Golub & LeVeque 1983).
void join(float more_mean, float more_squares, double more, double n, float& mean, float& squares) {
    const double step = static_cast<double>(more_mean) - static_cast<double>(mean), all = n + more;
    mean = static_cast<float>(static_cast<double>(mean) + step * (more / all));
    squares = static_cast<float>(static_cast<double>(squares) + static_cast<double>(more_squares) +
                                 step * step * (n * more / all));
}

void add_moments(const StatisticsTask& task, Worker& worker, std::int64_t first_panel, std::int64_t n_panels) {
    const std::int64_t first = first_panel * kPanelRows;
    const std::int64_t n_rows = std::min(n_panels * kPanelRows, task.run.rows->n_rows() - first);
    float *mean = task.mean, *squares = task.deviation;
    for (std::size_t t = 0; t <= task.run.shape->layers.size(); ++t) {
        const Features x = worker.network.outputs(static_cast<std::int64_t>(t));
        float* found = worker.sums.of_size(2 * x.n);
        worker.kernels.moments({x, n_rows, worker.network.keeps(first_panel + n_panels - 1), found, found + x.n});
        for (std::int64_t i = 0; i < x.n; ++i) {
            join(found[i], found[x.n + i], static_cast<double>(n_rows), static_cast<double>(first), mean[i],
                 squares[i]);
        }
        mean += x.n;
        squares += x.n;
    }
}

// Σ_c g² of the chunk for every linear output, [layer][panel][feature][64].
const float* squared_gradients(const StatisticsTask& task, Worker& worker, std::int64_t first_panel,
                               std::int64_t n_panels) {
    const MlpShape& shape = *task.run.shape;
    const std::int64_t n_outputs = shape.n_outputs();
    std::int64_t n_linear = 0;
    for (const MlpLayer& layer : shape.layers) n_linear += layer.n_out;
    float* squared = worker.squared_gradients.of_size(n_linear * n_panels * kPanelRows);
    // The gradients of the norms' parameters are a by-product that nobody asked for.
    float* unused = worker.norm_gradient.of_size(shape.n_parameters);
    const std::int64_t n_directions = !shape.is_regressor && n_outputs <= 2 ? 1 : n_outputs;
    for (std::int64_t direction = 0; direction < n_directions; ++direction) {
        for (std::int64_t panel = 0; panel < n_panels; ++panel) {
            worker.kernels.fisher_direction(
                {.log_p = shape.is_regressor ? nullptr : worker.network.log_probabilities(panel),
                 .n_outputs = n_outputs,
                 .direction = direction,
                 .keeps = worker.network.keeps(first_panel + panel),
                 .gradient = worker.network.output_gradient(panel)});
        }
        worker.network.backward(unused);
        float* to = squared;
        for (std::size_t i = 0; i < shape.layers.size(); ++i) {
            const Features gradient = worker.network.linear_gradient(static_cast<std::int64_t>(i));
            worker.kernels.square(gradient.values, to, gradient.n * n_panels, direction > 0);
            to += gradient.n * n_panels * kPanelRows;
        }
    }
    return squared;
}

void run(const StatisticsTask& task, Worker& worker) {
    const PanelRows& rows = *task.run.rows;
    const MlpShape& shape = *task.run.shape;
    std::int64_t n_linear = 0;
    for (const MlpLayer& layer : shape.layers) n_linear += layer.n_out;
    std::fill_n(task.mean, shape.n_inputs() + n_linear, 0.0F);
    std::fill_n(task.deviation, shape.n_inputs() + n_linear, 0.0F);
    worker.network.start(task.run, kChunkPanels, true);
    for_each_chunk(rows, kChunkPanels, [&](std::int64_t first, std::int64_t n_panels) {
        worker.network.forward(first, n_panels);
        add_moments(task, worker, first, n_panels);
        const float* squared = squared_gradients(task, worker, first, n_panels);
        float* gradient = task.gradient;
        for (std::size_t i = 0; i < shape.layers.size(); ++i) {
            const Features a = worker.network.outputs(static_cast<std::int64_t>(i));
            const Features g{squared, shape.layers[i].n_out, n_panels};
            float* squared_output = worker.squared_output.of_size(a.n * n_panels * kPanelRows);
            worker.kernels.square(a.values, squared_output, a.n * n_panels, false);
            worker.kernels.row_products(
                {{squared_output, a.n, n_panels}, g, task.edge + shape.layers[i].weight, first > 0});
            worker.kernels.row_sums({g, gradient, first > 0});
            gradient += g.n;
            squared += g.n * n_panels * kPanelRows;
        }
    });
    const float share = 1.0F / static_cast<float>(rows.n_rows());
    for (std::int64_t i = 0; i < shape.n_inputs() + n_linear; ++i)
        task.deviation[i] = std::sqrt(task.deviation[i] * share);
    for (std::int64_t i = 0; i < n_linear; ++i) task.gradient[i] *= share;
    for (std::int64_t i = 0; i < shape.n_weights; ++i) task.edge[i] *= share;
}

template <class Task>
void run_all(std::span<const Task> tasks, Isa isa, int n_threads) {
    std::vector<std::size_t> order(tasks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto cost = [&](std::size_t i) { return tasks[i].run.shape->n_parameters * tasks[i].run.rows->n_panels(); };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });
    const int n_workers = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(n_threads), tasks.size()));
    if (n_workers == 0) return;
    std::vector<Worker> workers;
    workers.reserve(static_cast<std::size_t>(n_workers));
    for (int worker = 0; worker < n_workers; ++worker) workers.emplace_back(mlp::kernels_of(isa));
    for_each_item(tasks.size(), n_workers, [&](std::size_t item, int worker) {
        run(tasks[order[item]], workers[static_cast<std::size_t>(worker)]);
    });
}

}  // namespace

void mlp_logits(std::span<const LogitsTask> tasks, Isa isa, int n_threads) {
    run_all(tasks, isa, n_threads);
}

void mlp_divergence(std::span<const DivergenceTask> tasks, Isa isa, int n_threads) {
    run_all(tasks, isa, n_threads);
}

void mlp_statistics(std::span<const StatisticsTask> tasks, Isa isa, int n_threads) {
    run_all(tasks, isa, n_threads);
}

}  // namespace metaedit
