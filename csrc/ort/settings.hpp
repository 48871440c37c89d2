// What a session chooses: which kernels run, and on how many threads.
#pragma once

#include <compare>
#include <string>

#include "cpu/arithmetic.hpp"
#include "ort/context.hpp"

namespace metaedit::ort {

// The entries of a session's configuration metaedit.precision, metaedit.num_threads and metaedit.isa. Empty or 0
// where there is none.
struct Settings {
    std::string precision, isa;
    int num_threads = 0;

    // Throws std::invalid_argument, naming the entry, for a value that means nothing.
    static Settings of(const Api& api, const SessionOptions* options);

    // The entry's precision, else float32; on the instruction set of the entry, else that of METAEDIT_ISA, else the
    // best. Throws std::invalid_argument where there is none such.
    Arithmetic arithmetic() const;

    // The entry's, else METAEDIT_NUM_THREADS, else 1. Throws std::invalid_argument where the variable is no number.
    int threads() const;

    auto operator<=>(const Settings&) const = default;
};

}  // namespace metaedit::ort
