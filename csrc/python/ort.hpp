#pragma once

#include <pybind11/pybind11.h>

namespace metaedit::python {

void bind_ort(pybind11::module_& m);

}  // namespace metaedit::python
