// The module _core: one layer, and what the library tells about itself. Only the files of this folder know pybind11.

#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "core/message_passing.hpp"
#include "python/edit.hpp"
#include "python/gradient.hpp"
#include "python/metanetwork.hpp"
#include "python/mlp.hpp"
#include "python/ort.hpp"
#include "python/parameters.hpp"
#include "python/peaks.hpp"
#include "python/refinement.hpp"
#include "python/training.hpp"

namespace metaedit::python {
namespace {

// ---- erf ----

template <class T>
void erf_in_place(py::array& values) {
    T* data = static_cast<T*>(values.mutable_data());
    const py::ssize_t size = values.size();
    const py::gil_scoped_release released;
    for (py::ssize_t i = 0; i < size; ++i) data[i] = std::erf(data[i]);
}

py::array erf_of(const py::object& values) {
    const std::string expected = "values: expected a float32 or float64 array, got ";
    // A numpy scalar is what arithmetic on an array without dimensions gives.
    if (!py::hasattr(values, "dtype")) {
        throw py::type_error(expected + py::str(py::type::of(values)).cast<std::string>());
    }
    const py::array array(values);
    const bool is_float32 = py::isinstance<py::array_t<float>>(array);
    if (!is_float32 && !py::isinstance<py::array_t<double>>(array)) {
        throw py::type_error(expected + "dtype " + py::str(array.dtype()).cast<std::string>());
    }
    // "K" keeps the order of any dense layout, so the copy is dense and the loop may ignore its shape.
    py::array result = array.attr("copy")("K");
    if (is_float32) {
        erf_in_place<float>(result);
    } else {
        erf_in_place<double>(result);
    }
    return result;
}

// ---- One metanetwork layer ----

// What a kernel writes to: the caller's pair of arrays, or new ones.
struct Outputs {
    py::array nodes, edges;

    Outputs(const py::object& given, const py::array& h, const py::array& e) {
        if (given.is_none()) {
            nodes = py::array_t<float>({h.shape(0), h.shape(1)});
            edges = py::array_t<float>({e.shape(0), e.shape(1)});
            return;
        }
        if (!py::isinstance<py::tuple>(given) || py::len(given) != 2) {
            throw py::type_error("out: expected a tuple (h, e) or None, got " + py::repr(given).cast<std::string>());
        }
        const auto pair = py::reinterpret_borrow<py::tuple>(given);
        nodes = expect_array<float>(pair[0], "out[0]", {h.shape(0), h.shape(1)});
        edges = expect_array<float>(pair[1], "out[1]", {e.shape(0), e.shape(1)});
        for (const py::array* input : {&h, &e}) {
            expect_apart(*input, nodes, "out[0]");
            expect_apart(*input, edges, "out[1]");
        }
        expect_apart(nodes, edges, "out[1]");
    }
};

template <class Layer>
py::tuple forward(const py::object& blocks, const py::object& nodes, const py::object& edges, const py::dict& values,
                  const std::optional<std::string>& isa, const std::string& precision, const py::object& out,
                  Layer (*read)(Parameters&, py::ssize_t, py::ssize_t),
                  void (*run)(const WeightGraph&, const Layer&, const LayerStates&, const Arithmetic&)) {
    const Arithmetic arithmetic = arithmetic_of(precision, isa);
    const std::vector<Block> table = copy_blocks(expect_array<std::int64_t>(blocks, "blocks", {kAny, 6}));
    const py::array h = expect_array<float>(nodes, "h", {kAny, kAny});
    const py::array e = expect_array<float>(edges, "e", {kAny, kAny});
    if (h.shape(1) < 1 || e.shape(1) < 1) throw py::value_error("h, e: expected at least one column each");
    const WeightGraph graph{table, h.shape(0), e.shape(0)};
    check(graph);  // std::invalid_argument becomes ValueError
    Parameters parameters(values);
    const Layer layer = read(parameters, e.shape(1), h.shape(1));
    parameters.expect_no_more();
    Outputs outputs(out, h, e);
    const LayerStates states{floats(h), floats(e), static_cast<float*>(outputs.nodes.mutable_data()),
                             static_cast<float*>(outputs.edges.mutable_data())};
    {
        const py::gil_scoped_release released;
        run(graph, layer, states, arithmetic);
    }
    return py::make_tuple(outputs.nodes, outputs.edges);
}

py::tuple shipped_forward(const py::object& blocks, const py::object& h, const py::object& e, const py::dict& values,
                          const std::optional<std::string>& isa, const std::string& precision, const py::object& out) {
    return forward(blocks, h, e, values, isa, precision, out, &shipped_layer<Parameters>, &metaedit::shipped_forward);
}

py::tuple official_forward(const py::object& blocks, const py::object& h, const py::object& e, const py::dict& values,
                           const std::optional<std::string>& isa, const std::string& precision, const py::object& out) {
    return forward(blocks, h, e, values, isa, precision, out, &official_layer<Parameters>, &metaedit::official_forward);
}

// ---- About this build ----

py::dict build_info() {
    py::dict info;
    info["version"] = METAEDIT_VERSION;
    info["compiler"] = METAEDIT_COMPILER;
    info["flags"] = METAEDIT_BUILD_FLAGS;
    info["processor"] = METAEDIT_PROCESSOR;
#ifdef METAEDIT_EMULATE_AMX
    info["emulates_amx"] = true;
#else
    info["emulates_amx"] = false;
#endif
    info["cxx_standard"] = static_cast<long>(__cplusplus);
    return info;
}

std::string active_isa_name() {
    return std::string(active_level().name);
}

std::vector<std::string> available_isa_names() {
    std::vector<std::string> names;
    for (const Level& level : available_levels()) names.emplace_back(level.name);
    return names;
}

constexpr const char* kForwardDoc =
    "One forward layer of the metanetwork in this form; returns new (h [V, d_v], e [E, d_e]).\n\n"
    "blocks int64 [B, 6], h float32 [V, d_v], e float32 [E, d_e]; parameters maps the names of the layer of the\n"
    "same form in metaedit_fast.kernels.reference to float32 arrays. isa: an instruction set by name instead of the\n"
    "active one. precision: as for metanetwork_forward. out: two arrays to write to instead of new ones. All\n"
    "C-contiguous. Raises TypeError for a wrong type or dtype, ValueError for a wrong shape, layout, block, parameter\n"
    "name, precision or instruction set.";

}  // namespace
}  // namespace metaedit::python

