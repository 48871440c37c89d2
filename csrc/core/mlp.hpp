// Trained MLPs on rows: forward, and backward to the parameters. Equivalent to metaedit_fast/models/backprop.py,
// statistics.py and divergence.py in float32.
//
// A network's result depends on nothing but the network, the rows and the instruction set: not on the other
// networks of the call, nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "cpu/isa.hpp"

namespace metaedit {

// In the order of spec.ACTIVATIONS.
enum class Activation : std::int64_t {
    identity,
    relu,
    gelu,
    gelu_tanh,
    silu,
    tanh,
    leaky_relu,
    sigmoid,
    elu,
    relu6,
    count
};

// h = act(norm(x W + b) + skips); offsets count floats in θ.
struct MlpLayer {
    std::int64_t n_in, n_out;
    Activation activation;
    float alpha;
    bool has_norm;
    float epsilon;
    std::vector<std::int64_t> skips;  // their neuron layers; 0 is the inputs
    std::int64_t weight, bias;        // weight is [n_in][n_out]
    std::int64_t norm_scale, norm_shift;
};

struct MlpShape {
    std::vector<MlpLayer> layers;
    std::int64_t n_weights, n_parameters;
    bool is_regressor;

    std::int64_t n_inputs() const { return layers.front().n_in; }
    std::int64_t n_outputs() const { return layers.back().n_out; }
    // One output stands for two classes with logits (0, z).
    std::int64_t n_classes() const { return n_outputs() == 1 ? 2 : n_outputs(); }
};

// One layer as a caller has it: MlpLayer without what follows from the layers before.
struct MlpLayerSizes {
    std::int64_t width, activation;
    float alpha;
    bool has_norm;
    float epsilon;
};

// A skip's source and target neuron layer; layer 0 is the inputs.
struct MlpSkip {
    std::int64_t source, target;
};

// The shape of these layers, with the offsets of MLPSpec.parameter_slices. Throws std::invalid_argument, naming the
// field, for widths outside 1 to 2^24, an unknown activation, 2^31 parameters or more, or a skip between no layers.
MlpShape mlp_shape(std::int64_t n_inputs, std::span<const MlpLayerSizes> layers, std::span<const MlpSkip> skips,
                   bool is_regressor);

// Rows of a panel: four vectors of the widest instruction set, and a multiple of every other's.
inline constexpr std::int64_t kPanelRows = 64;

// Rows as the kernels read them, [panel][feature][64]. Copies of the last row fill the last panel: numbers as
// finite as the others, which zeros would not always give.
class PanelRows {
  public:
    PanelRows(const float* rows, std::int64_t n_rows, std::int64_t n_features);

    std::int64_t n_rows() const { return n_rows_; }
    std::int64_t n_features() const { return n_features_; }
    std::int64_t n_panels() const { return (n_rows_ + kPanelRows - 1) / kPanelRows; }
    const float* panel(std::int64_t i) const { return values_.data() + i * n_features_ * kPanelRows; }

  private:
    std::int64_t n_rows_, n_features_;
    AlignedFloats values_;
};

// One network on its rows; shape.n_inputs() must be rows.n_features().
struct MlpRun {
    const MlpShape* shape;
    const float* theta;
    const PanelRows* rows;
};

struct LogitsTask {
    MlpRun run;
    bool log_probabilities;  // else logits
    float* out;              // [rows][n_classes or n_outputs]
};

// Mean Jensen-Shannon divergence to log_p, in nats, and its gradient. At least one row.
struct DivergenceTask {
    MlpRun run;
    const float* log_p;  // [rows][n_classes]
    double* value;
    float* gradient;  // [n_parameters]
};

// The gradient in θ of any function of a network's outputs, from its gradient in these.
struct GradientTask {
    MlpRun run;
    const float* at_outputs;  // [rows][n_outputs]
    float* gradient;          // [n_parameters]
};

// Mean and standard deviation of every neuron. At least one row.
struct MomentsTask {
    MlpRun run;
    float *mean, *deviation;  // [all neurons, the inputs first]
};

// The numbers of models/statistics.py. At least one row.
struct StatisticsTask {
    MlpRun run;
    float *mean, *deviation;  // [all neurons, the inputs first]
    float* gradient;          // E[g²], [all linear outputs]
    float* edge;              // E[a² g²], [n_weights]
};

// What equalised odds cost an objective; see metaedit_fast/editing/odds.py.
struct OddsTerm {
    const std::int64_t* cells;  // [rows], label · n_groups + group
    std::int64_t n_groups;
    double strength, limit, noise;
    float temperature;
};

// A point that a minimiser looked at: mean JSD, and the largest gap between soft rates, NaN without an OddsTerm.
struct RefineTrial {
    double objective, divergence, gap;
};

// A few quasi-Newton steps towards the minimum of mean JSD, or of that and what odds cost; equivalent to
// metaedit_fast/editing/refine.py. At least one row; the original has as many rows and classes.
struct RefineTask {
    MlpRun run, original;
    const OddsTerm* odds;      // null: JSD alone
    const std::uint8_t* free;  // [n_parameters]; 0 where a parameter keeps its bits
    std::int64_t n_steps;
    float* theta;         // [n_parameters], the result
    RefineTrial* trials;  // [n_steps + 1], the start first
    std::int64_t *n_trials, *best_step;
};

// What a network predicts, compared with another's predictions and with labels; no logits are kept. At least one row.
struct EvaluationTask {
    MlpRun run;
    // The other's ln p [rows][classes], or, where that is null, the other itself, with as many rows and classes.
    const PanelRows* log_p;
    MlpRun original;
    double* divergence;         // mean JSD in nats; null: not wanted
    const std::int64_t* cells;  // [rows], where in `counts` a row is counted if class 0 is predicted
    std::int64_t* counts;       // [n_counts]; null: not wanted
    std::int64_t n_counts;
};

// Statistics of one network after the other on one thread, in memory that is reused.
class MlpStatisticsRunner {
  public:
    explicit MlpStatisticsRunner(Isa isa);
    ~MlpStatisticsRunner();
    MlpStatisticsRunner(MlpStatisticsRunner&&) noexcept;
    MlpStatisticsRunner& operator=(MlpStatisticsRunner&&) = delete;

    void run(const StatisticsTask& task);

  private:
    struct Memory;
    std::unique_ptr<Memory> memory_;
};

// All tasks, the costliest first, on up to n_threads threads of this call's own (one of them the caller's).
void mlp_logits(std::span<const LogitsTask> tasks, Isa isa, int n_threads);
void mlp_divergence(std::span<const DivergenceTask> tasks, Isa isa, int n_threads);
void mlp_gradient(std::span<const GradientTask> tasks, Isa isa, int n_threads);
void mlp_moments(std::span<const MomentsTask> tasks, Isa isa, int n_threads);
void mlp_statistics(std::span<const StatisticsTask> tasks, Isa isa, int n_threads);
void mlp_evaluate(std::span<const EvaluationTask> tasks, Isa isa, int n_threads);
void mlp_refine(std::span<const RefineTask> tasks, Isa isa, int n_threads);

}  // namespace metaedit
