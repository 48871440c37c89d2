// How parameters go into folded matrices and their gradients come back: each rule as two actions. Only
// folded_network.cpp, which states the rules, includes this.
#pragma once

#include <numbers>
#include <utility>

#include "core/folded_network.hpp"

namespace metaedit {

// In front of a scaled SiLU, and behind it (cpu/fused/kernels.hpp).
inline constexpr double kBefore = -std::numbers::log2e;
inline constexpr double kBehind = -std::numbers::ln2;

// The row of a folded matrix that stands for its bias.
inline constexpr std::int64_t kBiasRow = -1;

inline std::int64_t place(const FoldedMatrix& matrix, std::int64_t row, std::int64_t column) {
    if (row == kBiasRow) return matrix.bias + column;
    return matrix.values + place_in_panels(matrix.n_in, row, column);
}

// Some columns of a linear on the way into a folded matrix.
struct Part {
    const Linear& linear;
    std::int64_t first_input = 0, n_inputs = 0;  // of the linear; 0 inputs: all
    std::int64_t row = 0, column = 0;            // where they go
    double input_scale = 1.0, output_scale = 1.0;
    const LayerNorm* norm = nullptr;  // its scale and shift apply to these inputs
    bool bias = true;
    bool centred = false;  // minus the mean over outputs, for a LayerNorm behind
};

// first(second(x)) as one matrix: rows of the second's inputs. What the second's bias gives goes to `bias_row` of
// `bias_to`, from `bias_column` on.
struct Product {
    const Linear& first;
    std::int64_t first_input;  // of `first`, where the outputs of `second` enter
    bool centred;
    const Linear& second;
    std::int64_t row, column;
    double input_scale, output_scale;  // of the product's inputs and outputs
    const FoldedMatrix& bias_to;
    std::int64_t bias_row, bias_column;
};

// A weight in double, minus its mean over outputs where wanted.
class Weights {
  public:
    Weights(const Linear& linear, bool centred)
        : n_in_(linear.n_in), n_out_(linear.n_out), values_(linear.weight, linear.weight + n_in_ * n_out_) {
        if (centred) centre(values_, n_in_, n_out_);
    }

    double at(std::int64_t o, std::int64_t i) const { return values_[static_cast<std::size_t>(o * n_in_ + i)]; }

    static void centre(std::vector<double>& values, std::int64_t n_in, std::int64_t n_out) {
        std::vector<double> mean(static_cast<std::size_t>(n_in));
        const auto rows = static_cast<std::size_t>(n_out);
        const auto for_each_row = [&](const auto& work) {
            for (std::size_t o = 0; o < rows; ++o) {
                double* row = values.data() + o * mean.size();
                for (std::size_t i = 0; i < mean.size(); ++i) work(row[i], mean[i]);
            }
        };
        for_each_row([](double value, double& sum) { sum += value; });
        for (double& value : mean) value /= static_cast<double>(n_out);
        for_each_row([](double& value, double of_all) { value -= of_all; });
    }

  private:
    std::int64_t n_in_, n_out_;
    std::vector<double> values_;
};

inline std::vector<double> biases(const Linear& linear, bool centred) {
    std::vector<double> values(linear.bias, linear.bias + linear.n_out);
    if (centred) Weights::centre(values, 1, linear.n_out);
    return values;
}

// Parameters to folded values.
class Fold {
  public:
    explicit Fold(std::int64_t n_values) : values_(static_cast<std::size_t>(n_values)) {}

    std::vector<double> take() { return std::move(values_); }

    void add(const FoldedMatrix& matrix, const Part& part) {
        const Linear& linear = part.linear;
        const Weights weights(linear, part.centred);
        const std::int64_t n = part.n_inputs == 0 ? linear.n_in : part.n_inputs;
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            double shift = 0.0;
            for (std::int64_t i = 0; i < n; ++i) {
                const double weight = weights.at(o, part.first_input + i) * part.input_scale * part.output_scale;
                const double scale = part.norm == nullptr ? 1.0 : double{part.norm->scale[i]};
                if (part.norm != nullptr) shift += weight * double{part.norm->shift[i]};
                at(matrix, part.row + i, part.column + o) += weight * scale;
            }
            at(matrix, kBiasRow, part.column + o) += shift;
        }
        if (!part.bias || linear.bias == nullptr) return;
        const std::vector<double> bias = biases(linear, part.centred);
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            at(matrix, kBiasRow, part.column + o) += bias[static_cast<std::size_t>(o)] * part.output_scale;
        }
    }

    void add(const FoldedMatrix& matrix, const Product& product) {
        const Linear& second = product.second;
        const Weights weights(product.first, product.centred);
        std::vector<double> sums(static_cast<std::size_t>(second.n_in));
        for (std::int64_t o = 0; o < product.first.n_out; ++o) {
            std::fill(sums.begin(), sums.end(), 0.0);
            double bias = 0.0;
            for (std::int64_t m = 0; m < second.n_out; ++m) {
                const double weight = weights.at(o, product.first_input + m) * product.output_scale;
                const float* row = second.weight + m * second.n_in;
                double* sum = sums.data();
                for (std::int64_t i = 0; i < second.n_in; ++i) sum[i] += weight * double{row[i]};
                bias += weight * double{second.bias[m]};
            }
            for (std::int64_t i = 0; i < second.n_in; ++i) {
                at(matrix, product.row + i, product.column + o) +=
                    sums[static_cast<std::size_t>(i)] * product.input_scale;
            }
            at(product.bias_to, product.bias_row, product.bias_column + o) += bias;
        }
    }

    void add(std::int64_t offset, const float* values, std::int64_t size, double scale) {
        for (std::int64_t i = 0; i < size; ++i)
            values_[static_cast<std::size_t>(offset + i)] += double{values[i]} * scale;
    }

  private:
    double& at(const FoldedMatrix& matrix, std::int64_t row, std::int64_t column) {
        return values_[static_cast<std::size_t>(place(matrix, row, column))];
    }

    std::vector<double> values_;
};

