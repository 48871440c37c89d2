"""Training a run: reproducible, independent of whatever runs beside it, and it learns."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.datasets import Dataset
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population.sampling import Ranges, RunSpec, sample_runs
from metaedit_fast.population.training import Checkpoint, train_run

RANGES = Ranges(depths=(3,), widths=(8, 16), batch_sizes=(32,), runs_per_shape=8)
ISAS = _core.available_isas()


@pytest.fixture(scope="module")
def runs() -> list[RunSpec]:
    runs = sample_runs(8, seed=5, n_inputs=5, ranges=RANGES)
    assert {r.norm for r in runs} == {"none", "batch", "layer"}
    return runs


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return a.theta.tobytes() == b.theta.tobytes() and (a.val_accuracy, a.val_loss) == (b.val_accuracy, b.val_loss)


@pytest.mark.parametrize("isa", ISAS)
def test_the_same_call_gives_the_same_bits_in_any_thread(toy: Dataset, runs: list[RunSpec], isa: str) -> None:
    first = [train_run(run, toy, checkpoints=[1, 3], isa=isa) for run in runs]
    assert [(c.run.run, c.checkpoint, c.epoch) for found in first for c in found] == [
        (k, i, e) for k in range(8) for i, e in ((0, 1), (1, 3))
    ]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda run: train_run(run, toy, checkpoints=[1, 3], isa=isa), runs[::-1]))[::-1]
    assert all(same(a, b) for one, other in zip(first, again, strict=True) for a, b in zip(one, other, strict=True))


def test_a_later_checkpoint_changes_no_earlier_one(toy: Dataset, runs: list[RunSpec]) -> None:
    for run in runs[:3]:
        assert same(train_run(run, toy, checkpoints=[3, 2])[0], train_run(run, toy, checkpoints=[2])[0])


def test_figures_are_those_of_the_stored_model(toy: Dataset, runs: list[RunSpec]) -> None:
    for run in runs:
        (found,) = train_run(run, toy, checkpoints=[2])
        log_p = MLP(run.spec, found.theta).log_proba(toy.val.x, np.float64)
        assert found.val_accuracy == pytest.approx((log_p.argmax(axis=1) == toy.val.y).mean(), abs=1e-6)
        assert found.val_loss == pytest.approx(-log_p[np.arange(len(log_p)), toy.val.y].mean(), abs=1e-5)


def test_a_run_that_diverges_is_recorded(toy: Dataset, runs: list[RunSpec]) -> None:
    for run in runs:
        found = train_run(dataclasses.replace(run, learning_rate=1e38), toy, checkpoints=[2])
        assert not np.isfinite(found[0].theta).all()


def test_every_epoch_is_told(toy: Dataset, runs: list[RunSpec]) -> None:
    told: list[int] = []
    train_run(runs[0], toy, checkpoints=[1, 3], on_epoch=told.append)
    assert told == [1, 2, 3]


def test_a_batch_needs_its_rows(toy: Dataset, runs: list[RunSpec]) -> None:
    with pytest.raises(ValueError, match="at most 400 training rows, got 512"):
        train_run(dataclasses.replace(runs[0], batch_size=512), toy, checkpoints=[1])


@pytest.mark.parametrize("isa", ISAS)
def test_real_models_beat_the_majority_class(adult: Dataset, isa: str) -> None:
    ranges = Ranges(depths=(2,), widths=(16, 32), batch_sizes=(256,), learning_rate=(1e-3, 1e-2), runs_per_shape=6)
    found = [
        train_run(r, adult, checkpoints=[3], isa=isa)[0] for r in sample_runs(6, seed=0, n_inputs=14, ranges=ranges)
    ]
    majority = 1 - adult.val.y.mean()
    assert min(c.val_accuracy for c in found) > majority + 0.04
    assert np.mean([c.val_accuracy for c in found]) > majority + 0.06
