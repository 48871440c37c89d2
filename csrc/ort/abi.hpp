// The few parts of ONNX Runtime's C interface that a custom operator needs, declared here: its headers come with no
// Python package, and the table of functions only ever grows at its end, so a number is good for every later version.
#pragma once

#include <cstddef>
#include <cstdint>

namespace metaedit::ort {

// Opaque to us.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;

enum class StatusCode : int { fail = 1, invalid_argument = 2 };
enum class ElementType : int { float32 = 1, int64 = 7 };
enum class Characteristic : int { required = 0, optional = 1, variadic = 2 };

// The first version that has all of the below, of the table and of CustomOp. Later releases answer to it.
inline constexpr std::uint32_t kVersion = 17;

// Functions by their place in the table. Those that give a Status give null for success.
struct Api {
    void* slots[239];  // those that are used; there are more

    template <class Function>
    Function at(std::size_t slot) const {
        return reinterpret_cast<Function>(slots[slot]);
    }

    Status* create_status(StatusCode code, const char* text) const {
        return at<Status* (*)(int, const char*)>(0)(static_cast<int>(code), text);
    }
    const char* message(const Status* status) const { return at<const char* (*)(const Status*)>(2)(status); }
    void release(Status* status) const { at<void (*)(Status*)>(93)(status); }

    Status* create_domain(const char* name, Domain** out) const {
        return at<Status* (*)(const char*, Domain**)>(26)(name, out);
    }
    Status* add_op(Domain* domain, const void* op) const {
        return at<Status* (*)(Domain*, const void*)>(27)(domain, op);
    }
    Status* add_domain(SessionOptions* options, Domain* domain) const {
        return at<Status* (*)(SessionOptions*, Domain*)>(28)(options, domain);
    }
    Status* has_config(const SessionOptions* options, const char* key, int* out) const {
        return at<Status* (*)(const SessionOptions*, const char*, int*)>(237)(options, key, out);
    }
    // `size` counts the final zero; it holds the room of `out` before, what is needed after.
    Status* get_config(const SessionOptions* options, const char* key, char* out, std::size_t* size) const {
        return at<Status* (*)(const SessionOptions*, const char*, char*, std::size_t*)>(238)(options, key, out, size);
    }

    Status* get_data(const Value* value, void** out) const {
        return at<Status* (*)(const Value*, void**)>(51)(value, out);
    }
    Status* get_shape_info(const Value* value, ShapeInfo** out) const {
        return at<Status* (*)(const Value*, ShapeInfo**)>(65)(value, out);
    }
    Status* get_element_type(const ShapeInfo* info, int* out) const {
        return at<Status* (*)(const ShapeInfo*, int*)>(60)(info, out);
    }
    Status* get_rank(const ShapeInfo* info, std::size_t* out) const {
        return at<Status* (*)(const ShapeInfo*, std::size_t*)>(61)(info, out);
    }
    Status* get_extents(const ShapeInfo* info, std::int64_t* out, std::size_t rank) const {
        return at<Status* (*)(const ShapeInfo*, std::int64_t*, std::size_t)>(62)(info, out, rank);
    }
    void release(ShapeInfo* info) const { at<void (*)(ShapeInfo*)>(99)(info); }

    Status* get_attribute(const KernelInfo* info, const char* name, float* out) const {
        return at<Status* (*)(const KernelInfo*, const char*, float*)>(85)(info, name, out);
    }
    Status* get_attribute(const KernelInfo* info, const char* name, std::int64_t* out) const {
        return at<Status* (*)(const KernelInfo*, const char*, std::int64_t*)>(86)(info, name, out);
    }
    // `size` as in get_config; null for `out` asks for it.
    Status* get_attribute(const KernelInfo* info, const char* name, char* out, std::size_t* size) const {
        return at<Status* (*)(const KernelInfo*, const char*, char*, std::size_t*)>(87)(info, name, out, size);
    }
    Status* get_input_count(const KernelContext* context, std::size_t* out) const {
        return at<Status* (*)(const KernelContext*, std::size_t*)>(88)(context, out);
    }
    // Null for an input that is left out.
    Status* get_input(const KernelContext* context, std::size_t i, const Value** out) const {
        return at<Status* (*)(const KernelContext*, std::size_t, const Value**)>(90)(context, i, out);
    }
    // Null for an output that is left out.
    Status* get_output(KernelContext* context, std::size_t i, const std::int64_t* extents, std::size_t rank,
                       Value** out) const {
        return at<Status* (*)(KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**)>(91)(
            context, i, extents, rank, out);
    }
};

struct ApiBase {
    const Api* (*get_api)(std::uint32_t version);
    const char* (*get_version)();
};

// What describes an operator; version 17 ends with get_end_version, and what is behind it is read by none that we
// claim to speak.
struct CustomOp {
    std::uint32_t version;
    void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);  // before version 16
    const char* (*get_name)(const CustomOp*);
    const char* (*get_provider)(const CustomOp*);
    ElementType (*get_input_type)(const CustomOp*, std::size_t);
    std::size_t (*get_input_count)(const CustomOp*);
    ElementType (*get_output_type)(const CustomOp*, std::size_t);
    std::size_t (*get_output_count)(const CustomOp*);
    void (*compute)(void*, KernelContext*);  // before version 16
    void (*destroy)(void*);
    Characteristic (*get_input_characteristic)(const CustomOp*, std::size_t);
    Characteristic (*get_output_characteristic)(const CustomOp*, std::size_t);
    int (*get_input_memory)(const CustomOp*, std::size_t);
    int (*get_least_variadic_inputs)(const CustomOp*);
    int (*has_equal_variadic_inputs)(const CustomOp*);
    int (*get_least_variadic_outputs)(const CustomOp*);
    int (*has_equal_variadic_outputs)(const CustomOp*);
    Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
    Status* (*compute_v2)(void* kernel, KernelContext*);
    Status* (*infer_output_shapes)(const CustomOp*, void*);
    int (*get_start_version)(const CustomOp*);
    int (*get_end_version)(const CustomOp*);
    void* later[4];  // version 18
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "the layout of version 18");

}  // namespace metaedit::ort
