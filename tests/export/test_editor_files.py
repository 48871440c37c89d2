"""Editor files: what comes back, and what is refused: damaged, foreign, newer, hostile."""

from __future__ import annotations

import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from metaedit_fast.editing import bundled
from metaedit_fast.editing.bundled import bundled_editors, bundled_files
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope, load_editor
from metaedit_fast.errors import InvalidEditorError
from metaedit_fast.export import files
from metaedit_fast.export.onnx import build_editor
from metaedit_fast.export.session import EditorSession, structure_inputs
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

CONFIG = MetanetConfig(5, 2, d_e=8, d_v=12, n_layers=2, head_hidden=8)
INFO = EditorInfo("trial", CONFIG, Envelope((1, 3), (2, 16), ("relu",), ("none",), 3))
FULL_INFO = EditorInfo(
    "trial",
    CONFIG,
    INFO.envelope,
    budget_range=(0.4, 0.99),
    data_name="adult",
    data_hash="ab" * 32,
    population_hash="cd" * 32,
    feature_names=tuple("abcde"),
    versions={"torch": "2"},
    metrics={"validation_jsd": {"0.9": 0.0067}},
    created="2024-01-02",
    license="CC BY 4.0, née Ünïcode",
)
SPEC = MLPSpec.simple((5, 6, 2))
MODEL = MLP(SPEC, np.random.default_rng(1).standard_normal(SPEC.n_parameters))


@functools.cache
def editor() -> Editor:
    rng = np.random.default_rng(0)
    weights = {name: np.asarray(0.3 * rng.standard_normal(shape), np.float32) for name, shape in weight_shapes(CONFIG)}
    return Editor(INFO, weights)


