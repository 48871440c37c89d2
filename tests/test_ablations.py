"""What the experiments on trainings train on: shares of the runs within each other, and families of architectures."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population import Population, PopulationRecord

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SPLITS = ("train", "train", "train", "val", "test")


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("ablations")


def population() -> Population:
    """40 runs of two checkpoints each; every second run is deep, every third wide, every fifth has a skip."""
    records = []
    for run in range(40):
        width = 5 if run % 3 else 40
        widths = (4, 5, 5, width, 2) if run % 2 else (4, 5, width, 2)
        spec = MLPSpec.simple(widths, "relu", "none", () if run % 5 else ((1, 2),))
        for checkpoint in range(2):
            mlp = MLP(spec, np.full(spec.n_parameters, run + 0.1 * checkpoint, np.float32))
            records.append(PopulationRecord(mlp, run, SPLITS[run // 8], checkpoint))
    return Population(records)


def test_shares_of_the_runs_lie_within_each_other_and_leave_the_other_splits(ablations: ModuleType) -> None:
    models = population()
    runs = ablations.train_runs(models)
    assert sorted(runs) == list(range(24))
    assert runs != sorted(runs)
    assert runs == ablations.train_runs(models)
    few, more = (ablations.trained_on(models, runs[:count]) for count in (3, 10))
    for chosen, count in ((few, 3), (more, 10)):
        train = [record.run for record in chosen.select(split="train")]
        assert sorted(train) == sorted(2 * runs[:count])
        for split in ("val", "test"):
            assert list(chosen.select(split=split)) == list(models.select(split=split))


def test_a_family_holds_the_runs_of_its_architectures_alone(ablations: ModuleType) -> None:
    models = population()
    families = {name: set(ablations.train_runs(models, keep)) for name, keep in ablations.FAMILIES.items()}
    train = range(24)
    assert families == {
        "1 or 2 layers": {run for run in train if run % 2 == 0},
        "at most 32 wide": {run for run in train if run % 3 != 0},
        "no skips": {run for run in train if run % 5 != 0},
    }
