"""The compiled core as ONNX Runtime's library of custom operators: its kernels, its checks, its settings."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaedit_fast
from metaedit_fast import _core
from metaedit_fast.export import library
from metaedit_fast.metanet import native
from metaedit_fast.metanet.config import MetanetConfig

N_INPUTS = 5
SMALL = {"d_v": 12, "n_layers": 2, "head_hidden": 8}
CONFIGS = {
    f"{form}-{what}": MetanetConfig(
        N_INPUTS, form=form, **SMALL, probe=what == "probe", edits_parameters=what != "mask"
    )
    for form in ("shipped", "official")
    for what in ("weights", "probe", "mask")
}
SIZES = {"none": 0, "one": 1, "seven": 7, "many": 40}
Feed = dict[str, np.ndarray]


def run(model: bytes, feed: Feed, **options: Any) -> list[np.ndarray]:
    """What a session with kernels gives; it is an error if none ran."""
    opened = library.open_session(model, kernels=True, **options)
    assert opened.runs_kernels
    before = _core.ort_call_count()
    found = opened.session.run(None, feed)
    assert _core.ort_call_count() == before + 1
    return found


def same_bits(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


def test_the_public_path_is_the_core() -> None:
    assert metaedit_fast.ort_library_path() == _core.__file__


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_kernels_give_the_bits_of_the_native_functions(nodes: Any, name: str, size: str) -> None:
    config = CONFIGS[name]
    case = nodes.case(config, nodes.models(SIZES[size]))
    assert same_bits(run(nodes.edit(config).model(), case.edit_feed), case.native_edit())
    found = run(nodes.features(config).model(), case.features_feed)
    for values, field in zip(found, ("edge", "saliency", "rms", "node", "node_type"), strict=True):
        own = [getattr(features, field) for features in case.features]
        assert values.tobytes() == b"".join(x.tobytes() for x in own), field
    heads = native.metanetwork_forward(
        native.pack(config, nodes.weights(config)), case.batch, case.features, case.condition, num_threads=1
    )
    expected = [heads.score, heads.relative, heads.additive, heads.node]
    assert same_bits(run(nodes.network(config).model(), case.network_feed(found)), expected)


@pytest.mark.parametrize("precision", native.PRECISIONS)
@pytest.mark.parametrize("isa", _core.available_isas())
def test_a_session_chooses_the_arithmetic(nodes: Any, isa: str, precision: str) -> None:
    config = CONFIGS["shipped-weights"]
    case = nodes.case(config, nodes.models(7))
    found = run(nodes.edit(config).model(), case.edit_feed, isa=isa, precision=precision)
    assert same_bits(found, case.native_edit(isa=isa, precision=precision))


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_no_bit_depends_on_threads(nodes: Any, n_threads: int) -> None:
    config = CONFIGS["shipped-weights"]
    case = nodes.case(config, nodes.models(7))
    assert same_bits(run(nodes.edit(config).model(), case.edit_feed, n_threads=n_threads), case.native_edit())


# ---- Weights ----


def test_weights_that_are_fed_are_packed_anew_when_they_change(nodes: Any) -> None:
    config = CONFIGS["official-weights"]
    case = nodes.case(config, nodes.models(3))
    session = library.open_session(nodes.edit(config).model(fed_weights=True), kernels=True).session
    for seed in (0, 1, 1, 0):
        found = session.run(None, {**case.edit_feed, **nodes.weights(config, seed)})
        assert same_bits(found, case.native_edit(seed))


def test_threads_share_a_session_with_models_and_weights_of_their_own(nodes: Any) -> None:
    config = CONFIGS["shipped-probe"]
    session = library.open_session(nodes.edit(config).model(fed_weights=True), kernels=True).session
    cases = [nodes.case(config, nodes.models(3, seed), seed) for seed in range(4)]
    expected = [case.native_edit(seed) for seed, case in enumerate(cases)]
    failures: list[str] = []

    def work(i: int) -> None:
        for turn in range(5):
            seed = (i + turn) % len(cases)
            found = session.run(None, {**cases[seed].edit_feed, **nodes.weights(config, seed)})
            if not same_bits(found, expected[seed]):
                failures.append(f"thread {i}, turn {turn}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_a_model_that_float32_cannot_hold_stays_and_says_so(nodes: Any, value: float) -> None:
    config = CONFIGS["shipped-weights"]
    case = nodes.case(config, nodes.models(3))
    first, last = case.batch.theta_offsets[1:3]
    case.theta[first] = value
    edited, score = run(nodes.edit(config).model(), case.edit_feed)
    assert edited[first:last].tobytes() == case.theta[first:last].tobytes()
    n_weights = [mlp.spec.n_weights for mlp in case.models]
    of_model = np.split(score, np.cumsum(n_weights)[:-1])
    assert np.isnan(of_model[1]).all()
    assert np.isfinite(of_model[0]).all()
    assert np.isfinite(of_model[2]).all()
    assert not np.array_equal(edited[last:], case.theta[last:])


# ---- What is refused ----


def changed(name: str, place: Any, value: float) -> Any:
    def change(feed: Feed) -> Feed:
        array = feed[name].copy()
        array[place] = value
        return {**feed, name: array}

    return change


def cut(name: str) -> Any:
    return lambda feed: {**feed, name: feed[name][:-1]}


WRONG = {
    "a model left out": (changed("layers", (slice(3, None), 0), 2), r"layers\[3\]: model: expected 0 or 1, got 2"),
    "the first model is not 0": (changed("layers", (0, 0), 1), r"layers\[0\]: model: expected 0, got 1"),
    "a model number beyond all": (changed("layers", (-1, 0), 2**62), r"model: expected"),
    "layers that do not meet": (changed("layers", (1, 1), 3), r"layers\[1\]: n_in: expected 9, the outputs"),
    "no outputs": (changed("layers", (2, 2), 0), r"layers, skips of model 0: width: expected 1 to 2\^24, got 0"),
    "a width beyond all": (changed("layers", (2, 2), 2**62), r"width: expected 1 to 2\^24"),
    "other inputs": (changed("layers", (0, 1), 6), r"layers of model 0: expected 5 inputs and 2 classes, got 6 inputs"),
    "other outputs": (changed("layers", (2, 2), 3), r"layers of model 0: expected 5 inputs and 2 classes"),
    "no such activation": (changed("layers", (0, 3), 10), r"activation: expected an index"),
    "no such norm": (changed("layers", (0, 4), 2), r"layers\[0\]: norm: expected 0 \(none\) or 1 \(layer\), got 2"),
    "no such ownership": (changed("layers", (0, 5), -1), r"layers\[0\]: owned: expected 0 to 3, got -1"),
    "a skip of no model": (changed("skips", (0, 0), 2), r"skips\[0\]: model: expected 0 to 1, got 2"),
    "a skip twice": (changed("skips", (1, slice(None)), [0, 0, 1]), r"skips\[1\]: model: expected rows in rising"),
    "a skip backwards": (changed("skips", (1, 1), 2), r"expected source < target"),
    "a skip to the outputs": (changed("skips", (1, 2), 3), r"skips: target: expected a hidden layer, below 3, got 3"),
    "a skip from nowhere": (changed("skips", (0, 1), -1), r"expected source < target"),
    "theta too short": (cut("theta"), r"theta: expected float32 of shape \[\d+\], got float32 of shape \[\d+\]"),
    "a condition too few": (cut("condition"), r"condition: expected"),
    "a gain too few": (cut("gain"), r"gain: expected"),
    "a count too few": (cut("kept"), r"kept: expected"),
    "a negative count": (changed("kept", 1, -1), r"kept\[1\]: expected 0 to \d+, got -1"),
    "too large a count": (changed("kept", 0, 10**6), r"kept\[0\]: expected 0 to \d+, got 1000000"),
    "a mean too few": (cut("mean"), r"mean: expected"),
    "a std too few": (cut("std"), r"std: expected"),
    "a gradient too few": (cut("gradient"), r"gradient: expected"),
    "a fisher too few": (cut("fisher"), r"fisher: expected"),
}


@pytest.fixture(scope="module")
def editing(nodes: Any) -> tuple[onnxruntime.InferenceSession, Feed]:
    """A session for the edit, and two models: three layers with two skips, one layer."""
    from metaedit_fast.models.mlp import MLP
    from metaedit_fast.models.spec import MLPSpec

    config = CONFIGS["shipped-probe"]
    specs = [MLPSpec.simple((N_INPUTS, 9, 7, 2), skips=[(0, 1), (0, 2)]), MLPSpec.simple((N_INPUTS, 2))]
    rng = np.random.default_rng(0)
    case = nodes.case(config, [MLP(spec, rng.normal(0, 0.7, spec.n_parameters)) for spec in specs])
    return library.open_session(nodes.edit(config).model(), kernels=True).session, case.edit_feed


@pytest.mark.parametrize("what", WRONG)
def test_wrong_inputs_are_named(editing: tuple[onnxruntime.InferenceSession, Feed], what: str) -> None:
    session, feed = editing
    change, message = WRONG[what]
    with pytest.raises(Exception, match=f"metaedit, PrunedEdit_v1: .*{message}"):
        session.run(None, change(feed))
    assert np.isfinite(session.run(None, feed)[1]).all()


def test_the_network_checks_what_it_is_fed(nodes: Any) -> None:
    config = CONFIGS["shipped-weights"]
    case = nodes.case(config, nodes.models(3))
    feed = case.network_feed(run(nodes.features(config).model(), case.features_feed))
    session = library.open_session(nodes.network(config).model(), kernels=True).session
    for change, message in (
        (changed("node_type", 4, config.n_node_types), r"node_type\[4\]: expected 0 to 17, got 18"),
        (changed("node_type", 2, -1), r"node_type\[2\]: expected"),
        (cut("node_type"), "node_type: expected"),
        (cut("edge_features"), "edge_features: expected"),
        (cut("node_features"), "node_features: expected"),
        (cut("saliency"), "saliency: expected"),
        (cut("condition"), "condition: expected those of the 3 models of layers, got 2"),
    ):
        with pytest.raises(Exception, match=f"metaedit, Metanetwork_v1: {message}"):
            session.run(None, change(feed))


@settings(max_examples=150, deadline=None)
@given(
    layers=st.lists(
        st.lists(st.integers(-2, 12) | st.integers(-(2**63), 2**63 - 1), min_size=6, max_size=6), max_size=5
    ),
    skips=st.lists(st.lists(st.integers(-2, 3) | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), max_size=3),
)
def test_tables_of_other_models_are_refused(
    editing: tuple[onnxruntime.InferenceSession, Feed], layers: list[list[int]], skips: list[list[int]]
) -> None:
    session, feed = editing
    tables = {"layers": np.array(layers, np.int64).reshape(-1, 6), "skips": np.array(skips, np.int64).reshape(-1, 3)}
    for n_models in range(3):
        given = {**feed, **tables, **{k: feed[k][:n_models] for k in ("condition", "gain", "kept")}}
        with pytest.raises(Exception, match="metaedit, PrunedEdit_v1: "):
            session.run(None, given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "square"}, "form: expected 'shipped' or 'official', got 'square'"),
        ({"form": None}, "attribute form: expected a text, got none"),
        ({"d_e": 0}, r"attribute d_e: expected 1 to \d+, got 0"),
        ({"d_v": 2**62}, "attribute d_v: expected"),
        ({"n_layers": 2**40}, "attribute n_layers: expected"),
        ({"n_layers": None}, "attribute n_layers: expected an integer, got none"),
        ({"edits_parameters": 2}, "attribute edits_parameters: expected 0 or 1, got 2"),
        ({"score_gain": None}, "attribute score_gain: expected a number, got none"),
        ({"n_inputs": 6}, "attribute n_node_types: expected 19 for these n_inputs, n_classes and probe, got 18"),
        ({"n_classes": 0}, "attributes n_inputs, n_classes: expected"),
        ({"probe": 1}, "attribute n_edge_features: expected 8"),
    ],
)
def test_wrong_attributes_are_named(nodes: Any, changes: dict[str, Any], message: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(library.ort_library_path())
    with pytest.raises(Exception, match=f"metaedit, PrunedEdit_v1: {message}"):
        onnxruntime.InferenceSession(nodes.edit(CONFIGS["shipped-weights"]).model(**changes), options)


def test_weights_must_be_those_of_the_attributes(nodes: Any) -> None:
    config = CONFIGS["shipped-weights"]
    feed = nodes.case(config, nodes.models(1)).edit_feed
    for changes, message in (
        ({"n_layers": 1}, r"weights: expected \d+ inputs, got \d+"),
        ({"d_e": 8}, r"weights\[8\] \(edge_out.weight\): expected float32 of shape \[8, 32\]"),
    ):
        session = library.open_session(nodes.edit(config).model(**changes), kernels=True).session
        with pytest.raises(Exception, match=message):
            session.run(None, feed)


# ---- Settings, and the way back ----


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (library.PRECISION_ENTRY, "float64", "precision: expected 'float32', 'bf16x3' or 'bf16', got 'float64'"),
        (library.ISA_ENTRY, "mmx", "metaedit.isa: "),
        (library.THREADS_ENTRY, "0", r"metaedit.num_threads: expected an integer from 1 to 4096, got '0'"),
        (library.THREADS_ENTRY, "2x", "metaedit.num_threads: expected"),
    ],
)
def test_settings_that_mean_nothing_are_refused(entry: str, value: str, message: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(entry, value)
    with pytest.raises(Exception, match=f"metaedit, RegisterCustomOps: {message}"):
        options.register_custom_ops_library(library.ort_library_path())


def test_threads_of_the_environment(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(library.ort_library_path())
    model = nodes.edit(CONFIGS["shipped-weights"]).model()
    monkeypatch.setenv("METAEDIT_NUM_THREADS", "many")
    with pytest.raises(Exception, match="METAEDIT_NUM_THREADS: expected an integer from 1 to 4096, got 'many'"):
        onnxruntime.InferenceSession(model, options)
    monkeypatch.setenv("METAEDIT_NUM_THREADS", "3")
    onnxruntime.InferenceSession(model, options)


def identity(op: str) -> bytes:
    """A model of one node whose function gives its input back."""
    from onnx import TensorProto, helper

    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("metaedit", 1)]
    body = [helper.make_node("Identity", ["x"], ["y"])]
    function = helper.make_function("metaedit", op, ["x"], ["y"], body, opsets[:1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain="metaedit")], "identity", [x], [y])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("op", "reason"), [("Features_v1", "has input size 1"), ("Other_v1", "the session made none")])
def test_where_no_kernel_fits_the_function_runs_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, op: str, reason: str
) -> None:
    opened = library.open_session(identity(op), kernels=True)
    assert not opened.runs_kernels
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert reason in record.message
    before, x = _core.ort_call_count(), np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(opened.session.run(None, {"x": x})[0], x)
    assert _core.ort_call_count() == before


def test_a_library_that_is_not_there_is_said_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "ort_library_path", lambda: "/nowhere/_core.so")
    assert not library.open_session(identity("Other_v1"), kernels=True).runs_kernels
    assert "/nowhere/_core.so" in caplog.text


def test_without_kernels_no_kernel_runs(caplog: pytest.LogCaptureFixture) -> None:
    assert not library.open_session(identity("Features_v1")).runs_kernels
    assert not caplog.records