// The same rules for gradients, from folded values to parameters.
class Unfold {
  public:
    Unfold(const std::vector<double>& folded, const float* parameters, std::vector<double>& gradients)
        : folded_(folded), parameters_(parameters), gradients_(gradients) {}

    void add(const FoldedMatrix& matrix, const Part& part) {
        const Linear& linear = part.linear;
        const std::int64_t n = part.n_inputs == 0 ? linear.n_in : part.n_inputs;
        const Weights weights(linear, part.centred && part.norm != nullptr);
        std::vector<double> of_weight(static_cast<std::size_t>(n * linear.n_out));
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            const double of_shift = at(matrix, kBiasRow, part.column + o);
            for (std::int64_t i = 0; i < n; ++i) {
                const double factor = part.input_scale * part.output_scale;
                double of_product = at(matrix, part.row + i, part.column + o);
                if (part.norm != nullptr) {
                    const double weight = weights.at(o, part.first_input + i) * factor;
                    *of(part.norm->scale + i) += weight * of_product;
                    *of(part.norm->shift + i) += weight * of_shift;
                    of_product = of_product * double{part.norm->scale[i]} + of_shift * double{part.norm->shift[i]};
                }
                of_weight[static_cast<std::size_t>(o * n + i)] = of_product * factor;
            }
        }
        add_weight(linear, part.first_input, n, part.centred, of_weight);
        if (!part.bias || linear.bias == nullptr) return;
        std::vector<double> of_bias(static_cast<std::size_t>(linear.n_out));
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            of_bias[static_cast<std::size_t>(o)] = at(matrix, kBiasRow, part.column + o) * part.output_scale;
        }
        if (part.centred) Weights::centre(of_bias, 1, linear.n_out);
        for (std::size_t o = 0; o < of_bias.size(); ++o) of(linear.bias)[o] += of_bias[o];
    }

    void add(const FoldedMatrix& matrix, const Product& product) {
        const Linear& first = product.first;
        const Linear& second = product.second;
        const Weights weights(first, product.centred);
        std::vector<double> of_first(static_cast<std::size_t>(first.n_out * second.n_out));
        std::vector<double> of_row(static_cast<std::size_t>(second.n_in));
        const std::int64_t n_between = second.n_out;
        std::vector<double> columns(static_cast<std::size_t>(second.n_in * n_between));  // of `second`
        for (std::int64_t m = 0; m < n_between; ++m) {
            for (std::int64_t i = 0; i < second.n_in; ++i) {
                columns[static_cast<std::size_t>(i * n_between + m)] = double{second.weight[m * second.n_in + i]};
            }
        }
        for (std::int64_t o = 0; o < first.n_out; ++o) {
            for (std::int64_t i = 0; i < second.n_in; ++i) {
                of_row[static_cast<std::size_t>(i)] =
                    at(matrix, product.row + i, product.column + o) * product.input_scale * product.output_scale;
            }
            const double of_bias =
                at(product.bias_to, product.bias_row, product.bias_column + o) * product.output_scale;
            double* of_weights = of_first.data() + o * n_between;
            for (std::int64_t m = 0; m < n_between; ++m) of_weights[m] = of_bias * double{second.bias[m]};
            for (std::int64_t i = 0; i < second.n_in; ++i) {
                const double g = of_row[static_cast<std::size_t>(i)];
                const double* column = columns.data() + i * n_between;
                for (std::int64_t m = 0; m < n_between; ++m) of_weights[m] += g * column[m];
            }
            for (std::int64_t m = 0; m < n_between; ++m) {
                const double weight = weights.at(o, product.first_input + m);
                const double* row = of_row.data();
                double* of_second = of(second.weight + m * second.n_in);
                for (std::int64_t i = 0; i < second.n_in; ++i) of_second[i] += row[i] * weight;
                *of(second.bias + m) += of_bias * weight;
            }
        }
        add_weight(first, product.first_input, second.n_out, product.centred, of_first);
    }

    void add(std::int64_t offset, const float* values, std::int64_t size, double scale) {
        double* gradient = of(values);
        for (std::int64_t i = 0; i < size; ++i) gradient[i] += folded_[static_cast<std::size_t>(offset + i)] * scale;
    }

  private:
    double at(const FoldedMatrix& matrix, std::int64_t row, std::int64_t column) const {
        return folded_[static_cast<std::size_t>(place(matrix, row, column))];
    }
    double* of(const float* parameter) const { return gradients_.data() + (parameter - parameters_); }

    void add_weight(const Linear& linear, std::int64_t first_input, std::int64_t n, bool centred,
                    std::vector<double>& gradient) const {
        if (centred) Weights::centre(gradient, n, linear.n_out);
        for (std::int64_t o = 0; o < linear.n_out; ++o) {
            double* row = of(linear.weight + o * linear.n_in + first_input);
            for (std::int64_t i = 0; i < n; ++i) row[i] += gradient[static_cast<std::size_t>(o * n + i)];
        }
    }

    const std::vector<double>& folded_;
    const float* parameters_;
    std::vector<double>& gradients_;
};

}  // namespace metaedit
