#include "ort/settings.hpp"

#include <charconv>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "ort/guard.hpp"

namespace metaedit::ort {
namespace {

std::string entry(const Api& api, const SessionOptions* options, const char* key) {
    int is_there = 0;
    expect_ok(api, api.has_config(options, key, &is_there));
    if (is_there == 0) return {};
    std::size_t size = 0;
    expect_ok(api, api.get_config(options, key, nullptr, &size));
    std::string value(size, '\0');
    expect_ok(api, api.get_config(options, key, value.data(), &size));
    if (!value.empty()) value.pop_back();  // the final zero
    return value;
}

int positive(std::string_view text, const std::string& name) {
    constexpr int kMost = 4096;
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMost) {
        throw std::invalid_argument(name + ": expected an integer from 1 to " + std::to_string(kMost) + ", got '" +
                                    std::string(text) + "'");
    }
    return value;
}

}  // namespace

Settings Settings::of(const Api& api, const SessionOptions* options) {
    Settings found{.precision = entry(api, options, "metaedit.precision"),
                   .isa = entry(api, options, "metaedit.isa"),
                   .num_threads = 0};
    if (!found.precision.empty()) precision_named(found.precision);
    if (!found.isa.empty()) available_level(found.isa, "metaedit.isa");
    const std::string threads = entry(api, options, "metaedit.num_threads");
    if (!threads.empty()) found.num_threads = positive(threads, "metaedit.num_threads");
    return found;
}

Arithmetic Settings::arithmetic() const {
    return {isa.empty() ? active_level() : available_level(isa, "metaedit.isa"),
            precision.empty() ? Precision::float32 : precision_named(precision)};
}

int Settings::threads() const {
    if (num_threads > 0) return num_threads;
    const char* variable = std::getenv("METAEDIT_NUM_THREADS");
    return variable == nullptr || *variable == '\0' ? 1 : positive(variable, "METAEDIT_NUM_THREADS");
}

}  // namespace metaedit::ort
