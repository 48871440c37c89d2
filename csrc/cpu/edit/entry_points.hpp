// The functions of one instruction set's object file, all of them: include this once, behind the definition of
// METAEDIT_LEVEL (a namespace that holds Lanes) and, for a level beyond the baseline, METAEDIT_SECTION (a string;
// see cpu/entry.hpp).
#pragma once

#include "cpu/edit/edges.hpp"
#include "cpu/entry.hpp"

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_ENTRY square_sums(const edit::SquareSums& op) {
    edit::square_sums(op);
}
METAEDIT_ENTRY logarithms(const edit::Logarithms& op) {
    edit::logarithms<Lanes>(op);
}
METAEDIT_ENTRY edge_features(const edit::EdgeFeatures& op) {
    edit::edge_features<Lanes>(op);
}

extern const edit::Kernels edit_kernels;
constinit const edit::Kernels edit_kernels = {
    .square_sums = &square_sums,
    .logarithms = &logarithms,
    .edge_features = &edge_features,
};

}  // namespace metaedit::METAEDIT_LEVEL
