#include "cases.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "check.hpp"

namespace metaedit::test {

Floats Random::normal(std::int64_t size, float scale, float mean) {
    std::normal_distribution<float> draw(mean, scale);
    Floats values(static_cast<std::size_t>(size));
    for (float& value : values) value = draw(engine_);
    return values;
}

std::int64_t Random::below(std::int64_t limit) {
    return std::uniform_int_distribution<std::int64_t>(0, limit - 1)(engine_);
}

Floats poisoned(std::int64_t size) {
    return Floats(static_cast<std::size_t>(size), std::numeric_limits<float>::quiet_NaN());
}

// ---- What computes ----

std::vector<ArithmeticCase> arithmetic_cases() {
    std::vector<ArithmeticCase> cases;
    for (const Level& level : available_levels()) {
        for (const Precision allowed : {Precision::float32, Precision::bf16x3, Precision::bf16}) {
            const Arithmetic arithmetic(level, allowed);
            const bool is_known = std::any_of(cases.begin(), cases.end(), [&](const ArithmeticCase& other) {
                return other.arithmetic.isa == arithmetic.isa && other.arithmetic.precision == arithmetic.precision &&
                       other.arithmetic.bf16 == arithmetic.bf16;
            });
            if (is_known) continue;
            const double limit = arithmetic.precision == Precision::float32  ? 2e-6
                                 : arithmetic.precision == Precision::bf16x3 ? 1e-5
                                                                             : 5e-3;
            const std::string precision(metaedit::name_of(arithmetic.precision));
            cases.push_back({std::string(level.name) + " " + precision, arithmetic, limit});
        }
    }
    return cases;
}

std::vector<Isa> isas() {
    std::vector<Isa> found;
    for (const Level& level : available_levels()) {
        if (found.empty() || found.back() != level.isa) found.push_back(level.isa);
    }
    return found;
}

std::string name_of(Isa isa) {
    return isa == Isa::serial ? "serial" : isa == Isa::avx2 ? "avx2" : "avx512";
}

// ---- Metanetworks ----

const float* Parameters::take(std::int64_t size, float scale, float mean) {
    size_ += size;
    Floats values = random_.normal(size, scale, mean);
    if (!joined_.empty()) return std::copy_n(values.data(), size, joined_.data() + size_ - size) - size;
    storage_.push_back(std::move(values));
    return storage_.back().data();
}

Linear Parameters::linear(std::int64_t n_out, std::int64_t n_in, bool has_bias) {
    const float* weight = take(n_out * n_in, 0.7F / std::sqrt(static_cast<float>(n_in)));
    return {weight, has_bias ? take(n_out, 0.1F) : nullptr, n_out, n_in};
}

LayerNorm Parameters::norm(std::int64_t size) {
    const float* scale = take(size, 0.1F, 1.0F);
    return {scale, take(size, 0.1F), size};
}

ShippedLayer Parameters::shipped(std::int64_t d_e, std::int64_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .edge = linear(d_e, d_e),
            .source = linear(d_e, d_v, false),
            .target = linear(d_e, d_v, false),
            .update = linear(d_e, d_e),
            .norm = norm(d_v),
            .node_in = linear(2 * d_v, d_v + 4 * d_e),
            .node_out = linear(d_v, 2 * d_v)};
}

OfficialLayer Parameters::official(std::int64_t d_e, std::int64_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .forward_in = linear(d_e, d_e + d_v),
            .forward_out = linear(d_v, d_e),
            .backward_in = linear(d_e, d_e + d_v),
            .backward_out = linear(d_v, d_e),
            .edge_in = linear(d_e, d_e + 2 * d_v),
            .edge_out = linear(d_e, d_e),
            .node_in = linear(d_v, 3 * d_v),
            .node_out = linear(d_v, d_v),
            .residual = linear(d_v, d_v),
            .forward_norm = norm(d_e),
            .backward_norm = norm(d_e),
            .edge_norm = norm(d_e),
            .node_norm = norm(d_v)};
}

EdgeHead Parameters::head(std::int64_t d_e, std::int64_t d_v, std::int64_t hidden, std::int64_t n_out) {
    return {.edge = linear(hidden, d_e),
            .source = linear(hidden, d_v, false),
            .target = linear(hidden, d_v, false),
            .out = linear(n_out, hidden)};
}

