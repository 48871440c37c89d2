// The kernels of one instruction set for MLPs on rows, as a table of functions; what calls them is ordinary code
// (mlp/network.cpp).
//
// Rows lie in vector lanes: values are [feature][64], a panel of 64 rows. So any width of layer is without
// padding, activations are vectors, and layer norm needs no sum across lanes.
#pragma once

#include "core/mlp.hpp"

namespace metaedit::mlp {

// c[m] = bias[m] + sum over k of a[m row_stride + k column_stride] b[k], or c[m] += the sum; b and c in panels.
struct Product {
    const float* a;
    std::int64_t row_stride, column_stride;
    const float* bias;  // null: add to c
    const float* b;
    std::int64_t n_b;
    float* c;
    std::int64_t n_c;
};

// z becomes act(z); slope becomes its derivative unless it is null.
struct Activate {
    Activation activation;
    float alpha;
    float* z;
    float* slope;
    std::int64_t n;  // features
};

struct Norm {
    const float *scale, *shift;  // [n]
    float epsilon;
    std::int64_t n;
    float* standardised;  // [n][64]
    float* inverse_std;   // [64]
};

// From the gradient behind the norm to that in front of it, in place; adds to those of scale and shift.
struct NormBackward {
    Norm norm;
    float* gradient;
    float *scale_gradient, *shift_gradient;
};

// Values of a layer in several panels.
struct Features {
    const float* values;
    std::int64_t n;  // features
    std::int64_t n_panels;
};

// out[i][j] = sum over rows of a_i b_j, or += it.
struct RowProducts {
    Features a, b;
    float* out;
    bool add;
};

// out[i] = sum over rows of x_i, or += it.
struct RowSums {
    Features x;
    float* out;
    bool add;
};

// Mean and sum of squared distances to it, of each feature; `keeps` is 1 for the rows of the last panel that count
// and 0 for others.
struct Moments {
    Features x;
    std::int64_t n_rows;
    const float* keeps;  // [64]
    float *mean, *squares;
};

// Log-probabilities [classes][64] from logits [n][64]; one output stands for the logits (0, z).
struct LogSoftmax {
    const float* logits;
    std::int64_t n;
    float* log_p;
};

// Adds the panel's sum of JSD(p, q) to *sum, and writes the gradient of `weight` times it with respect to the
// logits of q.
struct Divergence {
    const float *log_p, *log_q;
    std::int64_t n_outputs, n_classes;
    const float* keeps;
    float weight;
    float* gradient;  // [n_outputs][64]
    double* sum;
};

// A direction at the logits whose backpropagated squares are a term of the Fisher information.
struct FisherDirection {
    const float* log_p;  // null for a regressor
    std::int64_t n_outputs, direction;
    const float* keeps;
    float* gradient;  // [n_outputs][64]
};

struct Kernels {
    void (*product)(const Product&);
    void (*activate)(const Activate&);
    void (*norm)(const Norm&, float* z);
    void (*norm_backward)(const NormBackward&);
    void (*add)(const float* x, float* y, std::int64_t n);
    void (*multiply)(const float* x, float* y, std::int64_t n);
    void (*square)(const float* x, float* y, std::int64_t n, bool add);
    void (*row_products)(const RowProducts&);
    void (*row_sums)(const RowSums&);
    void (*moments)(const Moments&);
    void (*log_softmax)(const LogSoftmax&);
    void (*divergence)(const Divergence&);
    void (*fisher_direction)(const FisherDirection&);
};

const Kernels& kernels_of(Isa isa);

}  // namespace metaedit::mlp
