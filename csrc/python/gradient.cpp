// DifferentiableMetanet.

#include "python/gradient.hpp"

#include <pybind11/stl.h>

#include "core/metanetwork_gradient.hpp"
#include "python/kept_memory.hpp"
#include "python/metanetwork_arguments.hpp"

namespace metaedit::python {
namespace {

// Parameters one after the other in one array, in the order in which they are asked for.
class JoinedParameters : public ParameterReader<JoinedParameters> {
  public:
    using Named = std::vector<std::pair<std::string, Extents>>;

    // Null: only names and shapes are wanted.
    explicit JoinedParameters(const float* values) : values_(values) {}

    const float* take_named(const std::string& name, const Extents& shape) {
        static constexpr float kNothing = 0.0F;
        named_.emplace_back(name, shape);
        const py::ssize_t first = size_;
        py::ssize_t size = 1;
        for (const std::int64_t n : shape) size *= n;
        size_ += size;
        return values_ == nullptr ? &kNothing : values_ + first;
    }

    py::ssize_t size() const { return size_; }
    const Named& named() const { return named_; }
    void expect_no_more() const {}  // whoever made the array checked its length

  private:
    const float* values_;
    py::ssize_t size_ = 0;
    Named named_;
};

// A metanetwork's sizes, and what follows from them for training.
class Differentiable {
  public:
    Differentiable(MetanetSizes sizes, float score_gain) : sizes_(std::move(sizes)), score_gain_(score_gain) {
        JoinedParameters reader(nullptr);
        weights_ = network_weights(reader, sizes_, score_gain_);
        named_ = reader.named();
        n_parameters_ = reader.size();
        if (!StateSizes::fit(sizes_.d_e)) {
            throw py::value_error("d_e: expected at most " + std::to_string(*std::prev(std::end(kEdgeWidths))) +
                                  ", got " + std::to_string(sizes_.d_e));
        }
        if (sizes_.n_edge_features > kMaxEdgeFeatures) {
            throw py::value_error("n_edge_features: expected at most " + std::to_string(kMaxEdgeFeatures) + ", got " +
                                  std::to_string(sizes_.n_edge_features));
        }
        tape_.emplace(FoldedLayout(weights_));
    }

    const JoinedParameters::Named& parameters() const { return named_; }

    py::tuple tape_floats() const { return py::make_tuple(tape_->per_edge, tape_->per_node); }

    py::tuple forward(const py::object& parameters, const py::tuple& batch, int n_threads,
                      const std::optional<std::string>& isa) const {
        const Isa level = level_of(isa, n_threads);
        const Values values(*this, parameters);
        MetanetBatch models = batch_of(batch);
        const py::tuple heads = models.set_outputs(py::none());
        const py::array_t<float> edges = KeptMemory::array(models.n_edges() * tape_->per_edge);
        const py::array_t<float> nodes = KeptMemory::array(node_rows(models) * tape_->per_node);
        const std::vector<Tape> tapes = tapes_of(models, edges, nodes);
        {
            const py::gil_scoped_release released;
            metanetwork_record(FoldedNetwork(values.weights, n_threads), models.models(), tapes, level, n_threads);
        }
        return py::make_tuple(heads[0], heads[1], heads[2], heads[3], edges, nodes);
    }

    py::array_t<float> backward(const py::object& parameters, const py::tuple& batch, const py::object& edge_tape,
                                const py::object& node_tape, const py::tuple& gradients, int n_threads,
                                const std::optional<std::string>& isa) const {
        const Isa level = level_of(isa, n_threads);
        const Values values(*this, parameters);
        const MetanetBatch models = batch_of(batch);
        const py::array edges = expect_array<float>(edge_tape, "edge_tape", {models.n_edges() * tape_->per_edge});
        const py::array nodes = expect_array<float>(node_tape, "node_tape", {node_rows(models) * tape_->per_node});
        const std::vector<Tape> tapes = tapes_of(models, edges, nodes);
        std::vector<HeadGradients> upstream;
        const std::vector<py::array> arrays = upstream_of(models, gradients, upstream);
        std::vector<double> found;
        {
            const py::gil_scoped_release released;
            FoldedNetwork network(values.weights, n_threads);
            network.transpose();
            found =
                metanetwork_gradient(network, values.parameters, models.models(), tapes, upstream, level, n_threads);
        }
        py::array_t<float> result(n_parameters_);
        std::transform(found.begin(), found.end(), result.mutable_data(),
                       [](double x) { return static_cast<float>(x); });
        return result;
    }

  private:
    // The parameters of one call.
    struct Values {
        py::array kept;
        std::span<const float> parameters;
        MetanetWeights weights;

        Values(const Differentiable& network, const py::object& given)
            : kept(expect_array<float>(given, "parameters", {network.n_parameters_})),
              parameters(floats(kept), static_cast<std::size_t>(network.n_parameters_)) {
            JoinedParameters reader(floats(kept));
            weights = network_weights(reader, network.sizes_, network.score_gain_);
        }
    };

    static Isa level_of(const std::optional<std::string>& isa, int n_threads) {
        if (n_threads < 1) {
            throw py::value_error("num_threads: expected at least 1, got " + std::to_string(n_threads));
        }
        return isa ? available_isa(*isa, "isa") : active_isa();
    }