std::vector<NetworkCase> network_cases() {
    return {{"shipped", true, 16, 64, 32, 2, true},
            {"shipped, odd sizes", true, 11, 23, 20, 2, true},
            {"shipped, wide", true, 128, 16, 48, 1, true},
            {"shipped, mask only", true, 32, 16, 32, 1, false},
            {"official", false, 64, 16, 32, 1, true},
            {"official, odd sizes", false, 9, 33, 17, 2, true},
            {"too wide for the kernels", false, 129, 3, 16, 1, true}};
}

MetanetWeights make_weights(const NetworkCase& of, const FeatureSizes& sizes, Parameters& p) {
    const std::int64_t d_e = of.d_e, d_v = of.d_v;
    MetanetWeights w{.d_e = d_e,
                     .d_v = d_v,
                     .n_edge_features = sizes.edge,
                     .n_node_features = sizes.node,
                     .n_node_types = sizes.node_types,
                     .condition_in = p.linear(kEmbed, kConditionSize),
                     .condition_node = p.linear(d_v, kEmbed),
                     .condition_edge = p.linear(kEmbed, kEmbed),
                     .edge_in = p.linear(kEmbed, sizes.edge),
                     .edge_out = p.linear(d_e, kEmbed),
                     .node_in = p.linear(d_v, sizes.node),
                     .skip_edge = p.take(d_e, 1.0F),
                     .node_type = p.take(sizes.node_types * d_v, 1.0F),
                     .shipped = {},
                     .official = {},
                     .final_norm = p.norm(d_v),
                     .score_head = p.head(d_e, d_v, of.head_hidden, 1),
                     .score_gain = 4.0F,
                     .saliency_gain = p.take(1, 0.1F, 0.9F),
                     .edits = {}};
    for (int i = 0; i < of.n_layers; ++i) {
        if (of.is_shipped) {
            w.shipped.push_back(p.shipped(d_e, d_v));
        } else {
            w.official.push_back(p.official(d_e, d_v));
        }
    }
    if (of.edits) w.edits = {.head = p.head(d_e, d_v, of.head_hidden, 2), .node_head = p.linear(kNodeOutputs, d_v)};
    return w;
}

std::unique_ptr<PackedEditor> make_editor(const NetworkCase& of, const FeatureSizes& sizes) {
    Parameters parameters(0);
    MetanetWeights weights = make_weights(of, sizes, parameters);
    return std::make_unique<PackedEditor>(std::move(weights), parameters.give());
}

// ---- Models of the metanetwork ----

std::string Architecture::name() const {
    std::string text;
    for (const std::int64_t width : widths) text += (text.empty() ? "" : "-") + std::to_string(width);
    return text + (skips.empty() ? "" : " with skips");
}

std::vector<Architecture> architectures() {
    return {{{5, 2}, {}},
            {{1, 1, 1}, {{0, 1}}},
            {{3, 19, 17, 2}, {{0, 1}, {1, 2}, {0, 2}}},
            {{1, 512, 1}, {}},
            {{2, 15, 15, 9, 3}, {{1, 2}, {2, 3}, {1, 3}, {0, 3}}}};
}

Blocks::Blocks(const Architecture& of) {
    std::vector<std::int64_t> first;
    for (const std::int64_t width : of.widths) {
        first.push_back(n_nodes);
        n_nodes += width;
    }
    const auto add = [&](std::size_t from, std::int64_t n_src, std::size_t to, std::int64_t n_dst, BlockKind kind) {
        table.push_back({first[from], n_src, first[to], n_dst, n_edges, kind});
        n_edges += table.back().n_edges();
    };
    for (std::size_t i = 0; i + 1 < of.widths.size(); ++i) {
        add(i, of.widths[i], i + 1, of.widths[i + 1], BlockKind::dense);
    }
    n_weights = n_edges;
    for (const auto& [from, to] : of.skips) {
        const std::int64_t shared = std::min(of.widths[from], of.widths[to]);
        add(from, shared, to, shared, BlockKind::identity);
    }
}

ModelCase::ModelCase(const Architecture& of, unsigned seed) : name_(of.name()), blocks_(of) {
    Random random(seed);
    edge_features_ = random.normal(blocks_.n_weights * kEdgeFeatures, 1.0F);
    saliency_ = random.normal(blocks_.n_weights, 1.0F);
    node_features_ = random.normal(blocks_.n_nodes * kNodeFeatures, 1.0F);
    condition_ = random.normal(kConditionSize, 1.0F);
    for (std::int64_t v = 0; v < blocks_.n_nodes; ++v) node_type_.push_back(random.below(kNodeTypes));
    score_ = relative_ = additive_ = poisoned(blocks_.n_weights);
    node_ = poisoned(blocks_.n_nodes * kNodeOutputs);
}

