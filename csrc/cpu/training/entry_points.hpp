// The functions of one instruction set's object file, all of them: include this once, behind the definition of
// METAEDIT_LEVEL (a namespace that holds Lanes) and, for a level beyond the baseline, METAEDIT_SECTION (a string;
// see cpu/entry.hpp).
#pragma once

#include "cpu/entry.hpp"
#include "cpu/mlp/activations.hpp"
#include "cpu/training/elementwise.hpp"
#include "cpu/training/products.hpp"

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_ENTRY matrix_product(const training::MatrixProduct& op) {
    training::matrix_product<Lanes>(op);
}
METAEDIT_ENTRY logits(const training::Logits& op) {
    training::logits<Lanes>(op);
}
METAEDIT_ENTRY cross_entropy(const training::CrossEntropy& op) {
    training::cross_entropy<Lanes>(op);
}
METAEDIT_ENTRY activate(const mlp::Activate& op) {
    mlp::activate<Lanes>(op);
}
METAEDIT_ENTRY column_sums(const training::ColumnSums& op) {
    training::column_sums<Lanes>(op);
}
METAEDIT_ENTRY through_activation(const training::ThroughActivation& op) {
    training::through_activation<Lanes>(op);
}
METAEDIT_ENTRY batch_norm(const training::BatchNorm& op) {
    training::batch_norm<Lanes>(op);
}
METAEDIT_ENTRY batch_norm_backward(const training::BatchNormBackward& op) {
    training::batch_norm_backward<Lanes>(op);
}
METAEDIT_ENTRY layer_norm(const training::LayerNorm& op) {
    training::layer_norm<Lanes>(op);
}
METAEDIT_ENTRY layer_norm_backward(const training::LayerNorm& op) {
    training::layer_norm_backward<Lanes>(op);
}
METAEDIT_ENTRY add_columns(const training::AddColumns& op) {
    training::add_columns<Lanes>(op);
}
METAEDIT_ENTRY dropout(const training::Dropout& op) {
    training::dropout<Lanes>(op);
}
METAEDIT_ENTRY adam(const training::Adam& op) {
    training::adam<Lanes>(op);
}
METAEDIT_ENTRY transpose(const training::Transpose& op) {
    training::transpose(op);
}

extern const training::Kernels training_kernels;
constinit const training::Kernels training_kernels = {
    .matrix_product = &matrix_product,
    .logits = &logits,
    .cross_entropy = &cross_entropy,
    .activate = &activate,
    .column_sums = &column_sums,
    .through_activation = &through_activation,
    .batch_norm = &batch_norm,
    .batch_norm_backward = &batch_norm_backward,
    .layer_norm = &layer_norm,
    .layer_norm_backward = &layer_norm_backward,
    .add_columns = &add_columns,
    .dropout = &dropout,
    .adam = &adam,
    .transpose = &transpose,
};

}  // namespace metaedit::METAEDIT_LEVEL
