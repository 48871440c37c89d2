// What a kernel is given: attributes of its node at creation, inputs and outputs at every run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/extents.hpp"
#include "ort/abi.hpp"

namespace metaedit::ort {

// Throw std::invalid_argument, naming the attribute, where it is missing or has another type.
class Attributes {
  public:
    Attributes(const Api& api, const KernelInfo* info) : api_(api), info_(info) {}

    std::int64_t integer(const char* name) const;
    bool flag(const char* name) const;  // 0 or 1
    float number(const char* name) const;
    std::string text(const char* name) const;

  private:
    const Api& api_;
    const KernelInfo* info_;
};

// One run of a kernel.
class Context {
  public:
    Context(const Api& api, KernelContext* context) : api_(api), context_(context) {}

    std::size_t input_count() const;
    bool has_input(std::size_t i) const;

    // An input's values. Throw std::invalid_argument, naming `name`, where it is left out or has another type or
    // shape.
    const float* floats(std::size_t i, const std::string& name, const Extents& expected) const;
    const std::int64_t* integers(std::size_t i, const std::string& name, const Extents& expected) const;
    // The shape of an input with this many dimensions.
    Extents extents(std::size_t i, const std::string& name, std::size_t rank) const;

    // Where to write an output. An output that the node leaves out gets memory of ours.
    float* output(std::size_t i, const Extents& extents);
    std::int64_t* integer_output(std::size_t i, const Extents& extents);

  private:
    struct Tensor {
        const Value* value;
        ElementType type;
        Extents extents;
    };

    Tensor tensor(std::size_t i, const std::string& name) const;
    const void* values(std::size_t i, const std::string& name, ElementType type, const Extents& expected) const;
    void* output_values(std::size_t i, const Extents& extents);

    const Api& api_;
    KernelContext* context_;
    std::vector<std::unique_ptr<std::int64_t[]>> unwanted_;
};

}  // namespace metaedit::ort
