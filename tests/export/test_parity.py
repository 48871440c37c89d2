"""Three engines, one edit: the native call, the file's functions in ONNX Runtime, and the kernels in their place."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.export.onnx import build_editor
from metaedit_fast.export.session import EditorSession
from metaedit_fast.metanet import native
from metaedit_fast.metanet.config import MetanetConfig

CONFIGS = {
    "weights": MetanetConfig(5, d_v=32, n_layers=2),
    "probe": MetanetConfig(5, d_v=32, n_layers=2, probe=True),
    "official": MetanetConfig(5, form="official", d_v=32, n_layers=2),
    "mask only": MetanetConfig(5, d_v=32, n_layers=2, edits_parameters=False),
}
SIZES = (0, 1, 7, 60)
MANY = 4096
BUDGET = 0.6
# Norm-wise, of parameters that both keep and of scores (docs/deployment.md).
EDITED = {"float32": 1e-6, "bf16x3": 1e-5, "bf16": 5e-3}
SCORES = {"float32": 2e-6, "bf16x3": 2e-5, "bf16": 1e-2}


@functools.cache
def file(nodes: Any, name: str) -> bytes:
    config = CONFIGS[name]
    return bytes(build_editor(config, "pruning", nodes.weights(config)).SerializeToString())


@functools.cache
def case_of(nodes: Any, name: str, size: int) -> Any:
    return nodes.case(CONFIGS[name], nodes.models(size), budget=BUDGET)


@functools.cache
def session(nodes: Any, name: str, **options: Any) -> EditorSession:
    return EditorSession(file(nodes, name), **options)


def run(nodes: Any, name: str, size: int, **options: Any) -> list[np.ndarray]:
    case = case_of(nodes, name, size)
    opened = session(nodes, name, **options)
    assert opened.runs_kernels is options.get("kernels", False)
    before = _core.ort_call_count()
    found = opened.run({**case.features_feed, "budget": np.full(size, BUDGET)})
    assert _core.ort_call_count() - before == int(opened.runs_kernels)
    return [found["edited"], found["score"]]


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / max(np.linalg.norm(two), 1e-30))


def same_bits(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return [x.tobytes() for x in one] == [x.tobytes() for x in two]


def expect_parity(case: Any, found: list[np.ndarray], expected: list[np.ndarray], precision: str) -> None:
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape
        assert np.isfinite(one).all()
    (edited, score), (other, of_other) = found, expected
    assert distance(score, of_other) <= SCORES[precision]
    both = (edited != 0) & (other != 0)
    assert distance(edited[both], other[both]) <= EDITED[precision]
    if precision == "float32":
        np.testing.assert_array_equal(edited == 0, other == 0)
    offsets = case.batch.theta_offsets
    for mlp, start, kept in zip(case.models, offsets, case.kept, strict=False):
        assert np.count_nonzero(edited[start : start + mlp.spec.n_weights]) <= kept


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_functions_agree_with_the_native_call(nodes: Any, name: str, size: int) -> None:
    case = case_of(nodes, name, size)
    expect_parity(case, run(nodes, name, size), case.native_edit(), "float32")


@pytest.mark.parametrize("precision", native.PRECISIONS)
@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("name", CONFIGS)
def test_kernels_agree_with_the_functions(nodes: Any, name: str, isa: str, precision: str) -> None:
    options = {"isa": isa, "precision": precision}
    for size in SIZES:
        case = case_of(nodes, name, size)
        found = run(nodes, name, size, kernels=True, **options)
        expect_parity(case, found, run(nodes, name, size), precision)
        if not case.config.probe:  # the native call measures statistics of its own on this instruction set
            assert same_bits(found, case.native_edit(**options))


@pytest.mark.parametrize("isa", _core.available_isas())
def test_threads_change_no_bit_of_the_kernels(nodes: Any, isa: str) -> None:
    for size in SIZES:
        one, three = (run(nodes, "weights", size, kernels=True, isa=isa, n_threads=n) for n in (1, 3))
        assert same_bits(one, three)


@pytest.mark.parametrize("size", SIZES)
def test_threads_change_no_bit_of_the_functions(nodes: Any, size: int) -> None:
    one, three = (run(nodes, "weights", size, n_threads=n) for n in (1, 3))
    assert same_bits(one, three)


def test_thousands_of_models_at_once(nodes: Any) -> None:
    case, functions = case_of(nodes, "probe", MANY), run(nodes, "probe", MANY)
    expect_parity(case, functions, case.native_edit(), "float32")
    for isa in _core.available_isas():
        for precision in native.PRECISIONS:
            options = {"isa": isa, "precision": precision}
            one, three = (run(nodes, "probe", MANY, kernels=True, n_threads=n, **options) for n in (1, 3))
            assert same_bits(one, three)
            expect_parity(case, one, functions, precision)
