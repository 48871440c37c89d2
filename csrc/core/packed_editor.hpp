// An editor's parameters, taken over once and used by any number of calls, from any number of threads.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "core/metanetwork.hpp"
#include "core/packed_network.hpp"
#include "core/shelf.hpp"

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
    // Null where the vectorised kernels lack this size. The first call below float32 packs once more, for good.
    const PackedNetwork* packed(Precision precision = Precision::float32) const {
        if (!packed_ || precision == Precision::float32) return packed_ ? &*packed_ : nullptr;
        Rounded& rounded = precision == Precision::bf16 ? rounded_ : split_;
        const std::lock_guard<std::mutex> guard(rounded.lock);
        if (!rounded.network) {
            PackedNetwork network(weights_);
            network.add_pairs(precision);
            rounded.network = std::move(network);
        }
        return &*rounded.network;
    }
    // The memory of workers of whole edits of models that are not large (cpu/edit/edit.cpp).
    Shelf& edit_workers() const { return edit_workers_; }
    // What runs a forward pass where this is asked for.
    Precision precision_of(const Arithmetic& arithmetic) const {
        return packed_ ? arithmetic.precision : Precision::float32;
    }

  private:
    struct Rounded {
        std::mutex lock;
        std::optional<PackedNetwork> network;
    };

    std::vector<std::vector<float>> storage_;
    MetanetWeights weights_;
    std::optional<PackedNetwork> packed_;
    mutable Rounded rounded_, split_;
    mutable Shelf edit_workers_;
};

}  // namespace metaedit
