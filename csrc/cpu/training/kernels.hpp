// The kernels of one instruction set for training an MLP, as a table of functions; what calls them is ordinary code
// (training/trainer.cpp).
//
// Features lie in vector lanes: values are [row][width], and a width is rounded up to a multiple of 16. So sums over
// the rows of a batch, of which training takes many, are additions of vectors, and one product of matrices serves
// forward, backward and the gradient of the weights. What stands in the columns behind a layer's own is finite, and
// nothing reads it into the layer's own.
#pragma once

#include "cpu/mlp/kernels.hpp"

namespace metaedit::training {

// Rows that go through a layer's elementwise steps together, while they are in the first-level cache.
inline constexpr std::int64_t kBlockRows = kPanelRows;
inline constexpr std::int64_t kColumns = 16;

constexpr std::int64_t to_columns(std::int64_t width) {
    return (width + kColumns - 1) / kColumns * kColumns;
}

// c[i][j] = bias[j] + sum over t of a[i row_stride + t column_stride] b[t][j]; without bias 0, or c itself, instead.
struct MatrixProduct {
    const float* a;
    std::int64_t row_stride, column_stride;
    const float* b;
    std::int64_t b_stride;
    const float* bias;  // null: none
    float* c;
    std::int64_t c_stride;
    std::int64_t m, n, k;  // n is a multiple of kColumns
    bool add;
};

// out[o][row] = bias[o] + h[row] · weight[o], for the few outputs of a last layer.
struct Logits {
    const float* h;  // [rows][n]
    std::int64_t rows, n;
    const float* weight;  // [n_outputs][n]
    const float* bias;
    std::int64_t n_outputs;
    float* out;  // [n_outputs][kBlockRows]
};

// Logits become the gradient of `weight` times the sum of the rows' cross-entropies, and 0 behind the last row.
struct CrossEntropy {
    float* logits;  // [n_outputs][kBlockRows]
    std::int64_t rows, n_outputs;
    const float* labels;  // [kBlockRows]
    float weight;
    float* bias_gradient;  // [n_outputs], added to
};

// A layer's values on a block.
struct Block {
    float* values;
    std::int64_t rows, n;
};

// out[j] += sum over rows of x_j, or of (x_j - centre_j)².
struct ColumnSums {
    Block x;
    const float* centre;  // null: plain sums
    float* out;
};

// gradient *= slope; sums[j] += its sum over rows, products[j] += that of gradient standardised.
struct ThroughActivation {
    Block gradient;
    const float* slope;
    const float* standardised;  // null: no products
    float *sums, *products;
};

// z becomes ((z - mean) inverse_std) scale + shift, with what is in parentheses kept.
struct BatchNorm {
    Block z;
    const float *mean, *inverse_std, *scale, *shift;  // [n]
    float* standardised;
};

// gradient becomes factor (gradient - mean - standardised slope), which is the way through the batch's statistics.
struct BatchNormBackward {
    Block gradient;
    const float* standardised;
    const float *factor, *mean, *slope;  // [n]
};

struct LayerNorm {
    Block z;  // or the gradient, backward
    std::int64_t width;
    const float* keeps;  // [n], 1 for the first `width` and 0 behind
    float epsilon;
    const float *scale, *shift;  // [n]
    float* standardised;
    float* inverse_std;  // [kBlockRows]
};

// Adds the first n columns; n is a multiple of kColumns.
struct AddColumns {
    const float* from;
    std::int64_t from_stride;
    float* to;
    std::int64_t to_stride;
    std::int64_t rows, n;
};

// Multiplies values and slopes by a mask of 0 and `factor`: 0 where a random byte is below `threshold`.
struct Dropout {
    float *values, *slopes;
    std::int64_t n;  // a multiple of 64
    std::uint32_t threshold;
    float factor;
    std::uint32_t* state;  // [4][16]: sixteen generators, which give four bytes each at a time
};

// One step of AdamW: decay of the parameters, then Adam.
struct Adam {
    float* parameters;
    const float* gradient;
    float *first, *second;
    std::int64_t n;  // a multiple of kColumns
    float keep;      // 1 - learning rate x weight decay
    float beta1, beta2, epsilon, rate;
};

// to[j][i] = from[i][j]; sizes are multiples of 4.
struct Transpose {
    const float* from;
    std::int64_t n_rows, n_columns, from_stride;
    float* to;
    std::int64_t to_stride;
};

struct Kernels {
    void (*matrix_product)(const MatrixProduct&);
    void (*logits)(const Logits&);
    void (*cross_entropy)(const CrossEntropy&);
    void (*activate)(const mlp::Activate&);
    void (*column_sums)(const ColumnSums&);
    void (*through_activation)(const ThroughActivation&);
    void (*batch_norm)(const BatchNorm&);
    void (*batch_norm_backward)(const BatchNormBackward&);
    void (*layer_norm)(const LayerNorm&);
    void (*layer_norm_backward)(const LayerNorm&);
    void (*add_columns)(const AddColumns&);
    void (*dropout)(const Dropout&);
    void (*adam)(const Adam&);
    void (*transpose)(const Transpose&);
};

const Kernels& kernels_of(Isa isa);

}  // namespace metaedit::training
