// Learned parameters as Python hands them over.
#pragma once

#include <optional>
#include <set>

#include "core/message_passing.hpp"
#include "python/arrays.hpp"

namespace metaedit::python {

// What runs where the caller names a precision, and perhaps an instruction set instead of the active one.
inline Arithmetic arithmetic_of(const std::string& precision, const std::optional<std::string>& isa) {
    return {isa ? available_level(*isa, "isa") : active_level(), precision_named(precision)};
}

// Takes parameters by their names, in the order in which they are asked for; `Source` has take(full name, shape).
template <class Source>
class ParameterReader {
  public:
    // Goes in front of the names from now on.
    void set_prefix(const std::string& prefix) { prefix_ = prefix; }

    Linear linear(const std::string& name, py::ssize_t n_out, py::ssize_t n_in, bool has_bias = true) {
        const float* weight = take(name + ".weight", {n_out, n_in});
        return {weight, has_bias ? take(name + ".bias", {n_out}) : nullptr, n_out, n_in};
    }

    LayerNorm norm(const std::string& name, py::ssize_t size) {
        const float* scale = take(name + ".weight", {size});
        return {scale, take(name + ".bias", {size}), size};
    }

    const float* take(const std::string& name, const Shape& shape) {
        return static_cast<Source*>(this)->take_named(prefix_ + name, shape);
    }

  private:
    std::string prefix_;
};

// Parameters out of a mapping from torch's names to arrays, which it keeps alive, or copies into `storage` where
// that is given.
class Parameters : public ParameterReader<Parameters> {
  public:
    using Storage = std::vector<std::vector<float>>;

    explicit Parameters(const py::dict& values, Storage* storage = nullptr) : values_(values), storage_(storage) {}

    // Call it when all are taken. Raises ValueError where the mapping holds anything else.
    void expect_no_more() const {
        for (const auto& item : values_) {
            const std::string name = py::str(item.first).cast<std::string>();
            if (!taken_.contains(name)) {
                throw py::value_error("parameters: expected none with the name \"" + name + "\"");
            }
        }
    }

    const float* take_named(const std::string& name, const Shape& shape) {
        if (!values_.contains(name)) throw py::value_error("parameters: \"" + name + "\" is missing");
        taken_.insert(name);
        arrays_.push_back(expect_array<float>(values_[name.c_str()], "parameters[\"" + name + "\"]", shape));
        const float* values = floats(arrays_.back());
        if (storage_ == nullptr) return values;
        storage_->emplace_back(values, values + arrays_.back().size());
        return storage_->back().data();
    }

  private:
    py::dict values_;
    Storage* storage_;
    std::set<std::string> taken_;
    std::vector<py::array> arrays_;
};

template <class Reader>
ShippedLayer shipped_layer(Reader& p, py::ssize_t d_e, py::ssize_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .edge = p.linear("edge", d_e, d_e),
            .source = p.linear("source", d_e, d_v, false),
            .target = p.linear("target", d_e, d_v, false),
            .update = p.linear("update", d_e, d_e),
            .norm = p.norm("norm", d_v),
            .node_in = p.linear("node_in", 2 * d_v, d_v + 4 * d_e),
            .node_out = p.linear("node_out", d_v, 2 * d_v)};
}

template <class Reader>
OfficialLayer official_layer(Reader& p, py::ssize_t d_e, py::ssize_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .forward_in = p.linear("forward_in", d_e, d_e + d_v),
            .forward_out = p.linear("forward_out", d_v, d_e),
            .backward_in = p.linear("backward_in", d_e, d_e + d_v),
            .backward_out = p.linear("backward_out", d_v, d_e),
            .edge_in = p.linear("edge_in", d_e, d_e + 2 * d_v),
            .edge_out = p.linear("edge_out", d_e, d_e),
            .node_in = p.linear("node_in", d_v, 3 * d_v),
            .node_out = p.linear("node_out", d_v, d_v),
            .residual = p.linear("residual", d_v, d_v),
            .forward_norm = p.norm("forward_norm", d_e),
            .backward_norm = p.norm("backward_norm", d_e),
            .edge_norm = p.norm("edge_norm", d_e),
            .node_norm = p.norm("node_norm", d_v)};
}

}  // namespace metaedit::python
