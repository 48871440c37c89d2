"""What the native MLP passes say to wrong arguments, and which instruction set they run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec

MODEL = MLP(MLPSpec.simple((3, 4, 2), "silu"), np.linspace(-1, 1, 26))
SHAPE = native.shape_of(MODEL.spec)
X = np.ones((5, 3), np.float32)
LOG_P = np.full((5, 2), np.log(0.5), np.float32)
ROWS = _core.PanelRows(X)

# Prints the instruction set in force and the bytes of a result, by default and for each one that is named.
SCRIPT = """
import sys
import numpy as np
from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

spec = MLPSpec.simple((9, 40, 40, 2), "gelu")
mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
x = np.random.default_rng(1).normal(size=(300, 9)).astype(np.float32)
for isa in (None, *sys.argv[1:]):
    _, gradient = native.value_and_gradient(mlp, np.full((300, 2), -0.7, np.float32), x, isa=isa)
    print(_core.isa(), gradient.tobytes().hex())
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METAEDIT_")}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, **variables})


@pytest.mark.parametrize("isa", _core.available_isas())
def test_the_forced_level_runs(isa: str) -> None:
    levels = _core.available_isas()
    found = run(*levels, METAEDIT_ISA=isa)
    assert found.returncode == 0, found.stderr
    (name, by_default), *named = [line.split() for line in found.stdout.splitlines()]
    assert name == isa
    bits = dict(zip(levels, (b for _, b in named), strict=True))
    assert by_default == bits[isa]
    own = [bits[level] for level in levels if level in ("serial", "avx2", "avx512")]
    assert len(set(own)) == len(own), "the levels round alike: equal bits prove nothing"
    assert set(bits.values()) == set(own), "the levels beyond avx512 have no kernels of their own here"


def test_a_missing_level_raises() -> None:
    found = run(METAEDIT_ISA="avx10")
    assert found.returncode == 1
    assert "ValueError: METAEDIT_ISA: expected an instruction set" in found.stderr


def test_no_rows() -> None:
    none = np.zeros((0, 3), np.float32)
    assert native.logits(MODEL, none).shape == (0, 2)
    assert native.log_proba(MODEL, none).shape == (0, 2)
    with pytest.raises(ValueError, match="x: expected at least one row, got none"):
        native.value_and_gradient(MODEL, LOG_P[:0], none)
    with pytest.raises(ValueError, match="x: expected at least one row, got none"):
        native.probe_statistics(MODEL, none)
    with pytest.raises(ValueError, match="x: expected at least one row, got none"):
        _core.mlp_moments(native.items_of([MODEL], none), num_threads=1)


def test_no_models() -> None:
    assert native.logits_of([], X) == []
    assert native.log_proba_of_all([], X) == []
    assert native.values_and_gradients([], [], X) == []
    assert native.probe_statistics_of([], X) == []


def shape(n_inputs: int = 3, layers: object = ((2, 0, 0.0, False, 1e-5),), skips: object = ()) -> _core.MlpShape:
    return _core.MlpShape(n_inputs, layers, skips, is_regressor=False)  # type: ignore[arg-type]


def passes(*model: object, **options: object) -> object:
    return _core.mlp_statistics([tuple(model)], **{"num_threads": 1, **options})  # type: ignore[arg-type]


def refined(*model: object, **options: object) -> object:
    return _core.mlp_refine([tuple(model)], **{"steps": 2, "num_threads": 1, **options})  # type: ignore[arg-type]


def odds(
    cells: object,
    n_groups: int = 2,
    strength: float = 1.0,
    limit: float = 0.0,
    temperature: float = 1.0,
    noise: float = 0.0,
) -> object:
    return refined(*ITEM, *ITEM, FREE, odds=(cells, n_groups, strength, limit, temperature, noise))


