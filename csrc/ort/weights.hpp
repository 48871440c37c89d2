// The learned parameters, which come as inputs with every run and are packed once.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/packed_editor.hpp"
#include "core/parameters.hpp"
#include "ort/context.hpp"

namespace metaedit::ort {

// The sizes of the network, by the attributes form, d_e, d_v, n_layers, head_hidden, n_edge_features,
// n_node_features, n_node_types and edits_parameters. Throws std::invalid_argument, naming the attribute.
MetanetSizes sizes_of(const Attributes& attributes);

// The last inputs of an operator, `weights`, in the order of network_weights. Any number of threads may ask.
class Weights {
  public:
    // With the attribute score_gain.
    explicit Weights(const Attributes& attributes);

    const MetanetSizes& sizes() const { return sizes_; }

    // The parameters from the input `first` on, packed: by this call where their bits are not those packed last.
    // Throws std::invalid_argument, naming the input and the parameter.
    std::shared_ptr<const PackedEditor> packed(const Context& context, std::size_t first) const;

  private:
    struct Packed;

    MetanetSizes sizes_;
    float score_gain_;
    std::vector<std::pair<std::string, Extents>> expected_;  // name and shape of every input
    mutable std::mutex lock_;                                // of what is next
    mutable std::shared_ptr<const Packed> last_;
};

}  // namespace metaedit::ort
