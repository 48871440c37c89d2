"""Statistics of a probe against torch, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.models.symmetry import random_permutations, theta_order

torch = pytest.importorskip("torch")


def reference(mlp: MLP, x: np.ndarray, torch_layers) -> tuple[list, list, list, np.ndarray]:
    """The definition: a sum over classes of squared per-row gradients, in float64."""
    _, linear, neurons = torch_layers(mlp, x)
    logits = neurons[-1]
    if mlp.spec.output == "identity":
        terms = [(torch.ones(len(x)), logits[:, c]) for c in range(logits.shape[1])]
    else:
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        log_p = torch.log_softmax(logits, dim=1)
        terms = [(log_p[:, c].exp().detach(), log_p[:, c]) for c in range(logits.shape[1])]
    squares = [torch.zeros_like(z) for z in linear]
    for weight, value in terms:
        gradients = torch.autograd.grad(value.sum(), linear, retain_graph=True)
        squares = [s + weight[:, None] * g**2 for s, g in zip(squares, gradients, strict=True)]
    edge = [(h[:, :, None] ** 2 * g[:, None, :]).mean(0).flatten() for h, g in zip(neurons[:-1], squares, strict=True)]
    return (
        [h.mean(0).detach().numpy() for h in neurons],
        [h.std(0, unbiased=False).detach().numpy() for h in neurons],
        [g.mean(0).numpy() for g in squares],
        torch.cat(edge).detach().numpy(),
    )


@settings(deadline=None)
@given(st.from_type(MLP), st.integers(1, 6))
def test_agrees_with_the_definition(torch_layers, mlp: MLP, n_rows: int) -> None:
    x = np.random.default_rng(n_rows).normal(size=(n_rows, mlp.spec.n_inputs)).astype(np.float32)
    got = probe_statistics(mlp, x)
    mean, std, gradient, edge = reference(mlp, x, torch_layers)
    pairs = [*zip(got.mean, mean, strict=True), *zip(got.std, std, strict=True)]
    pairs += [*zip(got.gradient, gradient, strict=True), (got.edge, edge)]
    # Layer norm over nearly equal numbers magnifies float32 rounding, hence no tighter bound.
    for ours, theirs in pairs:
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=1e-4 * (1 + np.abs(theirs).max()))


@pytest.mark.parametrize("n_outputs", [1, 2, 5])
def test_is_accurate_on_a_usual_network(n_outputs: int, torch_layers) -> None:
    spec = MLPSpec.simple((6, 16, 16, n_outputs), "silu", "layer", [(1, 2)])
    mlp = MLP(spec, np.random.default_rng(0).normal(0, 0.4, spec.n_parameters))
    x = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)
    got = probe_statistics(mlp, x)
    _, std, gradient, edge = reference(mlp, x, torch_layers)
    np.testing.assert_allclose(got.edge, edge, rtol=2e-4, atol=1e-9)
    for ours, theirs in zip([*got.std, *got.gradient], [*std, *gradient], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-9)


def test_a_nearly_certain_model_keeps_its_small_fisher_information() -> None:
    spec = MLPSpec(1, (LayerSpec(2),))
    mlp = MLP(spec, [0.0, 0.0, -15.0, 15.0])
    expected = np.exp(-30.0)  # p (1 - p), p = sigmoid(30)
    np.testing.assert_allclose(probe_statistics(mlp, np.ones((4, 1))).edge, [expected, expected], rtol=1e-3)


def test_two_forms_of_a_binary_classifier_agree() -> None:
    rng = np.random.default_rng(0)
    one = MLP(MLPSpec(3, (LayerSpec(4, "tanh"), LayerSpec(1)), output="sigmoid"), rng.normal(size=21))
    two = MLP(MLPSpec(3, (LayerSpec(4, "tanh"), LayerSpec(2))), np.zeros(26))
    two.weight(0)[...], two.bias(0)[...] = one.weight(0), one.bias(0)
    two.weight(1)[:, 1:], two.bias(1)[1:] = one.weight(1), one.bias(1)
    x = rng.normal(size=(32, 3))
    a, b = probe_statistics(one, x), probe_statistics(two, x)
    np.testing.assert_allclose(a.gradient[0], b.gradient[0], rtol=1e-5)
    np.testing.assert_allclose(a.edge[:12], b.edge[:12], rtol=1e-5)


def test_follows_permutations_of_neurons() -> None:
    spec = MLPSpec.simple((3, 7, 7, 2), "gelu", "layer", [(1, 2)])
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    permutations = random_permutations(spec, np.random.default_rng(1))
    order = theta_order(spec, permutations)
    x = np.random.default_rng(2).normal(size=(16, 3))
    plain, permuted = probe_statistics(mlp, x), probe_statistics(mlp.replace(mlp.theta[order]), x)
    np.testing.assert_allclose(permuted.edge, plain.edge[order[: spec.n_weights]], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(permuted.mean[2], plain.mean[2][permutations[2]], rtol=1e-4, atol=1e-6)


def test_an_empty_probe_is_refused() -> None:
    mlp = MLP(MLPSpec.simple((3, 2)), np.zeros(8))
    with pytest.raises(ValueError, match="at least one row"):
        probe_statistics(mlp, np.zeros((0, 3)))
