"""What trainings of the requirements optimise: they learn, repeat to the bit, and ask the teacher once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaedit_fast.data import Table
from metaedit_fast.errors import InvalidCheckpointError
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.inputs import without_inputs
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.requirements import DataMinimisation, EqualizedOdds
from metaedit_fast.training.soft_odds import TEMPERATURE
from metaedit_fast.training.tasks import TrainingRows, data_minimisation
from metaedit_fast.training.trainer import Trainer, TrainerConfig

N_INPUTS = 6
RNG = np.random.default_rng(0)
# Inputs depend on each other, so that an edit can make up for those that are removed.
X = (RNG.standard_normal((800, 3)) @ RNG.standard_normal((3, N_INPUTS))).astype(np.float32) / 1.7
ROWS = TrainingRows(Table(X[:500]), Table(X[500:]), Table(X[:128]))


def population(count: int, seed: int = 0) -> list[MLP]:
    rng = np.random.default_rng(seed)
    specs = [MLPSpec.simple((N_INPUTS, 8, 2), "relu"), MLPSpec.simple((N_INPUTS, 6, 8, 2), "tanh", "layer")]
    mlps = []
    for i in range(count):
        mlp = MLP(specs[i % 2], rng.normal(0, 0.8, specs[i % 2].n_parameters))
        mlp.weight(0)[...] *= np.exp(rng.normal(0, 0.7, N_INPUTS))[:, None]  # inputs of unequal worth
        mlps.append(mlp)
    return mlps


def trainer(folder: Path | None = None, *, steps: int = 120, num_threads: int = 1) -> Trainer:
    settings = TrainerConfig(steps=steps, models_per_step=10, evaluate_every=40, warmup=10, budgets=(0.34, 0.5, 0.67))
    config = MetanetConfig(N_INPUTS, d_v=32, n_layers=2, probe=True, context="inputs")
    mlps = population(60)
    return Trainer(
        config, settings, DataMinimisation(), mlps[:45], mlps[45:], ROWS, folder=folder, num_threads=num_threads
    )


def test_the_editor_of_inputs_learns_to_beat_zeroing_some_of_them() -> None:
    run = trainer()
    first = run.evaluate()
    run.run()
    assert run.best is not None
    assert run.best.score < first.score - 0.3
    assert run.best.requirement == {"0.34": 4.0, "0.5": 3.0, "0.67": 2.0}
    mlps = run.validation.mlps
    zeroed = [without_inputs(mlp, RNG.permutation(N_INPUTS) >= 3) for mlp in mlps]
    jsd = evaluate(zeroed, X[500:], originals=mlps).jsd
    assert jsd is not None
    assert run.best.jsd["0.5"] < 0.5 * jsd.mean()


def test_threads_and_going_on_change_no_bit_and_the_teacher_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trainer(tmp_path, steps=40, num_threads=2).run().state_dict()

    def asked_again(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(data_minimisation, "elimination_ranks", asked_again)
        gone_on = trainer(tmp_path, steps=40)
    assert gone_on.step == 40
    found = trainer(steps=40).run().state_dict()
    for name, value in expected.items():
        assert value.numpy().tobytes() == found[name].numpy().tobytes(), name
        assert torch.equal(value, gone_on.best_state[name]), name


def test_ranks_of_other_models_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=1).run()
    (path,) = tmp_path.glob("*.npy")
    np.save(path, np.zeros((3, N_INPUTS), np.int64))
    with pytest.raises(InvalidCheckpointError, match="expected ranks of 45 models"):
        trainer(tmp_path, steps=1)


class Preservation(EqualizedOdds):
    """Asks for so little that only preservation counts, with the whole residual free."""

    validation_budgets = (1e-9,)

    def sample_budgets(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return np.full(count, 1e-9)

    def residual_share(self, budget: float) -> float:
        return 1.0


def group_trainer(
    requirement: EqualizedOdds,
    steps: int,
    scalarisation: str = "linear",
    temperature: float = TEMPERATURE,
    **options: Any,
) -> Trainer:
    noise = np.random.default_rng(1).standard_normal((2, len(X)))
    y = (X[:, 0] + noise[0] > 0).astype(np.int64)
    groups = np.where(X[:, 1] + noise[1] > 0, "a", "b")
    tables = [Table(X[part], y[part], sensitive=groups[part]) for part in (slice(500), slice(500, 800), slice(400))]
    settings = TrainerConfig(
        steps=steps,
        models_per_step=8,
        rows_per_step=256,
        evaluate_every=40,
        warmup=10,
        learning_rate=5e-3,
        scalarisation=scalarisation,
        temperature=temperature,
    )
    config = MetanetConfig(N_INPUTS, d_v=32, n_layers=2, probe=True, context="groups", gamma=0.3)
    mlps = [mlp for mlp in population(120) if 0.2 < mlp.predict(X).mean() < 0.8]
    return Trainer(config, settings, requirement, mlps[:-8], mlps[-8:], TrainingRows(*tables), **options)


def test_preservation_alone_converges_to_the_identity() -> None:
    run = group_trainer(Preservation(), steps=240)
    with torch.no_grad():  # far from the identity, near which a network starts
        for head in (run.net.edit_head.out, run.net.node_head):
            head.weight.mul_(10)
    first = run.evaluate()
    run.run()
    assert run.best is not None
    assert first.jsd["1e-09"] > 1e-3
    assert run.best.jsd["1e-09"] < 0.02 * first.jsd["1e-09"]


@pytest.mark.parametrize("scalarisation", ["linear", "tchebycheff", "epo"])
def test_the_editor_of_groups_trades_divergence_for_equal_rates(scalarisation: str) -> None:
    if scalarisation == "tchebycheff":
        pytest.importorskip("torchjd.scalarization")
    run = group_trainer(EqualizedOdds(), steps=200, scalarisation=scalarisation)
    run.run()
    assert run.best is not None
    weak, strong = run.best.requirement["0.003"], run.best.requirement["3"]
    assert strong < 0.7 * weak
    assert run.best.jsd["0.003"] < run.best.jsd["3"]


def test_threads_change_no_bit_of_a_training_for_groups() -> None:
    one, three = (group_trainer(EqualizedOdds(), steps=4, num_threads=n).run().state_dict() for n in (1, 3))
    for name, value in one.items():
        assert torch.equal(value, three[name]), name


def test_the_temperature_of_soft_decisions_is_what_the_training_uses() -> None:
    default, same, soft = (
        group_trainer(EqualizedOdds(), steps=2, **options).run().state_dict()
        for options in ({}, {"temperature": 0.3}, {"temperature": 2.0})
    )
    assert all(torch.equal(value, same[name]) for name, value in default.items())
    assert not all(torch.equal(value, soft[name]) for name, value in default.items())
    with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
        group_trainer(EqualizedOdds(), steps=1, temperature=0)
    mlps = population(4)
    with pytest.raises(ValueError, match=r"data_minimisation has no soft decisions, expected 0\.3, got 0\.5"):
        Trainer(
            MetanetConfig(N_INPUTS, context="inputs"),
            TrainerConfig(steps=1, temperature=0.5),
            DataMinimisation(),
            mlps[:3],
            mlps[3:],
            ROWS,
        )


def test_a_scalarisation_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="expected one of .*'epo'.*, got 'sum'"):
        group_trainer(EqualizedOdds(), steps=1, scalarisation="sum")
    settings = TrainerConfig(steps=1, scalarisation="epo")
    mlps = population(4)
    with pytest.raises(ValueError, match="data_minimisation has one objective"):
        Trainer(MetanetConfig(N_INPUTS, context="inputs"), settings, DataMinimisation(), mlps[:3], mlps[3:], ROWS)
