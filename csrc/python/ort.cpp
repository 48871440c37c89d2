// What Python asks about the operators for ONNX Runtime, which run in this library.

#include "python/ort.hpp"

#include "ort/operators.hpp"

namespace metaedit::python {

void bind_ort(pybind11::module_& m) {
    m.def(
        "ort_kernel_count", &ort::kernel_count,
        "How many kernels ONNX Runtime's sessions made of this library in this process: one for each of their nodes.");
    m.def("ort_call_count", &ort::call_count, "How often ONNX Runtime ran such kernels with success in this process.");
}

}  // namespace metaedit::python
