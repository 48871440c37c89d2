"""Population evaluation on every instruction set: numpy's JSD in float64, numpy's argmax, exact counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.divergence import accuracy, jsd, mean_jsd
from metaedit_fast.models.evaluation import evaluate, predictions_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 6)).astype(np.float32)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model(spec: MLPSpec, seed: int = 0) -> MLP:
    return MLP(spec, np.random.default_rng(seed).normal(0, 0.5, spec.n_parameters))


def nearby(mlp: MLP, seed: int = 0) -> MLP:
    return mlp.replace(mlp.theta + np.random.default_rng(seed).normal(0, 0.1, mlp.theta.size))


def predicted(mlp: MLP, x: np.ndarray, isa: str | None = None) -> np.ndarray:
    logits = native.logits(mlp, x, isa=isa)
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else np.argmax(logits, axis=1)


def expected_counts(mlp: MLP, x: np.ndarray, y: np.ndarray, groups: np.ndarray, shape: tuple[int, ...], isa: str):
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, (groups, y, predicted(mlp, x, isa)), 1)
    return counts


def expect_right(mlps: list[MLP], x: np.ndarray, isa: str, n_groups: int = 3) -> None:
    rng = np.random.default_rng(1)
    n_classes = max(2, *(mlp.spec.n_outputs for mlp in mlps))
    y, groups = rng.integers(0, n_classes, len(x)), rng.integers(0, n_groups, len(x))
    y[0], groups[0] = n_classes - 1, n_groups - 1
    originals = [nearby(mlp, i) for i, mlp in enumerate(mlps)]
    found = evaluate(mlps, x, y, groups, originals=originals, isa=isa)
    assert found.jsd is not None
    assert found.counts is not None
    assert found.counts.shape == (len(mlps), n_groups, n_classes, n_classes)
    for i, (mlp, original) in enumerate(zip(mlps, originals, strict=True)):
        exact = mean_jsd_float64(original, mlp, x)
        assert found.jsd[i] == pytest.approx(exact, rel=3e-5, abs=1e-12)
        assert np.array_equal(found.counts[i], expected_counts(mlp, x, y, groups, found.counts.shape[1:], isa))
        assert found.accuracy[i] == np.mean(predicted(mlp, x, isa) == y)


def mean_jsd_float64(original: MLP, mlp: MLP, x: np.ndarray) -> float:
    return float(jsd(original.log_proba(x, np.float64), mlp.log_proba(x, np.float64)).mean())


@pytest.mark.parametrize("n_outputs", [1, 2, 5])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_usual_networks(activation: str, norm: str, n_outputs: int, isa: str) -> None:
    expect_right([model(MLPSpec.simple((6, 20, 13, n_outputs), activation, norm, [(0, 1), (1, 2)]))], X[:333], isa)


@pytest.mark.parametrize("n_rows", [1, 2, 63, 64, 65, 256, 1000])
def test_ragged_rows(n_rows: int, isa: str) -> None:
    expect_right([model(MLPSpec.simple((6, 9, n, 2), "silu"), n) for n in (1, 3, 7)], X[:n_rows], isa, n_groups=5)


@pytest.mark.parametrize("widths", [(6, 2), (6, 1), (6, 1, 1, 3), (6, 512, 4), (6, 3, 40)])
def test_widths_of_every_kind(widths: tuple[int, ...], isa: str) -> None:
    expect_right([model(MLPSpec.simple(widths, "tanh"))], X[:130], isa)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 0.69, 0.8])
def test_pruned_models_have_the_bits_of_the_passes_that_multiply_by_zero(density: float, norm: str, isa: str) -> None:
    mlps, originals = [], []
    for i, activation in enumerate(ACTIVATIONS):
        skips = [(0, 2), (1, 3)] if i % 2 else []
        originals.append(model(MLPSpec.simple((6, 20, 13, 9, 1 + i % 3), activation, norm, skips), i))
        kept = np.random.default_rng(i).random(originals[-1].spec.n_parameters) < density
        kept[originals[-1].spec.n_weights :] = True
        mlps.append(originals[-1].replace(np.where(kept, originals[-1].theta, 0)))
    x, y = X[:150], np.arange(150) % 3
    found = evaluate(mlps, x, y, originals=originals, isa=isa)
    log_p = native.log_proba_of_all(originals, x, isa=isa)
    values = [value for value, _ in native.values_and_gradients(mlps, log_p, x, isa=isa)]
    assert found.jsd is not None
    assert found.counts is not None
    assert found.jsd.tolist() == values
    for counts, mlp in zip(found.counts, mlps, strict=True):
        assert np.array_equal(counts, expected_counts(mlp, x, y, np.zeros(150, int), counts.shape, isa))


def test_models_with_fewer_classes_leave_zeros(isa: str) -> None:
    expect_right([model(MLPSpec.simple((6, 8, n), "relu"), n) for n in (1, 2, 3, 7)], X[:200], isa)


@settings(deadline=None, max_examples=25)
@given(
    logits=st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.inf, -np.inf, np.nan]), min_size=4, max_size=4), min_size=1
    )
)
def test_ties_and_what_is_not_finite_go_as_argmax_says(logits: list[list[float]]) -> None:
    rows = np.array(logits, np.float32)
    constant = [MLP(MLPSpec(1, (LayerSpec(4),)), np.concatenate([np.zeros(4), row])) for row in rows]
    for level in _core.available_isas():
        counts = evaluate(constant, np.ones((1, 1)), np.zeros(1, int), isa=level).counts
        assert counts is not None
        assert np.argmax(counts[:, 0, 0], axis=1).tolist() == np.argmax(rows, axis=1).tolist()
        assert (counts.sum(axis=(1, 2, 3)) == 1).all()


def test_one_output_predicts_above_zero(isa: str) -> None:
    line = MLP(MLPSpec(1, (LayerSpec(1),)), [1.0, 0.0])
    x = np.array([[-1.0], [-0.0], [0.0], [1e-30], [3.0], [np.nan]], np.float32)
    counts = evaluate([line], x, np.zeros(6, int), isa=isa).counts
    assert counts is not None
    assert counts[0, 0, 0].tolist() == [4, 2]
    assert line.predict(x[:5]).tolist() == [0, 0, 0, 1, 1]


def test_a_model_that_overflows_is_alone_with_it(isa: str) -> None:
    good = [model(MLPSpec.simple((6, 9, 2)), i) for i in range(3)]
    mlps = [good[0], good[1].replace(good[1].theta * 1e38), good[2]]
    found, plain = (evaluate(m, X, np.zeros(1000, int), originals=good[::-1], isa=isa) for m in (mlps, good))
    assert found.jsd is not None
    assert plain.jsd is not None
    assert np.isnan(found.jsd).tolist() == [False, True, False]
    assert found.jsd[[0, 2]].tobytes() == plain.jsd[[0, 2]].tobytes()
    assert found.accuracy[[0, 2]].tobytes() == plain.accuracy[[0, 2]].tobytes()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 7))
def test_numbers_depend_neither_on_threads_nor_on_neighbours(chosen: list[int], n_threads: int) -> None:
    mlps = [nearby(model(MLPSpec.simple((6, 5 + 8 * i, 2), ACTIVATIONS[i]), i)) for i in range(6)]
    mlps[1].input_scale, mlps[2].input_shift = np.full(6, 0.5, np.float32), np.ones(6, np.float32)
    originals = [nearby(mlp) for mlp in mlps]
    y, x = np.arange(150) % 2, X[:150]
    for level in _core.available_isas():
        pick = [mlps[i] for i in chosen], [originals[i] for i in chosen]
        together = evaluate(pick[0], x, y, originals=pick[1], num_threads=n_threads, isa=level)
        for at, i in enumerate(chosen):
            alone = evaluate([mlps[i]], x, y, originals=[originals[i]], num_threads=1, isa=level)
            assert together.jsd is not None
            assert together.counts is not None
            assert together.jsd[at : at + 1].tobytes() == alone.jsd.tobytes()  # type: ignore[union-attr]
            assert np.array_equal(together.counts[at], alone.counts[0])  # type: ignore[index]


def test_originals_as_models_or_as_their_predictions() -> None:
    mlps = [model(MLPSpec.simple((6, 12, 3), "gelu"), i) for i in range(4)]
    originals = [nearby(mlp) for mlp in mlps]
    known = predictions_of(originals, X)
    mixed = evaluate(mlps, X, originals=[known[0], originals[1], known[2], originals[3]]).jsd
    assert mixed is not None
    assert mixed.tobytes() == evaluate(mlps, X, originals=originals).jsd.tobytes()  # type: ignore[union-attr]
    same = evaluate(originals, X, originals=originals).jsd
    assert same is not None
    assert not same.any()


def test_agrees_with_the_functions_for_one_model() -> None:
    mlp = model(MLPSpec.simple((6, 12, 3), "gelu"))
    y = np.arange(len(X)) % 3
    found = evaluate([mlp], X, y, originals=[nearby(mlp)])
    assert found.accuracy[0] == accuracy(mlp, X, y)
    assert found.jsd is not None
    assert found.jsd[0] == pytest.approx(mean_jsd(nearby(mlp), mlp, X), rel=1e-5)


def test_no_models() -> None:
    found = evaluate([], X, np.zeros(1000, int), originals=[])
    assert found.jsd is not None
    assert found.counts is not None
    assert found.jsd.shape == (0,)
    assert found.counts.shape == (0, 1, 1, 1)


MODEL = model(MLPSpec.simple((6, 4, 2)))
THREE = model(MLPSpec.simple((6, 4, 3)))
REGRESSOR = model(MLPSpec.simple((6, 4, 2), output="identity"))
Y = np.zeros(1000, int)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([MODEL], X), {}, "expected y, originals or both"),
        (([MODEL], X, None, Y), {"originals": [MODEL]}, "groups: expected labels"),
        (([MODEL], X), {"originals": []}, "originals: expected 1, one a model, got 0"),
        (([MODEL], X), {"originals": [THREE]}, r"models\[0\].original: expected 2 outputs, got 3"),
        (([MODEL], X), {"originals": predictions_of([THREE], X)}, r"original: expected shape \[1000, 2\], got"),
        (([MODEL], X), {"originals": predictions_of([MODEL], X[1:])}, r"original: expected shape \[1000, 2\], got"),
        (([MODEL, REGRESSOR], X, Y), {}, r"y: expected classifiers, got a regressor, mlps\[1\]"),
        (([MODEL], X, Y[1:]), {}, "y: expected 1000 integers, got int64 of shape"),
        (([MODEL], X, Y + 0.5), {}, "y: expected 1000 integers, got float64"),
        (([MODEL], X, Y - 1), {}, "y: expected codes from 0, got -1"),
        (([MODEL], X, Y, Y[1:]), {}, "groups: expected 1000 integers"),
        (([MODEL], X[:0], Y[:0]), {}, "x: expected at least one row, got none"),
        (([MODEL], X, Y), {"num_threads": 0}, "num_threads"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments, **options)


def test_accuracy_needs_labels() -> None:
    with pytest.raises(ValueError, match="labels"):
        _ = evaluate([MODEL], X, originals=[MODEL]).accuracy


@pytest.mark.parametrize("cell", [-1, 3, 2**62])
def test_no_count_falls_outside(cell: int) -> None:
    item = (*native.items_of([MODEL], X)[0], None)
    cells = np.zeros(1000, np.int64)
    cells[500] = cell
    with pytest.raises(ValueError, match=f"cells: expected 0 to n_counts - 2, got {cell}"):
        _core.mlp_evaluate([item], cells=cells, n_counts=4, num_threads=1)
    with pytest.raises(ValueError, match=r"cells: expected shape \[1000\]"):
        _core.mlp_evaluate([item], cells=cells[1:].copy(), n_counts=4, num_threads=1)
    with pytest.raises(TypeError, match=r"models\[0\].original: expected None, PanelRows or a tuple of 3"):
        _core.mlp_evaluate([(*item[:3], 3)], cells=None, n_counts=0, num_threads=1)  # type: ignore[list-item]
