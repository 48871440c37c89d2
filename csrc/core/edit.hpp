// A whole edit, models in, edited parameters out: features, network, ranking and write-back, one model at a time.
// Equivalent to model_features, the network, Requirement.mask and edited_theta of metaedit_fast.
//
// A model's result depends on nothing but the model, the editor and the arithmetic: not on the other models
// of the call, nor on the number of threads. What lies between θ and θ' exists for one model a thread.
#pragma once

#include <string>

#include "core/metanetwork.hpp"
#include "core/mlp.hpp"

namespace metaedit {

// An architecture with its weight graph, and which of its parameters behind the weights may be edited.
struct EditShape {
    struct Owned {
        bool bias, norm;
    };

    MlpShape mlp;
    std::vector<Owned> owned;   // of every layer
    std::vector<Block> blocks;  // dense ones first, then identity blocks by source, then target
    std::int64_t n_nodes, n_edges;

    EditShape(MlpShape shape, std::vector<Owned> owned_parameters);
    WeightGraph graph() const { return {blocks, n_nodes, n_edges}; }
};

// The numbers of models/statistics.py for one model, as StatisticsTask has them.
struct ProbeStatistics {
    const float *mean, *deviation;  // [n_nodes]
    const float* gradient;          // [all linear outputs]
    const float* edge;              // [n_weights]
};

// Features of one model, as Model has them, and the unit of additive edits of every layer.
struct FeatureArrays {
    float* edge;
    float* node;
    std::int64_t* node_type;
    float* saliency;
    float* rms;
};

// With the statistics of a probe or, for editors that read none, null.
void model_features(const EditShape& shape, std::int64_t n_node_types, const float* theta,
                    const ProbeStatistics* statistics, const FeatureArrays& out, Isa isa);

// What became of a model. Unless it was edited, its θ' is θ.
enum class EditStatus : std::int64_t {
    edited,
    too_large,  // a feature is NaN or infinite: float32 cannot hold the weights or activations
    nan_score,
};

struct EditTask {
    // The mask keeps this many weights of the highest score; of equal scores the first. Weights that are zero
    // already rank last.
    static constexpr std::int64_t kKeepAll = -1;  // no mask

    const EditShape* shape;
    const float* theta;      // [n_parameters]
    const float* condition;  // [kConditionSize]
    float gain;              // of the residual
    std::int64_t kept;       // 0 to n_weights, or kKeepAll
    // Editors that read a probe take either its rows, at least one, or what was measured on them; others none.
    const PanelRows* probe;             // or null
    const ProbeStatistics* statistics;  // or null; where both are given, the rows count
    float* edited;                      // θ', [n_parameters], apart from theta
    float* score;                       // [n_weights], or null: not wanted
    EditStatus* status;
    double* seconds;  // that a thread worked on it
};

// The features that an editor has, by whether it reads a probe (metaedit_fast/metanet/config.py).
constexpr std::int64_t edge_feature_count(bool probe) {
    return probe ? 8 : 5;
}
constexpr std::int64_t node_feature_count(bool probe) {
    return probe ? 13 : 10;
}

// Classes of an editor for models of n_inputs inputs.
std::int64_t class_count(std::int64_t n_inputs, std::int64_t n_node_types);

// Throws std::invalid_argument, naming `name`, unless the shape has these inputs, and an output a class or, for two
// classes, one.
void expect_fitting(const EditShape& shape, std::int64_t n_inputs, std::int64_t n_classes, const std::string& name);

// All models on up to n_threads threads of this call's own (one of them the caller's), shared out as by
// metanetwork_forward; of a model that threads share they share the network. Each must have as many inputs as the
// editor's models (n_inputs), and its outputs or, of two classes, one.
void edit_models(const PackedEditor& editor, std::int64_t n_inputs, std::span<const EditTask> tasks,
                 const Arithmetic& arithmetic, int n_threads);

}  // namespace metaedit
