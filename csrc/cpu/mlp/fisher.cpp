#include "cpu/mlp/fisher.hpp"

namespace metaedit::mlp {

// Σ_c g² of the chunk for every linear output, [layer][panel][feature][64].
const float* Fisher::squared_gradients(const MlpRun& run, Network& network, std::int64_t first_panel,
                                       std::int64_t n_panels) {
    const MlpShape& shape = *run.shape;
    const std::int64_t n_outputs = shape.n_outputs();
    std::int64_t n_linear = 0;
    for (const MlpLayer& layer : shape.layers) n_linear += layer.n_out;
    float* squares = squares_.of_size(n_linear * n_panels * kPanelRows);
    // The gradients of the norms' parameters are a by-product that nobody asked for.
    float* unused = norm_gradients_.of_size(shape.n_parameters);
    const std::int64_t n_directions = !shape.is_regressor && n_outputs <= 2 ? 1 : n_outputs;
    for (std::int64_t direction = 0; direction < n_directions; ++direction) {
        for (std::int64_t panel = 0; panel < n_panels; ++panel) {
            kernels_.fisher_direction({.log_p = shape.is_regressor ? nullptr : network.log_probabilities(panel),
                                       .n_outputs = n_outputs,
                                       .direction = direction,
                                       .keeps = network.keeps(first_panel + panel),
                                       .gradient = network.output_gradient(panel)});
        }
        network.backward(unused);
        float* to = squares;
        for (std::size_t i = 0; i < shape.layers.size(); ++i) {
            const Features gradient = network.linear_gradient(static_cast<std::int64_t>(i));
            kernels_.square(gradient.values, to, gradient.n * n_panels, direction > 0);
            to += gradient.n * n_panels * kPanelRows;
        }
    }
    return squares;
}

void Fisher::sums(const MlpRun& run, Network& network, std::int64_t first_panel, std::int64_t n_panels, float* weights,
                  float* linear, bool add) {
    const float* squares = squared_gradients(run, network, first_panel, n_panels);
    for (std::size_t i = 0; i < run.shape->layers.size(); ++i) {
        const auto index = static_cast<std::int64_t>(i);
        const Features a = network.outputs(index);
        const Features g{squares, run.shape->layers[i].n_out, n_panels};
        float* squared_outputs = squared_outputs_.of_size(a.n * n_panels * kPanelRows);
        kernels_.square(a.values, squared_outputs, a.n * n_panels, false);
        network.products(index, {squared_outputs, a.n, n_panels}, g, weights + run.shape->layers[i].weight, linear,
                         add);
        linear += g.n;
        squares += g.n * n_panels * kPanelRows;
    }
}

}  // namespace metaedit::mlp
