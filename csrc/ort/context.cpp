#include "ort/context.hpp"

#include <numeric>
#include <stdexcept>

#include "ort/guard.hpp"

namespace metaedit::ort {
namespace {

std::string name_of(ElementType type) {
    return type == ElementType::float32 ? "float32" : type == ElementType::int64 ? "int64" : "another type";
}

}  // namespace

std::int64_t Attributes::integer(const char* name) const {
    std::int64_t value = 0;
    if (Status* status = api_.get_attribute(info_, name, &value)) {
        api_.release(status);
        throw std::invalid_argument(std::string("attribute ") + name + ": expected an integer, got none");
    }
    return value;
}

bool Attributes::flag(const char* name) const {
    const std::int64_t value = integer(name);
    if (value != 0 && value != 1) {
        throw std::invalid_argument(std::string("attribute ") + name + ": expected 0 or 1, got " +
                                    std::to_string(value));
    }
    return value == 1;
}

float Attributes::number(const char* name) const {
    float value = 0.0F;
    if (Status* status = api_.get_attribute(info_, name, &value)) {
        api_.release(status);
        throw std::invalid_argument(std::string("attribute ") + name + ": expected a number, got none");
    }
    return value;
}

std::string Attributes::text(const char* name) const {
    std::size_t size = 0;
    if (Status* status = api_.get_attribute(info_, name, nullptr, &size)) {
        api_.release(status);
        throw std::invalid_argument(std::string("attribute ") + name + ": expected a text, got none");
    }
    std::string value(size, '\0');
    expect_ok(api_, api_.get_attribute(info_, name, value.data(), &size));
    if (!value.empty()) value.pop_back();  // the final zero
    return value;
}

std::size_t Context::input_count() const {
    std::size_t count = 0;
    expect_ok(api_, api_.get_input_count(context_, &count));
    return count;
}

bool Context::has_input(std::size_t i) const {
    const Value* value = nullptr;
    if (i < input_count()) expect_ok(api_, api_.get_input(context_, i, &value));
    return value != nullptr;
}

Context::Tensor Context::tensor(std::size_t i, const std::string& name) const {
    const Value* value = nullptr;
    if (i < input_count()) expect_ok(api_, api_.get_input(context_, i, &value));
    if (value == nullptr) throw std::invalid_argument(name + ": expected an input, got none");
    ShapeInfo* info = nullptr;
    expect_ok(api_, api_.get_shape_info(value, &info));
    const auto release = [this](ShapeInfo* given) { api_.release(given); };
    const std::unique_ptr<ShapeInfo, decltype(release)> owner(info, release);
    int type = 0;
    std::size_t rank = 0;
    expect_ok(api_, api_.get_element_type(info, &type));
    expect_ok(api_, api_.get_rank(info, &rank));
    Extents extents(rank);
    if (rank > 0) expect_ok(api_, api_.get_extents(info, extents.data(), rank));
    return {value, static_cast<ElementType>(type), std::move(extents)};
}

const void* Context::values(std::size_t i, const std::string& name, ElementType type, const Extents& expected) const {
    const Tensor found = tensor(i, name);
    if (found.type != type || !fits(expected, found.extents)) {
        throw std::invalid_argument(name + ": expected " + name_of(type) + " of shape " + text_of(expected) + ", got " +
                                    name_of(found.type) + " of shape " + text_of(found.extents));
    }
    void* values = nullptr;
    expect_ok(api_, api_.get_data(found.value, &values));
    return values;
}

const float* Context::floats(std::size_t i, const std::string& name, const Extents& expected) const {
    return static_cast<const float*>(values(i, name, ElementType::float32, expected));
}

const std::int64_t* Context::integers(std::size_t i, const std::string& name, const Extents& expected) const {
    return static_cast<const std::int64_t*>(values(i, name, ElementType::int64, expected));
}

Extents Context::extents(std::size_t i, const std::string& name, std::size_t rank) const {
    Extents found = tensor(i, name).extents;
    if (found.size() != rank) {
        throw std::invalid_argument(name + ": expected " + std::to_string(rank) + " dimensions, got shape " +
                                    text_of(found));
    }
    return found;
}

void* Context::output_values(std::size_t i, const Extents& extents) {
    Value* value = nullptr;
    expect_ok(api_, api_.get_output(context_, i, extents.data(), extents.size(), &value));
    if (value == nullptr) {
        const auto size = std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, std::multiplies<>());
        unwanted_.push_back(std::make_unique<std::int64_t[]>(static_cast<std::size_t>(size)));
        return unwanted_.back().get();
    }
    void* values = nullptr;
    expect_ok(api_, api_.get_data(value, &values));
    return values;
}

float* Context::output(std::size_t i, const Extents& extents) {
    return static_cast<float*>(output_values(i, extents));
}

std::int64_t* Context::integer_output(std::size_t i, const Extents& extents) {
    return static_cast<std::int64_t*>(output_values(i, extents));
}

}  // namespace metaedit::ort
