// The whole edit of one model after the other, and the sharing out of many to threads.

#include "core/edit.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
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

// For models of up to that many nodes and edges.
struct WorkerSize {
    std::int64_t n_inputs;
    Arithmetic arithmetic;
    std::int64_t n_nodes, n_edges;

    bool covers(const WorkerSize& other) const {
        return n_inputs == other.n_inputs && arithmetic == other.arithmetic && n_nodes >= other.n_nodes &&
               n_edges >= other.n_edges;
    }
};

// What one thread needs.
class Worker : public Kept {
  public:
    Worker(const PackedEditor& editor, const WorkerSize& size)
        : size_(size),
          network_(editor, size.arithmetic, size.n_nodes, size.n_edges),
          statistics_(size.arithmetic.isa),
          features_(size.arithmetic.isa, size.n_inputs, editor.weights().n_node_types) {}

    // One that an earlier call left, or a new one.
    static std::unique_ptr<Worker> of(const PackedEditor& editor, const WorkerSize& size) {
        while (std::unique_ptr<Kept> kept = editor.edit_workers().take()) {
            std::unique_ptr<Worker> found(static_cast<Worker*>(kept.release()));
            if (found->size_.covers(size)) return found;
        }
        return std::make_unique<Worker>(editor, size);
    }

    // For a later call, unless it is large.
    static void keep(const PackedEditor& editor, std::unique_ptr<Worker> worker) {
        constexpr std::int64_t kMost = std::int64_t{1} << 20;  // values of the states and what goes with those of nodes
        const std::int64_t d_e = editor.weights().d_e, d_v = editor.weights().d_v;
        const WorkerSize& size = worker->size_;
        if (size.n_edges * d_e + 4 * size.n_nodes * (d_e + d_v) <= kMost) editor.edit_workers().put(std::move(worker));
    }

    bool shares() const { return network_.shares(); }

