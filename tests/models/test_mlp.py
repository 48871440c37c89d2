"""The MLP: layout of θ, forward pass against torch, outputs, hashes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.mlp import MLP, log_proba_of, log_softmax
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec

torch = pytest.importorskip("torch")

SKIPS = [(), ((1, 2),), ((0, 1), (0, 2), (1, 2))]


def some_mlp(seed: int = 0, **changes) -> MLP:
    spec = MLPSpec.simple((3, 4, 2), **changes)
    return MLP(spec, np.random.default_rng(seed).normal(size=spec.n_parameters))


def rows(mlp: MLP, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, mlp.spec.n_inputs)).astype(np.float32)


def test_theta_is_source_major() -> None:
    linear = torch.nn.Linear(3, 4)
    last = torch.nn.Linear(4, 2)
    mlp = some_mlp(activation="relu")
    mlp.weight(0)[...] = linear.weight.detach().numpy().T
    mlp.weight(1)[...] = last.weight.detach().numpy().T
    mlp.bias(0)[...] = linear.bias.detach().numpy()
    mlp.bias(1)[...] = last.bias.detach().numpy()
    x = rows(mlp, 5)
    expected = last(torch.relu(linear(torch.tensor(x)))).detach().numpy()
    np.testing.assert_allclose(mlp.logits(x), expected, atol=1e-6)
    assert mlp.theta[1 * 4 + 2] == mlp.weight(0)[1, 2]
    assert mlp.theta[12 + 3 * 2 + 1] == mlp.weight(1)[3, 1]
    assert mlp.theta[20 + 3] == mlp.bias(0)[3]


@settings(deadline=None)
@given(st.from_type(MLP), st.integers(0, 5))
def test_logits_agree_with_torch_in_float64(torch_layers, mlp: MLP, n_rows: int) -> None:
    x = rows(mlp, n_rows)
    expected = torch_layers(mlp, x)[2][-1].detach().numpy()
    got = mlp.logits(x, np.float64)
    assert got.dtype == np.float64
    assert got.shape == (n_rows, mlp.spec.n_outputs)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * (1 + np.abs(expected).max(initial=0)))


@pytest.mark.parametrize(("activation", "norm", "skips"), list(itertools.product(ACTIVATIONS, NORMS, SKIPS)))
def test_logits_agree_with_torch_in_float32(activation: str, norm: str, skips: tuple, torch_layers) -> None:
    spec = MLPSpec.simple((6, 16, 24, 3), activation, norm, skips)
    mlp = MLP(spec, np.random.default_rng(1).normal(0, 0.3, spec.n_parameters))
    x = rows(mlp, 64)
    got = mlp.logits(x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, torch_layers(mlp, x, torch.float32)[2][-1].detach(), rtol=1e-5, atol=1e-5)


def test_the_output_map_is_the_one_of_the_spec() -> None:
    x = np.random.default_rng(0).normal(size=(7, 3))
    mlp = some_mlp(output="softmax")
    np.testing.assert_allclose(mlp.forward(x), torch.softmax(torch.tensor(mlp.logits(x)), 1), rtol=1e-5)
    logs = some_mlp(output="log_softmax")
    np.testing.assert_allclose(logs.forward(x), torch.log_softmax(torch.tensor(mlp.logits(x)), 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.log(mlp.forward(x)), mlp.log_proba(x), atol=1e-5)
    for output in ("logits", "identity"):
        assert np.array_equal(some_mlp(output=output).forward(x), mlp.logits(x))
    one = MLPSpec(3, (LayerSpec(1),), output="sigmoid")
    binary = MLP(one, [1.0, -1.0, 0.5, 0.1])
    np.testing.assert_allclose(binary.forward(x), torch.sigmoid(torch.tensor(binary.logits(x))), rtol=1e-5)
    np.testing.assert_allclose(np.exp(binary.log_proba(x))[:, 1:], binary.forward(x), rtol=1e-5)
    assert np.array_equal(binary.predict(x), (binary.logits(x)[:, 0] > 0).astype(int))


def test_log_softmax_is_stable() -> None:
    logits = np.array([[1000.0, -1000.0, 0.0], [3e38, 0.0, -3e38]], np.float32)[:, :2]
    with np.errstate(over="raise", invalid="raise"):
        got = log_softmax(logits)
    assert np.isfinite(got).all()
    assert np.array_equal(got[:, 0], [0.0, 0.0])
    z = np.random.default_rng(0).normal(0, 30, (50, 4))
    np.testing.assert_allclose(log_softmax(z), torch.log_softmax(torch.tensor(z), 1), rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_proba_of(z[:, :1])).sum(1), 1, rtol=1e-12)


def test_input_normalisation_comes_first_and_is_no_parameter() -> None:
    mlp = some_mlp()
    scale, shift = np.array([2.0, 0.5, -1.0], np.float32), np.array([0.0, 1.0, -3.0], np.float32)
    scaled = MLP(mlp.spec, mlp.theta, scale, shift)
    x = rows(mlp, 5)
    np.testing.assert_allclose(scaled.logits(x), mlp.logits(x * scale + shift), rtol=1e-6)
    again = scaled.replace(np.zeros(mlp.spec.n_parameters))
    assert again.input_scale is not None
    assert np.array_equal(again.input_scale, scale)
    assert np.array_equal(mlp.normalised(x), x)


def test_parameters_are_views() -> None:
    mlp = some_mlp(norm="layer")
    assert sum(view.size for _, _, view in mlp.parameters()) == mlp.spec.n_parameters
    for kind, layer, view in mlp.parameters():
        assert np.shares_memory(view, mlp.theta)
        view[...] = layer + 1
        assert (mlp.parameter(kind, layer) == layer + 1).all()
    with pytest.raises(KeyError, match="norm_scale"):
        mlp.parameter("norm_scale", 1)


def test_sparsity_counts_weights_only() -> None:
    mlp = some_mlp()
    assert mlp.sparsity == 0
    mlp.bias(0)[...] = 0
    assert mlp.sparsity == 0
    mlp.weight(1)[...] = 0
    assert mlp.sparsity == 8 / 20


def test_non_finite_parameters_are_seen() -> None:
    mlp = some_mlp()
    assert mlp.is_finite
    mlp.bias(1)[0] = np.inf
    assert not mlp.is_finite


def test_the_content_hash_follows_the_content() -> None:
    mlp = some_mlp()
    other = mlp.replace(mlp.theta.copy())
    assert mlp.content_hash() == other.content_hash()
    ones, zeros = np.ones(3), np.zeros(3)
    other.theta[5] += 1
    variants = [
        mlp,
        other,
        MLP(mlp.spec, mlp.theta, ones),
        MLP(mlp.spec, mlp.theta, None, ones),
        MLP(mlp.spec, mlp.theta, ones, zeros),
        some_mlp(activation="tanh"),
    ]
    assert len({variant.content_hash() for variant in variants}) == len(variants)


def test_wrong_shapes_are_named() -> None:
    mlp = some_mlp()
    with pytest.raises(ValueError, match=r"theta: expected shape \(26,\), got \(25,\)"):
        mlp.replace(np.zeros(25))
    with pytest.raises(ValueError, match="input_shift"):
        MLP(mlp.spec, mlp.theta, None, [1.0])
    for bad in (np.zeros((2, 4)), np.zeros(3), np.zeros((1, 2, 3))):
        with pytest.raises(ValueError, match=r"x: expected shape \[rows, 3\]"):
            mlp.logits(bad)
