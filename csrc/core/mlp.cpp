#include "core/mlp.hpp"

namespace metaedit {

PanelRows::PanelRows(const float* rows, std::int64_t n_rows, std::int64_t n_features)
    : n_rows_(n_rows), n_features_(n_features), values_(n_panels() * n_features * kPanelRows) {
    for (std::int64_t i = 0; i < n_panels() * kPanelRows; ++i) {
        const float* from = rows + std::min(i, n_rows - 1) * n_features;
        float* to = values_.data() + i / kPanelRows * n_features * kPanelRows + i % kPanelRows;
        for (std::int64_t f = 0; f < n_features; ++f) to[f * kPanelRows] = from[f];
    }
}

}  // namespace metaedit
