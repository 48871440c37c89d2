"""The operator ``Metanetwork_v1`` against the torch module, and the structure that is derived from layers and skips."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

torch = pytest.importorskip("torch")

from metaedit_fast.export.builder import INT64, GraphBuilder, tensor  # noqa: E402
from metaedit_fast.export.onnx import build_network  # noqa: E402
from metaedit_fast.export.operators import structure  # noqa: E402
from metaedit_fast.export.operators.network import OUTPUTS  # noqa: E402
from metaedit_fast.export.session import EditorSession, network_inputs, structure_inputs  # noqa: E402
from metaedit_fast.export.weights import network_weights, weight_shapes  # noqa: E402
from metaedit_fast.graph import WeightGraphBatch  # noqa: E402
from metaedit_fast.metanet.apply import Heads, node_parameters  # noqa: E402
from metaedit_fast.metanet.config import MetanetConfig  # noqa: E402
from metaedit_fast.metanet.features import ModelFeatures, model_features  # noqa: E402
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork  # noqa: E402
from metaedit_fast.models.mlp import MLP  # noqa: E402
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec  # noqa: E402
from metaedit_fast.models.statistics import probe_statistics  # noqa: E402
from metaedit_fast.requirements.pruning import Pruning  # noqa: E402

N_INPUTS = 5
VARIANTS = [(f, p, e) for f in ("shipped", "official") for p in (False, True) for e in (False, True)]


@functools.cache
def network(form: str = "shipped", probe: bool = False, edits: bool = True) -> Metanetwork:
    config = MetanetConfig(
        N_INPUTS, 2, form, d_e=8, d_v=12, n_layers=2, head_hidden=8, probe=probe, edits_parameters=edits
    )
    torch.manual_seed(1)
    net = Metanetwork(config)
    with torch.no_grad():  # no part may be silent, so that every wrong connection shows
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


def model_of(net: Metanetwork) -> onnx.ModelProto:
    return build_network(net.config, network_weights(net))


@functools.cache
def session(*variant: object) -> EditorSession:
    return EditorSession(model_of(network(*variant)))


@st.composite
def mlps(draw: st.DrawFn) -> MLP:
    hidden = draw(st.lists(st.integers(1, 9), max_size=4))
    layers = [
        LayerSpec(width, draw(st.sampled_from(ACTIVATIONS)), norm=draw(st.sampled_from(["none", "layer"])))
        for width in hidden
    ]
    pairs = [(s, t) for t in range(1, len(hidden) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=4)) if pairs else []
    spec = MLPSpec(N_INPUTS, (*layers, LayerSpec(draw(st.sampled_from([1, 2])))), tuple(skips))
    return random_mlp(spec, draw(st.integers(0, 2**32 - 1)))


def random_mlp(spec: MLPSpec, seed: int = 0) -> MLP:
    return MLP(spec, np.random.default_rng(seed).standard_normal(spec.n_parameters) * 0.6)


def features_of(net: Metanetwork, mlp: MLP) -> ModelFeatures:
    rows = np.random.default_rng(3).standard_normal((16, net.config.n_inputs))
    return model_features(mlp, net.config, probe_statistics(mlp, rows) if net.config.probe else None)


def conditions_of(budgets: list[float]) -> np.ndarray:
    return np.stack([Pruning().condition(budget) for budget in budgets])


def torch_heads(net: Metanetwork, models: list[MLP], features: list[ModelFeatures], budgets: list[float]) -> Heads:
    with torch.no_grad():
        found = net(MetanetInputs.build(models, features, torch.from_numpy(conditions_of(budgets))))
    return Heads(*(getattr(found, name).numpy() for name in OUTPUTS))


def assert_close(found: Heads, expected: Heads, limit: float) -> None:
    for name in OUTPUTS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == np.float32
        assert a.shape == b.shape, name
        assert np.linalg.norm(a - b) <= limit * np.linalg.norm(b), name


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v[0]}{'-probe' * v[1]}{'-mask_only' * (not v[2])}")
@settings(max_examples=25, deadline=None)
@given(models=st.lists(mlps(), min_size=1, max_size=4), data=st.data())
def test_agrees_with_torch(variant: tuple[str, bool, bool], models: list[MLP], data: st.DataObject) -> None:
    net = network(*variant)
    budgets = [data.draw(st.floats(0, 0.99)) for _ in models]
    features = [features_of(net, mlp) for mlp in models]
    inputs = network_inputs([mlp.spec for mlp in models], features, conditions_of(budgets))
    found = Heads(**session(*variant).run(inputs))
    assert_close(found, torch_heads(net, models, features, budgets), 1e-5)


@pytest.mark.parametrize("form", ["shipped", "official"])
def test_agrees_with_torch_at_full_size(form: str) -> None:
    torch.manual_seed(0)
    net = Metanetwork(MetanetConfig(14, 2, form))
    skips = [(0, 2), (1, 2), (1, 3)]
    specs = [MLPSpec.simple((14, *hidden, 2), norm="layer") for hidden in ((), (6,))]
    specs.append(MLPSpec.simple((14, 48, 48, 20, 2), norm="layer", skips=skips))
    models = [random_mlp(spec) for spec in specs]
    features = [features_of(net, mlp) for mlp in models]
    found = Heads(**EditorSession(model_of(net)).run(network_inputs(specs, features, conditions_of([0.9] * 3))))
    assert_close(found, torch_heads(net, models, features, [0.9] * 3), 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_initializers_are_the_state_dict(variant: tuple[str, bool, bool]) -> None:
    net = network(*variant)
    state = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert dict(weight_shapes(net.config)) == state
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model_of(net).graph.initializer}
    assert stored.keys() == state.keys()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(stored[name], value.numpy(), strict=True)


@pytest.mark.parametrize("form", ["shipped", "official"])
@pytest.mark.parametrize("skips", [(), ((0, 1), (1, 2))])
def test_runs_in_the_reference_evaluator(form: str, skips: tuple[tuple[int, int], ...]) -> None:
    net = network(form)
    models = [random_mlp(MLPSpec.simple((N_INPUTS, 4, 3, 2), skips=skips)), random_mlp(MLPSpec.simple((N_INPUTS, 1)))]
    features = [features_of(net, mlp) for mlp in models]
    inputs = network_inputs([mlp.spec for mlp in models], features, conditions_of([0.5, 0.9]))
    found = ReferenceEvaluator(model_of(net)).run(list(OUTPUTS), dict(inputs))
    assert_close(Heads(*found), torch_heads(net, models, features, [0.5, 0.9]), 1e-5)


def test_weights_that_do_not_fit_are_named() -> None:
    net = network()
    good = network_weights(net)
    wrong = {
        "got none": {k: v for k, v in good.items() if k != "layers.1.update.bias"},
        r"float32 \(8,\), got float64": {**good, "layers.1.update.bias": np.zeros(8)},
        r"got float32 \(9,\)": {**good, "layers.1.update.bias": np.zeros(9, np.float32)},
        "finite": {**good, "layers.1.update.bias": np.full(8, np.nan, np.float32)},
    }
    for message, weights in wrong.items():
        with pytest.raises(ValueError, match=r"parameter layers\.1\.update\.bias: .*" + message):
            build_network(net.config, weights)
    with pytest.raises(ValueError, match="parameter other: the config has none such"):
        build_network(net.config, {**good, "other": good["skip_edge"]})


# --- the structure ---


@functools.cache
def structure_session() -> EditorSession:
    """Gives all results of the three operators, as 64-bit integers."""
    g = GraphBuilder()
    found = structure.structure(g)
    parts = {"": found, "skip_": structure.skip_edges(g, found), "theta_": structure.parameters(g, found)}
    results = {f"{prefix}{name}": x for prefix, part in parts.items() for name, x in vars(part).items()}
    matrices = ("skip_at_target", "skip_at_source", "theta_rest", "theta_present", "theta_owned")
    for name, result in results.items():
        g.rename(g.cast(result, INT64), name)
    outputs = [tensor(name, INT64, *([None] * (2 if name in matrices else 1))) for name in results]
    inputs = [tensor("layers", INT64, "L", 6), tensor("skips", INT64, "K", 3)]
    return EditorSession(g.model("structure", inputs, outputs, {}, structure.functions()))


def test_skips_of_a_small_model() -> None:
    found = structure_session().run(structure_inputs([MLPSpec.simple((2, 3, 3, 1), skips=[(0, 1), (0, 2), (1, 2)])]))
    # Skip edges 0, 1 join layers 0 and 1; 2, 3 layers 0 and 2; 4, 5, 6 layers 1 and 2; 7 stands for none.
    assert found["skip_at_source"].T.tolist() == [[0, 2], [1, 3], [4, 7], [5, 7], [6, 7], *[[7, 7]] * 4]
    assert found["skip_at_target"].T.tolist() == [[7, 7]] * 2 + [[0, 7], [1, 7], [7, 7], [2, 4], [3, 5], [7, 6], [7, 7]]
    assert found["in_row"].tolist() == [7, 7, 0, 1, 2, 3, 4, 5, 6]
    assert found["out_row"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert found["place"].tolist() == [-2, -1, 0, 1, 2, 0, 1, 2, 0]


@settings(max_examples=60, deadline=None)
@given(models=st.lists(mlps(), min_size=1, max_size=5))
def test_structure_is_that_of_the_weight_graph(models: list[MLP]) -> None:
    batch = WeightGraphBatch.from_mlps(models)
    found = structure_session().run(structure_inputs(batch.specs))
    dense, skips = batch.to_edge_index()[:, batch.weight_edges], np.ones(batch.n_edges, np.bool_)
    skips[batch.weight_edges] = False
    np.testing.assert_array_equal([found["source"], found["target"]], dense)
    np.testing.assert_array_equal(
        [found["skip_source"], found["skip_target"]], batch.to_edge_index()[:, np.flatnonzero(skips)]
    )
    theta_from, node_from = batch.theta_offsets, batch.node_offsets
    for m, spec in enumerate(batch.specs):
        rest, nodes = node_parameters(spec), slice(node_from[m], node_from[m + 1])
        expected, owned = np.full((sum(spec.widths), 3), -1), np.zeros((sum(spec.widths), 3), np.int64)
        expected[rest.neuron, rest.column] = theta_from[m] + spec.n_weights + np.arange(len(rest.neuron))
        owned[rest.neuron, rest.column] = rest.editable
        present = found["theta_present"][nodes] == 1
        np.testing.assert_array_equal(np.where(present, found["theta_rest"][nodes], -1), expected)
        np.testing.assert_array_equal(found["theta_owned"][nodes], owned)
    weights = [np.arange(spec.n_weights) + start for spec, start in zip(batch.specs, theta_from, strict=False)]
    np.testing.assert_array_equal(found["theta_weights"], np.concatenate(weights))