def test_saved_editor_comes_back_whole(tmp_path: Path) -> None:
    subject = Editor(FULL_INFO, editor().weights)
    path = tmp_path / "trial.onnx"
    subject.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["trial.onnx"]
    loaded = load_editor(path)
    assert loaded.info == subject.info
    assert loaded.describe() == subject.describe()
    assert loaded.edit_theta(MODEL, 0.8).tobytes() == subject.edit_theta(MODEL, 0.8).tobytes()
    loaded.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    onnx.checker.check_model(onnx.load(path), full_check=True)
    inputs = {"theta": MODEL.theta, **structure_inputs([SPEC]), "budget": np.array([0.8])}
    in_file = EditorSession(path.read_bytes()).run(inputs)["edited"]
    np.testing.assert_allclose(in_file, subject.edit_theta(MODEL, 0.8), rtol=1e-5, atol=1e-6)
    assert repr(loaded).startswith("Editor('trial', pruning, 5 inputs, 2 classes, ")


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.onnx"
    editor().save(path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        Editor(FULL_INFO, editor().weights).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["trial.onnx"]
    with pytest.raises(ValueError, match=r"ends in \.onnx"):
        editor().save(tmp_path / "trial.pt")


# --- files that are not what they should be ---


@pytest.fixture(scope="module")
def good() -> bytes:
    return files.editor_bytes(CONFIG, "pruning", editor().weights, INFO.to_json())


def refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "attack.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidEditorError, match=message) as caught:
        load_editor(path)
    assert "attack.onnx" in str(caught.value)


def with_description(good: bytes, change: Any) -> bytes:
    model = onnx.load_from_string(good)
    entry = next(entry for entry in model.metadata_props if entry.key == files.METADATA_KEY)
    entry.value = change(entry.value) if callable(change) else change
    return bytes(model.SerializeToString())


def with_fields(good: bytes, where: tuple[str, ...] = (), **changes: Any) -> bytes:
    def change(text: str) -> str:
        raw = json.loads(text)
        part = functools.reduce(lambda inner, key: inner[key], where, raw)
        part.update(changes)
        return json.dumps(raw)

    return with_description(good, change)


def test_truncated_files_are_refused(tmp_path: Path, good: bytes) -> None:
    for size in [0, 1, 7, *range(100, len(good), len(good) // 40), len(good) - 1]:
        refused(tmp_path, good[:size], "not an ONNX file|metadata|sha256|has .* values|expected shape")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "not an ONNX file|metadata")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_edit(tmp_path: Path, good: bytes, place: float, bit: int) -> None:
    """It is either found, or lies in the graph, which is for other runtimes, or in the description's texts."""
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 1 << bit
    path = tmp_path / "flipped.onnx"
    path.write_bytes(bytes(damaged))
    try:
        found = load_editor(path).describe()["weights_sha256"]
    except InvalidEditorError as error:
        found = str(error)
    assert found == editor().describe()["weights_sha256"] or "flipped.onnx: " in found


# What stands before them says that they are an initializer's name, and a key.
@pytest.mark.parametrize("text", [b"B\x10node_type.weight", b"\n\x17metaedit_weights_sha256"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, good: bytes, text: bytes) -> None:
    at, text = good.index(text) + 2, text[2:]
    refused(tmp_path, good[:at] + bytes([text[0] | 0x80]) + good[at + 1 :], "not all text")


def test_other_onnx_models_are_refused(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    refused(tmp_path, helper.make_model(graph).SerializeToString(), "expected an ONNX file with metadata 'metaedit'")


def test_descriptions_that_are_wrong_are_refused(tmp_path: Path, good: bytes) -> None:
    refused(tmp_path, with_fields(good, format=2), "format version: expected 1, got 2; a newer")
    refused(tmp_path, with_fields(good, format="1"), "no JSON object with a format version")
    refused(tmp_path, with_description(good, "[]"), "no JSON object")
    refused(tmp_path, with_description(good, "{"), "attack.onnx")
    refused(tmp_path, with_description(good, "[" * 100_000), "attack.onnx")
    refused(tmp_path, with_description(good, lambda text: text.replace('"metrics": {}', '"metrics": NaN')), "NaN")
    refused(tmp_path, with_fields(good, surprise=1), r"unknown fields \['surprise'\]")
    refused(tmp_path, with_fields(good, name=3), "description name: expected str, got 3")
    refused(tmp_path, with_fields(good, requirement="beauty"), "requirement: expected one of .*'beauty'")
    refused(tmp_path, with_fields(good, budget_range=[0.9, 0.1]), "budget_range")
    refused(tmp_path, with_fields(good, budget_range=[0.9]), "budget_range: expected a list")
    refused(tmp_path, with_fields(good, feature_names=["a"]), "feature_names: expected 5, got 1")
    refused(tmp_path, with_fields(good, envelope=None), "envelope: expected a JSON object")
    refused(tmp_path, with_fields(good, ("envelope",), activations=["magic"]), "envelope activations")
    refused(tmp_path, with_fields(good, ("envelope",), depth=[3, 1]), "envelope depth")
    refused(tmp_path, with_fields(good, ("envelope",), depth=[-3, 1]), "expected no negative number")
    refused(tmp_path, with_fields(good, ("config",), feature_schema=2), "feature_schema: this version knows 1, got 2")
    refused(tmp_path, with_fields(good, ("config",), form="other"), "form: expected 'shipped' or 'official'")
    refused(tmp_path, with_fields(good, ("config",), gamma="big"), "config gamma: expected float")


@pytest.mark.parametrize("field", ["n_inputs", "n_classes", "d_e", "d_v", "n_layers", "head_hidden"])
@pytest.mark.parametrize("value", [0, 7, 10**9, 10**30, True])
def test_sizes_that_the_weights_do_not_have_are_refused_at_once(
    tmp_path: Path, good: bytes, field: str, value: object
) -> None:
    assert value != getattr(CONFIG, field)
    refused(
        tmp_path,
        with_fields(good, ("config",), **{field: value}),
        "parameter .*: (expected|the config has none)|config .*: expected int",
    )


def test_weights_that_are_wrong_are_refused(tmp_path: Path, good: bytes) -> None:
    def changed(**fields: Any) -> bytes:
        model = onnx.load_from_string(good)
        tensor = next(t for t in model.graph.initializer if t.name == "skip_edge")
        for name, value in fields.items():
            if name == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, name, value)
        return bytes(model.SerializeToString())

    refused(tmp_path, changed(raw_data=bytes(32)), "sha256 differs")
    refused(tmp_path, changed(raw_data=b""), r"'skip_edge' of shape \(8,\) has 0 values")
    refused(tmp_path, changed(dims=[2**40, 2**40]), "'skip_edge' of shape")
    refused(tmp_path, changed(dims=[-8]), "'skip_edge' of shape")
    refused(tmp_path, changed(data_location=TensorProto.EXTERNAL), "lies in another file")
    weights = {**editor().weights, "skip_edge": np.full(8, np.inf, np.float32)}
    model = onnx.load_from_string(good)
    tensor = next(t for t in model.graph.initializer if t.name == "skip_edge")
    tensor.raw_data = weights["skip_edge"].tobytes()
    helper.set_model_props(model, {files.METADATA_KEY: INFO.to_json(), files.HASH_KEY: files.weights_hash(weights)})
    refused(tmp_path, model.SerializeToString(), "parameter skip_edge: expected finite")


def test_probe_rows_that_are_wrong_are_refused(tmp_path: Path) -> None:
    probe = np.random.default_rng(2).standard_normal((3, 5)).astype(np.float32)
    carrying = files.editor_bytes(CONFIG, "pruning", editor().weights, INFO.to_json(), probe)
    text = next(entry.value for entry in onnx.load_from_string(carrying).metadata_props if entry.key == files.PROBE_KEY)

    def changed(value: str) -> bytes:
        model = onnx.load_from_string(carrying)
        next(entry for entry in model.metadata_props if entry.key == files.PROBE_KEY).value = value
        return bytes(model.SerializeToString())

    refused(tmp_path, changed("?" + text[1:]), "probe rows are damaged")
    refused(tmp_path, changed(text[:-4]), "probe rows are damaged|sha256 differs")
    refused(tmp_path, changed(("B" if text[0] == "A" else "A") + text[1:]), "probe rows are not those")
    for n_inputs in (0, 10**9, 10**30):
        refused(tmp_path, with_fields(carrying, ("config",), n_inputs=n_inputs), "attack.onnx")
    uneven = files.editor_bytes(CONFIG, "pruning", editor().weights, INFO.to_json(), probe[:, :4])
    refused(tmp_path, uneven, "cannot reshape")
    nan = files.editor_bytes(CONFIG, "pruning", editor().weights, INFO.to_json(), probe * np.float32(np.nan))
    refused(tmp_path, nan, "probe: expected finite values")


def test_files_of_wrong_kind_or_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:  # sparse: takes no room
        file.truncate(50 * files.MAX_BYTES)
    with pytest.raises(InvalidEditorError, match=r"large\.onnx: expected at most"):
        load_editor(large)
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidEditorError, match=f"{path}: expected a regular file"):
            load_editor(path)
    with pytest.raises(InvalidEditorError, match=r"absent\.onnx: no such file, nor one of the bundled"):
        load_editor(tmp_path / "absent.onnx")


def test_a_graph_of_somebody_else_is_never_run(tmp_path: Path, good: bytes) -> None:
    model = onnx.load_from_string(good)
    del model.graph.node[:]
    del model.functions[:]
    path = tmp_path / "gutted.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_editor(path).edit_theta(MODEL, 0.8).tobytes() == editor().edit_theta(MODEL, 0.8).tobytes()


@pytest.mark.parametrize("name", bundled_editors())
def test_bundled_editors_carry_the_present_graph(name: str) -> None:
    """After a change of the graph: ``python experiments/editors.py resave``."""
    stored = onnx.load_from_string(bundled_files()[name].read_bytes())
    info, weights = load_editor(name).info, load_editor(name).weights
    built = build_editor(info.config, info.requirement, weights)
    assert list(stored.functions) == list(built.functions)
    assert stored.graph == built.graph


def test_bundled_editors_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in bundled_editors():
        assert load_editor(name).info.name == name
    (tmp_path / "editors").mkdir()
    editor().save(tmp_path / "editors" / "toy-pruning.onnx")
    (tmp_path / "editors" / "README.md").write_text("no editor")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(bundled, "DISTRIBUTION", "no_such_package")
    assert bundled_editors() == ["toy-pruning"]
    assert load_editor("toy-pruning").info == INFO
    with pytest.raises(InvalidEditorError, match=r"adult-prunning: .* bundled editors \['toy-pruning'\]"):
        load_editor("adult-prunning")
    # Of one that is not installed it tells where it comes from.
    with pytest.raises(InvalidEditorError, match=r"bank-pruning: .* pip install 'metaedit_fast\[editors\]'"):
        load_editor("bank-pruning")
