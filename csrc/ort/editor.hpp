// Which models an editor is for.
#pragma once

#include <stdexcept>

#include "core/edit.hpp"
#include "ort/context.hpp"

namespace metaedit::ort {

// By the attributes n_inputs, n_classes and probe, which says whether it reads what was measured on a probe.
struct EditorSizes {
    std::int64_t n_inputs, n_classes;
    bool probe;

    // Throws std::invalid_argument, naming the attribute.
    explicit EditorSizes(const Attributes& attributes)
        : n_inputs(attributes.integer("n_inputs")),
          n_classes(attributes.integer("n_classes")),
          probe(attributes.flag("probe")) {
        constexpr std::int64_t kMost = std::int64_t{1} << 24;
        if (n_inputs < 1 || n_inputs > kMost || n_classes < 1 || n_classes > kMost) {
            throw std::invalid_argument("attributes n_inputs, n_classes: expected 1 to 2^24 each, got " +
                                        std::to_string(n_inputs) + " and " + std::to_string(n_classes));
        }
    }

    // As MetanetConfig counts them: the inverse of class_count.
    std::int64_t n_node_types() const {
        return n_inputs + n_classes + 1 + static_cast<std::int64_t>(Activation::count);
    }
};

}  // namespace metaedit::ort
