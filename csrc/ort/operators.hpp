// The operators of the domain metaedit: what each takes and gives, and the kernel that runs it. Their equivalents in
// standard operators are in metaedit_fast/export.
#pragma once

#include <memory>
#include <span>

#include "ort/abi.hpp"
#include "ort/context.hpp"
#include "ort/settings.hpp"

namespace metaedit::ort {

class Kernel {
  public:
    Kernel() = default;
    virtual ~Kernel() = default;
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;

    // Any number of threads may run one at once.
    virtual void compute(Context& context) const = 0;
};

struct Input {
    ElementType type;
    Characteristic characteristic = Characteristic::required;
};

struct Operator {
    const char* name;
    std::span<const Input> inputs;
    std::span<const ElementType> outputs;
    std::unique_ptr<Kernel> (*create)(const Attributes& attributes, const Settings& settings);
};

extern const Operator kFeatures, kMetanetwork, kPrunedEdit;

// Of this process, all operators together: kernels that sessions made, and runs of such that succeeded. They tell
// whether it was a kernel or the function in the file that ran.
std::int64_t kernel_count();
std::int64_t call_count();

}  // namespace metaedit::ort
