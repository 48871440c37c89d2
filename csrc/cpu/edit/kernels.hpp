// What costs time in the features of one model (metaedit_fast/metanet/features.py), as a table of functions of one
// instruction set. What calls them is ordinary code (edit/features.cpp).
#pragma once

#include <cstdint>

#include "cpu/isa.hpp"

namespace metaedit::edit {

// Features are clamped to plus and minus this.
inline constexpr float kLimit = 8.0F;
// Added to |w| and to root mean squares, and in front of the logarithms of Fisher information.
inline constexpr float kTinyWeight = 1e-6F, kTinyFisher = 1e-12F;

// Sums of (w scale)² of the rows and of the columns of one weight matrix, added up in double. Squares are taken in
// float32, so that what it cannot hold becomes infinite and is found.
struct SquareSums {
    const float* weight;  // [n_in][n_out]
    const float* scale;   // [n_in], or null for 1
    std::int64_t n_in, n_out;
    double* of_row;     // [n_in]
    double* of_column;  // [n_out]
};

// magnitude: ln(|x| + 1e-6); fisher: ln(x + 1e-12) / 2; saliency: ln(x² fisher + 1e-12) / 2
enum class LogOf { magnitude, fisher, saliency };

struct Logarithms {
    LogOf of;
    const float* x;       // [n]
    const float* fisher;  // [n], for the saliency
    std::int64_t n;
    float* out;   // [n]
    double* sum;  // of out
};

// The rows of features of one weight matrix, and of what the score is to correct. Everything with a probe is null
// without one.
struct EdgeFeatures {
    const float* weight;  // [n_in][n_out]
    std::int64_t n_in, n_out;
    float inverse_rms, log_rms;
    const float* inverse_rms_of_target;  // [n_out]
    const float* inverse_rms_of_source;  // [n_in]
    const float* log_weight;             // [n_in][n_out], and so on
    float mean_log_weight;
    const float* log_saliency;
    const float* log_sensitivity;
    float mean_log_saliency, mean_log_sensitivity;
    const float* deviation;      // [n_in], of the sources' activations
    const float* inverse_moved;  // [n_out]
    float* features;             // [n_in][n_out][5, with a probe 8]
    float* saliency;             // [n_in][n_out]
};

struct Kernels {
    void (*square_sums)(const SquareSums&);
    void (*logarithms)(const Logarithms&);
    void (*edge_features)(const EdgeFeatures&);
};

const Kernels& kernels_of(Isa isa);

}  // namespace metaedit::edit
