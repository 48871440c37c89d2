// Sharing many tasks out to threads, and the chunks of one.
#pragma once

#include <algorithm>
#include <numeric>

#include "core/parallel.hpp"
#include "cpu/mlp/kernels.hpp"

namespace metaedit::mlp {

// Calls work(first panel, panels) for every chunk of the rows.
template <class F>
void for_each_chunk(const PanelRows& rows, std::int64_t chunk_panels, const F& work) {
    for (std::int64_t first = 0; first < rows.n_panels(); first += chunk_panels) {
        work(first, std::min(chunk_panels, rows.n_panels() - first));
    }
}

// Calls worker.run(task) for every task, the costliest first, on at most n_threads threads. Each has a Worker of its
// own, made from the kernels.
template <class Worker, class Task>
void share_out(std::span<const Task> tasks, Isa isa, int n_threads) {
    std::vector<std::size_t> order(tasks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto cost = [&](std::size_t i) { return tasks[i].run.shape->n_parameters * tasks[i].run.rows->n_panels(); };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });
    const int n_workers = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(n_threads), tasks.size()));
    if (n_workers == 0) return;
    std::vector<Worker> workers;
    workers.reserve(static_cast<std::size_t>(n_workers));
    for (int worker = 0; worker < n_workers; ++worker) workers.emplace_back(kernels_of(isa));
    for_each_item(tasks.size(), n_workers, [&](std::size_t item, int worker) {
        workers[static_cast<std::size_t>(worker)].run(tasks[order[item]]);
    });
}

}  // namespace metaedit::mlp
