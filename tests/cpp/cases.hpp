// Random networks, models and MLPs for the tests, each fixed by its seed. Every array is as long as its content
// and no longer, so that a sanitizer sees each access beside it; outputs are full of NaN.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/mlp.hpp"
#include "core/packed_editor.hpp"

namespace metaedit::test {

using Floats = std::vector<float>;
using Skips = std::vector<std::pair<std::size_t, std::size_t>>;

class Random {
  public:
    explicit Random(unsigned seed) : engine_(seed) {}

    Floats normal(std::int64_t size, float scale, float mean = 0.0F);
    std::int64_t below(std::int64_t limit);

  private:
    std::mt19937 engine_;
};

Floats poisoned(std::int64_t size);

// ---- What computes ----

// Every arithmetic that this machine and build have for the metanetwork, each once, the serial one first.
struct ArithmeticCase {
    std::string name;
    Arithmetic arithmetic;
    double limit;  // of the norm-wise error of a layer beside the serial result
};
std::vector<ArithmeticCase> arithmetic_cases();

// Every set of float32 kernels, each once, the serial one first.
std::vector<Isa> isas();

std::string name_of(Isa isa);

// ---- Metanetworks ----

// Random parameters with the memory that they point into.
class Parameters {
  public:
    explicit Parameters(unsigned seed) : random_(seed) {}
    // All in one array of that size; else each in an array of its own.
    Parameters(unsigned seed, std::int64_t joined_size) : random_(seed), joined_(poisoned(joined_size)) {}

    const float* take(std::int64_t size, float scale, float mean = 0.0F);
    Linear linear(std::int64_t n_out, std::int64_t n_in, bool has_bias = true);
    LayerNorm norm(std::int64_t size);
    ShippedLayer shipped(std::int64_t d_e, std::int64_t d_v);
    OfficialLayer official(std::int64_t d_e, std::int64_t d_v);
    EdgeHead head(std::int64_t d_e, std::int64_t d_v, std::int64_t hidden, std::int64_t n_out);
    std::vector<Floats> give() { return std::move(storage_); }
    std::int64_t size() const { return size_; }  // of what was taken
    const Floats& joined() const { return joined_; }

  private:
    Random random_;
    std::int64_t size_ = 0;
    std::vector<Floats> storage_;
    Floats joined_;
};

struct NetworkCase {
    std::string name;
    bool is_shipped;
    std::int64_t d_e, d_v, head_hidden;
    int n_layers;
    bool edits;
};

// Both forms; widths that the vectorised kernels have, that they fill up, and that are too wide for them.
std::vector<NetworkCase> network_cases();

inline constexpr std::int64_t kEdgeFeatures = 5, kNodeFeatures = 10, kNodeTypes = 7;

// What a network reads.
struct FeatureSizes {
    std::int64_t edge = kEdgeFeatures, node = kNodeFeatures, node_types = kNodeTypes;
};

MetanetWeights make_weights(const NetworkCase& of, const FeatureSizes& sizes, Parameters& parameters);

std::unique_ptr<PackedEditor> make_editor(const NetworkCase& of, const FeatureSizes& sizes = {});

// ---- Models of the metanetwork ----

// Widths of the neuron layers, and skips between them.
struct Architecture {
    std::vector<std::int64_t> widths;
    Skips skips;

    std::string name() const;
};

// One-neuron layers, widths of no tile, a wide one, identity blocks of every kind.
std::vector<Architecture> architectures();

struct Blocks {
    std::vector<Block> table;
    std::int64_t n_nodes = 0, n_edges = 0, n_weights = 0;

    explicit Blocks(const Architecture& of);
    WeightGraph graph() const { return {table, n_nodes, n_edges}; }
};

// A model's inputs, and outputs of its own.
class ModelCase {
  public:
    ModelCase(const Architecture& of, unsigned seed);

    Model model();
    std::int64_t n_nodes() const { return blocks_.n_nodes; }
    std::int64_t n_edges() const { return blocks_.n_edges; }
    // All outputs, one after the other.
    Floats outputs() const;
    const std::string& name() const { return name_; }

  private:
    std::string name_;
    Blocks blocks_;
    Floats edge_features_, saliency_, node_features_, condition_;
    std::vector<std::int64_t> node_type_;
    Floats score_, relative_, additive_, node_;
};

// ---- MLPs ----

struct MlpCase {
    std::string name;
    MlpShape shape;
    Floats theta;
};

MlpCase mlp_case(std::string name, const Architecture& of, Activation activation, bool has_norm, bool is_regressor,
                 unsigned seed);

// Every activation, layer norm or none, skips, one, two and three outputs, a regressor.
std::vector<MlpCase> mlp_cases();

// ---- Comparison ----

// |got - expected| / |expected|, in the Euclidean norm; infinite where `got` holds a NaN or the lengths differ.
double relative_error(const Floats& got, const Floats& expected);

bool same_bits(const Floats& a, const Floats& b);

// Fails, telling the error, unless it is below the limit.
void expect_close(const Floats& got, const Floats& expected, double limit, const std::string& of);

}  // namespace metaedit::test
