// Which code runs a layer or a network, and on which thread.

#include <algorithm>
#include <numeric>

#include "core/packed_editor.hpp"
#include "core/parallel.hpp"
#include "cpu/fused/model.hpp"
#include "cpu/kernels_of.hpp"

namespace metaedit {

METAEDIT_X86_TABLES(fused::Kernels, kernels)
#ifdef METAEDIT_X86_KERNELS
namespace avx512_bf16 {
extern const fused::Kernels kernels;
}
namespace amx {
extern const fused::Kernels kernels;
}
namespace amx_split {
extern const fused::Kernels kernels;
}
#endif

const fused::Kernels* fused::kernels_of([[maybe_unused]] const Arithmetic& arithmetic) {
#ifdef METAEDIT_X86_KERNELS
    const bool split = arithmetic.precision == Precision::bf16x3;
    if (arithmetic.bf16 == Bf16::amx) return split ? &amx_split::kernels : &amx::kernels;
    if (arithmetic.bf16 == Bf16::avx512) return &avx512_bf16::kernels;
    if (arithmetic.isa == Isa::avx2) return &avx2::kernels;
    if (arithmetic.isa == Isa::avx512) return &avx512::kernels;
#endif
    return nullptr;
}

void shipped_forward(const WeightGraph& graph, const ShippedLayer& layer, const LayerStates& states,
                     const Arithmetic& arithmetic) {
    const fused::Kernels* kernels = fused::kernels_of(arithmetic);
    if (kernels == nullptr || !StateSizes::fit(layer.d_e)) return serial::shipped_forward(graph, layer, states);
    fused::layer_forward(*kernels, graph, layer, states, arithmetic.precision);
}

void official_forward(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states,
                      const Arithmetic& arithmetic) {
    const fused::Kernels* kernels = fused::kernels_of(arithmetic);
    if (kernels == nullptr || !StateSizes::fit(layer.d_e)) return serial::official_forward(graph, layer, states);
    fused::layer_forward(*kernels, graph, layer, states, arithmetic.precision);
}

MetanetworkRunner::MetanetworkRunner(const PackedEditor& editor, const Arithmetic& arithmetic, std::int64_t n_nodes,
                                     std::int64_t n_edges)
    : editor_(editor), network_(nullptr), kernels_(fused::kernels_of(arithmetic)) {
    if (kernels_ == nullptr) return;
    network_ = editor.folded(arithmetic.precision);
    if (network_ == nullptr) return;
    work_ = std::make_unique<fused::Workspace>(fused::workspace_for(*network_, n_nodes, n_edges));
}

MetanetworkRunner::~MetanetworkRunner() = default;
MetanetworkRunner::MetanetworkRunner(MetanetworkRunner&&) noexcept = default;

void MetanetworkRunner::run(const Model& model, Team* team) {
    if (work_ != nullptr) return fused::forward(*kernels_, *network_, model, *work_, team);
    Model all = model;
    if (model.relative == nullptr) {
        relative_.resize(static_cast<std::size_t>(model.n_weights));
        additive_.resize(static_cast<std::size_t>(model.n_weights));
        all.relative = relative_.data();
        all.additive = additive_.data();
    }
    serial::metanetwork_forward(editor_.weights(), all);
}

void MetanetworkRunner::run_edits(const EdgeList& list, float* relative, float* additive, Team* team) {
    if (work_ != nullptr) {
        return fused::read_edits(*kernels_, *network_, list, *work_, relative, additive, team);
    }
    for (std::int64_t i = 0; i < list.n; ++i) {
        relative[i] = relative_[static_cast<std::size_t>(list.edges[i])];
        additive[i] = additive_[static_cast<std::size_t>(list.edges[i])];
    }
}

std::vector<std::int64_t> edge_counts(std::span<const Model> models) {
    std::vector<std::int64_t> n_edges;
    n_edges.reserve(models.size());
    for (const Model& model : models) n_edges.push_back(model.graph.n_edges);
    return n_edges;
}

std::vector<std::size_t> largest_first(std::span<const std::int64_t> n_edges) {
    std::vector<std::size_t> order(n_edges.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return n_edges[a] > n_edges[b]; });
    return order;
}

ModelShares share_out(std::span<const std::int64_t> n_edges, std::int64_t d_e, bool can_share, int n_threads) {
    constexpr std::int64_t kLarge = std::int64_t{1} << 18;  // edges times d_e: some two milliseconds on one thread
    ModelShares shares{.order = largest_first(n_edges), .n_shared = 0, .n_workers = 1};
    const auto n_workers = [&](std::size_t n) {
        return static_cast<int>(std::clamp<std::size_t>(n, 1, static_cast<std::size_t>(n_threads)));
    };
    if (can_share && 2 * n_workers(n_edges.size()) <= n_threads) {
        const auto is_large = [&](std::size_t m) { return n_edges[m] * d_e >= kLarge; };
        while (shares.n_shared < n_edges.size() && is_large(shares.order[shares.n_shared])) ++shares.n_shared;
    }
    shares.n_workers = n_workers(n_edges.size() - shares.n_shared);
    return shares;
}

void metanetwork_forward(const PackedEditor& editor, std::span<const Model> models, const Arithmetic& arithmetic,
                         int n_threads) {
    if (models.empty()) return;
    const std::vector<std::int64_t> n_edges = edge_counts(models);
    std::int64_t n_nodes = 0;
    for (const Model& model : models) n_nodes = std::max(n_nodes, model.graph.n_nodes);
    std::vector<MetanetworkRunner> runners;
    const auto add_runner = [&] {
        runners.emplace_back(editor, arithmetic, n_nodes, *std::max_element(n_edges.begin(), n_edges.end()));
    };
    add_runner();
    const auto [order, n_shared, n_workers] = share_out(n_edges, editor.weights().d_e, runners[0].shares(), n_threads);
    if (n_shared > 0) {
        Team team(n_threads);
        for (std::size_t item = 0; item < n_shared; ++item) runners[0].run(models[order[item]], &team);
    }
    while (runners.size() < static_cast<std::size_t>(n_workers)) add_runner();
    for_each_item(models.size() - n_shared, n_workers,
                  [&, &order = order, n_shared = n_shared](std::size_t item, int worker) {
                      runners[static_cast<std::size_t>(worker)].run(models[order[n_shared + item]]);
                  });
}

}  // namespace metaedit
