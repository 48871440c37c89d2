// The Python face of the compiled core, and the only file that knows pybind11.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/message_passing.hpp"

namespace py = pybind11;
namespace me = metaedit;

namespace {

// ---- Arrays: taken as they are, never converted ----

constexpr py::ssize_t kAny = -1;
using Shape = std::vector<py::ssize_t>;

std::string text(const Shape& shape) {
    std::string result = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        result += (i == 0 ? "" : ", ") + (shape[i] == kAny ? "any" : std::to_string(shape[i]));
    }
    return result + "]";
}

// The array behind an argument. Raises TypeError for another type or dtype, ValueError for another shape or
// for a layout that is not C-contiguous and aligned.
template <class T>
py::array expect_array(const py::handle& object, const std::string& name, const Shape& shape) {
    const std::string dtype = py::str(py::dtype::of<T>()).cast<std::string>();
    const std::string expected = name + ": expected a " + dtype + " array of shape " + text(shape) + ", got ";
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(expected + py::str(py::type::of(object)).cast<std::string>());
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<T>>(object)) {
        throw py::type_error(expected + "dtype " + py::str(array.dtype()).cast<std::string>());
    }
    const Shape got(array.shape(), array.shape() + array.ndim());
    bool fits = got.size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == kAny || shape[i] == got[i];
    if (!fits) throw py::value_error(expected + "shape " + text(got));
    constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & wanted) != wanted) {
        throw py::value_error(expected + "one that is not C-contiguous and aligned (numpy.ascontiguousarray copies)");
    }
    return array;
}

const float* floats(const py::array& array) {
    return static_cast<const float*>(array.data());
}

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

// A layer's parameters out of a mapping from torch's names to arrays; keeps the arrays alive.
class Parameters {
  public:
    explicit Parameters(const py::dict& values) : values_(values) {}

    me::Linear linear(const std::string& name, py::ssize_t n_out, py::ssize_t n_in, bool has_bias = true) {
        const float* weight = take(name + ".weight", {n_out, n_in});
        return {weight, has_bias ? take(name + ".bias", {n_out}) : nullptr, n_out, n_in};
    }

    me::LayerNorm norm(const std::string& name, py::ssize_t size) {
        const float* scale = take(name + ".weight", {size});
        return {scale, take(name + ".bias", {size}), size};
    }

    // Call it when all are taken. Raises ValueError where the mapping holds anything else.
    void expect_no_more() const {
        for (const auto& item : values_) {
            const std::string name = py::str(item.first).cast<std::string>();
            if (!taken_.contains(name)) throw py::value_error("parameters: this layer has no \"" + name + "\"");
        }
    }

  private:
    const float* take(const std::string& name, const Shape& shape) {
        if (!values_.contains(name)) throw py::value_error("parameters: \"" + name + "\" is missing");
        taken_.insert(name);
        arrays_.push_back(expect_array<float>(values_[name.c_str()], "parameters[\"" + name + "\"]", shape));
        return floats(arrays_.back());
    }

    py::dict values_;
    std::set<std::string> taken_;
    std::vector<py::array> arrays_;
};

me::ShippedLayer shipped_layer(Parameters& p, py::ssize_t d_e, py::ssize_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .edge = p.linear("edge", d_e, d_e),
            .source = p.linear("source", d_e, d_v, false),
            .target = p.linear("target", d_e, d_v, false),
            .update = p.linear("update", d_e, d_e),
            .norm = p.norm("norm", d_v),
            .node_in = p.linear("node_in", 2 * d_v, d_v + 4 * d_e),
            .node_out = p.linear("node_out", d_v, 2 * d_v)};
}

me::OfficialLayer official_layer(Parameters& p, py::ssize_t d_e, py::ssize_t d_v) {
    return {.d_e = d_e,
            .d_v = d_v,
            .forward_in = p.linear("forward_in", d_e, d_e + d_v),
            .forward_out = p.linear("forward_out", d_v, d_e),
            .backward_in = p.linear("backward_in", d_e, d_e + d_v),
            .backward_out = p.linear("backward_out", d_v, d_e),
            .edge_in = p.linear("edge_in", d_e, d_e + 2 * d_v),
            .edge_out = p.linear("edge_out", d_e, d_e),
            .node_in = p.linear("node_in", d_v, 3 * d_v),
            .node_out = p.linear("node_out", d_v, d_v),
            .residual = p.linear("residual", d_v, d_v),
            .forward_norm = p.norm("forward_norm", d_e),
            .backward_norm = p.norm("backward_norm", d_e),
            .edge_norm = p.norm("edge_norm", d_e),
            .node_norm = p.norm("node_norm", d_v)};
}

