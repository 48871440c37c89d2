"""The native MLP passes on every instruction set against numpy in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast import _core
from metaedit_fast.models import activations, native
from metaedit_fast.models.backprop import backward, trace
from metaedit_fast.models.divergence import LN2, jsd_with_gradient
from metaedit_fast.models.mlp import MLP, log_proba_of
from metaedit_fast.models.spec import ACTIVATIONS, DEFAULT_ALPHA, NORMS, LayerSpec, MLPSpec

# Norm-wise relative errors of usual networks against float64.
TOLERANCE = {"logits": 1e-6, "log_p": 1e-6, "value": 1e-6, "gradient": 1e-5, "moments": 1e-6, "fisher": 1e-5}
# Random tiny networks may magnify rounding without bound (layer norm over nearly equal numbers, logits that
# cancel); there the yardstick is what numpy's own float32 pass loses, in multiples of it, beside the table.
MULTIPLE = 20.0
NAMES = ("logits", "log_p", "value", "gradient", "mean", "std", "squares", "edge")
KINDS = dict(
    zip(NAMES, ("logits", "log_p", "value", "gradient", "moments", "moments", "fisher", "fisher"), strict=True)
)
Results = dict[str, np.ndarray]

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def expected(mlp: MLP, log_p: np.ndarray, x: np.ndarray, dtype: type[np.floating]) -> Results:
    """Everything that is native, by backprop.py in ``dtype``."""
    run = trace(mlp, x, dtype)
    logits = run.outputs[-1]
    divergence, at_outputs = jsd_with_gradient(log_p, logits)
    squares: list[np.ndarray] = [np.zeros_like(z) for z in run.outputs[1:]]
    for direction in fisher_directions(mlp, logits):
        for total, g in zip(squares, backward(run, direction).linear, strict=True):
            total += g * g
    edge = [((a * a).T @ g / len(x)).ravel() for a, g in zip(run.outputs[:-1], squares, strict=True)]
    return {
        "logits": logits,
        "log_p": log_proba_of(logits),
        "value": np.array(divergence.mean()),
        "gradient": backward(run, at_outputs).theta,
        "mean": np.concatenate([a.mean(0) for a in run.outputs]),
        "std": np.concatenate([a.std(0) for a in run.outputs]),
        "squares": np.concatenate([g.mean(0) for g in squares]),
        "edge": np.concatenate(edge),
    }


def fisher_directions(mlp: MLP, logits: np.ndarray) -> list[np.ndarray]:
    """Σ_c p_c (∂ ln p_c)² term by term: one a class, without the shortcut for two of them."""
    n_outputs = logits.shape[1]
    if mlp.spec.output == "identity":
        return [np.tile(row, (len(logits), 1)) for row in np.eye(n_outputs, dtype=logits.dtype)]
    p = np.exp(log_proba_of(logits))
    eye = np.eye(p.shape[1], dtype=logits.dtype)
    return [(np.sqrt(p[:, [c]]) * (eye[c] - p))[:, -n_outputs:] for c in range(p.shape[1])]


def found(mlp: MLP, log_p: np.ndarray, x: np.ndarray, isa: str) -> Results:
    value, gradient = native.value_and_gradient(mlp, log_p, x, isa=isa)
    moments = native.probe_statistics(mlp, x, isa=isa)
    results = (native.logits(mlp, x, isa=isa), native.log_proba(mlp, x, isa=isa), np.array(value), gradient, *moments)
    return dict(zip(NAMES, results, strict=True))


def distance(got: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(got - exact.astype(np.float64)))


def trained_like(spec: MLPSpec, seed: int) -> MLP:
    rng = np.random.default_rng(seed)
    mlp = MLP(spec, rng.normal(0, 0.3, spec.n_parameters))
    for kind, _, view in mlp.parameters():
        if kind == "weight":
            view[...] = rng.normal(size=view.shape) / math.sqrt(view.shape[0])
        elif kind == "norm_scale":
            view += 1
    return mlp


def case(spec: MLPSpec, n_rows: int) -> tuple[MLP, np.ndarray, np.ndarray]:
    """A network, another one's log-probabilities, rows."""
    mlp, other = trained_like(spec, 0), trained_like(spec, 1)
    x = np.random.default_rng(2).normal(size=(n_rows, spec.n_inputs)).astype(np.float32)
    return mlp, other.log_proba(x), x


def expect_accurate(spec: MLPSpec, n_rows: int, isa: str) -> None:
    mlp, log_p, x = case(spec, n_rows)
    exact = expected(mlp, log_p, x, np.float64)
    for name, got in found(mlp, log_p, x, isa).items():
        assert got.shape == exact[name].shape
        error = distance(got, exact[name]) / max(float(np.linalg.norm(exact[name])), 1e-30)
        assert error <= TOLERANCE[KINDS[name]], f"{name}: {error:.1e}"


@pytest.mark.parametrize("n_outputs", [1, 2, 5])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_usual_networks(activation: str, norm: str, n_outputs: int, isa: str) -> None:
    expect_accurate(MLPSpec.simple((14, 33, 24, 17, n_outputs), activation, norm, [(0, 1), (1, 2), (1, 3)]), 333, isa)


