// Models shared out to threads, forward and backward.

#include <algorithm>

#include "core/parallel.hpp"
#include "cpu/gradient/network.hpp"
#include "cpu/kernels_of.hpp"

namespace metaedit {

METAEDIT_KERNELS_OF(gradient, gradient_kernels)

namespace {

std::vector<gradient::Workspace> workspaces(const FoldedLayout& layout, std::span<const Model> models, int n_workers,
                                            bool backward) {
    std::int64_t n_nodes = 0, n_edges = 0;
    for (const Model& model : models) {
        n_nodes = std::max(n_nodes, model.graph.n_nodes);
        n_edges = std::max(n_edges, model.graph.n_edges);
    }
    std::vector<gradient::Workspace> work;
    for (int i = 0; i < n_workers; ++i) work.emplace_back(layout, n_nodes, n_edges, backward);
    return work;
}

// Models that one thread adds up, in the order of the call.
struct Slot {
    std::vector<std::size_t> models;
    std::int64_t n_edges = 0;
    AlignedFloats gradients;
};

// Enough for the threads of most machines; each costs a set of gradients.
constexpr std::size_t kSlots = 16;

// Each model, the largest first, goes to the slot with the fewest edges. This depends on the models alone.
std::vector<Slot> deal(std::span<const Model> models) {
    std::vector<Slot> slots(std::min(kSlots, models.size()));
    for (const std::size_t m : largest_first(edge_counts(models))) {
        auto least = std::min_element(slots.begin(), slots.end(),
                                      [](const Slot& a, const Slot& b) { return a.n_edges < b.n_edges; });
        least->models.push_back(m);
        least->n_edges += models[m].graph.n_edges;
    }
    for (Slot& slot : slots) std::sort(slot.models.begin(), slot.models.end());
    return slots;
}

int count_workers(std::size_t n_items, int n_threads) {
    return static_cast<int>(std::min(static_cast<std::size_t>(n_threads), n_items));
}

}  // namespace

TapeSizes::TapeSizes(const FoldedLayout& layout)
    : per_edge(static_cast<std::int64_t>(layout.shipped.size() + layout.official.size() + 1) * layout.sizes.edge),
      per_node(layout.sizes.node + kPanel) {
    for (const FoldedShipped& layer : layout.shipped) per_node += layer.node_in.n_in + kPanel + layer.node_in.n_out;
    for (const FoldedOfficial& layer : layout.official) per_node += layer.node_in.n_in + kPanel + layer.node_in.n_out;
}

void metanetwork_record(const FoldedNetwork& network, std::span<const Model> models, std::span<const Tape> tapes,
                        Isa isa, int n_threads) {
    if (models.empty()) return;
    const int n_workers = count_workers(models.size(), n_threads);
    std::vector<gradient::Workspace> work = workspaces(network.layout(), models, n_workers, false);
    const std::vector<std::size_t> order = largest_first(edge_counts(models));
    for_each_item(models.size(), n_workers, [&](std::size_t item, int worker) {
        const std::size_t m = order[item];
        gradient::Pass(gradient::kernels_of(isa), network, models[m], tapes[m], work[static_cast<std::size_t>(worker)])
            .forward();
    });
}

std::vector<double> metanetwork_gradient(const FoldedNetwork& network, std::span<const float> parameters,
                                         std::span<const Model> models, std::span<const Tape> tapes,
                                         std::span<const HeadGradients> gradients, Isa isa, int n_threads) {
    const FoldedLayout& layout = network.layout();
    std::vector<double> sums(static_cast<std::size_t>(layout.n_values));
    if (models.empty()) return network.unfold(sums, parameters, n_threads);
    std::vector<Slot> slots = deal(models);
    const int n_workers = count_workers(slots.size(), n_threads);
    std::vector<gradient::Workspace> work = workspaces(layout, models, n_workers, true);
    for_each_item(slots.size(), n_workers, [&](std::size_t item, int worker) {
        Slot& slot = slots[item];
        slot.gradients = AlignedFloats(layout.n_values);
        for (const std::size_t m : slot.models) {
            gradient::Pass(gradient::kernels_of(isa), network, models[m], tapes[m],
                           work[static_cast<std::size_t>(worker)])
                .backward(gradients[m], slot.gradients.data());
        }
    });
    for (const Slot& slot : slots) {
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += double{slot.gradients.data()[i]};
    }
    return network.unfold(sums, parameters, n_threads);
}

}  // namespace metaedit
