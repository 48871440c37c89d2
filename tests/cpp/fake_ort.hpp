// As much of ONNX Runtime's C interface as the operators use, to run them under sanitizers: inputs and outputs are as
// long as their content and no longer.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cases.hpp"
#include "core/extents.hpp"
#include "ort/abi.hpp"

namespace metaedit::test {

struct FakeTensor {
    Extents extents;
    std::variant<Floats, std::vector<std::int64_t>> values;
};

using FakeAttributes = std::map<std::string, std::variant<std::int64_t, float, std::string>>;

// An operator that RegisterCustomOps added, under these entries of the session's configuration. Throws
// std::runtime_error with the message where it gives a status.
const ort::CustomOp* registered(const std::string& op, const std::map<std::string, std::string>& entries = {});

// A kernel of that operator, for the node with these attributes.
class FakeKernel {
  public:
    FakeKernel(const ort::CustomOp* op, FakeAttributes attributes);
    ~FakeKernel();
    FakeKernel(const FakeKernel&) = delete;
    FakeKernel& operator=(const FakeKernel&) = delete;

    // Outputs in order; the first `n_outputs` are wanted. Inputs that are left out are empty. Throws
    // std::runtime_error with the message of a status.
    std::vector<FakeTensor> run(const std::vector<std::optional<FakeTensor>>& inputs, std::size_t n_outputs) const;

  private:
    const ort::CustomOp* op_;
    void* kernel_ = nullptr;
};

// Whether a runtime that lacks our version of the table gets nothing registered, and no error.
bool old_runtime_is_left_alone();

}  // namespace metaedit::test