@pytest.mark.parametrize("n_rows", [1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, 700])
def test_ragged_rows(n_rows: int, isa: str) -> None:
    expect_accurate(MLPSpec.simple((5, 9, 7, 2), "silu", "none", [(1, 2)]), n_rows, isa)


@pytest.mark.parametrize(
    "widths", [(1, 1, 1), (3, 1, 2), (1, 2, 3, 4, 5, 6, 7, 8, 2), (4, 2), (2, 1), (7, 512, 3), (130, 257, 16, 2)]
)
def test_widths_of_every_kind(widths: tuple[int, ...], isa: str) -> None:
    expect_accurate(MLPSpec.simple(widths, "tanh"), 70, isa)


def test_a_regressor(isa: str) -> None:
    expect_accurate(MLPSpec.simple((4, 12, 3), "gelu", output="identity"), 100, isa)


@settings(deadline=None, max_examples=60)
@given(mlp=st.from_type(MLP), n_rows=st.integers(1, 70), seed=st.integers(0, 99))
def test_any_architecture(mlp: MLP, n_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, mlp.spec.n_inputs)).astype(np.float32)
    log_p = mlp.replace(mlp.theta + rng.normal(0, 0.3, mlp.theta.size)).log_proba(x)
    exact, rounded = expected(mlp, log_p, x, np.float64), expected(mlp, log_p, x, np.float32)
    for level in _core.available_isas():
        for name, got in found(mlp, log_p, x, level).items():
            assert np.isfinite(got).all(), (level, name)
            limit = TOLERANCE[KINDS[name]] * (1 + float(np.linalg.norm(exact[name])))
            limit += MULTIPLE * distance(rounded[name], exact[name])
            assert distance(got, exact[name]) <= limit, (level, name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_point_by_point(activation: str, isa: str) -> None:
    """Relative, not norm-wise: between -5 and 20 and around 0; further down the tails of gelu lose digits."""
    z = np.concatenate([np.linspace(-5, 20, 9001), np.linspace(-1e-3, 1e-3, 1001), [0.0, -0.0]]).astype(np.float32)
    got = native.logits(MLP(MLPSpec(1, (LayerSpec(1, activation), LayerSpec(1))), [1, 1, 0, 0]), z[:, None], isa=isa)
    exact = activations.apply(activation, z.astype(np.float64), DEFAULT_ALPHA.get(activation, 0.0))
    np.testing.assert_allclose(got[:, 0], exact, rtol=3e-6 if activation == "gelu_tanh" else 1e-6, atol=1e-30)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_far_out(activation: str, isa: str) -> None:
    z = np.array([-1e30, -1e4, -200.0, -90.0, -30.0, 30.0, 90.0, 200.0, 1e4], np.float32)
    mlp = MLP(MLPSpec(1, (LayerSpec(1, activation), LayerSpec(1))), [1, 1, 0, 0])
    exact = activations.apply(activation, z.astype(np.float64), DEFAULT_ALPHA.get(activation, 0.0))
    np.testing.assert_allclose(native.logits(mlp, z[:, None], isa=isa)[:, 0], exact, rtol=1e-6, atol=1e-6)
    assert np.isnan(native.logits(mlp, np.array([[np.nan]], np.float32), isa=isa)).all()


@pytest.mark.parametrize("n_outputs", [1, 2, 3])
@pytest.mark.parametrize("size", [30.0, 300.0, 1e6, 1e15])
def test_saturated_logits(size: float, n_outputs: int, isa: str) -> None:
    mlp = MLP(MLPSpec(1, (LayerSpec(n_outputs),)), [size] + [-size] * (n_outputs - 1) + [0.0] * n_outputs)
    x = np.array([[1.0], [-1.0], [0.5]], np.float32)
    log_p = native.log_proba(mlp, -x, isa=isa)  # as far apart as two models can be
    results = found(mlp, log_p, x, isa)
    assert all(np.isfinite(got).all() for got in results.values())
    np.testing.assert_allclose(results["log_p"], log_proba_of(mlp.logits(x, np.float64)), rtol=1e-6, atol=1e-6)
    assert LN2 * 0.3 < float(results["value"]) <= LN2 * (1 + 1e-6)


def test_probabilities_of_zero(isa: str) -> None:
    mlp = MLP(MLPSpec(1, (LayerSpec(2),)), np.zeros(4))
    log_p = np.array([[0.0, -np.inf]], np.float32)
    value, gradient = native.value_and_gradient(mlp, log_p, np.ones((1, 1)), isa=isa)
    divergence, at_outputs = jsd_with_gradient(log_p, np.zeros((1, 2)))
    assert value == pytest.approx(divergence[0], rel=1e-6)
    np.testing.assert_allclose(gradient, np.concatenate([at_outputs[0]] * 2), rtol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-1, 1e-2, 1e-3])
