"""Pruning baselines: exact budgets, definitions checked against torch, determinism."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.evaluation.baselines.pruning import (
    METHODS,
    cross_entropy_gradient,
    lottery_ticket,
    prune,
    scores,
)
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.requirements.masks import kept_count

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 64)


def network(n_outputs: int = 3) -> MLP:
    spec = MLPSpec.simple((5, 12, 8, n_outputs), "tanh", "layer", [(0, 1), (1, 2)])
    return MLP(spec, np.random.default_rng(1).normal(0, 0.5, spec.n_parameters))


def pruned(method: str, mlp: MLP, sparsity: float, **options) -> MLP:
    return prune(method, mlp, sparsity, x=X, y=Y, rng=np.random.default_rng(2), **options)


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("method", METHODS)
def test_sparsity_is_exact_and_the_rest_untouched(method: str, sparsity: float, rounds: int) -> None:
    mlp = network()
    before = mlp.theta.copy()
    got = pruned(method, mlp, sparsity, rounds=rounds)
    n = mlp.spec.n_weights
    kept = got.theta[:n] != 0
    assert np.count_nonzero(kept) == kept_count(n, sparsity)
    assert np.array_equal(got.theta[:n][kept], before[:n][kept])
    assert np.array_equal(got.theta[n:], before[n:])
    assert np.array_equal(mlp.theta, before)


@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_snip_and_gradient_agree_with_autograd(n_outputs: int) -> None:
    torch = pytest.importorskip("torch")
    spec = MLPSpec.simple((5, 12, n_outputs), "tanh")
    mlp = MLP(spec, np.random.default_rng(1).normal(0, 0.5, spec.n_parameters))
    labels = Y % max(2, n_outputs)
    theta = torch.tensor(mlp.theta, dtype=torch.float64, requires_grad=True)
    part = {(kind, i): theta[where].reshape(shape) for kind, i, where, shape in spec.parameter_slices}
    hidden = torch.tanh(torch.tensor(X, dtype=torch.float64) @ part["weight", 0] + part["bias", 0])
    logits = hidden @ part["weight", 1] + part["bias", 1]
    if n_outputs == 1:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor(labels).double())
    else:
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(loss, theta)
    expected = gradient.numpy()
    np.testing.assert_allclose(cross_entropy_gradient(mlp, X, labels), expected, rtol=1e-4, atol=1e-6)
    expected = expected[: spec.n_weights]
    np.testing.assert_allclose(scores("gradient", mlp, X, labels), np.abs(expected), rtol=1e-4, atol=1e-6)
    weights = mlp.theta[: spec.n_weights]
    np.testing.assert_allclose(scores("snip", mlp, X, labels), np.abs(weights * expected), rtol=1e-4, atol=1e-6)


def test_magnitude_and_fisher_are_their_formulas() -> None:
    mlp = network()
    weights = mlp.theta[: mlp.spec.n_weights]
    assert np.array_equal(scores("magnitude", mlp), np.abs(weights))
    assert np.array_equal(scores("fisher", mlp, X), weights * weights * probe_statistics(mlp, X).edge)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_magnitude_by_layer_takes_the_same_fraction_of_each(sparsity: float) -> None:
    mlp = network()
    got = pruned("magnitude_layer", mlp, sparsity)
    for i in range(3):
        before, after = np.abs(mlp.weight(i)), np.abs(got.weight(i))
        kept = after > 0
        assert abs(np.count_nonzero(kept) - (1 - sparsity) * before.size) <= 1
        assert before[kept].min() >= before[~kept].max()


def test_random_pruning_follows_its_generator() -> None:
    mlp = network()
    one, two = (prune("random", mlp, 0.5, rng=np.random.default_rng(seed)) for seed in (1, 1))
    other = prune("random", mlp, 0.5, rng=np.random.default_rng(2))
    assert np.array_equal(one.theta, two.theta)
    assert not np.array_equal(one.theta, other.theta)


def test_what_is_missing_or_wrong_is_named() -> None:
    mlp = network()
    with pytest.raises(ValueError, match="method: expected one of"):
        scores("wanda", mlp)
    with pytest.raises(ValueError, match="rng"):
        scores("random", mlp)
    with pytest.raises(ValueError, match="x: the method 'snip'"):
        scores("snip", mlp)
    with pytest.raises(ValueError, match="y: the method 'snip'"):
        scores("snip", mlp, X)
    with pytest.raises(ValueError, match=r"y: expected classes 0..2, got .*3"):
        scores("snip", mlp, X, np.full(64, 3))
    with pytest.raises(ValueError, match="one label for each of 64 rows"):
        scores("snip", mlp, X, Y[:5])
    with pytest.raises(ValueError, match="sparsity"):
        prune("magnitude", mlp, 1.0)


def test_lottery_ticket_is_sparse_trained_and_deterministic() -> None:
    mlp = network()
    labels = mlp.predict(X)
    ticket = lottery_ticket(mlp, 0.8, X, labels, rounds=3, steps=20)
    n = mlp.spec.n_weights
    assert np.count_nonzero(ticket.theta[:n]) == kept_count(n, 0.8)
    assert np.mean(ticket.predict(X) == labels) > np.mean(pruned("random", mlp, 0.8).predict(X) == labels)
    assert np.array_equal(ticket.theta, lottery_ticket(mlp, 0.8, X, labels, rounds=3, steps=20).theta)
    rewound = lottery_ticket(mlp, 0.8, X, labels, rounds=3, steps=0)
    kept = rewound.theta[:n] != 0
    assert np.array_equal(rewound.theta[:n][kept], mlp.theta[:n][kept])