// A copy, so that nobody can change a descriptor between its check and its use.
std::vector<me::Block> copy_blocks(const py::array& table) {
    std::vector<me::Block> blocks(static_cast<std::size_t>(table.shape(0)));
    if (!blocks.empty()) std::memcpy(blocks.data(), table.data(), blocks.size() * sizeof(me::Block));
    return blocks;
}

void expect_apart(const py::array& input, const py::array& output, const char* name) {
    const auto* a = static_cast<const char*>(input.data());
    const auto* b = static_cast<const char*>(output.data());
    const std::less<const char*> before;  // < itself is undefined between two arrays
    if (before(a, b + output.nbytes()) && before(b, a + input.nbytes())) {
        throw py::value_error(std::string(name) + ": expected memory apart from the inputs and the other output");
    }
}

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
                  const py::object& out, Layer (*read)(Parameters&, py::ssize_t, py::ssize_t),
                  void (*run)(const me::WeightGraph&, const Layer&, const me::LayerStates&)) {
    const std::vector<me::Block> table = copy_blocks(expect_array<std::int64_t>(blocks, "blocks", {kAny, 6}));
    const py::array h = expect_array<float>(nodes, "h", {kAny, kAny});
    const py::array e = expect_array<float>(edges, "e", {kAny, kAny});
    if (h.shape(1) < 1 || e.shape(1) < 1) throw py::value_error("h, e: expected at least one column each");
    const me::WeightGraph graph{table, h.shape(0), e.shape(0)};
    me::check(graph);  // std::invalid_argument becomes ValueError
    Parameters parameters(values);
    const Layer layer = read(parameters, e.shape(1), h.shape(1));
    parameters.expect_no_more();
    Outputs outputs(out, h, e);
    const me::LayerStates states{floats(h), floats(e), static_cast<float*>(outputs.nodes.mutable_data()),
                                 static_cast<float*>(outputs.edges.mutable_data())};
    {
        const py::gil_scoped_release released;
        run(graph, layer, states);
    }
    return py::make_tuple(outputs.nodes, outputs.edges);
}

py::tuple shipped_forward(const py::object& blocks, const py::object& h, const py::object& e, const py::dict& values,
                          const py::object& out) {
    return forward(blocks, h, e, values, out, &shipped_layer, &me::serial::shipped_forward);
}

py::tuple official_forward(const py::object& blocks, const py::object& h, const py::object& e, const py::dict& values,
                           const py::object& out) {
    return forward(blocks, h, e, values, out, &official_layer, &me::serial::official_forward);
}

// ---- About this build ----

py::dict build_info() {
    py::dict info;
    info["version"] = METAEDIT_VERSION;
    info["compiler"] = METAEDIT_COMPILER;
    info["flags"] = METAEDIT_BUILD_FLAGS;
    info["processor"] = METAEDIT_PROCESSOR;
    info["cxx_standard"] = static_cast<long>(__cplusplus);
    return info;
}

constexpr const char* kForwardDoc =
    "One forward layer of the metanetwork in this form; returns new (h [V, d_v], e [E, d_e]).\n\n"
    "blocks int64 [B, 6], h float32 [V, d_v], e float32 [E, d_e]; parameters maps the names of the layer of the\n"
    "same form in metaedit_fast.kernels.reference to float32 arrays. out: two arrays to write to instead of new\n"
    "ones. All C-contiguous. Raises TypeError for a wrong type or dtype, ValueError for a wrong shape, layout,\n"
    "block or parameter name.";

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "The compiled core of metaedit_fast: kernels over numpy arrays.\n\n"
        "Arrays are taken as they are, never converted; a wrong dtype, shape or layout raises.\n"
        "The interpreter lock is released while a kernel runs.";
    m.attr("__version__") = METAEDIT_VERSION;

    m.def("erf", &erf_of, py::arg("values"),
          "The error function of every element of a float32 or float64 array of any shape; a new array of its "
          "dtype.\n\nRaises TypeError for any other dtype.");
    m.def("shipped_forward", &shipped_forward, py::arg("blocks"), py::arg("h"), py::arg("e"), py::arg("parameters"),
          py::kw_only(), py::arg("out") = py::none(), kForwardDoc);
    m.def("official_forward", &official_forward, py::arg("blocks"), py::arg("h"), py::arg("e"), py::arg("parameters"),
          py::kw_only(), py::arg("out") = py::none(), kForwardDoc);
    m.def("build_info", &build_info, "How this library was built: version, compiler, flags, processor, cxx_standard.");
}
