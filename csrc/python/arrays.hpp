// Arrays that come from Python: taken as they are, never converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/extents.hpp"
#include "core/weight_graph.hpp"

namespace py = pybind11;

namespace metaedit::python {

using Shape = std::vector<py::ssize_t>;

inline std::string text(const Shape& shape) {
    return text_of(Extents(shape.begin(), shape.end()));
}

// The array behind an argument. Raises TypeError for another type or dtype, ValueError for another shape or
// for a layout that is not C-contiguous and aligned.
template <class T>
py::array expect_array(const py::handle& object, const std::string& name, const Shape& shape) {
    const auto expected = [&] {  // put together where it is needed: to ask Python for names takes microseconds
        const std::string dtype = py::str(py::dtype::of<T>()).cast<std::string>();
        return name + ": expected a " + dtype + " array of shape " + text(shape) + ", got ";
    };
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(expected() + py::str(py::type::of(object)).cast<std::string>());
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<T>>(object)) {
        throw py::type_error(expected() + "dtype " + py::str(array.dtype()).cast<std::string>());
    }
    const Shape got(array.shape(), array.shape() + array.ndim());
    if (!fits(Extents(shape.begin(), shape.end()), Extents(got.begin(), got.end())))
        throw py::value_error(expected() + "shape " + text(got));
    constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & wanted) != wanted) {
        throw py::value_error(expected() + "one that is not C-contiguous and aligned (numpy.ascontiguousarray copies)");
    }
    return array;
}

inline const std::int64_t* integers(const py::array& array) {
    return static_cast<const std::int64_t*>(array.data());
}

inline const float* floats(const py::array& array) {
    return static_cast<const float*>(array.data());
}

// A copy, so that nobody can change a descriptor between its check and its use.
inline std::vector<Block> copy_blocks(const py::array& table) {
    std::vector<Block> blocks(static_cast<std::size_t>(table.shape(0)));
    if (!blocks.empty()) std::memcpy(blocks.data(), table.data(), blocks.size() * sizeof(Block));
    return blocks;
}

// Raises ValueError, naming `name`, where an output shares memory with another array of the call.
inline void expect_apart(const py::array& input, const py::array& output, const char* name) {
    const auto* a = static_cast<const char*>(input.data());
    const auto* b = static_cast<const char*>(output.data());
    const std::less<const char*> before;  // < itself is undefined between two arrays
    if (before(a, b + output.nbytes()) && before(b, a + input.nbytes())) {
        throw py::value_error(std::string(name) + ": expected memory apart from the inputs and the other output");
    }
}

}  // namespace metaedit::python
