// The Python face of the compiled core, and the only file that knows pybind11.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <string>

namespace py = pybind11;

namespace {

template <class T>
void erf_in_place(py::array& values) {
    T* data = static_cast<T*>(values.mutable_data());
    const py::ssize_t size = values.size();
    const py::gil_scoped_release released;
    for (py::ssize_t i = 0; i < size; ++i) data[i] = std::erf(data[i]);
}

py::array erf_of(const py::array& values) {
    const bool is_float32 = py::isinstance<py::array_t<float>>(values);
    if (!is_float32 && !py::isinstance<py::array_t<double>>(values)) {
        throw py::type_error("values: expected a float32 or float64 array, got dtype " +
                             py::str(values.dtype()).cast<std::string>());
    }
    // "K" keeps the order of any dense layout, so the copy is dense and the loop may ignore its shape.
    py::array result = values.attr("copy")("K");
    if (is_float32) {
        erf_in_place<float>(result);
    } else {
        erf_in_place<double>(result);
    }
    return result;
}

py::dict build_info() {
    py::dict info;
    info["version"] = METAEDIT_VERSION;
    info["compiler"] = METAEDIT_COMPILER;
    info["flags"] = METAEDIT_BUILD_FLAGS;
    info["processor"] = METAEDIT_PROCESSOR;
    info["cxx_standard"] = static_cast<long>(__cplusplus);
    return info;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "The compiled core of metaedit_fast: kernels over numpy arrays.\n\n"
        "Arrays are taken as they are, never converted; a wrong dtype, shape or layout raises.\n"
        "The interpreter lock is released while a kernel runs.";
    m.attr("__version__") = METAEDIT_VERSION;

    m.def("erf", &erf_of, py::arg("values"),
          "The error function of every element of a float32 or float64 array of any shape; a new array of its dtype.\n\n"
          "Raises TypeError for any other dtype.");
    m.def("build_info", &build_info, "How this library was built: version, compiler, flags, processor, cxx_standard.");
}
