#include "fake_ort.hpp"

#include <cstring>
#include <limits>
#include <stdexcept>

extern "C" metaedit::ort::Status* RegisterCustomOps(metaedit::ort::SessionOptions*, const metaedit::ort::ApiBase*);

namespace metaedit::ort {

// What is opaque to the operators.
struct Status {
    std::string text;
};
struct SessionOptions {
    std::map<std::string, std::string> entries;
    Domain* domain = nullptr;
};
struct Domain {
    std::vector<const CustomOp*> ops;
};
struct KernelInfo {
    test::FakeAttributes attributes;
};
struct Value {
    test::FakeTensor tensor;
};
struct KernelContext {
    std::vector<std::unique_ptr<Value>> inputs, outputs;  // null: left out
};
struct ShapeInfo {
    const test::FakeTensor* tensor;
};

}  // namespace metaedit::ort

namespace metaedit::test {
namespace {

using namespace ort;

Status* refuse(const std::string& text) {
    return new Status{text};
}

Status* copy_text(const std::string& text, char* out, std::size_t* size) {
    const std::size_t needed = text.size() + 1;
    if (out != nullptr && *size < needed) return refuse("no room");
    if (out != nullptr) std::memcpy(out, text.c_str(), needed);
    *size = needed;
    return nullptr;
}

template <class T>
Status* get_attribute(const KernelInfo* info, const char* name, T* out) {
    const auto found = info->attributes.find(name);
    if (found == info->attributes.end() || !std::holds_alternative<T>(found->second)) return refuse("no attribute");
    *out = std::get<T>(found->second);
    return nullptr;
}

Status* get_output(KernelContext* context, std::size_t i, const std::int64_t* extents, std::size_t rank, Value** out) {
    *out = nullptr;
    if (i >= context->outputs.size()) return nullptr;
    std::size_t size = 1;
    for (std::size_t k = 0; k < rank; ++k) size *= static_cast<std::size_t>(extents[k]);
    FakeTensor tensor{Extents(extents, extents + rank), Floats(size, std::numeric_limits<float>::quiet_NaN())};
    if (i == 4) tensor.values = std::vector<std::int64_t>(size, -1);  // node_type, the one output of integers
    context->outputs[i] = std::make_unique<Value>(Value{std::move(tensor)});
    *out = context->outputs[i].get();
    return nullptr;
}

template <class Function>
void* slot(Function function) {
    return reinterpret_cast<void*>(function);
}

Api make_api() {
    Api api{};
    const auto set = [&](std::size_t place, auto function) { api.slots[place] = slot(+function); };
    set(0, [](int, const char* text) { return refuse(text); });
    set(2, [](const Status* status) { return status->text.c_str(); });
    set(93, [](Status* status) { delete status; });
    set(26, [](const char*, Domain** out) -> Status* {
        *out = new Domain;  // for good, as the operators are
        return nullptr;
    });
    set(27, [](Domain* domain, const void* op) -> Status* {
        domain->ops.push_back(static_cast<const CustomOp*>(op));
        return nullptr;
    });
    set(28, [](SessionOptions* options, Domain* domain) -> Status* {
        options->domain = domain;
        return nullptr;
    });
    set(237, [](const SessionOptions* options, const char* key, int* out) -> Status* {
        *out = options->entries.contains(key) ? 1 : 0;
        return nullptr;
    });
    set(238, [](const SessionOptions* options, const char* key, char* out, std::size_t* size) {
        return copy_text(options->entries.at(key), out, size);
    });
    set(51, [](const Value* value, void** out) -> Status* {
        std::visit([&](const auto& values) { *out = const_cast<void*>(static_cast<const void*>(values.data())); },
                   value->tensor.values);
        return nullptr;
    });
    set(65, [](const Value* value, ShapeInfo** out) -> Status* {
        *out = new ShapeInfo{&value->tensor};
        return nullptr;
    });
    set(99, [](ShapeInfo* info) { delete info; });
    set(60, [](const ShapeInfo* info, int* out) -> Status* {
        const bool is_float = std::holds_alternative<Floats>(info->tensor->values);
        *out = static_cast<int>(is_float ? ElementType::float32 : ElementType::int64);
        return nullptr;
    });
    set(61, [](const ShapeInfo* info, std::size_t* out) -> Status* {
        *out = info->tensor->extents.size();
        return nullptr;
    });
    set(62, [](const ShapeInfo* info, std::int64_t* out, std::size_t rank) -> Status* {
        std::copy_n(info->tensor->extents.begin(), rank, out);
        return nullptr;
    });
    set(85, &get_attribute<float>);
    set(86, &get_attribute<std::int64_t>);
    set(87, [](const KernelInfo* info, const char* name, char* out, std::size_t* size) {
        std::string text;
        Status* status = get_attribute(info, name, &text);
        return status != nullptr ? status : copy_text(text, out, size);
    });
    set(88, [](const KernelContext* context, std::size_t* out) -> Status* {
        *out = context->inputs.size();
        return nullptr;
    });
    set(90, [](const KernelContext* context, std::size_t i, const Value** out) -> Status* {
        *out = context->inputs[i].get();
        return nullptr;
    });
    set(91, &get_output);
    return api;
}

const Api& api() {
    static const Api table = make_api();
    return table;
}

void expect_ok(Status* status) {
    if (status == nullptr) return;
    const std::unique_ptr<Status> owner(status);
    throw std::runtime_error(status->text);
}

}  // namespace

const CustomOp* registered(const std::string& op, const std::map<std::string, std::string>& entries) {
    static const ApiBase base{[](std::uint32_t) { return &api(); }, [] { return "fake"; }};
    SessionOptions options{.entries = entries};
    expect_ok(RegisterCustomOps(&options, &base));
    for (const CustomOp* found : options.domain->ops) {
        if (found->get_name(found) == op) return found;
    }
    throw std::runtime_error("no operator " + op);
}

bool old_runtime_is_left_alone() {
    static const ApiBase base{[](std::uint32_t) -> const Api* { return nullptr; }, [] { return "old"; }};
    SessionOptions options;
    return RegisterCustomOps(&options, &base) == nullptr && options.domain == nullptr;
}

FakeKernel::FakeKernel(const CustomOp* op, FakeAttributes attributes) : op_(op) {
    const KernelInfo info{std::move(attributes)};
    expect_ok(op_->create_kernel_v2(op_, &api(), &info, &kernel_));
}

FakeKernel::~FakeKernel() {
    if (kernel_ != nullptr) op_->destroy(kernel_);
}

std::vector<FakeTensor> FakeKernel::run(const std::vector<std::optional<FakeTensor>>& inputs,
                                        std::size_t n_outputs) const {
    KernelContext context;
    for (const std::optional<FakeTensor>& input : inputs) {
        context.inputs.push_back(input ? std::make_unique<Value>(Value{*input}) : nullptr);
    }
    context.outputs.resize(n_outputs);
    expect_ok(op_->compute_v2(kernel_, &context));
    std::vector<FakeTensor> found;
    for (const std::unique_ptr<Value>& output : context.outputs) found.push_back(std::move(output->tensor));
    return found;
}

}  // namespace metaedit::test
