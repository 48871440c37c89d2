// The whole edit of one model after the other, and the sharing out of many to threads.

#include "core/edit.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "core/packed_editor.hpp"
#include "core/parallel.hpp"
#include "cpu/edit/features.hpp"
#include "cpu/edit/selection.hpp"

namespace metaedit {

EditShape::EditShape(MlpShape shape, std::vector<Owned> owned_parameters)
    : mlp(std::move(shape)), owned(std::move(owned_parameters)), n_nodes(mlp.n_inputs()), n_edges(mlp.n_weights) {
    std::vector<std::int64_t> first{0}, width{mlp.n_inputs()};  // of every neuron layer
    for (const MlpLayer& layer : mlp.layers) {
        first.push_back(n_nodes);
        width.push_back(layer.n_out);
        blocks.push_back({first.end()[-2], layer.n_in, n_nodes, layer.n_out, layer.weight, BlockKind::dense});
        n_nodes += layer.n_out;
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> skips;
    for (std::size_t i = 0; i < mlp.layers.size(); ++i) {
        for (const std::int64_t source : mlp.layers[i].skips) {
            skips.emplace_back(source, static_cast<std::int64_t>(i) + 1);
        }
    }
    std::sort(skips.begin(), skips.end());
    for (const auto& [source, target] : skips) {
        const auto s = static_cast<std::size_t>(source), t = static_cast<std::size_t>(target);
        const std::int64_t shared = std::min(width[s], width[t]);
        blocks.push_back({first[s], shared, first[t], shared, n_edges, BlockKind::identity});
        n_edges += shared;
    }
}

namespace {

// What one thread needs.
class Worker {
  public:
    Worker(const PackedEditor& editor, std::int64_t n_inputs, const Arithmetic& arithmetic, std::int64_t n_nodes,
           std::int64_t n_edges)
        : network_(editor, arithmetic, n_nodes, n_edges),
          statistics_(arithmetic.isa),
          features_(arithmetic.isa, n_inputs, editor.weights().n_node_types) {}

    EditStatus edit(const EditTask& task) {
        const EditShape& shape = *task.shape;
        const std::int64_t n_weights = shape.mlp.n_weights;
        ProbeStatistics statistics{};
        if (task.probe != nullptr) statistics = run_probe(task);
        if (!features_.compute(shape, task.theta, task.probe != nullptr ? &statistics : nullptr)) {
            return unchanged(task, EditStatus::too_large);
        }
        float* score = task.score != nullptr ? task.score : score_.of_size(n_weights);
        float *relative = relative_.of_size(n_weights), *additive = additive_.of_size(n_weights);
        float* node = node_.of_size(shape.n_nodes * kNodeOutputs);
        network_.run({.graph = shape.graph(),
                      .n_weights = n_weights,
                      .edge_features = features_.edge(),
                      .saliency = features_.saliency(),
                      .node_features = features_.node(),
                      .node_type = features_.node_type(),
                      .condition = task.condition,
                      .score = score,
                      .relative = relative,
                      .additive = additive,
                      .node = node});
        if (task.kept != EditTask::kKeepAll && !selection_.select(task.theta, score, n_weights, task.kept)) {
            return unchanged(task, EditStatus::nan_score);
        }
        write_weights(task, relative, additive);
        write_rest(task, node);
        return EditStatus::edited;
    }

  private:
    static EditStatus unchanged(const EditTask& task, EditStatus status) {
        std::copy_n(task.theta, task.shape->mlp.n_parameters, task.edited);
        return status;
    }

    ProbeStatistics run_probe(const EditTask& task) {
        const EditShape& shape = *task.shape;
        float *mean = mean_.of_size(shape.n_nodes), *deviation = deviation_.of_size(shape.n_nodes);
        float* gradient = gradient_.of_size(shape.n_nodes - shape.mlp.n_inputs());
        float* fisher = fisher_.of_size(shape.mlp.n_weights);
        statistics_.run({.run = {&shape.mlp, task.theta, task.probe},
                         .mean = mean,
                         .deviation = deviation,
                         .gradient = gradient,
                         .edge = fisher});
        return {mean, deviation, gradient, fisher};
    }

    // A weight that is zero stays as it is: an earlier edit removed it, and a later one must not bring it back.
    void write_weights(const EditTask& task, const float* relative, const float* additive) const {
        const std::span<const float> rms = features_.rms();
        for (std::size_t i = 0; i < rms.size(); ++i) {
            const MlpLayer& layer = task.shape->mlp.layers[i];
            const std::int64_t end = layer.weight + layer.n_in * layer.n_out;
            for (std::int64_t k = layer.weight; k < end; ++k) {
                const float weight = task.theta[k];
                const float step = task.gain * (relative[k] * weight + rms[i] * additive[k]);
                task.edited[k] = weight == 0.0F ? weight : weight + step;
            }
        }
        if (task.kept == EditTask::kKeepAll) return;
        for (std::int64_t k = 0; k < task.shape->mlp.n_weights; ++k) {
            if (!selection_.keeps(k)) task.edited[k] = 0.0F;
        }
    }

    // Biases and norm parameters, from the three residuals of their neuron.
    static void write_rest(const EditTask& task, const float* node) {
        const MlpShape& shape = task.shape->mlp;
        node += shape.n_inputs() * kNodeOutputs;
        for (std::size_t i = 0; i < shape.layers.size(); ++i) {
            const MlpLayer& layer = shape.layers[i];
            const auto [owns_bias, owns_norm] = task.shape->owned[i];
            write_neurons(task, node, layer.bias, layer.n_out, owns_bias);
            if (layer.has_norm) {
                write_neurons(task, node + 1, layer.norm_scale, layer.n_out, owns_norm);
                write_neurons(task, node + 2, layer.norm_shift, layer.n_out, owns_norm);
            }
            node += layer.n_out * kNodeOutputs;
        }
    }

    // Where nothing is added, the bits stay, those of -0 too.
    static void write_neurons(const EditTask& task, const float* residual, std::int64_t first, std::int64_t n,
                              bool owned) {
        for (std::int64_t i = 0; i < n; ++i) {
            const float step = task.gain * residual[i * kNodeOutputs], old = task.theta[first + i];
            task.edited[first + i] = !owned || step == 0.0F ? old : old + step;
        }
    }

    MetanetworkRunner network_;
    MlpStatisticsRunner statistics_;
    edit::Features features_;
    edit::Selection selection_;
    mlp::Buffer score_, relative_, additive_, node_;
    mlp::Buffer mean_, deviation_, gradient_, fisher_;
};

}  // namespace

void edit_models(const PackedEditor& editor, std::int64_t n_inputs, std::span<const EditTask> tasks,
                 const Arithmetic& arithmetic, int n_threads) {
    if (tasks.empty()) return;
    std::vector<std::size_t> order(tasks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return tasks[a].shape->n_edges > tasks[b].shape->n_edges; });
    std::int64_t n_nodes = 0;
    for (const EditTask& task : tasks) n_nodes = std::max(n_nodes, task.shape->n_nodes);
    const int n_workers = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(n_threads), tasks.size()));
    std::vector<Worker> workers;
    workers.reserve(static_cast<std::size_t>(n_workers));
    for (int worker = 0; worker < n_workers; ++worker) {
        workers.emplace_back(editor, n_inputs, arithmetic, n_nodes, tasks[order[0]].shape->n_edges);
    }
    for_each_item(tasks.size(), n_workers, [&](std::size_t item, int worker) {
        using Clock = std::chrono::steady_clock;
        const EditTask& task = tasks[order[item]];
        const Clock::time_point started = Clock::now();
        *task.status = workers[static_cast<std::size_t>(worker)].edit(task);
        *task.seconds = std::chrono::duration<double>(Clock::now() - started).count();
    });
}

}  // namespace metaedit
