// The entry point of a library of custom operators, and what stands between ONNX Runtime and the kernels.

#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "ort/guard.hpp"
#include "ort/operators.hpp"

#ifdef _WIN32
#define METAEDIT_EXPORT __declspec(dllexport)
#else
#define METAEDIT_EXPORT __attribute__((visibility("default")))
#endif

namespace metaedit::ort {
namespace {

std::atomic<std::int64_t> kernels{0}, calls{0};

// An operator with the settings of a session, as ONNX Runtime sees it.
struct Registered : CustomOp {
    const Operator* op;
    Settings settings;
};

const Operator& operator_of(const CustomOp* op) {
    return *static_cast<const Registered*>(op)->op;
}

// A kernel, and where its errors go.
struct Instance {
    const Api* api;
    const char* name;
    std::unique_ptr<Kernel> kernel;
};

Status* create(const CustomOp* op, const Api* api, const KernelInfo* info, void** kernel) {
    const auto* registered = static_cast<const Registered*>(op);
    return guarded(*api, registered->op->name, [&] {
        const Attributes attributes(*api, info);
        auto instance = std::make_unique<Instance>(
            Instance{api, registered->op->name, registered->op->create(attributes, registered->settings)});
        *kernel = instance.release();
        kernels.fetch_add(1, std::memory_order_relaxed);
    });
}

Status* compute(void* kernel, KernelContext* context) {
    const auto* instance = static_cast<const Instance*>(kernel);
    return guarded(*instance->api, instance->name, [&] {
        Context run(*instance->api, context);
        instance->kernel->compute(run);
        calls.fetch_add(1, std::memory_order_relaxed);
    });
}

void destroy(void* kernel) {
    delete static_cast<Instance*>(kernel);
}

Registered describe(const Operator& op, const Settings& settings) {
    Registered found{};
    found.op = &op;
    found.settings = settings;
    found.version = kVersion;
    found.get_name = [](const CustomOp* of) { return operator_of(of).name; };
    found.get_provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
    found.get_input_type = [](const CustomOp* of, std::size_t i) { return operator_of(of).inputs[i].type; };
    found.get_input_count = [](const CustomOp* of) { return operator_of(of).inputs.size(); };
    found.get_output_type = [](const CustomOp* of, std::size_t i) { return operator_of(of).outputs[i]; };
    found.get_output_count = [](const CustomOp* of) { return operator_of(of).outputs.size(); };
    found.get_input_characteristic = [](const CustomOp* of, std::size_t i) {
        return operator_of(of).inputs[i].characteristic;
    };
    found.get_output_characteristic = [](const CustomOp*, std::size_t) { return Characteristic::required; };
    found.get_input_memory = [](const CustomOp*, std::size_t) { return 0; };
    found.get_least_variadic_inputs = found.has_equal_variadic_inputs = [](const CustomOp*) { return 1; };
    found.get_least_variadic_outputs = found.has_equal_variadic_outputs = [](const CustomOp*) { return 1; };
    found.create_kernel_v2 = &create;
    found.compute_v2 = &compute;
    found.destroy = &destroy;
    found.get_start_version = [](const CustomOp*) { return 1; };
    found.get_end_version = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
    return found;
}

// The operators under some settings.
struct Operators {
    std::array<Registered, 3> ops;
    Domain* domain = nullptr;
};

// Never destroyed: sessions point to them, and may outlive whatever is destroyed at the end of the process. There is
// one for each choice of settings, not for each session.
Domain* domain_of(const Api& api, const Settings& settings) {
    static auto* const lock = new std::mutex;
    static auto* const known = new std::map<std::pair<const Api*, Settings>, std::unique_ptr<Operators>>;
    const std::lock_guard<std::mutex> guard(*lock);
    std::unique_ptr<Operators>& found = (*known)[{&api, settings}];
    if (found == nullptr) {
        auto made = std::make_unique<Operators>(Operators{
            {describe(kFeatures, settings), describe(kMetanetwork, settings), describe(kPrunedEdit, settings)}});
        expect_ok(api, api.create_domain("metaedit", &made->domain));
        for (const Registered& op : made->ops)
            expect_ok(api, api.add_op(made->domain, static_cast<const CustomOp*>(&op)));
        found = std::move(made);
    }
    return found->domain;
}

}  // namespace

std::int64_t kernel_count() {
    return kernels.load(std::memory_order_relaxed);
}

std::int64_t call_count() {
    return calls.load(std::memory_order_relaxed);
}

}  // namespace metaedit::ort

// A runtime older than our version gives no table: then nothing is registered, and it runs the functions in the file.
extern "C" METAEDIT_EXPORT metaedit::ort::Status* RegisterCustomOps(metaedit::ort::SessionOptions* options,
                                                                    const metaedit::ort::ApiBase* base) {
    using namespace metaedit::ort;
    const Api* api = base->get_api(kVersion);
    if (api == nullptr) return nullptr;
    return guarded(*api, "RegisterCustomOps",
                   [&] { expect_ok(*api, api->add_domain(options, domain_of(*api, Settings::of(*api, options)))); });
}