Model ModelCase::model() {
    return {.graph = blocks_.graph(),
            .n_weights = blocks_.n_weights,
            .edge_features = edge_features_.data(),
            .saliency = saliency_.data(),
            .node_features = node_features_.data(),
            .node_type = node_type_.data(),
            .condition = condition_.data(),
            .score = score_.data(),
            .relative = relative_.data(),
            .additive = additive_.data(),
            .node = node_.data()};
}

Floats ModelCase::outputs() const {
    Floats all;
    for (const Floats* part : {&score_, &relative_, &additive_, &node_}) {
        all.insert(all.end(), part->begin(), part->end());
    }
    return all;
}

// ---- MLPs ----

MlpCase mlp_case(std::string name, const Architecture& of, Activation activation, bool has_norm, bool is_regressor,
                 unsigned seed) {
    MlpShape shape{.layers = {}, .n_weights = 0, .n_parameters = 0, .is_regressor = is_regressor};
    for (std::size_t i = 0; i + 1 < of.widths.size(); ++i) {
        const bool is_last = i + 2 == of.widths.size();
        shape.layers.push_back({.n_in = of.widths[i],
                                .n_out = of.widths[i + 1],
                                .activation = is_last ? Activation::identity : activation,
                                .alpha = 0.3F,
                                .has_norm = has_norm && !is_last,
                                .epsilon = 1e-5F,
                                .skips = {},
                                .weight = shape.n_weights,
                                .bias = 0,
                                .norm_scale = 0,
                                .norm_shift = 0});
        shape.n_weights += of.widths[i] * of.widths[i + 1];
    }
    for (const auto& [from, to] : of.skips) shape.layers[to - 1].skips.push_back(static_cast<std::int64_t>(from));
    Random random(seed);
    Floats theta;
    const auto append = [&](const Floats& values) { theta.insert(theta.end(), values.begin(), values.end()); };
    for (const MlpLayer& layer : shape.layers) {
        append(random.normal(layer.n_in * layer.n_out, 1.0F / std::sqrt(static_cast<float>(layer.n_in))));
    }
    for (MlpLayer& layer : shape.layers) {
        layer.bias = static_cast<std::int64_t>(theta.size());
        append(random.normal(layer.n_out, 0.2F));
        if (!layer.has_norm) continue;
        layer.norm_scale = static_cast<std::int64_t>(theta.size());
        append(random.normal(layer.n_out, 0.1F, 1.0F));
        layer.norm_shift = static_cast<std::int64_t>(theta.size());
        append(random.normal(layer.n_out, 0.1F));
    }
    shape.n_parameters = static_cast<std::int64_t>(theta.size());
    return {std::move(name), std::move(shape), std::move(theta)};
}

std::vector<MlpCase> mlp_cases() {
    std::vector<MlpCase> cases;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(Activation::count); ++i) {
        const auto number = static_cast<unsigned>(i);
        const bool has_norm = i % 2 == 1;
        cases.push_back(mlp_case("activation " + std::to_string(i), {{5, 19, 6, 2}, {{0, 1}, {1, 2}}},
                                 static_cast<Activation>(i), has_norm, false, number));
    }
    cases.push_back(mlp_case("one neuron", {{1, 1, 1}, {}}, Activation::tanh, true, false, 20));
    cases.push_back(mlp_case("linear", {{5, 3}, {{0, 1}}}, Activation::relu, false, false, 21));
    cases.push_back(mlp_case("wide", {{3, 512, 6, 1}, {{1, 2}}}, Activation::silu, true, false, 22));
    cases.push_back(mlp_case("regressor", {{4, 17, 3}, {}}, Activation::gelu, false, true, 23));
    return cases;
}

// ---- Comparison ----

double relative_error(const Floats& got, const Floats& expected) {
    double difference = 0.0, size = 0.0;
    if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double mine = double{got[i]}, theirs = double{expected[i]};
        if (!std::isfinite(mine)) return std::numeric_limits<double>::infinity();
        difference += (mine - theirs) * (mine - theirs);
        size += theirs * theirs;
    }
    return difference == 0.0 ? 0.0 : std::sqrt(difference / size);
}

bool same_bits(const Floats& a, const Floats& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void expect_close(const Floats& got, const Floats& expected, double limit, const std::string& of) {
    const double error = relative_error(got, expected);
    EXPECT(error < limit, of + ": relative error " + std::to_string(error * 1e6) + "e-6");
}

}  // namespace metaedit::test