    MetanetBatch batch_of(const py::tuple& batch) const {
        constexpr py::ssize_t kArrays = 8;
        if (py::len(batch) != kArrays) {
            throw py::type_error("batch: expected " + std::to_string(kArrays) + " arrays, got " +
                                 std::to_string(py::len(batch)));
        }
        return {weights_, batch[0], batch[1], batch[2], JoinedFeatures{batch[3], batch[4], batch[5], batch[6]},
                batch[7]};
    }

    static std::int64_t node_rows(const MetanetBatch& batch) {
        return batch.n_nodes() + static_cast<std::int64_t>(batch.models().size());
    }

    std::vector<Tape> tapes_of(const MetanetBatch& batch, const py::array& edges, const py::array& nodes) const {
        // The forward pass fills arrays that this call made; the backward pass reads alone.
        auto* edge = const_cast<float*>(floats(edges));
        auto* node = const_cast<float*>(floats(nodes));
        std::vector<Tape> tapes;
        for (const Model& model : batch.models()) {
            tapes.push_back({edge, node});
            edge += model.graph.n_edges * tape_->per_edge;
            node += (model.graph.n_nodes + 1) * tape_->per_node;
        }
        return tapes;
    }

    static std::vector<py::array> upstream_of(const MetanetBatch& batch, const py::tuple& gradients,
                                              std::vector<HeadGradients>& upstream) {
        static constexpr const char* kNames[] = {"score", "relative", "additive", "node"};
        if (py::len(gradients) != std::size(kNames)) {
            throw py::type_error("gradients: expected 4 arrays, got " + std::to_string(py::len(gradients)));
        }
        std::int64_t n_weights = 0;
        for (const Model& model : batch.models()) n_weights += model.n_weights;
        std::vector<py::array> arrays;
        for (std::size_t i = 0; i < std::size(kNames); ++i) {
            const Shape shape = i < 3 ? Shape{n_weights} : Shape{batch.n_nodes(), kNodeOutputs};
            arrays.push_back(expect_array<float>(gradients[i], std::string("gradients, ") + kNames[i], shape));
        }
        HeadGradients next{floats(arrays[0]), floats(arrays[1]), floats(arrays[2]), floats(arrays[3])};
        for (const Model& model : batch.models()) {
            upstream.push_back(next);
            next.score += model.n_weights;
            next.relative += model.n_weights;
            next.additive += model.n_weights;
            next.node += model.graph.n_nodes * kNodeOutputs;
        }
        return arrays;
    }

    MetanetSizes sizes_;
    float score_gain_;
    MetanetWeights weights_;  // sizes alone
    JoinedParameters::Named named_;
    py::ssize_t n_parameters_ = 0;
    std::optional<TapeSizes> tape_;
};

constexpr const char* kClassDoc =
    "A metanetwork of these sizes, forward and backward for training. Raises ValueError for an unknown form, a size\n"
    "below 1, d_e above 128 or n_edge_features above 32.";

constexpr const char* kForwardDoc =
    "(score [W], relative [W], additive [W], node [V, 3], edge_tape, node_tape): the heads, and what backward "
    "needs.\n\n"
    "parameters float32 [P] holds those that `parameters` lists one after the other. batch is (blocks [B, 6],\n"
    "block_model [B], node_offsets [M + 1], edge [W, F_e], node [V, F_n], node_type [V], saliency [W],\n"
    "condition [M, 4]): a WeightGraphBatch with order=\"model\" and the features of its models, one after the other.\n"
    "Raises TypeError for a wrong type or dtype, ValueError for anything else that is wrong.";

constexpr const char* kBackwardDoc =
    "The gradient of the parameters, float32 [P], given those of the heads (score, relative, additive, node).\n\n"
    "The tapes are those of forward with the same parameters and batch. Of edges with the same largest message the\n"
    "first takes the gradient of a maximum. The bits do not depend on num_threads. Raises as forward does.";

}  // namespace

void bind_gradient(py::module_& m) {
    py::class_<Differentiable>(m, "DifferentiableMetanet", kClassDoc)
        .def(py::init([](const std::string& form, py::ssize_t d_e, py::ssize_t d_v, py::ssize_t n_layers,
                         py::ssize_t head_hidden, py::ssize_t n_edge_features, py::ssize_t n_node_features,
                         py::ssize_t n_node_types, bool edits_parameters, float score_gain) {
                 return Differentiable({form, d_e, d_v, n_layers, head_hidden, n_edge_features, n_node_features,
                                        n_node_types, edits_parameters},
                                       score_gain);
             }),
             py::kw_only(), py::arg("form"), py::arg("d_e"), py::arg("d_v"), py::arg("n_layers"),
             py::arg("head_hidden"), py::arg("n_edge_features"), py::arg("n_node_features"), py::arg("n_node_types"),
             py::arg("edits_parameters"), py::arg("score_gain"))
        .def_property_readonly("parameters", &Differentiable::parameters,
                               "Names and shapes of the parameters, in the order in which they are joined.")
        .def_property_readonly("tape_floats", &Differentiable::tape_floats,
                               "Floats on the tapes: per edge, identity edges too, and per node, with one node more\n"
                               "for each model.")
        .def("forward", &Differentiable::forward, py::arg("parameters"), py::arg("batch"), py::kw_only(),
             py::arg("num_threads"), py::arg("isa") = py::none(), kForwardDoc)
        .def("backward", &Differentiable::backward, py::arg("parameters"), py::arg("batch"), py::arg("edge_tape"),
             py::arg("node_tape"), py::arg("gradients"), py::kw_only(), py::arg("num_threads"),
             py::arg("isa") = py::none(), kBackwardDoc);
}

}  // namespace metaedit::python
