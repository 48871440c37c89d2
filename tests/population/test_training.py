"""Batched training: reproducible, independent of the neighbours, and it learns."""

import dataclasses

import numpy as np
import pytest
import torch

from metaedit_fast.datasets import Dataset
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population.network import Stack
from metaedit_fast.population.sampling import Ranges, RunSpec, sample_runs, stream
from metaedit_fast.population.training import _Dropout, train_group

RANGES = Ranges(depths=(3,), widths=(8, 16), batch_sizes=(32,), runs_per_shape=8)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def runs() -> list[RunSpec]:
    return sample_runs(8, seed=5, n_inputs=5, ranges=RANGES)


def test_the_same_call_gives_the_same_bits(toy: Dataset, runs: list[RunSpec]) -> None:
    first, again = (train_group(runs, toy, checkpoints=[1, 3]) for _ in range(2))
    assert [(c.run.run, c.checkpoint, c.epoch) for c in first] == [
        (k, i, e) for k in range(8) for i, e in ((0, 1), (1, 3))
    ]
    for a, b in zip(first, again, strict=True):
        assert a.theta.tobytes() == b.theta.tobytes()
        assert (a.val_accuracy, a.val_loss) == (b.val_accuracy, b.val_loss)


def test_a_run_alone_becomes_what_it_becomes_in_a_group(toy: Dataset, runs: list[RunSpec]) -> None:
    together = train_group(runs, toy, checkpoints=[2])
    for found in together[::3]:
        alone = train_group([found.run], toy, checkpoints=[2])[0]
        np.testing.assert_allclose(alone.theta, found.theta, rtol=1e-3, atol=1e-4)
    backwards = train_group(runs[::-1], toy, checkpoints=[2])
    assert [c.theta.tobytes() for c in backwards] == [c.theta.tobytes() for c in together]


def test_figures_are_those_of_the_stored_model(toy: Dataset, runs: list[RunSpec]) -> None:
    for found in train_group(runs, toy, checkpoints=[2]):
        log_p = MLP(found.run.spec, found.theta).log_proba(toy.val.x)
        assert found.val_accuracy == pytest.approx((log_p.argmax(axis=1) == toy.val.y).mean(), abs=1e-6)
        assert found.val_loss == pytest.approx(-log_p[np.arange(len(log_p)), toy.val.y].mean(), abs=1e-5)


def test_it_is_adamw(toy: Dataset) -> None:
    """One run without norm, skips and dropout against torch's own optimiser, batch by batch."""
    drawn = sample_runs(1, seed=0, n_inputs=5, ranges=dataclasses.replace(RANGES, norms=("none",), dropouts=(0.0,)))[0]
    run = dataclasses.replace(
        drawn, spec=dataclasses.replace(drawn.spec, skips=()), learning_rate=0.01, weight_decay=0.1
    )
    start = MLP(run.spec, Stack([run]).theta(0))
    linears = []
    for i in range(len(run.spec.layers)):
        linear = torch.nn.Linear(*run.spec.widths[i : i + 2])
        linear.weight.data = torch.from_numpy(start.weight(i).T.copy())
        linear.bias.data = torch.from_numpy(start.bias(i).copy())
        linears.append(linear)
    kind = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh", "leaky_relu": "LeakyReLU"}
    act = getattr(torch.nn, kind.get(run.spec.layers[0].activation, "Sigmoid"))
    net = torch.nn.Sequential(*(m for linear in linears for m in (linear, act())))[:-1]
    groups = [
        {"params": [m.weight for m in linears], "weight_decay": 0.1},
        {"params": [m.bias for m in linears], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.01)
    order = stream(run, "order").permutation(400)
    for step in range(400 // 32):
        batch = order[32 * step : 32 * step + 32]
        loss = torch.nn.functional.cross_entropy(
            net(torch.from_numpy(toy.train.x[batch])), torch.from_numpy(toy.train.y[batch])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = MLP(run.spec, train_group([run], toy, checkpoints=[1])[0].theta)
    for i, linear in enumerate(linears):
        np.testing.assert_allclose(found.weight(i).T, linear.weight.detach().numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.bias(i), linear.bias.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_dropout_keeps_the_mean_and_the_rate() -> None:
    runs = [
        dataclasses.replace(r, dropout=p)
        for r, p in zip(sample_runs(4, seed=1, n_inputs=5), (0, 0.1, 0.2, 0.3), strict=True)
    ]
    dropout = _Dropout(runs, 512)
    masks = dropout.masks()
    assert masks is not None
    for k, run in enumerate(runs):
        drawn = torch.cat([m[k].flatten() for m in masks])
        assert (drawn == 0).float().mean().item() == pytest.approx(run.dropout, abs=0.02)
        assert drawn.mean().item() == pytest.approx(1.0, abs=0.02)
    assert _Dropout([dataclasses.replace(runs[0], dropout=0.0)], 8).masks() is None


def test_a_run_that_diverges_is_recorded_and_harms_no_neighbour(toy: Dataset, runs: list[RunSpec]) -> None:
    wild = [dataclasses.replace(runs[0], learning_rate=1e38), *runs[1:]]
    found = train_group(wild, toy, checkpoints=[2])
    calm = train_group(runs, toy, checkpoints=[2])
    assert not np.isfinite(found[0].theta).all()
    for a, b in zip(found[1:], calm[1:], strict=True):
        assert a.theta.tobytes() == b.theta.tobytes()


def test_groups_must_share_their_shape(toy: Dataset, runs: list[RunSpec]) -> None:
    with pytest.raises(ValueError, match="equal widths and batch sizes"):
        train_group([runs[0], dataclasses.replace(runs[1], batch_size=64)], toy, checkpoints=[1])
    with pytest.raises(ValueError, match="at most 400 training rows, got 512"):
        train_group([dataclasses.replace(runs[0], batch_size=512)], toy, checkpoints=[1])


def test_real_models_beat_the_majority_class(adult: Dataset) -> None:
    ranges = Ranges(depths=(2,), widths=(16, 32), batch_sizes=(256,), learning_rate=(1e-3, 1e-2), runs_per_shape=6)
    found = train_group(sample_runs(6, seed=0, n_inputs=14, ranges=ranges), adult, checkpoints=[3])
    majority = 1 - adult.val.y.mean()
    assert min(c.val_accuracy for c in found) > majority + 0.04
    assert np.mean([c.val_accuracy for c in found]) > majority + 0.06
