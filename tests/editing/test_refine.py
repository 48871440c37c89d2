"""Refinement: never worse, masks kept, what the model does not own untouched."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.editing.refine import owned_parameters, refine
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.symmetry import random_permutations, theta_order

X = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)
SPECS = [
    MLPSpec.simple((6, 16, 2)),
    MLPSpec.simple((6, 12, 20, 3), "gelu", "layer", [(0, 1), (1, 2)]),
    MLPSpec(6, (LayerSpec(16, "silu"), LayerSpec(1)), output="sigmoid"),
    MLPSpec(6, (LayerSpec(16, "relu", norm="layer", bias=False, norm_affine=False), LayerSpec(2)), output="softmax"),
]


def model(spec: MLPSpec, seed: int = 0) -> MLP:
    rng = np.random.default_rng(seed)
    mlp = MLP(spec, rng.normal(0, 0.6, spec.n_parameters), rng.uniform(0.5, 2, 6), rng.normal(size=6))
    neutral = {"bias": 0.0, "norm_scale": 1.0, "norm_shift": 0.0}
    owned = owned_parameters(spec)
    for kind, _, where, _ in spec.parameter_slices:
        if not owned[where].all():
            mlp.theta[where] = neutral[kind]
    return mlp


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("spec", SPECS)
def test_gets_much_closer_with_the_same_mask(spec: MLPSpec, sparsity: float) -> None:
    original = model(spec)
    start = prune("magnitude", original, sparsity)
    before = start.theta.copy()
    got, info = refine(start, original, X, steps=30)
    n = spec.n_weights
    assert np.array_equal(got.theta[:n] == 0, before[:n] == 0)
    assert np.array_equal(start.theta, before)
    frozen = ~owned_parameters(spec)
    assert np.array_equal(got.theta[frozen], original.theta[frozen])
    assert np.array_equal(got.input_scale, original.input_scale)
    assert len(info.history) <= 31
    assert info.before == pytest.approx(mean_jsd(original, start, X), rel=1e-5)
    assert info.after == pytest.approx(mean_jsd(original, got, X), rel=1e-5)
    assert info.after == min(info.history)
    assert info.after < 0.7 * info.before


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SPECS), st.integers(0, 1000), st.floats(0, 0.99), st.integers(0, 6))
def test_is_never_worse_on_the_probe(spec: MLPSpec, seed: int, sparsity: float, steps: int) -> None:
    original = model(spec, seed)
    start = prune("random", original, sparsity, rng=np.random.default_rng(seed))
    got, info = refine(start, original, X[:16], steps=steps)
    assert len(info.history) <= steps + 1
    assert mean_jsd(original, got, X[:16]) <= mean_jsd(original, start, X[:16]) * (1 + 1e-6)


def test_no_steps_change_no_bit() -> None:
    original = model(SPECS[1])
    start = prune("magnitude", original, 0.5)
    start.theta[0] = -0.0
    got, info = refine(start, original, X, steps=0)
    assert got.theta.tobytes() == start.theta.tobytes()
    assert got.theta is not start.theta
    assert info.best_step == 0


def test_an_identical_model_comes_back_bit_for_bit() -> None:
    original = model(SPECS[1])
    got, info = refine(original, original, X)
    assert got.theta.tobytes() == original.theta.tobytes()
    assert info.history == [0.0]


def test_only_the_weights_of_the_mask_move() -> None:
    original = model(SPECS[0])
    start = prune("magnitude", original, 0.5)
    n = start.spec.n_weights
    mask = np.random.default_rng(0).random(n) < 0.3
    got, _ = refine(start, original, X, steps=10, keep_mask=mask)
    changed = got.theta[:n] != start.theta[:n]
    assert not changed[~mask].any()
    assert changed[mask].any()
    assert changed[mask & (start.theta[:n] == 0)].any()
    with pytest.raises(ValueError, match="keep_mask"):
        refine(start, original, X, keep_mask=mask[:-1])


def test_follows_permutations_of_neurons() -> None:
    original = model(SPECS[1])
    start = prune("magnitude", original, 0.7)
    order = theta_order(original.spec, random_permutations(original.spec, np.random.default_rng(1)))
    plain, _ = refine(start, original, X, steps=4)
    permuted, _ = refine(start.replace(start.theta[order]), original.replace(original.theta[order]), X, steps=4)
    np.testing.assert_allclose(permuted.theta, plain.theta[order], atol=2e-3)


def test_is_deterministic() -> None:
    original = model(SPECS[1])
    start = prune("magnitude", original, 0.7)
    assert refine(start, original, X)[0].content_hash() == refine(start, original, X)[0].content_hash()


def test_a_dead_model_and_a_non_finite_one_come_back() -> None:
    original = model(SPECS[0])
    dead = original.replace(np.zeros_like(original.theta))
    got, info = refine(dead, original, X)
    assert info.after <= info.before
    assert got.is_finite
    broken = original.replace(np.where(np.arange(original.theta.size) == 3, np.inf, original.theta))
    got, _ = refine(broken, original, X)
    assert got.theta.tobytes() == broken.theta.tobytes()


def test_wrong_arguments_are_named() -> None:
    original = model(SPECS[0])
    with pytest.raises(ValueError, match="steps"):
        refine(original, original, X, steps=-1)
    with pytest.raises(ValueError, match="at least one row"):
        refine(original, original, X[:0])
    with pytest.raises(ValueError, match="outputs"):
        refine(original, model(SPECS[1]), X)


def test_owned_parameters() -> None:
    spec = SPECS[3]
    owned = owned_parameters(spec)
    expected = {("weight", 0): 1, ("weight", 1): 1, ("bias", 0): 0, ("bias", 1): 1}
    for kind, i, where, _ in spec.parameter_slices:
        assert owned[where].all() == bool(expected.get((kind, i), 0))
        assert owned[where].any() == owned[where].all()
    own_all = dataclasses.replace(spec.layers[0], bias=True, norm_affine=True)
    assert owned_parameters(MLPSpec(6, (own_all, spec.layers[1]))).all()
