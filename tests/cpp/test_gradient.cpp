// The metanetwork for training: heads beside those of the serial network, gradients of every level beside the serial
// ones, any number of threads bit for bit.

#include "cases.hpp"
#include "check.hpp"
#include "core/metanetwork_gradient.hpp"

namespace metaedit::test {
namespace {

constexpr double kHeadLimit = 5e-6;
constexpr double kGradientLimit = 2e-5;

bool is_trainable(const NetworkCase& of) {
    return of.d_e <= kEdgeWidths[std::size(kEdgeWidths) - 1];
}

// Parameters in one array.
struct Network {
    Parameters memory;
    MetanetWeights weights;

    explicit Network(const NetworkCase& of) : memory(0, count_parameters(of)), weights(make_weights(of, {}, memory)) {}

  private:
    static std::int64_t count_parameters(const NetworkCase& of) {
        Parameters counted(0);
        static_cast<void>(make_weights(of, {}, counted));
        return counted.size();
    }
};

// Models with tapes and upstream gradients.
class Batch {
  public:
    Batch(const FoldedLayout& layout, const Floats& parameters) : parameters_(parameters) {
        const TapeSizes sizes(layout);
        unsigned seed = 0;
        for (const Architecture& architecture : architectures()) {
            ModelCase& of = cases_.emplace_back(architecture, ++seed);
            edges_.push_back(poisoned(of.n_edges() * sizes.per_edge));
            nodes_.push_back(poisoned((of.n_nodes() + 1) * sizes.per_node));
            tapes_.push_back({edges_.back().data(), nodes_.back().data()});
            const std::int64_t n_weights = of.model().n_weights;
            upstream_.push_back(Random(seed).normal(3 * n_weights + of.n_nodes() * kNodeOutputs, 1.0F));
            const float* at = upstream_.back().data();
            gradients_.push_back({at, at + n_weights, at + 2 * n_weights, at + 3 * n_weights});
        }
        for (ModelCase& of : cases_) models_.push_back(of.model());
    }

    std::vector<Floats> record(const FoldedNetwork& network, Isa isa, int n_threads) {
        metanetwork_record(network, models_, tapes_, isa, n_threads);
        std::vector<Floats> heads;
        for (const ModelCase& of : cases_) heads.push_back(of.outputs());
        return heads;
    }

    Floats gradient(const FoldedNetwork& network, Isa isa, int n_threads) const {
        const std::vector<double> found =
            metanetwork_gradient(network, parameters_, models_, tapes_, gradients_, isa, n_threads);
        Floats rounded;
        for (const double value : found) rounded.push_back(static_cast<float>(value));
        return rounded;
    }

    const std::vector<ModelCase>& cases() const { return cases_; }

  private:
    const Floats& parameters_;
    std::vector<ModelCase> cases_;
    std::vector<Floats> edges_, nodes_, upstream_;
    std::vector<Tape> tapes_;
    std::vector<HeadGradients> gradients_;
    std::vector<Model> models_;
};

struct Trained {
    std::vector<Floats> heads;
    Floats gradient;
};

Trained run(const Network& network, Isa isa, int n_threads) {
    FoldedNetwork folded(network.weights, n_threads);
    folded.transpose();
    Batch batch(folded.layout(), network.memory.joined());
    Trained found;
    found.heads = batch.record(folded, isa, n_threads);
    found.gradient = batch.gradient(folded, isa, n_threads);
    return found;
}

}  // namespace

TEST(the_gradient_on_every_level) {
    for (const NetworkCase& of : network_cases()) {
        if (!is_trainable(of)) continue;
        const Network network(of);
        std::vector<Floats> plain;
        unsigned seed = 0;
        for (const Architecture& architecture : architectures()) {
            ModelCase model(architecture, ++seed);
            serial::metanetwork_forward(network.weights, model.model());
            plain.push_back(model.outputs());
        }
        const Trained expected = run(network, Isa::serial, 1);
        for (const Isa isa : isas()) {
            const Trained alone = isa == Isa::serial ? expected : run(network, isa, 1), shared = run(network, isa, 3);
            const std::string name = of.name + ", " + name_of(isa);
            for (std::size_t i = 0; i < plain.size(); ++i) {
                expect_close(alone.heads[i], plain[i], kHeadLimit, name + ", " + architectures()[i].name());
                EXPECT(same_bits(shared.heads[i], alone.heads[i]), name + ", 3 threads");
            }
            expect_close(alone.gradient, expected.gradient, kGradientLimit, name + ", gradient");
            EXPECT(same_bits(shared.gradient, alone.gradient), name + ", 3 threads, gradient");
        }
    }
}

TEST(the_gradient_of_no_models) {
    const Network network(network_cases().front());
    FoldedNetwork folded(network.weights, 1);
    folded.transpose();
    for (const Isa isa : isas()) {
        metanetwork_record(folded, {}, {}, isa, 3);
        const std::vector<double> found = metanetwork_gradient(folded, network.memory.joined(), {}, {}, {}, isa, 3);
        EXPECT(found == std::vector<double>(static_cast<std::size_t>(network.memory.size())), name_of(isa));
    }
}

}  // namespace metaedit::test
