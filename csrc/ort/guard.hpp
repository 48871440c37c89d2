// Between exceptions, which stay on our side of the C interface, and its statuses.
#pragma once

#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>

#include "ort/abi.hpp"

namespace metaedit::ort {

// Throws std::runtime_error with the message of a status that is not success.
inline void expect_ok(const Api& api, Status* status) {
    if (status == nullptr) return;
    const std::string message = api.message(status);
    api.release(status);
    throw std::runtime_error(message);
}

inline Status* failure(const Api& api, StatusCode code, const char* where, const char* what) noexcept {
    char message[1024];  // on the stack: memory may be what is missing
    std::snprintf(message, sizeof message, "metaedit, %s: %s", where, what);
    return api.create_status(code, message);
}

// Runs work(); what it throws becomes a status that begins with `where`.
template <class Work>
Status* guarded(const Api& api, const char* where, const Work& work) noexcept {
    try {
        work();
        return nullptr;
    } catch (const std::invalid_argument& error) {
        return failure(api, StatusCode::invalid_argument, where, error.what());
    } catch (const std::bad_alloc&) {
        return failure(api, StatusCode::fail, where, "out of memory");
    } catch (const std::exception& error) {
        return failure(api, StatusCode::fail, where, error.what());
    } catch (...) {
        return failure(api, StatusCode::fail, where, "an error of an unknown kind");
    }
}

}  // namespace metaedit::ort
