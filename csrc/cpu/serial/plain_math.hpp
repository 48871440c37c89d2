// The arithmetic of the serial kernels: matrix product, LayerNorm, SiLU and sums at nodes, in plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/message_passing.hpp"

namespace metaedit::serial {

using Floats = std::vector<float>;

inline Floats matrix(std::int64_t rows, std::int64_t width, float value = 0.0F) {
    return Floats(static_cast<std::size_t>(rows * width), value);
}

inline float* row(Floats& x, std::int64_t index, std::int64_t width) {
    return x.data() + index * width;
}
inline const float* row(const Floats& x, std::int64_t index, std::int64_t width) {
    return x.data() + index * width;
}

// Some columns of a linear's weight, transposed to [n_in][n_out] and padded, so that the inner loop of a
// product runs over neighbouring outputs, whose sums stay in registers.
class Weight {
  public:
    Weight(const Linear& linear, std::int64_t first_column, std::int64_t n_columns)
        : n_in_(n_columns),
          n_out_(linear.n_out),
          stride_((linear.n_out + kTile - 1) / kTile * kTile),
          values_(matrix(n_in_, stride_)) {
        for (std::int64_t i = 0; i < n_in_; ++i) {
            for (std::int64_t o = 0; o < n_out_; ++o) {
                row(values_, i, stride_)[o] = linear.weight[o * linear.n_in + first_column + i];
            }
        }
    }
    explicit Weight(const Linear& linear) : Weight(linear, 0, linear.n_in) {}

    // y[r] += weight x[r] for every row; x is [rows][n_in], y is [rows][n_out].
    void add_product(const float* x, std::int64_t rows, float* y) const {
        for (std::int64_t r = 0; r < rows; ++r, x += n_in_, y += n_out_) {
            for (std::int64_t first = 0; first < n_out_; first += kTile) {
                const std::int64_t width = std::min(kTile, n_out_ - first);
                float sums[kTile] = {};
                const float* column = values_.data() + first;
                for (std::int64_t i = 0; i < n_in_; ++i, column += stride_) {
                    for (std::int64_t o = 0; o < kTile; ++o) sums[o] += x[i] * column[o];
                }
                for (std::int64_t o = 0; o < width; ++o) y[first + o] += sums[o];
            }
        }
    }

  private:
    static constexpr std::int64_t kTile = 16;
    std::int64_t n_in_, n_out_, stride_;
    Floats values_;
};

// y[r] = bias for every row, zero where there is none.
inline void set_rows(float* y, std::int64_t rows, std::int64_t width, const float* bias) {
    for (std::int64_t r = 0; r < rows; ++r, y += width) {
        if (bias == nullptr) {
            std::fill_n(y, width, 0.0F);
        } else {
            std::copy_n(bias, width, y);
        }
    }
}

inline void add(float* y, const float* x, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += x[i];
}

// Rows of x normalised into y, which may be x itself.
inline void normalise(const LayerNorm& norm, const float* x, std::int64_t rows, float* y) {
    constexpr float kEpsilon = 1e-5F;
    const float size = static_cast<float>(norm.size);
    for (std::int64_t r = 0; r < rows; ++r, x += norm.size, y += norm.size) {
        float sum = 0.0F;
        for (std::int64_t i = 0; i < norm.size; ++i) sum += x[i];
        const float mean = sum / size;
        float squares = 0.0F;
        for (std::int64_t i = 0; i < norm.size; ++i) squares += (x[i] - mean) * (x[i] - mean);
        const float scale = 1.0F / std::sqrt(squares / size + kEpsilon);
        for (std::int64_t i = 0; i < norm.size; ++i) y[i] = (x[i] - mean) * scale * norm.scale[i] + norm.shift[i];
    }
}

inline void silu(float* x, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) x[i] /= 1.0F + std::exp(-x[i]);
}

// The columns [first, first + n_columns) of a linear, with its bias, on x [rows][n_columns]: [rows][n_out].
inline Floats apply_part(const Linear& linear, std::int64_t first, std::int64_t n_columns, const float* x,
                         std::int64_t rows) {
    Floats y = matrix(rows, linear.n_out);
    set_rows(y.data(), rows, linear.n_out, linear.bias);
    Weight(linear, first, n_columns).add_product(x, rows, y.data());
    return y;
}

inline Floats apply(const Linear& linear, const float* x, std::int64_t rows) {
    return apply_part(linear, 0, linear.n_in, x, rows);
}

inline Linear without_bias(Linear linear) {
    linear.bias = nullptr;
    return linear;
}

}  // namespace metaedit::serial
