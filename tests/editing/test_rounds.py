"""Refinement in rounds: exact budgets, symmetries, one round as before, and the same steps written in torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import metaedit_fast as mf
from metaedit_fast.cli import app
from metaedit_fast.editing.refine import refine, refine_all
from metaedit_fast.editing.rounds import STEPS_BETWEEN, refine_in_rounds, round_budgets
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.symmetry import permute_neurons, random_permutations, theta_order
from metaedit_fast.requirements import Pruning
from metaedit_fast.requirements.masks import kept_count, top_k_mask

N_INPUTS = 5
X = np.random.default_rng(7).standard_normal((64, N_INPUTS)).astype(np.float32)
BUDGETS = st.floats(0.1, 0.95)
ROUNDS = st.integers(1, 4)
ACTIVATIONS = ("gelu", "silu", "tanh")


@st.composite
def mlps(draw: st.DrawFn) -> MLP:
    hidden = draw(st.lists(st.integers(2, 9), min_size=1, max_size=2))
    layers = [
        LayerSpec(width, draw(st.sampled_from(ACTIVATIONS)), norm=draw(st.sampled_from(["none", "layer"])))
        for width in hidden
    ]
    spec = MLPSpec(N_INPUTS, (*layers, LayerSpec(draw(st.sampled_from([1, 2])))))
    return random_mlp(spec, draw(st.integers(0, 2**32 - 1)))


def random_mlp(spec: MLPSpec, seed: int) -> MLP:
    return MLP(spec, 0.7 * np.random.default_rng(seed).standard_normal(spec.n_parameters))


def by_magnitude(mlp: MLP, budget: float) -> MLP:
    """Weights that are zero already go first, as in an edit."""
    theta = mlp.theta.copy()
    weights = theta[: mlp.spec.n_weights]
    weights[~Pruning().mask(weights, np.abs(weights), budget)] = 0.0
    return mlp.replace(theta)


def in_rounds(models: list[MLP], budget: float, rounds: int, *, steps: int = 5, num_threads: int = 1) -> list[MLP]:
    first, *later = round_budgets(budget, rounds)
    start = [by_magnitude(mlp, first) for mlp in models]
    return refine_in_rounds(start, models, X, later, Pruning(), steps=steps, num_threads=num_threads)


@given(st.floats(0.0, 0.999), st.integers(1, 9))
def test_densities_fall_geometrically_and_end_where_they_are_asked_to(budget: float, rounds: int) -> None:
    found = round_budgets(budget, rounds)
    assert len(found) == rounds
    assert found[-1] == budget
    logs = np.log1p(-np.array(found))
    first = 1.0 if rounds == 1 else 0.8
    np.testing.assert_allclose(logs, np.linspace(first, 1, rounds) * np.log1p(-budget), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(mlps(), BUDGETS, ROUNDS, st.floats(0, 0.5))
def test_exactly_so_many_weights_stay_and_what_was_removed_before_stays_so(
    mlp: MLP, budget: float, rounds: int, removed: float
) -> None:
    n = mlp.spec.n_weights
    gone = np.random.default_rng(0).random(n) < removed
    mlp.theta[:n][gone] = 0.0
    theta = in_rounds([mlp], budget, rounds)[0].theta
    assert np.isfinite(theta).all()
    assert not theta[:n][gone].any()
    assert np.count_nonzero(theta[:n]) == min(kept_count(n, budget), n - gone.sum())


@settings(max_examples=25, deadline=None)
@given(mlps(), BUDGETS, ROUNDS, st.integers(0, 2**32 - 1))
def test_rounds_commute_with_neuron_permutations(mlp: MLP, budget: float, rounds: int, seed: int) -> None:
    assume(all(x.norm == "none" or x.width > 3 for x in mlp.spec.layers))
    permutations = random_permutations(mlp.spec, np.random.default_rng(seed))
    (expected,) = in_rounds([mlp], budget, rounds)
    (found,) = in_rounds([permute_neurons(mlp, permutations)], budget, rounds)
    there = expected.theta[theta_order(mlp.spec, permutations)]
    assume(((found.theta != 0) == (there != 0)).all())  # a near tie of two weights may go either way
    # Steps of L-BFGS amplify rounding; predictions are what they agree in.
    assert mean_jsd(expected, found, X) <= 1e-4


@settings(max_examples=10, deadline=None)
@given(st.lists(mlps(), min_size=2, max_size=5), BUDGETS, ROUNDS)
def test_neighbours_and_threads_change_no_bit(models: list[MLP], budget: float, rounds: int) -> None:
    alone = [in_rounds([mlp], budget, rounds)[0].theta.tobytes() for mlp in models]
    for threads in (1, 3):
        found = in_rounds(models, budget, rounds, num_threads=threads)
        assert [mlp.theta.tobytes() for mlp in found] == alone


def test_one_round_is_refinement_as_it_was(tiny_probe_editor, small_mlps) -> None:
    start = [prune("fisher", mlp, 0.6, x=X) for mlp in small_mlps]
    for a, (b, _) in zip(
        refine_in_rounds(start, small_mlps, X, [], Pruning(), steps=4),
        refine_all(start, small_mlps, X, steps=4),
        strict=True,
    ):
        assert a.theta.tobytes() == b.theta.tobytes()
    plain, one = (
        mf.edit(small_mlps, tiny_probe_editor, target={"sparsity": 0.6}, data=X, refine=4, **given)
        for given in ({}, {"rounds": 1})
    )
    assert [record.model.theta.tobytes() for record in plain] == [record.model.theta.tobytes() for record in one]


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_weights_of_least_fisher_saliency_go(norm: str) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("metaedit_fast.training.reference")
    mlp = random_mlp(MLPSpec.simple((N_INPUTS, 9, 7, 2), "tanh", norm=norm), 3)
    n = mlp.spec.n_weights
    first, second = round_budgets(0.8, 2)
    start = prune("fisher", mlp, first, x=X)
    middle = refine(start, mlp, X, steps=STEPS_BETWEEN)[0]
    # E over rows and the model's own classes of the squared gradients of the log-probabilities, by autograd.
    fisher = np.zeros(n)
    theta = torch.tensor(middle.theta, dtype=torch.float64, requires_grad=True)
    for row in X.astype(np.float64):
        log_p = reference.log_proba(reference.stacked_logits(mlp.spec, theta[None], torch.from_numpy(row[None])))[0, 0]
        for c in range(2):
            (slope,) = torch.autograd.grad(log_p[c], theta, retain_graph=True)
            fisher += float(log_p[c].detach().exp()) * slope[:n].numpy() ** 2 / len(X)
    weights = middle.theta[:n].astype(np.float64)
    saliency = np.where(weights == 0, -np.inf, weights**2 * (fisher + 1e-6 * fisher.mean()))
    expected = top_k_mask(saliency, kept_count(n, second))
    (found,) = refine_in_rounds([start], [mlp], X, [second], Pruning(), steps=0)
    np.testing.assert_array_equal(found.theta[:n] != 0, expected)
    np.testing.assert_array_equal(found.theta[:n][expected], middle.theta[:n][expected])


def test_the_public_edit_in_rounds(tiny_probe_editor, small_mlps) -> None:
    data = np.random.default_rng(1).standard_normal((200, N_INPUTS))
    options = {"target": {"sparsity": 0.75}, "data": data, "probe_rows": 64, "refine": 8}
    result = mf.edit(small_mlps, tiny_probe_editor, rounds=3, **options)
    once = mf.edit(small_mlps, tiny_probe_editor, **options)
    assert (result.settings["rounds"], once.settings["rounds"]) == (3, 1)
    for mlp, record, other in zip(small_mlps, result, once, strict=True):
        n = mlp.spec.n_weights
        assert np.count_nonzero(record.model.theta[:n]) == kept_count(n, 0.75)
        assert record.model.theta.tobytes() != other.model.theta.tobytes()
    in_place = [MLP(mlp.spec, mlp.theta.copy()) for mlp in small_mlps]
    mf.edit_(in_place, tiny_probe_editor, rounds=3, **options)
    streamed = mf.edit_stream(iter(small_mlps), tiny_probe_editor, rounds=3, **options)
    for record, placed, one in zip(result, in_place, streamed, strict=True):
        assert record.model.theta.tobytes() == placed.theta.tobytes() == one.model.theta.tobytes()
    unchanged = mf.edit(small_mlps[0], tiny_probe_editor, target={"sparsity": 0.0}, data=data, rounds=3, refine=8)[0]
    assert unchanged.status == "unchanged"
    assert unchanged.model.theta.tobytes() == small_mlps[0].theta.tobytes()


def test_a_model_that_float32_cannot_hold_leaves_the_others_alone(small_mlps) -> None:
    good, huge = small_mlps[0], random_mlp(small_mlps[0].spec, 1)
    huge.weight(0)[...] *= 1e25  # squares of activations overflow, predictions do not
    huge.weight(1)[...] *= 1e-25
    (expected,) = in_rounds([good], 0.6, 3)
    _, found = in_rounds([huge, good], 0.6, 3)
    assert found.theta.tobytes() == expected.theta.tobytes()


def test_wrong_rounds_are_named(tiny_editor, small_mlps) -> None:
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="rounds: expected an integer of at least 1, got"):
            mf.edit(small_mlps, tiny_editor, target={"sparsity": 0.5}, data=X, rounds=wrong, refine=3)
    with pytest.raises(ValueError, match="rounds: .* pass refine=30, or rounds=1"):
        mf.edit(small_mlps, tiny_editor, target={"sparsity": 0.5}, data=X, rounds=2)
    with pytest.raises(ValueError, match="refine reads a probe"):
        mf.edit(small_mlps, tiny_editor, target={"sparsity": 0.5}, rounds=2, refine=3)


def test_the_command_takes_rounds(tiny_probe_editor, small_mlps, tmp_path) -> None:
    tiny_probe_editor.save(tmp_path / "editor.onnx")
    mf.write_model(small_mlps[0], tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", X=X)
    arguments = ["edit", "model.onnx", "--editor", "editor.onnx", "--out", "out", "--data", "rows.npz"]
    asked = ["--sparsity", "0.5", "--rounds", "2", "--refine", "3", "--json"]
    places = [str(tmp_path / a) if a.endswith((".onnx", ".npz")) or a == "out" else a for a in arguments]
    found = CliRunner().invoke(app, [*places, *asked])
    assert found.exit_code == 0, found.output
    assert '"rounds": 2' in found.stdout
