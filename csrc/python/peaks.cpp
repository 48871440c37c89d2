#include "python/peaks.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "core/peaks.hpp"

namespace metaedit::python {
namespace {

namespace py = pybind11;

double measure_peak(const std::string& name, double seconds, int num_threads, const std::optional<std::string>& isa) {
    const Peak peak = peak_named(name);
    const Level& level = isa ? available_level(*isa, "isa") : active_level();
    if (num_threads < 1) {
        throw py::value_error("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    const py::gil_scoped_release released;
    return seconds_per_value(peak, level, num_threads, seconds);
}

constexpr const char* kDoc =
    "Seconds per value (per byte for \"copy\") and thread of what the kernels are made of, while num_threads threads\n"
    "do the same for `seconds`: \"multiply_add\" in float32, \"addition\" beside multiply-adds, \"silu\",\n"
    "\"bf16_product\", \"bf16_silu\", \"copy\" from memory to memory. 0 where the level has no such instruction.\n"
    "Raises ValueError for another name or instruction set, or no threads.";

}  // namespace

void bind_peaks(py::module_& m) {
    m.def("measure_peak", &measure_peak, py::arg("peak"), py::kw_only(), py::arg("seconds"), py::arg("num_threads"),
          py::arg("isa") = py::none(), kDoc);
}

}  // namespace metaedit::python