PYBIND11_MODULE(_core, m) {
    using namespace metaedit::python;
    m.doc() =
        "The compiled core of metaedit_fast: kernels over numpy arrays.\n\n"
        "Arrays are taken as they are, never converted; a wrong dtype, shape or layout raises.\n"
        "The interpreter lock is released while a kernel runs.";
    m.attr("__version__") = METAEDIT_VERSION;

    m.def("erf", &erf_of, py::arg("values"),
          "The error function of every element of a float32 or float64 array of any shape; a new array of its "
          "dtype.\n\nRaises TypeError for any other dtype.");
    m.def("shipped_forward", &shipped_forward, py::arg("blocks"), py::arg("h"), py::arg("e"), py::arg("parameters"),
          py::kw_only(), py::arg("isa") = py::none(), py::arg("precision") = "float32", py::arg("out") = py::none(),
          kForwardDoc);
    m.def("official_forward", &official_forward, py::arg("blocks"), py::arg("h"), py::arg("e"), py::arg("parameters"),
          py::kw_only(), py::arg("isa") = py::none(), py::arg("precision") = "float32", py::arg("out") = py::none(),
          kForwardDoc);
    bind_metanetwork(m);
    bind_mlp(m);
    bind_refinement(m);
    bind_training(m);
    bind_gradient(m);
    bind_edit(m);
    bind_ort(m);
    bind_peaks(m);
    m.def(
        "isa", &active_isa_name,
        "The instruction set whose kernels run: the one that METAEDIT_ISA names, else the best of available_isas().\n\n"
        "Raises ValueError where the variable names one that this machine or build lacks.");
    m.def("available_isas", &available_isa_names,
          "The instruction sets that this build contains and this machine supports, the best one last.");
    m.def(
        "build_info", &build_info,
        "How this library was built: version, compiler, flags, processor, cxx_standard, and emulates_amx: whether the "
        "level amx runs on emulated tiles, for tests.");
}
