// Learned parameters as Python hands them over.
#pragma once

#include <optional>
#include <set>

#include "core/parameters.hpp"
#include "python/arrays.hpp"

namespace metaedit::python {

// What runs where the caller names a precision, and perhaps an instruction set instead of the active one.
inline Arithmetic arithmetic_of(const std::string& precision, const std::optional<std::string>& isa) {
    return {isa ? available_level(*isa, "isa") : active_level(), precision_named(precision)};
}

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

    const float* take_named(const std::string& name, const Extents& extents) {
        if (!values_.contains(name)) throw py::value_error("parameters: \"" + name + "\" is missing");
        taken_.insert(name);
        const Shape shape(extents.begin(), extents.end());
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

}  // namespace metaedit::python
