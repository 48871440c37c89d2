// The refinement of edited MLPs, for module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace metaedit::python {

void bind_refinement(pybind11::module_& m);

}  // namespace metaedit::python