ITEM, FREE = (SHAPE, MODEL.theta, ROWS), np.ones(MODEL.theta.size, bool)
CELLS = np.array([0, 1, 2, 3, 1], np.int64)
OTHER = MLP(MLPSpec.simple((3, 4, 3), "silu"), np.zeros(31))
WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: shape(0), ValueError, r"width: expected 1 to 2\^24, got 0"),
    (lambda: shape(layers=[]), ValueError, "layers: expected at least one"),
    (lambda: shape(layers=[(2**40, 0, 0.0, False, 0.0)]), ValueError, r"width: expected 1 to 2\^24"),
    (lambda: shape(layers=[(2, 10, 0.0, False, 0.0)]), ValueError, "activation: expected an index .* got 10"),
    (lambda: shape(layers=[(2, -1, 0.0, False, 0.0)]), ValueError, "activation: expected an index .* got -1"),
    (lambda: shape(skips=[(1, 1)]), ValueError, r"skips: expected source < target.* got \(1, 1\)"),
    (lambda: shape(skips=[(-1, 1)]), ValueError, r"got \(-1, 1\)"),
    (lambda: shape(skips=[(0, 2)]), ValueError, r"got \(0, 2\)"),
    (lambda: _core.PanelRows(X.astype(np.float64)), TypeError, "x: expected a float32 array of shape"),
    (lambda: _core.PanelRows(X[0]), ValueError, "x: expected .* got shape"),
    (lambda: _core.PanelRows(X[:, :0]), ValueError, "x: expected at least one column"),
    (lambda: passes(SHAPE, MODEL.theta), TypeError, r"models\[0\]: expected a tuple of 3"),
    (lambda: passes(SHAPE, MODEL.theta[:-1], ROWS), ValueError, r"models\[0\].theta: expected .* shape \[26\]"),
    (lambda: passes(SHAPE, MODEL.theta.astype(float), ROWS), TypeError, r"models\[0\].theta: expected a float32"),
    (lambda: passes(SHAPE, np.zeros(52, np.float32)[::2], ROWS), ValueError, "theta: .* not C-contiguous"),
    (lambda: passes(None, MODEL.theta, ROWS), TypeError, r"models\[0\]: expected a shape and rows, got None"),
    (lambda: passes(SHAPE, MODEL.theta, None), TypeError, r"models\[0\]: expected a shape and rows, got None"),
    (
        lambda: passes(SHAPE, MODEL.theta, _core.PanelRows(X[:, :2].copy())),
        ValueError,
        "rows: expected 3 columns, got 2",
    ),
    (lambda: passes(SHAPE, MODEL.theta, ROWS, num_threads=0), ValueError, "num_threads: expected at least 1, got 0"),
    (lambda: passes(SHAPE, MODEL.theta, ROWS, isa="mmx"), ValueError, "isa: expected an instruction set .* got 'mmx'"),
    (
        lambda: native.value_and_gradient(MODEL, LOG_P[:4], X),
        ValueError,
        r"models\[0\].log_p: expected .* shape \[5, 2\]",
    ),
    (lambda: native.value_and_gradient(MODEL, LOG_P.astype(float), X), TypeError, "log_p: expected a float32"),
    (lambda: shape(layers=[(2**24, 0, 0.0, False, 0.0)] * 2), ValueError, r"layers: expected under 2\^31 parameters"),
    (lambda: refined(*ITEM, *ITEM), TypeError, r"models\[0\]: expected a tuple of 7"),
    (lambda: refined(*ITEM, *ITEM, FREE, steps=-1), ValueError, "steps: expected 0 or more, got -1"),
    (lambda: refined(*ITEM, *ITEM, FREE[1:]), ValueError, r"models\[0\].free: expected a bool array of shape \[26\]"),
    (lambda: refined(*ITEM, *ITEM, FREE.astype(int)), TypeError, r"models\[0\].free: expected a bool array"),
    (lambda: refined(*ITEM, SHAPE, None, ROWS, FREE), TypeError, r"models\[0\].original.theta: expected a float32"),
    (lambda: refined(*ITEM, None, MODEL.theta, ROWS, FREE), TypeError, r"models\[0\].original: .* got None"),
    (
        lambda: refined(*ITEM, native.shape_of(OTHER.spec), OTHER.theta, ROWS, FREE),
        ValueError,
        r"models\[0\].original: expected 2 outputs, got 3",
    ),
    (
        lambda: refined(*ITEM, SHAPE, MODEL.theta, _core.PanelRows(X[1:].copy()), FREE),
        ValueError,
        r"models\[0\].original.rows: expected shape \[5, 3\], got \[4, 3\]",
    ),
    (lambda: odds(CELLS[:4]), ValueError, r"odds.cells: expected shape \[5\], got \[4\]"),
    (lambda: odds(CELLS.astype(np.int32)), TypeError, r"odds.cells: expected a int64 array"),
    (lambda: odds(CELLS - 1), ValueError, "odds.cells: expected 0 to 3, got -1"),
    (lambda: odds(CELLS + 1), ValueError, "odds.cells: expected 0 to 3, got 4"),
    (lambda: odds(CELLS, 0), ValueError, "odds.n_groups: expected 1 to the number of rows, got 0"),
    (lambda: odds(CELLS, 6), ValueError, "odds.n_groups: expected 1 to the number of rows, got 6"),
    (lambda: odds(CELLS, 2, -1.0), ValueError, "odds.strength: expected a finite number, 0 or more, got -1"),
    (lambda: odds(CELLS, 2, np.inf), ValueError, "odds.strength: expected a finite number, 0 or more, got inf"),
    (lambda: odds(CELLS, 2, 1.0, np.nan), ValueError, "odds.limit: expected 0 or more, got nan"),
    (lambda: odds(CELLS, 2, 1.0, noise=-1.0), ValueError, "odds.noise: expected a finite number, 0 or more, got -1"),
    (lambda: odds(CELLS, 2, 1.0, 0.0, 0.0), ValueError, "odds.temperature: expected 0.001 to 1000, got 0"),
    (lambda: native.logits(MODEL, X[:, :2]), ValueError, r"x: expected shape \[rows, 3\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_values_may_be_extreme_without_a_crash() -> None:
    spec = MLPSpec(3, (LayerSpec(4, "leaky_relu", 1e300, "layer", -1e300), LayerSpec(2)))
    mlp = MLP(spec, np.ones(spec.n_parameters))
    assert native.logits(mlp, X).shape == (5, 2)


def test_inputs_keep_their_bits_and_calls_may_overlap() -> None:
    before = (MODEL.theta.tobytes(), X.tobytes(), LOG_P.tobytes())
    wanted = native.value_and_gradient(MODEL, LOG_P, ROWS)[1].tobytes()
    found: list[bytes] = []

    def work() -> None:
        found.extend(native.value_and_gradient(MODEL, LOG_P, ROWS)[1].tobytes() for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 200
    assert (MODEL.theta.tobytes(), X.tobytes(), LOG_P.tobytes()) == before
