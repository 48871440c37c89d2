// The diagonal of a network's own Fisher information, on the rows of a chunk; see models/statistics.py.
#pragma once

#include "cpu/mlp/network.hpp"

namespace metaedit::mlp {

class Fisher {
  public:
    explicit Fisher(const Kernels& kernels) : kernels_(kernels) {}

    // Of the chunk that `network` went forward through last, whose gradients it overwrites: sums over rows, or adds to
    // them, of Σ_c a² g² for every weight, at the weights' places behind `weights`, and of Σ_c g² for every linear
    // output, layer after layer.
    void sums(const MlpRun& run, Network& network, std::int64_t first_panel, std::int64_t n_panels, float* weights,
              float* linear, bool add);

  private:
    const float* squared_gradients(const MlpRun& run, Network& network, std::int64_t first_panel,
                                   std::int64_t n_panels);

    const Kernels& kernels_;
    Buffer squares_, squared_outputs_, norm_gradients_;
};

}  // namespace metaedit::mlp
