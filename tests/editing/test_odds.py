"""Equalised odds in refinement: what it costs, what it reaches, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast import _core
from metaedit_fast.editing.odds import OddsTerm
from metaedit_fast.editing.refine import refine, refine_all
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP, log_proba_of
from metaedit_fast.models.spec import LayerSpec, MLPSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(700, 6)).astype(np.float32)
GROUPS = (X[:, 0] + 0.5 * RNG.normal(size=700) > 0.4).astype(int)
SPECS = [
    MLPSpec.simple((6, 16, 2), "silu"),
    MLPSpec.simple((6, 12, 12, 3), "gelu", "layer", [(1, 2)]),
    MLPSpec(6, (LayerSpec(16, "tanh"), LayerSpec(1)), output="sigmoid"),
]


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model(spec: MLPSpec, seed: int = 0) -> MLP:
    return MLP(spec, np.random.default_rng(seed).normal(0, 0.6, spec.n_parameters))


def labels_for(mlp: MLP, n_rows: int = 700) -> np.ndarray:
    """What the model predicts, with every fourth label drawn at random."""
    found = np.exp(mlp.log_proba(X[:n_rows])).argmax(1)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, max(mlp.spec.n_outputs, 2), n_rows)
    return np.where(rng.random(n_rows) < 0.25, drawn, found)


def soft_gaps(
    mlp: MLP, x: np.ndarray, labels: np.ndarray, groups: np.ndarray, temperature: float = 0.1, noise: float = 0.0
) -> np.ndarray:
    """What is expected of the difference of two groups' soft rates, |difference| without noise, by the definition in
    float64: every class, kind of rows and pair.
    """
    p = np.exp(log_proba_of(mlp.logits(x, np.float64) / temperature))
    found = [0.0]
    for c in range(1 if p.shape[1] == 2 else 0, p.shape[1]):
        for rows in (labels == c, labels != c):
            cells = [p[rows & (groups == g), c] for g in np.unique(groups)]
            rates = [(of.mean(), of.mean() * (1 - of.mean()) / of.size) for of in cells if of.size]
            found += [
                np.sqrt((a - b) ** 2 + noise * (va + vb)) for i, (a, va) in enumerate(rates) for b, vb in rates[:i]
            ]
    return np.array(found)


@pytest.mark.parametrize("n_rows", [1, 64, 300, 700])
@pytest.mark.parametrize(("n_groups", "noise"), [(2, 0.0), (5, 0.0), (2, 3.0), (5, 3.0)])
@pytest.mark.parametrize("spec", SPECS)
def test_the_objective_is_what_the_formula_says(
    spec: MLPSpec, n_groups: int, noise: float, n_rows: int, isa: str
) -> None:
    original, x = model(spec), X[:n_rows]
    labels = labels_for(original, n_rows)
    groups = np.random.default_rng(2).integers(0, n_groups, n_rows)
    odds = OddsTerm(labels, groups, strength=3.0, limit=0.01, temperature=0.5, noise=noise)
    got, info = refine_all([original], [original], x, steps=4, odds=odds, isa=isa)[0]
    assert info.odds is not None
    for mlp, step in ((original, 0), (got, info.best_step)):
        gaps = soft_gaps(mlp, x, labels, groups, 0.5)
        jsd = mean_jsd(original, mlp, x)
        assert info.odds[step] == pytest.approx(gaps.max(), rel=1e-5, abs=1e-7)
        assert info.jsd[step] == pytest.approx(jsd, rel=1e-4, abs=1e-9)
        expected = soft_gaps(mlp, x, labels, groups, 0.5, noise)
        penalty = 3.0 * (np.maximum(expected - 0.01, 0) ** 2).sum()
        assert info.history[step] == pytest.approx(jsd + penalty, rel=1e-4, abs=1e-9)
    assert (info.before, info.after) == (info.jsd[0], info.jsd[info.best_step])
    assert (info.odds_before, info.odds_after) == (info.odds[0], info.odds[info.best_step])


@pytest.mark.parametrize("spec", SPECS)
def test_a_limit_is_reached_at_a_small_price(spec: MLPSpec, isa: str) -> None:
    original = model(spec, seed=3)
    labels = labels_for(original)
    before = soft_gaps(original, X, labels, GROUPS).max()
    assert before > 0.15
    limit = before / 3
    odds = OddsTerm(labels, GROUPS, strength=100.0, limit=limit)
    got, info = refine_all([original], [original], X, steps=100, odds=odds, isa=isa)[0]
    assert soft_gaps(got, X, labels, GROUPS).max() < 1.1 * limit
    assert 0 < info.after < 0.01


def test_noise_prefers_rates_that_vary_less_to_gaps_that_are_chance(isa: str) -> None:
    """Groups that are drawn: with noise the sampling error is lowered, without it gaps that are chance are fitted."""
    original = model(SPECS[0])
    labels, groups = labels_for(original), np.random.default_rng(4).integers(0, 2, 700)
    errors, gaps = {}, {}
    for noise in (0.0, 100.0):
        odds = OddsTerm(labels, groups, strength=20.0, noise=noise)
        got, _ = refine_all([original], [original], X, steps=30, odds=odds, isa=isa)[0]
        gaps[noise] = soft_gaps(got, X, labels, groups)
        errors[noise] = np.sqrt(soft_gaps(got, X, labels, groups, noise=1.0)[1:] ** 2 - gaps[noise][1:] ** 2)
    assert gaps[0.0].max() < 0.005
    assert (errors[100.0] < 0.9 * errors[0.0]).all()


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(SPECS),
    st.integers(0, 999),
    st.floats(0, 100),
    st.floats(0, 0.3),
    st.integers(1, 4),
    st.integers(0, 9),
    st.sampled_from([0.0, 3.0]),
)
def test_is_never_worse_on_the_probe(
    spec: MLPSpec, seed: int, strength: float, limit: float, n_groups: int, steps: int, noise: float
) -> None:
    original = model(spec, seed)
    rng = np.random.default_rng(seed)
    start = original.replace(original.theta * rng.choice([0, 1, 1.1], original.theta.size))
    odds = OddsTerm(labels_for(original, 90), rng.integers(0, n_groups, 90), strength, limit, noise=noise)
    _, info = refine(start, original, X[:90], steps=steps, odds=odds)
    assert len(info.history) <= steps + 1
    assert info.history[info.best_step] == min(info.history)


@pytest.mark.parametrize("n_rows", [200, 700])
def test_without_a_price_the_bits_are_those_of_the_divergence_alone(n_rows: int, isa: str) -> None:
    """One group has no gap; no strength and a limit of 1 ask for nothing."""
    original, x = model(SPECS[1]), X[:n_rows]
    start = original.replace(original.theta * 0.9)
    labels, groups = labels_for(original, n_rows), GROUPS[:n_rows]
    plain, info = refine_all([start], [original], x, steps=6, isa=isa)[0]
    assert info.odds is None
    assert info.odds_before is None
    assert info.odds_after is None
    for odds in (
        OddsTerm(labels, np.full(n_rows, -1), 10.0),
        OddsTerm(labels, groups, 0.0),
        OddsTerm(labels, groups, 10.0, limit=1.0),
    ):
        got, found = refine_all([start], [original], x, steps=6, odds=odds, isa=isa)[0]
        assert got.theta.tobytes() == plain.theta.tobytes()
        assert found.history == info.history
        assert found.odds is not None
        assert (max(found.odds) == 0) == (odds.groups is not groups)


def test_fair_models_and_zero_steps_keep_their_bits() -> None:
    original = model(SPECS[0])
    odds = OddsTerm(labels_for(original), np.zeros(700, int), 10.0)
    got, info = refine(original, original, X, odds=odds)
    assert got.theta.tobytes() == original.theta.tobytes()
    assert info.history == info.odds == [0.0]
    got, info = refine(original, original, X, steps=0, odds=OddsTerm(labels_for(original), GROUPS, 10.0))
    assert got.theta.tobytes() == original.theta.tobytes()
    assert len(info.history) == 1
    assert info.history[0] > 0


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 6), st.sampled_from([70, 300]))
def test_bits_depend_neither_on_threads_nor_on_neighbours(chosen: list[int], n_threads: int, n_rows: int) -> None:
    specs = [MLPSpec.simple((6, 5 + 7 * i, 2 - i % 2), "silu") for i in range(6)]
    mlps = [model(spec, i) for i, spec in enumerate(specs)]
    odds = OddsTerm(labels_for(mlps[0], n_rows), GROUPS[:n_rows], 5.0)
    for level in _core.available_isas():
        pick = [mlps[i] for i in chosen]
        together = refine_all(pick, pick, X[:n_rows], steps=5, odds=odds, num_threads=n_threads, isa=level)
        for i, (got, info) in zip(chosen, together, strict=True):
            alone, alone_info = refine_all(
                [mlps[i]], [mlps[i]], X[:n_rows], steps=5, odds=odds, num_threads=1, isa=level
            )[0]
            assert got.theta.tobytes() == alone.theta.tobytes()
            assert info == alone_info


def test_names_of_groups_and_kinds_of_labels_do_not_matter() -> None:
    original = model(SPECS[0])
    labels = labels_for(original)
    wanted, _ = refine(original, original, X, steps=5, odds=OddsTerm(labels, GROUPS, 5.0))
    for given_labels, groups in (
        (labels.astype(bool), np.where(GROUPS == 1, "b", "a")),
        (labels.astype(np.uint8), GROUPS - 1),
        (labels.tolist(), (GROUPS * 40).tolist()),
    ):
        got, _ = refine(original, original, X, steps=5, odds=OddsTerm(given_labels, groups, 5.0))
        assert got.theta.tobytes() == wanted.theta.tobytes()


def test_only_the_weights_of_the_mask_move() -> None:
    original = model(SPECS[0])
    mask = np.random.default_rng(0).random(original.spec.n_weights) < 0.3
    odds = OddsTerm(labels_for(original), GROUPS, 50.0)
    got, info = refine(original, original, X, steps=20, keep_mask=mask, odds=odds)
    changed = got.theta[: mask.size] != original.theta[: mask.size]
    assert not changed[~mask].any()
    assert changed[mask].any()
    assert info.history[info.best_step] < 0.5 * info.history[0]


def test_a_model_that_overflows_is_alone_with_it(isa: str) -> None:
    original = model(SPECS[0])
    broken = original.replace(np.full_like(original.theta, 1e38))
    odds = OddsTerm(labels_for(original), GROUPS, 5.0)
    (same, lost), (got, info) = refine_all([broken, original], [original] * 2, X, steps=3, odds=odds, isa=isa)
    assert same.theta.tobytes() == broken.theta.tobytes()
    assert lost.best_step == 0
    assert np.isnan(lost.history[0])
    assert np.isnan(lost.odds_before)
    assert info.history[info.best_step] < info.history[0]
    assert got.is_finite


LABELS = np.arange(700) % 2
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"labels": LABELS[:5]}, r"labels, groups: expected one of each a row, got shapes \(5,\) and \(700,\)"),
    ({"labels": LABELS[:, None], "groups": GROUPS[:, None]}, r"labels, groups: .* got shapes \(700, 1\)"),
    ({"labels": LABELS * 0.5}, "labels: expected whole numbers from 0, got float64"),
    ({"labels": -LABELS}, "labels: expected whole numbers from 0, got int64, the least being -1"),
    ({"strength": -1.0}, "strength: expected a number from 0.0 to .* got -1.0"),
    ({"strength": np.inf}, "strength: .* got inf"),
    ({"limit": -0.1}, "limit: expected a number from 0.0 to 1.0, got -0.1"),
    ({"limit": np.nan}, "limit: .* got nan"),
    ({"noise": -1.0}, "noise: expected a number from 0.0 to .* got -1.0"),
    ({"temperature": 0.0}, r"temperature: expected a number from 0.001 to 1000.0, got 0.0"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_terms_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OddsTerm(**{"labels": LABELS, "groups": GROUPS, "strength": 1.0, **change})


def test_terms_that_do_not_fit_are_named() -> None:
    mlps = [model(SPECS[0]), model(SPECS[1])]
    with pytest.raises(ValueError, match="labels: expected classes 0 to 1, got 2"):
        refine_all(mlps, mlps, X, odds=OddsTerm(np.arange(700) % 3, GROUPS, 1.0))
    with pytest.raises(ValueError, match="labels: expected 600, one a row, got 700"):
        refine_all(mlps, mlps, X[:600], odds=OddsTerm(LABELS, GROUPS, 1.0))
    assert refine_all([], [], X, odds=OddsTerm(LABELS, GROUPS, 1.0)) == []
