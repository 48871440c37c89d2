// The whole metanetwork, forward: features and a budget in, heads out, one model at a time. Equivalent to
// Metanetwork.forward of metaedit_fast/metanet/metanetwork.py, whose parameters have the same names and shapes.
//
// A model's result depends on nothing but the model, the editor and the arithmetic: not on the other models
// of the call, nor on the number of threads.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/message_passing.hpp"

namespace metaedit {

// values = out(SiLU(edge e_uv + source h_u + target h_v))
struct EdgeHead {
    Linear edge, source, target, out;
};

// The parameters as torch stores them; points into memory of others. Of the two lists of layers one is empty.
struct MetanetWeights {
    std::int64_t d_e, d_v;
    std::int64_t n_edge_features, n_node_features, n_node_types;
    Linear condition_in, condition_node, condition_edge, edge_in, edge_out, node_in;
    const float* skip_edge;  // [d_e]
    const float* node_type;  // [n_node_types][d_v]
    std::vector<ShippedLayer> shipped;
    std::vector<OfficialLayer> official;
    LayerNorm final_norm;
    EdgeHead score_head;
    float score_gain;  // score = score_gain score_head + saliency_gain saliency
    const float* saliency_gain;
    struct Edits {
        EdgeHead head;  // relative, additive
        Linear node_head;
    };
    std::optional<Edits> edits;  // none in mask-only networks, whose other outputs are zeros
};

// The hidden layers of the embeddings of edges and of the budget.
inline constexpr std::int64_t kEmbed = 32;
inline constexpr std::int64_t kConditionSize = 4;
inline constexpr std::int64_t kNodeOutputs = 3;

// One model: what the network reads and where it writes. Dense blocks come first, so that the edge of a weight has
// the weight's number; nodes and edges are counted from 0.
struct Model {
    WeightGraph graph;
    std::int64_t n_weights;
    const float* edge_features;          // [n_weights][n_edge_features]
    const float* saliency;               // [n_weights]
    const float* node_features;          // [V][n_node_features]
    const std::int64_t* node_type;       // [V]
    const float* condition;              // [kConditionSize]
    float *score, *relative, *additive;  // [n_weights]; the last two may both be null: not wanted
    float* node;                         // [V][kNodeOutputs]
};

// Edges of a model by their numbers, with those of their nodes, filled up to whole tiles with any of them.
struct EdgeList {
    static constexpr std::int64_t kTile = 16;

    const std::int64_t *edges, *sources, *targets;  // [n]
    std::int64_t n;                                 // a multiple of kTile
};

class PackedEditor;
class FoldedNetwork;

namespace fused {
struct Kernels;
class Workspace;
}  // namespace fused

// The network for one model after the other on one thread, in memory that is reused: each worker of a call has one.
// A level without kernels for this editor's sizes runs the serial code.
class Team;
class MetanetworkRunner {
  public:
    // For models of up to that many nodes and edges. The editor must outlive it.
    MetanetworkRunner(const PackedEditor& editor, const Arithmetic& arithmetic, std::int64_t n_nodes,
                      std::int64_t n_edges);
    ~MetanetworkRunner();
    MetanetworkRunner(MetanetworkRunner&&) noexcept;
    MetanetworkRunner& operator=(MetanetworkRunner&&) = delete;

    // Whether a team is of use; the serial code runs on the caller's thread.
    bool shares() const { return work_ != nullptr; }

    // team: threads that share the model, or null for the caller's alone; the same bits.
    void run(const Model& model, Team* team = nullptr);

    // Relative and additive edits of some weights of the model that ran last, without them: [list.n]. The same bits.
    void run_edits(const EdgeList& list, float* relative, float* additive, Team* team = nullptr);

  private:
    const PackedEditor& editor_;
    const FoldedNetwork* network_;  // null where the serial code runs, as the next two are
    const fused::Kernels* kernels_;
    std::unique_ptr<fused::Workspace> work_;
    std::vector<float> relative_, additive_;  // of all weights: the serial code knows no lists
};

// Edges of each model.
std::vector<std::int64_t> edge_counts(std::span<const Model> models);

// Numbers of the models, those with the most edges first.
std::vector<std::size_t> largest_first(std::span<const std::int64_t> n_edges);

// Which models of a call all threads share and how many threads take the others, largest first.
struct ModelShares {
    std::vector<std::size_t> order;  // the shared ones in front
    std::size_t n_shared;
    int n_workers;  // at least one
};

// Where there are at most half as many models as threads, all threads share each large one, if they can.
ModelShares share_out(std::span<const std::int64_t> n_edges, std::int64_t d_e, bool can_share, int n_threads);

// All models, largest first, on up to n_threads threads of this call's own (one of them the caller's). Where there are
// at most half as many models, all threads share each large one.
void metanetwork_forward(const PackedEditor& editor, std::span<const Model> models, const Arithmetic& arithmetic,
                         int n_threads);

// What the vectorised kernels are compared with.
namespace serial {
void metanetwork_forward(const MetanetWeights& weights, const Model& model);
}  // namespace serial

}  // namespace metaedit