def test_divergence_keeps_its_digits(size: float, isa: str) -> None:
    """On the log-probabilities that float32 has: near 0 nothing may be lost to differences."""
    rng = np.random.default_rng(0)
    x = np.eye(64, dtype=np.float32)
    mlp = MLP(MLPSpec(64, (LayerSpec(2),)), np.concatenate([rng.normal(size=128), [0, 0]]))
    log_q = native.log_proba(mlp, x, isa=isa)
    log_p = native.log_proba(mlp.replace(mlp.theta + size * rng.normal(size=130)), x, isa=isa)
    exact, at_outputs = jsd_with_gradient(log_p, log_q.astype(np.float64))
    value, gradient = native.value_and_gradient(mlp, log_p, x, isa=isa)
    # log_q itself adds up to 1 only within rounding.
    assert value == pytest.approx(exact.mean(), rel=1e-6 + 3e-8 / size)
    wanted = np.concatenate([at_outputs.ravel(), at_outputs.sum(0)])
    assert distance(gradient, wanted) <= (1e-6 + 3e-7 / size) * np.linalg.norm(wanted)


def test_a_model_is_at_no_distance_from_itself(isa: str) -> None:
    for n_outputs in (1, 2, 4):
        mlp, _, x = case(MLPSpec.simple((5, 20, n_outputs), "gelu"), 100)
        value, gradient = native.value_and_gradient(mlp, native.log_proba(mlp, x, isa=isa), x, isa=isa)
        assert value == 0.0
        assert not gradient.any()


@pytest.mark.parametrize("where", ["theta", "x"])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(poison: float, where: str, isa: str) -> None:
    mlp, log_p, x = case(MLPSpec.simple((3, 8, 8, 2), "relu", "layer"), 80)
    {"theta": mlp.theta, "x": x[70]}[where][1] = poison
    value, _ = native.value_and_gradient(mlp, log_p, x, isa=isa)
    assert not np.isfinite(value)
    logits = native.logits(mlp, x, isa=isa)
    assert not np.isfinite(logits[70]).all()
    if where == "x":  # and in its own row alone
        assert np.isfinite(np.delete(logits, 70, axis=0)).all()


def test_rows_may_be_prepared_once(isa: str) -> None:
    mlp, log_p, x = case(MLPSpec.simple((5, 8, 2), "relu"), 90)
    mlp.input_shift = np.ones(5, np.float32)
    rows = native.rows_of(mlp, x)
    one, other = (native.value_and_gradient(mlp, log_p, r, isa=isa) for r in (x, rows))
    assert one[0] == other[0]
    assert one[1].tobytes() == other[1].tobytes()


def batch() -> tuple[list[MLP], list[np.ndarray], np.ndarray]:
    mlps = [trained_like(MLPSpec.simple((6, 5 + 9 * i, 2), "silu"), i) for i in range(7)]
    mlps[2].input_scale = np.full(6, 0.5, np.float32)
    x = np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)
    return mlps, [native.log_proba(mlp, x[::-1]) for mlp in mlps], x


def test_bits_depend_neither_on_threads_nor_on_neighbours(isa: str) -> None:
    mlps, log_p, x = batch()
    calls: dict[str, Callable[[list[MLP], list[np.ndarray], int], list]] = {
        "logits": lambda m, p, n: native.logits_of(m, x, num_threads=n, isa=isa),
        "log_p": lambda m, p, n: native.log_proba_of_all(m, x, num_threads=n, isa=isa),
        "value": lambda m, p, n: native.values_and_gradients(m, p, x, num_threads=n, isa=isa),
        "statistics": lambda m, p, n: native.probe_statistics_of(m, x, num_threads=n, isa=isa),
        "moments": lambda m, p, n: _core.mlp_moments(native.items_of(m, x), num_threads=n, isa=isa),
    }
    for name, call in calls.items():
        alone = [call([mlp], [p], 1)[0] for mlp, p in zip(mlps, log_p, strict=True)]
        for n_threads in (1, 2, 5, 16):
            for order in (range(7), range(6, -1, -1)):
                together = call([mlps[i] for i in order], [log_p[i] for i in order], n_threads)
                for i, got in zip(order, together, strict=True):
                    for a, b in zip(np.atleast_1d(got) if name in ("logits", "log_p") else got, alone[i], strict=True):
                        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), (name, n_threads, i)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_moments_are_those_of_the_statistics(norm: str, isa: str) -> None:
    mlp, _, x = case(MLPSpec.simple((6, 21, 13, 3), "relu", norm), 1100)
    items = native.items_of([mlp], x)
    statistics = _core.mlp_statistics(items, num_threads=1, isa=isa)[0]
    for alone, among in zip(_core.mlp_moments(items, num_threads=1, isa=isa)[0], statistics[:2], strict=True):
        assert alone.tobytes() == among.tobytes()


def test_bits_of_a_row_do_not_depend_on_its_place(isa: str) -> None:
    mlp, _, x = case(MLPSpec.simple((6, 21, 13, 3), "gelu", "layer"), 200)
    whole = native.logits(mlp, x, isa=isa)
    for first in (1, 17, 100):
        assert native.logits(mlp, x[first:], isa=isa).tobytes() == whole[first:].tobytes()
