"""The operator metaedit::divergence against plain torch in float64, and as torch wants its operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, MLPSpec
from metaedit_fast.training import reference
from metaedit_fast.training.divergence import divergence, population_jsd

ROWS = torch.from_numpy(np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32))


def edited(mlps: list[MLP], seed: int = 0) -> Tensor:
    """All models' parameters, disturbed and a third of them zero, ``[P]``."""
    rng = np.random.default_rng(seed)
    theta = np.concatenate([mlp.theta for mlp in mlps])
    theta = (theta + rng.normal(0, 0.2, theta.size)) * (rng.random(theta.size) > 0.3)
    return torch.from_numpy(theta.astype(np.float32))


def sizes(mlps: list[MLP]) -> list[int]:
    return [mlp.spec.n_parameters for mlp in mlps]


def exact(mlps: list[MLP], theta: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values and the gradient of their weighted sum in float64."""
    leaf = theta.double().requires_grad_()
    values = reference.population_jsd(mlps, list(leaf.split(sizes(mlps))), rows.double())
    return values.detach(), torch.autograd.grad((values * weight).sum(), leaf)[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reference_gives_what_the_mlps_give(activation: str) -> None:
    rng = np.random.default_rng(0)
    spec = MLPSpec.simple((6, 7, 5, 2), activation, "layer", ((0, 1), (1, 2), (0, 2)))
    mlps = [MLP(spec, rng.normal(size=spec.n_parameters)) for _ in range(3)]
    thetas = torch.from_numpy(np.stack([m.theta for m in mlps])).double()
    found = reference.stacked_logits(spec, thetas, ROWS[:9].double())
    for mlp, logits in zip(mlps, found, strict=True):
        np.testing.assert_allclose(logits, mlp.logits(ROWS[:9].numpy(), np.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_rows", [1, 64, 300])
def test_values_and_gradients_are_those_of_float64(mixed_mlps: list[MLP], n_rows: int) -> None:
    rows, theta = ROWS[:n_rows], edited(mixed_mlps)
    weight = torch.linspace(-1, 2, len(mixed_mlps))
    leaf = theta.clone().requires_grad_()
    values = population_jsd(mixed_mlps, leaf, rows)
    (gradient,) = torch.autograd.grad((values * weight).sum(), leaf)
    wanted, wanted_gradient = exact(mixed_mlps, theta, rows, weight.double())
    torch.testing.assert_close(values.detach().double(), wanted, rtol=2e-6, atol=0)
    for got, true in zip(gradient.split(sizes(mixed_mlps)), wanted_gradient.split(sizes(mixed_mlps)), strict=True):
        assert (got - true).norm() <= 1e-5 * true.norm()


def test_the_divergence_of_a_mixed_population_is_the_measured_one(mixed_mlps: list[MLP]) -> None:
    theta = edited(mixed_mlps)
    parts = [part.numpy() for part in theta.split(sizes(mixed_mlps))]
    measured = [mean_jsd(m, m.replace(part), ROWS.numpy()) for m, part in zip(mixed_mlps, parts, strict=True)]
    np.testing.assert_allclose(population_jsd(mixed_mlps, theta, ROWS), measured, rtol=1e-6)


def test_unchanged_models_are_at_no_distance(mixed_mlps: list[MLP]) -> None:
    theta = torch.from_numpy(np.concatenate([mlp.theta for mlp in mixed_mlps])).requires_grad_()
    values = population_jsd(mixed_mlps, theta, ROWS)
    assert not values.any()
    (gradient,) = torch.autograd.grad(values.sum(), theta)
    assert not gradient.any()


@given(chosen=st.permutations(range(7)), count=st.integers(1, 7), n_threads=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_bits_depend_neither_on_neighbours_nor_on_threads(
    mixed_mlps: list[MLP], chosen: list[int], count: int, n_threads: int
) -> None:
    def run(which: list[int], num_threads: int) -> tuple[list[Tensor], list[Tensor]]:
        mlps = [mixed_mlps[i] for i in which]
        leaf = torch.cat([parts[i] for i in which]).requires_grad_()
        values = population_jsd(mlps, leaf, ROWS, num_threads=num_threads)
        return list(values.detach()), list(torch.autograd.grad(values.sum(), leaf)[0].split(sizes(mlps)))

    parts = edited(mixed_mlps).split(sizes(mixed_mlps))
    values, gradients = run(chosen[:count], n_threads)
    for position, i in enumerate(chosen[:count]):
        (value,), (gradient,) = run([i], 1)
        assert torch.equal(values[position], value)
        assert torch.equal(gradients[position], gradient)


def arguments(mlps: list[MLP]) -> tuple[Tensor, list[Tensor], list[Tensor], list[int], list[str], int]:
    log_p = [torch.from_numpy(mlp.log_proba(ROWS.numpy())) for mlp in mlps]
    theta = edited(mlps).requires_grad_()
    return theta, log_p, [ROWS, ROWS * 2], [i % 2 for i in range(len(mlps))], [m.spec.to_json() for m in mlps], 2


def test_torch_finds_no_fault(mixed_mlps: list[MLP]) -> None:
    torch.library.opcheck(divergence, arguments(mixed_mlps))


def test_it_compiles(mixed_mlps: list[MLP]) -> None:
    theta, *rest = arguments(mixed_mlps[:3])

    def loss(t: Tensor) -> Tensor:
        return torch.log(divergence(2.0 * t, *rest)[0] + 1e-4).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for of in (theta, edited(mixed_mlps[:3], seed=1).requires_grad_()):
        plain = loss(of)
        traced = compiled(of)
        assert torch.equal(plain, traced)
        assert torch.equal(*(torch.autograd.grad(value, of)[0] for value in (plain, traced)))


def test_wrong_arguments_are_named(mixed_mlps: list[MLP]) -> None:
    theta, log_p, rows, rows_of, specs, n = arguments(mixed_mlps)
    with pytest.raises(ValueError, match=r"theta: expected shape \(\d+,\), got \(3,\)"):
        divergence(theta[:3], log_p, rows, rows_of, specs, n)
    with pytest.raises(TypeError, match="theta: expected a float32 array"):
        divergence(theta.double(), log_p, rows, rows_of, specs, n)
    with pytest.raises(ValueError, match=r"rows: expected 6 columns, got 5"):
        divergence(theta, log_p, [x[:, :5] for x in rows], rows_of, specs, n)
    with pytest.raises(ValueError, match=r"log_p: expected a float32 array of shape \[300, 2\]"):
        divergence(theta, [p[:9] for p in log_p], rows, rows_of, specs, n)
    with pytest.raises(ValueError, match="expected at least one row, got none"):
        divergence(theta, [p[:0] for p in log_p], [x[:0] for x in rows], rows_of, specs, n)
    with pytest.raises(ValueError, match="not the JSON of an MLPSpec"):
        divergence(theta, log_p, rows, rows_of, ["{}"] * len(specs), n)
