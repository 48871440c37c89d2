// An editor's parameters, taken over once and used by any number of calls, from any number of threads.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "core/folded_network.hpp"
#include "core/metanetwork.hpp"
#include "core/shelf.hpp"

namespace metaedit {

class PackedEditor {
  public:
    // `storage` is the memory that `weights` points into.
    PackedEditor(MetanetWeights weights, std::vector<std::vector<float>> storage)
        : storage_(std::move(storage)), weights_(std::move(weights)) {
        if (StateSizes::fit(weights_.d_e)) folded_.emplace(weights_, 1);
    }

    PackedEditor(const PackedEditor&) = delete;
    PackedEditor& operator=(const PackedEditor&) = delete;

    const MetanetWeights& weights() const { return weights_; }
    // Null where the vectorised kernels lack this size. The first call below float32 folds once more, for good.
    const FoldedNetwork* folded(Precision precision = Precision::float32) const {
        if (!folded_ || precision == Precision::float32) return folded_ ? &*folded_ : nullptr;
        Rounded& rounded = precision == Precision::bf16 ? rounded_ : split_;
        const std::lock_guard<std::mutex> guard(rounded.lock);
        if (!rounded.network) rounded.network.emplace(weights_, 1, precision);
        return &*rounded.network;
    }
    // The memory of workers of whole edits of models that are not large (cpu/edit/edit.cpp).
    Shelf& edit_workers() const { return edit_workers_; }
    // What runs a forward pass where this is asked for.
    Precision precision_of(const Arithmetic& arithmetic) const {
        return folded_ ? arithmetic.precision : Precision::float32;
    }

  private:
    struct Rounded {
        std::mutex lock;
        std::optional<FoldedNetwork> network;
    };

    std::vector<std::vector<float>> storage_;
    MetanetWeights weights_;
    std::optional<FoldedNetwork> folded_;
    mutable Rounded rounded_, split_;
    mutable Shelf edit_workers_;
};

}  // namespace metaedit
