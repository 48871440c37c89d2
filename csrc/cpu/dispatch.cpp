// Which code runs a layer or a network, and on which thread.

#include <algorithm>
#include <numeric>

#include "core/packed_editor.hpp"
#include "core/parallel.hpp"
#include "cpu/fused/model.hpp"

namespace metaedit {

#ifdef METAEDIT_X86_KERNELS
namespace avx2 {
extern const fused::Kernels kernels;
}
namespace avx512 {
extern const fused::Kernels kernels;
}
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
    if (kernels == nullptr || !PackedSizes::fit(layer.d_e)) return serial::shipped_forward(graph, layer, states);
    fused::shipped_forward(*kernels, graph, layer, states, arithmetic.precision);
}

void official_forward(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states,
                      const Arithmetic& arithmetic) {
    const fused::Kernels* kernels = fused::kernels_of(arithmetic);
    if (kernels == nullptr || !PackedSizes::fit(layer.d_e)) return serial::official_forward(graph, layer, states);
    fused::official_forward(*kernels, graph, layer, states, arithmetic.precision);
}

MetanetworkRunner::MetanetworkRunner(const PackedEditor& editor, const Arithmetic& arithmetic, std::int64_t n_nodes,
                                     std::int64_t n_edges)
    : editor_(editor), network_(nullptr), kernels_(fused::kernels_of(arithmetic)) {
    if (kernels_ == nullptr) return;
    network_ = editor.packed(arithmetic.precision);
    if (network_ == nullptr) return;
    work_ = std::make_unique<fused::Workspace>(fused::workspace_for(*network_, n_nodes, n_edges));
}

MetanetworkRunner::~MetanetworkRunner() = default;
MetanetworkRunner::MetanetworkRunner(MetanetworkRunner&&) noexcept = default;

void MetanetworkRunner::run(const Model& model, Team* team) {
    if (work_ == nullptr) return serial::metanetwork_forward(editor_.weights(), model);
    fused::forward(*kernels_, *network_, model, *work_, team);
}

namespace {

// Edges times d_e from which a model is worth sharing: some two milliseconds on one thread.
constexpr std::int64_t kLarge = std::int64_t{1} << 18;

}  // namespace

void metanetwork_forward(const PackedEditor& editor, std::span<const Model> models, const Arithmetic& arithmetic,
                         int n_threads) {
    std::vector<std::size_t> order(models.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return models[a].graph.n_edges > models[b].graph.n_edges; });
    const int n_workers = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(n_threads), models.size()));
    if (n_workers == 0) return;

    std::int64_t n_nodes = 0;
    for (const Model& model : models) n_nodes = std::max(n_nodes, model.graph.n_nodes);
    std::vector<MetanetworkRunner> runners;
    runners.reserve(static_cast<std::size_t>(n_workers));
    const auto add_runner = [&] { runners.emplace_back(editor, arithmetic, n_nodes, models[order[0]].graph.n_edges); };
    add_runner();

    // Where half of the threads or more have no model of their own, all share the large ones.
    std::size_t n_shared = 0;
    if (2 * n_workers <= n_threads && runners[0].shares()) {
        const auto is_large = [&](std::size_t m) { return models[m].graph.n_edges * editor.weights().d_e >= kLarge; };
        while (n_shared < order.size() && is_large(order[n_shared])) ++n_shared;
    }
    if (n_shared > 0) {
        Team team(n_threads);
        for (std::size_t item = 0; item < n_shared; ++item) runners[0].run(models[order[item]], &team);
    }
    while (runners.size() < std::min<std::size_t>(static_cast<std::size_t>(n_workers), models.size() - n_shared)) {
        add_runner();
    }
    for_each_item(models.size() - n_shared, static_cast<int>(runners.size()), [&](std::size_t item, int worker) {
        runners[static_cast<std::size_t>(worker)].run(models[order[n_shared + item]]);
    });
}

}  // namespace metaedit