    // team: threads that share the network, or null.
    EditStatus edit(const EditTask& task, Team* team = nullptr) {
        const EditShape& shape = *task.shape;
        const std::int64_t n_weights = shape.mlp.n_weights;
        ProbeStatistics measured{};
        const ProbeStatistics* statistics = task.statistics;
        if (task.probe != nullptr) {
            measured = run_probe(task);
            statistics = &measured;
        }
        if (!features_.compute(shape, task.theta, statistics)) {
            return unchanged(task, EditStatus::too_large);
        }
        float* score = task.score != nullptr ? task.score : score_.of_size(n_weights);
        float* node = node_.of_size(shape.n_nodes * kNodeOutputs);
        network_.run({.graph = shape.graph(),
                      .n_weights = n_weights,
                      .edge_features = features_.edge(),
                      .saliency = features_.saliency(),
                      .node_features = features_.node(),
                      .node_type = features_.node_type(),
                      .condition = task.condition,
                      .score = score,
                      .relative = nullptr,
                      .additive = nullptr,
                      .node = node},
                     team);
        if (task.kept != EditTask::kKeepAll && !selection_.select(task.theta, score, n_weights, task.kept)) {
            return unchanged(task, EditStatus::nan_score);
        }
        if (task.kept == EditTask::kKeepAll) {
            select_weights(task, [](std::int64_t) { return true; });
        } else {
            select_weights(task, [&](std::int64_t k) { return selection_.keeps(k); });
        }
        edit_weights(task, team);
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

    // Writes weights that are kept as they are, and zeros; lists those to edit. A weight that is zero stays as it
    // is: an earlier edit removed it, and a later one must not bring it back.
    template <class Keeps>
    void select_weights(const EditTask& task, const Keeps& keeps) {
        const MlpShape& shape = task.shape->mlp;
        listed_.start(task.kept == EditTask::kKeepAll ? shape.n_weights : task.kept);
        std::int64_t k = 0, source = 0;
        for (const MlpLayer& layer : shape.layers) {
            const std::int64_t first_target = source + layer.n_in;
            for (; source < first_target; ++source) {
                for (std::int64_t v = 0; v < layer.n_out; ++v, ++k) {
                    const float weight = task.theta[k];
                    const bool kept = keeps(k);
                    task.edited[k] = kept ? weight : 0.0F;
                    listed_.add(kept && weight != 0.0F, k, source, first_target + v);
                }
            }
        }
    }

    void edit_weights(const EditTask& task, Team* team) {
        const EdgeList list = listed_.list();
        float *relative = relative_.of_size(list.n), *additive = additive_.of_size(list.n);
        network_.run_edits(list, relative, additive, team);
        const std::span<const float> rms = features_.rms();
        std::int64_t i = 0;
        for (std::size_t layer = 0; layer < rms.size(); ++layer) {
            const MlpLayer& of = task.shape->mlp.layers[layer];
            for (; i < listed_.size() && list.edges[i] < of.weight + of.n_in * of.n_out; ++i) {
                const std::int64_t k = list.edges[i];
                const float weight = task.theta[k];
                task.edited[k] = weight + task.gain * (relative[i] * weight + rms[layer] * additive[i]);
            }
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

    WorkerSize size_;
    MetanetworkRunner network_;
    MlpStatisticsRunner statistics_;
    edit::Features features_;
    edit::Selection selection_;
    edit::ListedWeights listed_;
    mlp::Buffer score_, relative_, additive_, node_;
    mlp::Buffer mean_, deviation_, gradient_, fisher_;
};

}  // namespace

std::int64_t class_count(std::int64_t n_inputs, std::int64_t n_node_types) {
    return n_node_types - n_inputs - 1 - static_cast<std::int64_t>(Activation::count);
}

void expect_fitting(const EditShape& shape, std::int64_t n_inputs, std::int64_t n_classes, const std::string& name) {
    const std::int64_t n_outputs = shape.mlp.n_outputs();
    if (shape.mlp.n_inputs() == n_inputs && (n_outputs == n_classes || (n_outputs == 1 && n_classes == 2))) return;
    throw std::invalid_argument(name + ": expected " + std::to_string(n_inputs) + " inputs and " +
                                std::to_string(n_classes) + " classes, got " + std::to_string(shape.mlp.n_inputs()) +
                                " inputs and " + std::to_string(n_outputs) + " outputs");
}

void edit_models(const PackedEditor& editor, std::int64_t n_inputs, std::span<const EditTask> tasks,
                 const Arithmetic& arithmetic, int n_threads) {
    if (tasks.empty()) return;
    std::vector<std::int64_t> n_edges;
    WorkerSize size{.n_inputs = n_inputs, .arithmetic = arithmetic, .n_nodes = 0, .n_edges = 0};
    for (const EditTask& task : tasks) {
        n_edges.push_back(task.shape->n_edges);
        size.n_nodes = std::max(size.n_nodes, task.shape->n_nodes);
        size.n_edges = std::max(size.n_edges, task.shape->n_edges);
    }
    std::vector<std::unique_ptr<Worker>> workers;
    workers.push_back(Worker::of(editor, size));
    const ModelShares shares = share_out(n_edges, editor.weights().d_e, workers[0]->shares(), n_threads);
    while (workers.size() < static_cast<std::size_t>(shares.n_workers)) workers.push_back(Worker::of(editor, size));

    const auto edit = [&](std::size_t place, int worker, Team* team) {
        using Clock = std::chrono::steady_clock;
        const EditTask& task = tasks[shares.order[place]];
        const Clock::time_point started = Clock::now();
        *task.status = workers[static_cast<std::size_t>(worker)]->edit(task, team);
        *task.seconds = std::chrono::duration<double>(Clock::now() - started).count();
    };
    if (shares.n_shared > 0) {
        Team team(n_threads);
        for (std::size_t place = 0; place < shares.n_shared; ++place) edit(place, 0, &team);
    }
    for_each_item(tasks.size() - shares.n_shared, shares.n_workers,
                  [&](std::size_t item, int worker) { edit(shares.n_shared + item, worker, nullptr); });
    for (std::unique_ptr<Worker>& worker : workers) Worker::keep(editor, std::move(worker));
}

}  // namespace metaedit
