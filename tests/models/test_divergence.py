"""JSD against 50-digit arithmetic, its gradient against torch, accuracy."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.divergence import (
    LN2,
    accuracy,
    jsd,
    jsd_gradient,
    jsd_with_gradient,
    mean_jsd,
)
from metaedit_fast.models.mlp import MLP, log_proba_of, log_softmax
from metaedit_fast.models.spec import LayerSpec, MLPSpec

LOGITS = st.integers(1, 4).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-300, 300), min_size=n, max_size=n)] * 2).map(np.array)
)


def exact_jsd(logits_p: np.ndarray, logits_q: np.ndarray) -> float:
    """JSD of one row of logits, by its definition in 50 digits."""

    def probabilities(logits: np.ndarray) -> list[decimal.Decimal]:
        weights = [decimal.Decimal(float(z)).exp() for z in logits]
        return [w / sum(weights) for w in weights]

    def divergence(p: list[decimal.Decimal], m: list[decimal.Decimal]) -> decimal.Decimal:
        return sum((a * (a / b).ln() for a, b in zip(p, m, strict=True)), decimal.Decimal(0))

    with decimal.localcontext(prec=50):
        p, q = probabilities(logits_p), probabilities(logits_q)
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return float((divergence(p, m) + divergence(q, m)) / 2)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("size", [10.0, 1.0, 1e-2, 1e-4, 1e-6, 1e-9])
def test_agrees_with_exact_arithmetic(size: float, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(0, 3, (20, n_classes))
    q = p + size * rng.normal(size=p.shape)
    expected = [exact_jsd(a, b) for a, b in zip(p, q, strict=True)]
    # Rounding of log-probabilities by 1e-16 changes their difference d, and JSD ~ d², by this much:
    np.testing.assert_allclose(jsd(log_softmax(p), log_softmax(q)), expected, rtol=1e-12 + 1e-14 / size)


def test_keeps_its_digits_at_tiny_divergences_in_float32() -> None:
    rng = np.random.default_rng(1)
    p = rng.normal(size=(256, 2)).astype(np.float32)
    q = (p + 4e-4 * rng.normal(size=p.shape)).astype(np.float32)
    expected = np.mean([exact_jsd(a, b) for a, b in zip(p, q, strict=True)])
    assert 5e-9 < expected < 5e-8
    assert jsd(log_softmax(p), log_softmax(q)).mean() == pytest.approx(expected, rel=1e-3)


@settings(deadline=None)
@given(LOGITS)
def test_is_symmetric_bounded_and_zero_on_itself(logits: np.ndarray) -> None:
    for dtype in (np.float64, np.float32):
        p, q = log_softmax(logits.astype(dtype))[:, None, :]
        there, back = jsd(p, q), jsd(q, p)
        assert there == pytest.approx(back, rel=1e-12, abs=1e-300)
        assert 0 <= there[0] <= LN2
        assert jsd(p, p)[0] == 0
        assert jsd(q, q)[0] == 0


def test_certain_opposites_reach_the_bound() -> None:
    with np.errstate(divide="ignore"):
        p, q = np.log([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]), np.log([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    half = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.75))
    np.testing.assert_allclose(jsd(p, q), [LN2, 0.0, half], rtol=1e-14)


def test_numbers_that_are_none_stay_visible() -> None:
    assert np.isnan(jsd([[np.nan, 0.0]], [[0.0, -1.0]])).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"log_q: expected shape \(2, 3\)"):
        jsd(np.zeros((2, 3)), np.zeros((2, 2)))


@pytest.mark.parametrize("n_outputs", [1, 2, 4])
@pytest.mark.parametrize("size", [3.0, 1e-3])
def test_gradient_agrees_with_autograd(size: float, n_outputs: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    logits_p = rng.normal(0, 2, (30, n_outputs))
    logits_q = logits_p + size * rng.normal(size=logits_p.shape)
    z = torch.tensor(logits_q, requires_grad=True)
    both = torch.cat([torch.zeros_like(z), z], dim=1) if n_outputs == 1 else z
    log_p, log_q = torch.tensor(log_proba_of(logits_p)), torch.log_softmax(both, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    loss = 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1).mean()
    (expected,) = torch.autograd.grad(loss, z)
    got = jsd_gradient(log_p.numpy(), logits_q)
    assert got.shape == logits_q.shape
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)
    single = jsd_gradient(log_p.numpy(), logits_q.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-6 * size)


def test_gradient_is_finite_where_predictions_saturate() -> None:
    z = np.array([[0.0, 4000.0], [4000.0, 0.0]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        value, gradient = jsd_with_gradient(log_softmax(z[::-1]), z)
    np.testing.assert_allclose(value, LN2)
    assert np.isfinite(gradient).all()


def test_mean_jsd_and_accuracy_of_models() -> None:
    spec = MLPSpec(1, (LayerSpec(1),), output="sigmoid")
    steep, reverse = MLP(spec, [1000.0, 0.0]), MLP(spec, [-1000.0, 0.0])
    x, y = np.array([[-1.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 1, 0])
    assert accuracy(steep, x, y) == 0.75
    assert accuracy(reverse, x, y) == 0.25
    assert mean_jsd(steep, steep, x) == 0
    assert mean_jsd(steep, reverse, x) == pytest.approx(LN2)
    with pytest.raises(ValueError, match="y: expected shape"):
        accuracy(steep, x, y[:3])
