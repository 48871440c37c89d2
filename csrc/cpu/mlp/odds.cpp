#include "cpu/mlp/odds.hpp"

#include <algorithm>
#include <cmath>

namespace metaedit::mlp {

void Odds::start(const OddsTerm* term, const PanelRows& rows, const MlpShape& shape) {
    term_ = term == nullptr ? OddsTerm{} : *term;
    if (!is_on()) return;
    n_rows_ = rows.n_rows();
    n_outputs_ = shape.n_outputs();
    n_classes_ = shape.n_classes();
    inverse_temperature_ = 1.0F / term_.temperature;
    p_ = p_buffer_.of_size(rows.n_panels() * n_classes_ * kPanelRows);
    row_slopes_ = slope_buffer_.of_size(n_classes_ * kPanelRows);
    const auto n_cells = static_cast<std::size_t>(n_classes_ * term_.n_groups);
    counts_.assign(n_cells, 0.0);
    for (std::int64_t row = 0; row < n_rows_; ++row) counts_[static_cast<std::size_t>(term_.cells[row])] += 1.0;
    sums_.resize(n_cells * static_cast<std::size_t>(n_classes_));
    slopes_.assign(sums_.size(), 0.0F);
}

void Odds::begin() {
    std::fill(sums_.begin(), sums_.end(), 0.0);
}

void Odds::add(std::int64_t panel, const float* logits) {
    float* p = probabilities(panel);
    kernels_.soften({logits, n_outputs_, inverse_temperature_, p});
    const std::int64_t* cells = term_.cells + panel * kPanelRows;
    for (std::int64_t row = 0; row < rows_in(panel); ++row) {
        double* sums = sums_.data() + place(static_cast<std::size_t>(cells[row]), 0);
        for (std::int64_t c = 0; c < n_classes_; ++c) sums[c] += static_cast<double>(p[c * kPanelRows + row]);
    }
}

void Odds::end() {
    penalty_ = gap_ = 0.0;
    // Of two classes one tells all: the other's rates are 1 minus its.
    for (std::int64_t label = n_classes_ == 2 ? 1 : 0; label < n_classes_; ++label) {
        compare_groups(label, true);
        compare_groups(label, false);
    }
}

void Odds::compare_groups(std::int64_t label, bool is_label) {
    const auto n_groups = static_cast<std::size_t>(term_.n_groups);
    rates_.assign(n_groups, 0.0);
    group_counts_.assign(n_groups, 0.0);
    group_slopes_.assign(n_groups, 0.0);
    const auto for_each_cell = [&](const auto& work) {
        for (std::int64_t y = 0; y < n_classes_; ++y) {
            if ((y == label) != is_label) continue;
            for (std::size_t g = 0; g < n_groups; ++g) work(g, cell(y, static_cast<std::int64_t>(g)));
        }
    };
    for_each_cell([&](std::size_t g, std::size_t at) {
        rates_[g] += sums_[place(at, label)];
        group_counts_[g] += counts_[at];
    });
    for (std::size_t g = 0; g < n_groups; ++g) rates_[g] /= std::max(group_counts_[g], 1.0);
    // A rate's sampling variance, which rounding must not make negative, and half of its derivative in the rate.
    const auto variance = [&](std::size_t g) {
        return std::max(rates_[g] * (1.0 - rates_[g]), 0.0) / group_counts_[g];
    };
    const auto half_variance_slope = [&](std::size_t g) { return (0.5 - rates_[g]) / group_counts_[g]; };
    for (std::size_t g = 0; g < n_groups; ++g) {
        for (std::size_t h = 0; h < g; ++h) {
            if (group_counts_[g] == 0.0 || group_counts_[h] == 0.0) continue;  // a group without rows has no rate
            const double difference = rates_[g] - rates_[h];
            const double expected = std::sqrt(difference * difference + term_.noise * (variance(g) + variance(h)));
            const double excess = expected - term_.limit;
            gap_ = difference == difference ? std::max(gap_, std::abs(difference)) : difference;
            if (excess <= 0.0) continue;
            penalty_ += term_.strength * excess * excess;
            const double slope = 2.0 * term_.strength * excess / expected;
            group_slopes_[g] += slope * (difference + term_.noise * half_variance_slope(g));
            group_slopes_[h] += slope * (-difference + term_.noise * half_variance_slope(h));
        }
    }
    for_each_cell([&](std::size_t g, std::size_t at) {
        slopes_[place(at, label)] = static_cast<float>(group_slopes_[g] / std::max(group_counts_[g], 1.0));
    });
}

void Odds::add_gradient(std::int64_t panel, float* gradient) {
    const std::int64_t* cells = term_.cells + panel * kPanelRows;
    std::fill_n(row_slopes_, n_classes_ * kPanelRows, 0.0F);
    for (std::int64_t row = 0; row < rows_in(panel); ++row) {
        const float* slopes = slopes_.data() + place(static_cast<std::size_t>(cells[row]), 0);
        for (std::int64_t c = 0; c < n_classes_; ++c) row_slopes_[c * kPanelRows + row] = slopes[c];
    }
    kernels_.soften_backward({.p = probabilities(panel),
                              .slope = row_slopes_,
                              .n_outputs = n_outputs_,
                              .n_classes = n_classes_,
                              .inverse_temperature = inverse_temperature_,
                              .gradient = gradient});
}

}  // namespace metaedit::mlp
