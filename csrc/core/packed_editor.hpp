// An editor's parameters, taken over once and used by any number of calls, from any number of threads.
#pragma once

#include <optional>
#include <utility>

#include "core/metanetwork.hpp"
#include "core/packed_network.hpp"

namespace metaedit {

class PackedEditor {
  public:
    // `storage` is the memory that `weights` points into.
    PackedEditor(MetanetWeights weights, std::vector<std::vector<float>> storage)
        : storage_(std::move(storage)), weights_(std::move(weights)) {
        if (PackedSizes::fit(weights_.d_e)) packed_.emplace(weights_);
    }

    PackedEditor(const PackedEditor&) = delete;
    PackedEditor& operator=(const PackedEditor&) = delete;

    const MetanetWeights& weights() const { return weights_; }
    // Null where the vectorised kernels lack this size.
    const PackedNetwork* packed() const { return packed_ ? &*packed_ : nullptr; }

  private:
    std::vector<std::vector<float>> storage_;
    MetanetWeights weights_;
    std::optional<PackedNetwork> packed_;
};

}  // namespace metaedit
