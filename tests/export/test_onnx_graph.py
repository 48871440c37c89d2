"""The exported graph against the torch module, in ONNX Runtime and in ONNX's own evaluator."""

from __future__ import annotations

import functools
import threading

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

torch = pytest.importorskip("torch")

from metaedit_fast.export.onnx import build_metanetwork, export_metanetwork  # noqa: E402
from metaedit_fast.export.session import OUTPUTS, EditorSession, model_inputs, topology_inputs  # noqa: E402
from metaedit_fast.export.weights import network_weights, weight_shapes  # noqa: E402
from metaedit_fast.metanet.apply import Heads  # noqa: E402
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


@functools.cache
def session(*variant: object) -> EditorSession:
    return EditorSession(export_metanetwork(network(*variant)))


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
    rows = np.random.default_rng(3).standard_normal((16, N_INPUTS))
    return model_features(mlp, net.config, probe_statistics(mlp, rows) if net.config.probe else None)


def torch_heads(net: Metanetwork, mlp: MLP, features: ModelFeatures, budget: float) -> Heads:
    with torch.no_grad():
        found = net(MetanetInputs.build([mlp], [features], torch.from_numpy(Pruning().condition(budget))[None]))
    return Heads(*(getattr(found, name).numpy() for name in OUTPUTS))


def assert_close(found: Heads, expected: Heads, limit: float) -> None:
    for name in OUTPUTS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == np.float32
        assert a.shape == b.shape, name
        assert np.linalg.norm(a - b) <= limit * np.linalg.norm(b), name


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v[0]}{'-probe' * v[1]}{'-mask_only' * (not v[2])}")
@settings(max_examples=25, deadline=None)
@given(mlp=mlps(), budget=st.floats(0, 0.99))
def test_agrees_with_torch(variant: tuple[str, bool, bool], mlp: MLP, budget: float) -> None:
    net = network(*variant)
    features = features_of(net, mlp)
    found = session(*variant).heads(mlp, features, Pruning().condition(budget))
    assert_close(found, torch_heads(net, mlp, features, budget), 1e-5)


@pytest.mark.parametrize("form", ["shipped", "official"])
@pytest.mark.parametrize("hidden", [(), (6,), (48, 48, 20)])
def test_agrees_with_torch_at_full_size(form: str, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Metanetwork(MetanetConfig(14, 2, form))
    skips = [(0, 2), (1, 2), (1, 3)] if len(hidden) == 3 else []
    mlp = random_mlp(MLPSpec.simple((14, *hidden, 2), norm="layer", skips=skips))
    features = features_of(net, mlp)
    found = EditorSession(export_metanetwork(net)).heads(mlp, features, Pruning().condition(0.9))
    assert_close(found, torch_heads(net, mlp, features, 0.9), 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_model_is_one_valid_file_of_standard_operators(variant: tuple[str, bool, bool]) -> None:
    model = export_metanetwork(network(*variant))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert not model.functions
    loop = [node for node in model.graph.node if node.op_type == "Loop"]
    nodes = [*model.graph.node, *loop[0].attribute[0].g.node]
    assert all(node.domain == "" for node in nodes)
    assert not {node.op_type for node in nodes} & {"ScatterND", "ScatterElements", "Scatter"}
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert [output.name for output in model.graph.output] == list(OUTPUTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_initializers_are_the_state_dict(variant: tuple[str, bool, bool]) -> None:
    net = network(*variant)
    state = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert dict(weight_shapes(net.config)) == state
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in export_metanetwork(net).graph.initializer}
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(stored[name], value.numpy(), strict=True)


@pytest.mark.parametrize("form", ["shipped", "official"])
@pytest.mark.parametrize("skips", [(), ((0, 1), (1, 2))])
def test_runs_in_the_reference_evaluator(form: str, skips: tuple[tuple[int, int], ...]) -> None:
    net = network(form)
    mlp = random_mlp(MLPSpec.simple((N_INPUTS, 4, 3, 2), skips=skips))
    features = features_of(net, mlp)
    inputs = model_inputs(mlp.spec, features, Pruning().condition(0.5))
    found = ReferenceEvaluator(export_metanetwork(net)).run(list(OUTPUTS), dict(inputs))
    assert_close(Heads(*found), torch_heads(net, mlp, features, 0.5), 1e-5)


@pytest.mark.parametrize("form", ["shipped", "official"])
def test_bits_do_not_depend_on_threads(form: str) -> None:
    torch.manual_seed(0)
    net = Metanetwork(MetanetConfig(14, 2, form))
    model = export_metanetwork(net).SerializeToString()
    sessions = [EditorSession(model, n_threads=n) for n in (1, 2, 8)]
    for widths in ((14, 2), (14, 1, 1), (14, 33, 7, 2), (14, 64, 64, 64, 2)):
        mlp = random_mlp(MLPSpec.simple(widths, skips=[(1, 2)] if len(widths) > 3 else []))
        features = features_of(net, mlp)
        first, *others = [s.heads(mlp, features, Pruning().condition(0.9)) for s in sessions for _ in range(2)]
        for other in others:
            assert all(getattr(first, name).tobytes() == getattr(other, name).tobytes() for name in OUTPUTS)


def test_one_session_serves_many_threads() -> None:
    net = network()
    models = [random_mlp(MLPSpec.simple((N_INPUTS, width, 2)), seed=width) for width in range(1, 20)]
    features = [features_of(net, mlp) for mlp in models]
    expected = [
        session().heads(m, f, Pruning().condition(0.5)).score.tobytes() for m, f in zip(models, features, strict=True)
    ]
    found: list[list[bytes]] = [[] for _ in range(4)]

    def work(mine: list[bytes]) -> None:
        mine += [
            session().heads(m, f, Pruning().condition(0.5)).score.tobytes()
            for m, f in zip(models, features, strict=True)
        ]

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == expected for mine in found)


def test_topology_of_a_small_model() -> None:
    inputs = topology_inputs(MLPSpec.simple((2, 3, 3, 1), skips=[(0, 1), (0, 2), (1, 2)]))
    assert inputs["blocks"].tolist() == [[0, 2, 3], [6, 3, 3], [15, 3, 1]]
    assert len(inputs["source"]) == len(inputs["target"]) == 18 + 2 + 2 + 3
    # Skip edges 0, 1 join layers 0 and 1; 2, 3 layers 0 and 2; 4, 5, 6 layers 1 and 2; 7 stands for none.
    assert inputs["skip_out"].tolist() == [[0, 2], [1, 3], [4, 7], [5, 7], [6, 7], *[[7, 7]] * 4]
    assert inputs["skip_in"].tolist() == [[7, 7]] * 2 + [[0, 7], [1, 7], [7, 7], [2, 4], [3, 5], [6, 7], [7, 7]]
    assert inputs["in_degree"].tolist() == [0, 0, 3, 3, 2, 5, 5, 4, 3]
    assert inputs["out_degree"].tolist() == [5, 5, 4, 4, 4, 1, 1, 1, 0]


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
            build_metanetwork(net.config, weights)
    with pytest.raises(ValueError, match="parameter other: the config has none such"):
        build_metanetwork(net.config, {**good, "other": good["skip_edge"]})
