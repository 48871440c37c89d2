// A network without what it does not need: weights that are 0 and stay so, neurons that nothing reads.
#pragma once

#include "cpu/mlp/network.hpp"

namespace metaedit::mlp {

// Offsets of `shape` count the floats of a vector of its own, whose i-th parameter is parameter from[i] of θ.
struct Compact {
    MlpShape shape;
    std::vector<KeptWeights> kept;
    std::vector<std::int32_t> from;
};

// Keeps the weights that are not 0 or that are `free` ([n_parameters]; 0: fixed). A null `free` means that none is.
Compact compact(const MlpShape& shape, const float* theta, const std::uint8_t* free);

}  // namespace metaedit::mlp
