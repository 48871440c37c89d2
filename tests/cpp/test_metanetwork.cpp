// One layer and the whole network: every level beside the serial code, and any sharing out to threads bit for bit.

#include <thread>

#include "cases.hpp"
#include "check.hpp"

namespace metaedit::test {
namespace {

// Layers pass their errors on.
constexpr double kNetworkFactor = 2.5;

std::vector<ModelCase> make_models(unsigned seed) {
    std::vector<ModelCase> models;
    for (const Architecture& architecture : architectures()) models.emplace_back(architecture, ++seed);
    return models;
}

// The outputs of every model of a call on all of them.
std::vector<Floats> forward(const PackedEditor& editor, const Arithmetic& arithmetic, int n_threads) {
    std::vector<ModelCase> cases = make_models(0);
    std::vector<Model> models;
    for (ModelCase& of : cases) models.push_back(of.model());
    metanetwork_forward(editor, models, arithmetic, n_threads);
    std::vector<Floats> found;
    for (const ModelCase& of : cases) found.push_back(of.outputs());
    return found;
}

template <class Layer>
void compare_layer(const Layer& layer, const std::string& name,
                   void (*run)(const WeightGraph&, const Layer&, const LayerStates&, const Arithmetic&)) {
    for (const Architecture& architecture : architectures()) {
        const Blocks blocks(architecture);
        Random random(3);
        const Floats nodes = random.normal(blocks.n_nodes * layer.d_v, 1.0F);
        const Floats edges = random.normal(blocks.n_edges * layer.d_e, 1.0F);
        Floats expected_nodes, expected_edges;
        for (const ArithmeticCase& with : arithmetic_cases()) {
            Floats nodes_out = poisoned(blocks.n_nodes * layer.d_v), edges_out = poisoned(blocks.n_edges * layer.d_e);
            run(blocks.graph(), layer, {nodes.data(), edges.data(), nodes_out.data(), edges_out.data()},
                with.arithmetic);
            if (with.arithmetic.isa == Isa::serial) {
                expected_nodes = nodes_out;
                expected_edges = edges_out;
            }
            const std::string of = name + ", " + architecture.name() + ", " + with.name;
            expect_close(nodes_out, expected_nodes, with.limit, of + ", nodes");
            expect_close(edges_out, expected_edges, with.limit, of + ", edges");
        }
    }
}

}  // namespace

TEST(one_layer_on_every_level) {
    for (const NetworkCase& of : network_cases()) {
        Parameters parameters(1);
        if (of.is_shipped) {
            compare_layer(parameters.shipped(of.d_e, of.d_v), of.name, &shipped_forward);
        } else {
            compare_layer(parameters.official(of.d_e, of.d_v), of.name, &official_forward);
        }
    }
}

TEST(the_network_on_every_level) {
    for (const NetworkCase& of : network_cases()) {
        const std::unique_ptr<PackedEditor> editor = make_editor(of);
        std::vector<ModelCase> models = make_models(0);
        const std::vector<Floats> expected = forward(*editor, Isa::serial, 1);
        for (const ArithmeticCase& with : arithmetic_cases()) {
            if (with.arithmetic.isa == Isa::serial) continue;
            const std::vector<Floats> together = forward(*editor, with.arithmetic, 3);
            for (std::size_t i = 0; i < models.size(); ++i) {
                const std::string name = of.name + ", " + models[i].name() + ", " + with.name;
                expect_close(together[i], expected[i], kNetworkFactor * with.limit, name);
                // Neither threads nor neighbours change a bit.
                const Model alone = models[i].model();
                metanetwork_forward(*editor, {&alone, 1}, with.arithmetic, 1);
                EXPECT(same_bits(models[i].outputs(), together[i]), name);
            }
            if (of.d_e > 128) break;  // every level runs the serial code
        }
    }
}

TEST(threads_share_a_large_model) {
    const Architecture large{{14, 260, 2}, {}};
    for (const NetworkCase& of : network_cases()) {
        const std::unique_ptr<PackedEditor> editor = make_editor(of);
        if (of.d_e < 64 || of.d_e > 128) continue;
        for (const ArithmeticCase& with : arithmetic_cases()) {
            if (with.arithmetic.isa == Isa::serial) continue;
            std::vector<Floats> found;
            for (const int n_threads : {1, 4}) {
                ModelCase alone(large, 7);
                const Model model = alone.model();
                metanetwork_forward(*editor, {&model, 1}, with.arithmetic, n_threads);
                found.push_back(alone.outputs());
            }
            EXPECT(same_bits(found[0], found[1]), of.name + ", " + with.name);
        }
    }
}

TEST(an_empty_batch) {
    const std::unique_ptr<PackedEditor> editor = make_editor(network_cases().front());
    for (const ArithmeticCase& with : arithmetic_cases()) metanetwork_forward(*editor, {}, with.arithmetic, 4);
}

TEST(one_editor_in_calls_at_the_same_time) {
    for (const NetworkCase& of : {network_cases().front(), network_cases()[4]}) {
        const std::unique_ptr<PackedEditor> editor = make_editor(of);
        const Arithmetic best = arithmetic_cases().back().arithmetic;
        const std::vector<Floats> expected = forward(*editor, best, 1);
        std::vector<std::vector<Floats>> found(3);
        std::vector<std::thread> callers;
        for (std::vector<Floats>& mine : found) callers.emplace_back([&] { mine = forward(*editor, best, 2); });
        for (std::thread& caller : callers) caller.join();
        for (const std::vector<Floats>& mine : found) {
            for (std::size_t i = 0; i < mine.size(); ++i) EXPECT(same_bits(mine[i], expected[i]), of.name);
        }
    }
}

}  // namespace metaedit::test
