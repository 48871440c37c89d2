"""The trainer: repeatable, resumable, and it learns."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaedit_fast.data import Table
from metaedit_fast.errors import InvalidCheckpointError
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.requirements import get_requirement
from metaedit_fast.requirements.pruning import Pruning
from metaedit_fast.training.examples import as_single_output
from metaedit_fast.training.tasks import TrainingRows
from metaedit_fast.training.trainer import Trainer, TrainerConfig

X = np.random.default_rng(1).normal(size=(600, 6)).astype(np.float32)
SPECS = [
    MLPSpec.simple((6, 8, 2), "relu"),
    MLPSpec.simple((6, 8, 8, 2), "tanh", "layer", ((1, 2),)),
    MLPSpec.simple((6, 4, 8, 2), "silu"),
]


def population(count: int, seed: int = 0) -> list[MLP]:
    rng = np.random.default_rng(seed)
    mlps = []
    for i in range(count):
        spec = SPECS[i % len(SPECS)]
        mlp = MLP(spec, np.zeros(spec.n_parameters))
        for kind, _, view in mlp.parameters():
            view[...] = rng.normal(size=view.shape) * (1.5 / np.sqrt(view.shape[0])) if kind == "weight" else 0.0
            if kind == "norm_scale":
                view[...] = 1.0
        mlps.append(mlp)
    return mlps


def trainer(
    folder: Path | None = None,
    *,
    steps: int = 30,
    probe: bool = False,
    num_threads: int | None = None,
    requirement: Pruning | None = None,
    **changed: Any,
) -> Trainer:
    options = {"steps": steps, "models_per_step": 6, "evaluate_every": 10, "warmup": 5, "budgets": (0.5, 0.8)}
    settings = TrainerConfig(**{**options, **changed})
    config = MetanetConfig(6, d_v=32, n_layers=2, probe=probe)
    mlps = population(24)
    rows = TrainingRows(Table(X[:400]), Table(X[400:]), Table(X[:128]) if probe else None)
    return Trainer(
        config,
        settings,
        requirement or Pruning(),
        mlps[:18],
        mlps[18:],
        rows,
        folder=folder,
        num_threads=num_threads,
    )


def test_the_single_output_form_predicts_the_same() -> None:
    for mlp in population(3):
        single = as_single_output(mlp)
        assert single.spec.n_outputs == 1
        np.testing.assert_allclose(single.log_proba(X), mlp.log_proba(X), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="expected 2, got 1"):
        as_single_output(single)


def test_training_lowers_the_divergence() -> None:
    run = trainer(steps=60)
    before = run.evaluate().score
    run.run()
    assert run.best is not None
    assert run.best.score < before - 0.05


@pytest.mark.parametrize("probe", [False, True])
def test_one_seed_gives_the_same_bits_and_a_resumed_training_too(tmp_path: Path, probe: bool) -> None:
    whole = trainer(probe=probe)
    whole.run()
    interrupted = trainer(tmp_path, probe=probe)

    class StoppedError(Exception):
        pass

    def stop_at_fifteen(run: Trainer, loss: float) -> None:
        if run.step == 15:
            raise StoppedError

    with pytest.raises(StoppedError):
        interrupted.run(stop_at_fifteen)
    resumed = trainer(tmp_path, probe=probe)
    assert resumed.step == 10  # the last evaluation before the interruption
    resumed.run()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert [e.jsd for e in whole.history] == [e.jsd for e in resumed.history]


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    one, three = (trainer(steps=10, num_threads=n) for n in (1, 3))
    one.run()
    try:
        torch.set_num_threads(2)
        three.run()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for name, value in one.net.state_dict().items():
        assert torch.equal(value, three.net.state_dict()[name]), name
    assert [e.jsd for e in one.history] == [e.jsd for e in three.history]


def test_a_folder_of_other_settings_and_empty_populations_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=10).run()
    with pytest.raises(InvalidCheckpointError, match=r"trainer\.pt: .* another training, with other settings;"):
        trainer(tmp_path, steps=20)
    with pytest.raises(ValueError, match="expected models to train and validate on, got 0, 0"):
        Trainer(MetanetConfig(6), TrainerConfig(), Pruning(), [], [], TrainingRows(Table(X), Table(X)))


class Asked(Pruning):
    """Remembers the budgets that the network was told."""

    def __init__(self) -> None:
        self.told: set[float] = set()

    def condition(self, budget: float) -> np.ndarray:
        self.told.add(budget)
        return super().condition(budget)


def test_budgets_that_are_named_are_the_only_ones_trained_for_and_measured_at() -> None:
    asked = Asked()
    run = trainer(steps=10, requirement=asked, trained_budgets=(0.6, 0.9), budgets=())
    run.run()
    assert asked.told == {0.6, 0.9}
    assert run.best is not None
    assert list(run.best.jsd) == ["0.6", "0.9"]
    drawn = Asked()
    trainer(steps=10, requirement=drawn).run()
    assert len(drawn.told) > 10
    with pytest.raises(ValueError, match="sparsity: expected 0 <= sparsity < 1, got 1.5"):
        trainer(trained_budgets=(1.5,))


def test_one_budget_alone_is_learned_better_than_by_a_training_for_another() -> None:
    own, other = (trainer(steps=60, trained_budgets=(s,), budgets=(0.8,)) for s in (0.8, 0.2))
    own.run()
    other.run()
    assert own.best is not None
    assert other.best is not None
    assert own.best.jsd["0.8"] < other.best.jsd["0.8"]


def test_a_state_from_before_a_setting_existed_was_trained_by_its_default(tmp_path: Path) -> None:
    trainer(tmp_path, steps=10).run()
    path = tmp_path / "trainer.pt"
    state = torch.load(path, weights_only=True)
    there = json.loads(state["fingerprint"])
    for name in ("trained_budgets", "temperature"):
        del there["settings"][name]
    torch.save({**state, "fingerprint": json.dumps(there)}, path)
    assert trainer(tmp_path, steps=10).step == 10
    with pytest.raises(InvalidCheckpointError, match="with other settings"):
        trainer(tmp_path, steps=10, trained_budgets=(0.5,))


def test_a_folder_of_other_models_rows_or_requirement_is_refused(tmp_path: Path) -> None:
    settings = TrainerConfig(steps=1, models_per_step=2, evaluate_every=1, budgets=(0.5,))
    config = MetanetConfig(6, d_v=8, n_layers=1, probe=True)
    mlps = population(6)

    class Other(Pruning):
        name = "other"

    rows = TrainingRows(Table(X[:400]), Table(X[400:]), Table(X[:50]))
    given = {"requirement": Pruning(), "train": mlps[:3], "validation": mlps[3:], "rows": rows}
    Trainer(config, settings, **given, folder=tmp_path).run()
    assert Trainer(config, settings, **given, folder=tmp_path).step == 1
    for name, value, told in (
        ("requirement", Other(), "requirement"),
        ("train", population(3, seed=1), "training models"),
        ("train", mlps[2::-1], "training models"),
        ("validation", mlps[3:5], "validation models"),
        ("rows", dataclasses.replace(rows, train=Table(X[1:401])), "rows"),
        ("rows", dataclasses.replace(rows, train=Table(X[:400], np.arange(400) % 2)), "rows"),
        ("rows", dataclasses.replace(rows, validation=Table(X[399:])), "validation rows"),
        ("rows", dataclasses.replace(rows, probe=Table(X[1:51])), "probe"),
    ):
        with pytest.raises(InvalidCheckpointError, match=f"another training, with other {told}; choose another"):
            Trainer(config, settings, **{**given, name: value}, folder=tmp_path)


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=1).run()
    state = torch.load(tmp_path / "trainer.pt", weights_only=True)
    fingerprint = json.loads(state["fingerprint"])
    del fingerprint["format"]  # as it was before there was one
    torch.save({**state, "fingerprint": json.dumps(fingerprint)}, tmp_path / "trainer.pt")
    with pytest.raises(InvalidCheckpointError, match="another training, with other format;"):
        trainer(tmp_path, steps=1)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    trainer(tmp_path, steps=1).run()
    path = tmp_path / "trainer.pt"
    assert [p.name for p in tmp_path.iterdir()] == ["trainer.pt"]
    good = path.read_bytes()
    state = torch.load(path, weights_only=True)
    contents = [b"", b"nonsense", good[:-1], good[: len(good) // 2], good[:100] + bytes(1000) + good[1100:]]
    for part in state:
        for changed in ({k: v for k, v in state.items() if k != part}, {**state, part: None}):
            torch.save(changed, path)
            contents.append(path.read_bytes())
    torch.save([1, 2], path)
    contents.append(path.read_bytes())
    contents.append(pickle.dumps(print))
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InvalidCheckpointError, match=r"trainer\.pt: not the state of a training, or damaged"):
            trainer(tmp_path, steps=1)
    path.write_bytes(good)
    assert trainer(tmp_path, steps=1).step == 1


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_of_the_state_is_refused_or_harmless(tmp_path: Path, place: float, bit: int) -> None:
    path = tmp_path / "trainer.pt"
    if not path.exists():
        trainer(tmp_path, steps=1).run()
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 1 << bit
    path.write_bytes(bytes(damaged))
    try:
        found = trainer(tmp_path, steps=1)
    except InvalidCheckpointError:
        return
    finally:
        path.write_bytes(good)
    for name, value in trainer(tmp_path, steps=1).best_state.items():
        assert torch.equal(value, found.best_state[name]), name


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    settings = TrainerConfig(
        steps=200, evaluate_every=1, patience=3, learning_rate=0.0, models_per_step=2, budgets=(0.5,)
    )
    mlps = population(6)
    run = Trainer(
        MetanetConfig(6, d_v=8, n_layers=1), settings, Pruning(), mlps[:3], mlps[3:], TrainingRows(Table(X), Table(X))
    )
    run.run()
    assert run.step == 4


def test_budgets_are_checked_and_requirements_are_listed() -> None:
    with pytest.raises(ValueError, match="0 <= sparsity < 1"):
        Pruning().check_budget(1.0)
    with pytest.raises(ValueError, match="expected one of \\['data_minimisation', 'equalized_odds', 'pruning'\\]"):
        get_requirement("happiness")
    budgets = Pruning().sample_budgets(np.random.default_rng(0), 1000)
    assert 0.0 < budgets.min() < 0.2
    assert 0.98 < budgets.max() < 1.0
