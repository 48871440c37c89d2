"""Forward trace and gradients against torch's autograd, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.backprop import backward, trace
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec

torch = pytest.importorskip("torch")


def assert_gradients_agree(mlp: MLP, n_rows: int, torch_layers, tolerance: float = 1e-10) -> None:
    rng = np.random.default_rng(n_rows)
    x = rng.normal(size=(n_rows, mlp.spec.n_inputs)).astype(np.float32)
    upstream = rng.normal(size=(n_rows, mlp.spec.n_outputs))
    run = trace(mlp, x, np.float64)
    got = backward(run, upstream)
    theta, linear, neurons = torch_layers(mlp, x)
    loss = (neurons[-1] * torch.tensor(upstream)).sum()
    expected_theta, *expected_linear = torch.autograd.grad(loss, [theta, *linear])
    for ours, theirs in zip(run.outputs, neurons, strict=True):
        close(ours, theirs.detach().numpy(), tolerance)
    close(got.theta, expected_theta.numpy(), tolerance)
    for ours, theirs in zip(got.linear, expected_linear, strict=True):
        close(ours, theirs.numpy(), tolerance)


def close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max(initial=0)))


@settings(deadline=None, max_examples=200)
@given(st.from_type(MLP), st.integers(0, 5))
def test_gradients_of_random_networks(torch_layers, mlp: MLP, n_rows: int) -> None:
    assert_gradients_agree(mlp, n_rows, torch_layers)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_with_skips_into_everything(activation: str, torch_layers) -> None:
    skips = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    spec = MLPSpec.simple((5, 9, 3, 7, 2), activation, "layer", skips)
    mlp = MLP(spec, np.random.default_rng(3).normal(0, 0.5, spec.n_parameters))
    assert_gradients_agree(mlp, 16, torch_layers)


def test_a_layer_norm_over_one_neuron_passes_no_gradient(torch_layers) -> None:
    spec = MLPSpec(4, (LayerSpec(3, "tanh"), LayerSpec(1, "tanh", norm="layer"), LayerSpec(2)))
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    assert_gradients_agree(mlp, 8, torch_layers)
    gradients = backward(trace(mlp, np.ones((8, 4))), np.ones((8, 2), np.float32))
    assert not gradients.linear[0].any()
    assert gradients.linear[2].any()


def test_float32_gradients_are_float32_and_close_to_float64() -> None:
    spec = MLPSpec.simple((6, 32, 32, 2), "gelu", "layer", [(1, 2)])
    mlp = MLP(spec, np.random.default_rng(0).normal(0, 0.3, spec.n_parameters))
    x = np.random.default_rng(1).normal(size=(128, 6)).astype(np.float32)
    upstream = np.random.default_rng(2).normal(size=(128, 2)).astype(np.float32)
    single = backward(trace(mlp, x), upstream)
    double = backward(trace(mlp, x, np.float64), upstream.astype(np.float64))
    assert single.theta.dtype == np.float32
    assert all(g.dtype == np.float32 for g in single.linear)
    close(single.theta, double.theta, 1e-5)


def test_backward_leaves_the_trace_and_the_model_alone() -> None:
    spec = MLPSpec.simple((4, 6, 6, 2), "identity", skips=[(0, 1), (1, 2)])
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    theta = mlp.theta.copy()
    run = trace(mlp, np.ones((3, 4)))
    outputs = [h.copy() for h in run.outputs]
    upstream = np.ones((3, 2), np.float32)
    first = backward(run, upstream)
    second = backward(run, upstream)
    assert np.array_equal(first.theta, second.theta)
    assert np.array_equal(upstream, np.ones((3, 2)))
    assert np.array_equal(mlp.theta, theta)
    assert all(np.array_equal(a, b) for a, b in zip(run.outputs, outputs, strict=True))
