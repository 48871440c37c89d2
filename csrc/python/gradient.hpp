// The metanetwork's forward and backward pass for training.
#pragma once

#include <pybind11/pybind11.h>

namespace metaedit::python {

void bind_gradient(pybind11::module_& m);

}  // namespace metaedit::python
