"""The trainer: repeatable, resumable, and its objective equal to the numpy measurements."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, MLPSpec
from metaedit_fast.requirements import get_requirement
from metaedit_fast.requirements.pruning import Pruning
from metaedit_fast.training.networks import population_jsd, stacked_logits
from metaedit_fast.training.objective import as_single_output
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


def trainer(folder: Path | None = None, *, steps: int = 30, probe: bool = False) -> Trainer:
    settings = TrainerConfig(steps=steps, models_per_step=6, evaluate_every=10, warmup=5, budgets=(0.5, 0.8))
    config = MetanetConfig(6, d_v=32, n_layers=2, probe=probe)
    mlps = population(24)
    rows = X[:128] if probe else None
    return Trainer(
        config, settings, get_requirement("pruning"), mlps[:18], mlps[18:], X[:400], X[400:], probe=rows, folder=folder
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_stacked_networks_give_what_the_mlps_give(activation: str) -> None:
    rng = np.random.default_rng(0)
    spec = MLPSpec.simple((6, 7, 5, 2), activation, "layer", ((0, 1), (1, 2), (0, 2)))
    mlps = [MLP(spec, rng.normal(size=spec.n_parameters)) for _ in range(3)]
    thetas = torch.from_numpy(np.stack([m.theta for m in mlps])).double()
    found = stacked_logits(spec, thetas, torch.from_numpy(X[:9]).double())
    for mlp, logits in zip(mlps, found, strict=True):
        np.testing.assert_allclose(logits, mlp.logits(X[:9], np.float64), rtol=1e-9, atol=1e-9)


def test_the_divergence_of_a_mixed_population_is_the_measured_one() -> None:
    mlps = [*population(7), as_single_output(population(1, seed=5)[0])]
    edited = [m.replace(m.theta * 0.8) for m in mlps]
    found = population_jsd(mlps, [torch.from_numpy(m.theta) for m in edited], torch.from_numpy(X))
    np.testing.assert_allclose(found, [mean_jsd(a, b, X) for a, b in zip(mlps, edited, strict=True)], rtol=1e-4)


def test_the_single_output_form_predicts_the_same() -> None:
    for mlp in population(3):
        single = as_single_output(mlp)
        assert single.spec.n_outputs == 1
        np.testing.assert_allclose(single.log_proba(X), mlp.log_proba(X), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="expected 2, got 1"):
        as_single_output(single)


@given(st.integers(1, 60), st.floats(0, 0.99), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_the_relaxed_mask_is_the_exact_mask_with_a_gradient(n: int, sparsity: float, seed: int) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=n)).requires_grad_()
    pruning = Pruning()
    relaxed = pruning.relaxed_mask(scores, sparsity)
    exact = pruning.mask(scores.detach().numpy(), sparsity)
    np.testing.assert_allclose(relaxed.detach(), exact, atol=1e-12)
    if not exact.all():
        values = torch.arange(n, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((relaxed * values).sum(), scores)
        assert n == 1 or gradient.abs().max() > 0
        # The number kept is fixed, so shifting all scores alike changes nothing.
        assert abs(float(gradient.sum())) < 1e-6 * max(1.0, float(gradient.abs().sum()))


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


def test_a_folder_of_other_settings_and_empty_populations_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=10).run()
    with pytest.raises(ValueError, match="other settings"):
        trainer(tmp_path, steps=20)
    with pytest.raises(ValueError, match="expected models to train and validate on, got 0, 0"):
        Trainer(MetanetConfig(6), TrainerConfig(), Pruning(), [], [], X, X)


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    settings = TrainerConfig(
        steps=200, evaluate_every=1, patience=3, learning_rate=0.0, models_per_step=2, budgets=(0.5,)
    )
    mlps = population(6)
    run = Trainer(MetanetConfig(6, d_v=8, n_layers=1), settings, Pruning(), mlps[:3], mlps[3:], X, X)
    run.run()
    assert run.step == 4


def test_budgets_are_checked_and_requirements_are_listed() -> None:
    with pytest.raises(ValueError, match="0 <= sparsity < 1"):
        Pruning().check_budget(1.0)
    with pytest.raises(ValueError, match="expected one of \\['pruning'\\]"):
        get_requirement("happiness")
    budgets = Pruning().sample_budgets(np.random.default_rng(0), 1000)
    assert 0.0 < budgets.min() < 0.2
    assert 0.98 < budgets.max() < 1.0
