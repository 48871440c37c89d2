"""The graphs of editors: whole edits of batches, beside the compiled kernels and in ONNX's own evaluator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from metaedit_fast import _core
from metaedit_fast.data import Table
from metaedit_fast.editing import batch as batches
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.editing.session_engine import SessionEngine
from metaedit_fast.export.builder import DOMAIN
from metaedit_fast.export.onnx import build_editor
from metaedit_fast.export.session import EditorSession, structure_inputs
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec
from metaedit_fast.requirements.masks import kept_count

N_INPUTS = 5
CONTEXTS = {"pruning": "none", "data_minimisation": "inputs", "equalized_odds": "groups"}
# (requirement, form, probe, edits_parameters)
VARIANTS = [
    *(("pruning", form, probe, edits) for form in ("shipped", "official") for probe in (0, 1) for edits in (0, 1)),
    *(("data_minimisation", form, probe, 1) for form in ("shipped", "official") for probe in (0, 1)),
    ("data_minimisation", "shipped", 1, 0),
    *(("equalized_odds", form, 1, 1) for form in ("shipped", "official")),
    ("equalized_odds", "shipped", 1, 0),
]
BUDGETS = (0.5, 0.05, 0.98, 0.8)
RNG = np.random.default_rng(5)
X = RNG.standard_normal((300, N_INPUTS)).astype(np.float32)
PROBE = Table(X, (X @ RNG.standard_normal(N_INPUTS) > 0).astype(np.int64), sensitive=np.where(X[:, 0] > 0, "f", "m"))


def config_of(requirement: str, form: str, probe: int, edits: int) -> MetanetConfig:
    context = CONTEXTS[requirement]
    sizes = {"d_e": 8, "d_v": 12, "n_layers": 2, "head_hidden": 8}
    return MetanetConfig(N_INPUTS, 2, form, probe=bool(probe), edits_parameters=bool(edits), context=context, **sizes)


@functools.cache
def weights_of(config: MetanetConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: np.asarray((0.3 if len(shape) < 2 else shape[1] ** -0.5) * rng.standard_normal(shape), np.float32)
        for name, shape in weight_shapes(config)
    }


@functools.cache
def editor(engine: str, *variant: object) -> Editor:
    config = config_of(*variant)
    info = EditorInfo("trial", config, Envelope((0, 4), (1, 64), ACTIVATIONS, NORMS, 8), requirement=variant[0])
    return Editor(info, weights_of(config), engine=engine)


@functools.cache
def model_of(*variant: object) -> onnx.ModelProto:
    config = config_of(*variant)
    return build_editor(config, variant[0], weights_of(config))


def random_mlp(spec: MLPSpec, seed: int = 0) -> MLP:
    return MLP(spec, np.random.default_rng(seed).standard_normal(spec.n_parameters) * 0.6)


@functools.cache
def models(requirement: str) -> list[MLP]:
    """One-neuron layers, skips, layer norm, one output, no hidden layer, parameters that the model does not own,
    weights that are 0 already; where inputs are removed none skips.
    """
    frozen = (LayerSpec(4, "tanh", norm="layer", norm_affine=False), LayerSpec(3, "gelu", bias=False), LayerSpec(2))
    first = 1 if requirement == "data_minimisation" else 0
    specs = [
        MLPSpec.simple((N_INPUTS, 2)),
        MLPSpec.simple((N_INPUTS, 1, 1)),
        MLPSpec.simple((N_INPUTS, 6, 4, 3, 2), "silu", "layer", skips=[(first, 2), (first, 3), (1, 3)]),
        MLPSpec(N_INPUTS, frozen),
        MLPSpec.simple((N_INPUTS, 9, 1), "relu", skips=[] if first else [(0, 1)]),
        MLPSpec.simple((N_INPUTS, 24, 16, 2), "tanh", "layer"),
        MLPSpec.simple((N_INPUTS, 1, 7, 1, 2), "sigmoid", skips=[(1, 2)]),
    ]
    found = [random_mlp(spec, seed) for seed, spec in enumerate(specs)]
    found[2].theta[[0, 7, 31]] = 0.0
    found[5].theta[::3] = 0.0
    return found


def budgets_of(count: int) -> list[float]:
    return [BUDGETS[m % len(BUDGETS)] for m in range(count)]


def plain_inputs(requirement: str, form: str, probe: int, edits: int, count: int) -> dict[str, np.ndarray]:
    """What the engine gives to the session for the first ``count`` models."""
    seen: list[dict[str, np.ndarray]] = []

    class Recording(SessionEngine):
        def start(self, job, *, num_threads):  # type: ignore[no-untyped-def]
            inner = self._session

            class Session:
                def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                    seen.append(inputs)
                    return inner.run(inputs)

            self._session = Session()  # type: ignore[assignment]
            return super().start(job, num_threads=num_threads)

    config = config_of(requirement, form, probe, edits)
    subject = editor("onnxruntime", requirement, form, probe, edits)
    recording = Editor(subject.info, subject.weights, engine="onnxruntime")
    recording._running = Recording(config, requirement, subject.weights)
    recording.edit_batch(models(requirement)[:count], budgets_of(count), probe=PROBE if probe else None, num_threads=1)
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_engines_agree(variant: tuple[str, str, int, int]) -> None:
    own = models(variant[0])
    budgets = budgets_of(len(own))
    probe = PROBE if variant[2] else None
    native, found = (editor(e, *variant).edit_batch(own, budgets, probe=probe) for e in ("native", "onnxruntime"))
    for mlp, budget, a, b in zip(own, budgets, native, found, strict=True):
        n = mlp.spec.n_weights
        np.testing.assert_array_equal(a[:n] == 0, b[:n] == 0)
        if variant[0] == "pruning":
            assert np.count_nonzero(b[:n]) == min(kept_count(n, budget), np.count_nonzero(mlp.theta[:n]))
        if variant[3]:
            assert not np.array_equal(b, mlp.theta)
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(a)
        assert (b[~mlp.spec.owned_parameters] == mlp.theta[~mlp.spec.owned_parameters]).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_kernels_take_the_place_of_functions(variant: tuple[str, str, int, int]) -> None:
    inputs, model = plain_inputs(*variant, count=7), model_of(*variant)
    plain, fast = EditorSession(model), EditorSession(model, kernels=True)
    assert (plain.runs_kernels, fast.runs_kernels) == (False, True)
    before = _core.ort_call_count()
    expected = plain.run(inputs)
    assert _core.ort_call_count() == before
    found = fast.run(inputs)
    assert _core.ort_call_count() - before == {"pruning": 1, "data_minimisation": 3, "equalized_odds": 2}[variant[0]]
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["edited"] == 0, expected["edited"] == 0)
    assert np.linalg.norm(found["edited"] - expected["edited"]) <= 1e-6 * np.linalg.norm(expected["edited"])
    for name, values in expected.items():
        if values.dtype == np.bool_:
            np.testing.assert_array_equal(found[name], values)
        else:
            assert np.linalg.norm(found[name] - values) <= 2e-6 * np.linalg.norm(values), name


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_model_is_one_valid_file_of_standard_operators(variant: tuple[str, str, int, int]) -> None:
    model = model_of(*variant)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18), (DOMAIN, 1)]
    defined = {function.name for function in model.functions}
    assert {node.op_type for node in model.graph.node if node.domain == DOMAIN} <= defined
    assert all(name.endswith("_v1") for name in defined)
    for function in model.functions:
        for node in all_nodes(function.node):
            assert node.domain in ("", DOMAIN)
            assert node.domain == "" or node.op_type in defined
            assert not [a for a in node.attribute if a.name == "reduction"], "scatter with a reduction is a race"
    assert {t.name for t in model.graph.initializer} == {name for name, _ in weight_shapes(config_of(*variant))}
    used = {node.op_type for f in model.functions for node in all_nodes(f.node) if node.domain == DOMAIN}
    assert defined == used | {node.op_type for node in model.graph.node if node.domain == DOMAIN}


def all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g.node)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_runs_in_the_reference_evaluator(variant: tuple[str, str, int, int]) -> None:
    inputs = plain_inputs(*variant, count=4)
    expected = EditorSession(model_of(*variant)).run(inputs)
    found = ReferenceEvaluator(model_of(*variant)).run(list(expected), dict(inputs))
    for name, value in zip(expected, found, strict=True):
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=2e-5)


def batch_of_large_models() -> list[MLP]:
    specs = [MLPSpec.simple((5, 2)), MLPSpec.simple((5, 1, 1)), MLPSpec.simple((5, 33, 7, 2), skips=[(1, 2)])]
    specs += [MLPSpec.simple((5, 64, 64, 64, 2), norm="layer", skips=[(0, 3), (1, 3)])] * 2
    return [random_mlp(spec, seed) for seed, spec in enumerate(specs)]


def batch_of_many_models() -> list[MLP]:
    rng = np.random.default_rng(4)
    widths = [rng.integers(1, 24, rng.integers(1, 4)).tolist() for _ in range(60)]
    return [random_mlp(MLPSpec.simple((5, *hidden, 2), "tanh"), seed) for seed, hidden in enumerate(widths)]


@pytest.mark.parametrize("batch", [batch_of_large_models, batch_of_many_models])
@pytest.mark.parametrize("form", ["shipped", "official"])
def test_bits_do_not_depend_on_threads(form: str, batch: Callable[[], list[MLP]]) -> None:
    """Runtimes group the terms of some sums by threads, and compute what is left over by another formula."""
    config = MetanetConfig(5, 2, form, n_layers=2)
    model = build_editor(config, "pruning", weights_of(config)).SerializeToString()
    own = batch()
    theta = np.concatenate([mlp.theta for mlp in own])
    inputs = {"theta": theta, **structure_inputs([mlp.spec for mlp in own]), "budget": np.full(len(own), 0.9)}
    results = [EditorSession(model, n_threads=n).run(inputs) for n in (1, 2, 3, 8)]
    for name in ("edited", "score"):
        assert len({result[name].tobytes() for result in results}) == 1


def test_repeated_calls_on_many_threads_give_the_same_bits() -> None:
    variant = ("pruning", "shipped", 0, 1)
    inputs = plain_inputs(*variant, count=3)
    session = EditorSession(model_of(*variant), n_threads=8)
    assert len({session.run(inputs)["edited"].tobytes() for _ in range(200)}) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.sampled_from([v for v in VARIANTS if v[3]]))
def test_neighbours_change_no_bit(chosen: list[int], variant: tuple[str, str, int, int]) -> None:
    subject, probe = editor("onnxruntime", *variant), PROBE if variant[2] else None
    own, budgets = [models(variant[0])[i] for i in chosen], [budgets_of(7)[i] for i in chosen]
    found = subject.edit_batch(own, budgets, probe=probe, num_threads=1)
    for mlp, budget, theta in zip(own, budgets, found, strict=True):
        assert subject.edit_theta(mlp, budget, probe=probe).tobytes() == theta.tobytes()


def test_chunks_and_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, own = editor("onnxruntime", "pruning", "shipped", 0, 1), models("pruning") * 9
    expected = subject.edit_batch(own, 0.7, num_threads=1)
    assert subject.edit_batch([], 0.7) == []
    for chunk, threads in ((1, 1), (200, 3), (700, 2), (10**6, 4)):
        monkeypatch.setattr("metaedit_fast.editing.session_engine.CHUNK", chunk)
        found = batches.edit_models(subject, own, 0.7, num_threads=threads)
        assert [theta.tobytes() for theta in found.thetas] == [theta.tobytes() for theta in expected]
        assert (found.seconds > 0).all()


def test_a_batch_of_no_models_gives_nothing() -> None:
    inputs = {"theta": np.zeros(0, np.float32), **structure_inputs([]), "budget": np.zeros(0)}
    found = EditorSession(model_of("pruning", "shipped", 0, 1)).run(inputs)
    assert [value.shape for value in found.values()] == [(0,), (0,)]


def test_scores_tell_what_float32_cannot_hold() -> None:
    variant = ("pruning", "shipped", 0, 0)  # writes no number that is not in θ, so that the scores alone tell
    good = models("pruning")[2]
    huge = good.replace(np.where(good.theta == 0, 0, 1e30 * np.sign(good.theta)))
    inputs = {"theta": np.concatenate([huge.theta, good.theta]), **structure_inputs([good.spec] * 2)}
    found = EditorSession(model_of(*variant)).run({**inputs, "budget": np.full(2, 0.5)})
    n = good.spec.n_weights
    assert np.isnan(found["score"][:n]).any()
    assert np.isfinite(found["score"][n:]).all()
    failures = batches.edit_models(editor("onnxruntime", *variant), [huge, good], 0.5).failures
    assert list(failures) == [0]


def test_scores_and_inputs_that_stay_are_outputs() -> None:
    found = EditorSession(model_of("data_minimisation", "shipped", 1, 1)).run(
        plain_inputs("data_minimisation", "shipped", 1, 1, count=7)
    )
    expected = [kept_count(N_INPUTS, budget) for budget in budgets_of(7)]
    assert found["kept"].sum(axis=1).tolist() == expected
    for scores, kept in zip(found["score"], found["kept"], strict=True):
        assert scores[kept].min() >= np.max(scores[~kept], initial=-np.inf)


def test_arguments_that_make_no_sense() -> None:
    config = config_of("pruning", "shipped", 0, 1)
    with pytest.raises(ValueError, match="requirement: expected one of .*got 'beauty'"):
        build_editor(config, "beauty", weights_of(config))
    with pytest.raises(ValueError, match="config context: expected 'inputs' for data_minimisation, got 'none'"):
        build_editor(config, "data_minimisation", weights_of(config))
