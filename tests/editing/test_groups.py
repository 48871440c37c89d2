"""Edits for equalised odds: symmetries, the search for a limit, and what the rows must have."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import metaedit_fast as mf
from metaedit_fast.data import Table
from metaedit_fast.editing.batch import edit_models
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.editing.odds import OddsTerm
from metaedit_fast.editing.plan import split_rows
from metaedit_fast.editing.refine import refine
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.symmetry import permute_neurons, random_permutations, theta_order
from metaedit_fast.requirements.odds import equalized_odds_difference

N_INPUTS = 5
RNG = np.random.default_rng(3)
X = RNG.standard_normal((400, N_INPUTS)).astype(np.float32)
Y = (X @ RNG.standard_normal(N_INPUTS) + RNG.standard_normal(400) > 0).astype(np.int64)
SEX = np.where(X[:, 0] + RNG.standard_normal(400) > 0, "f", "m")
PROBE = Table(X, Y, sensitive=SEX)
STRENGTHS = st.floats(0.002, 4.0)


@functools.cache
def editor(engine: str = "native") -> Editor:
    config = MetanetConfig(N_INPUTS, d_e=8, d_v=12, n_layers=2, head_hidden=8, probe=True, gamma=0.1, context="groups")
    rng = np.random.default_rng(0)
    weights = {
        name: np.asarray((0.3 if len(shape) < 2 else shape[1] ** -0.5) * rng.standard_normal(shape), np.float32)
        for name, shape in weight_shapes(config)
    }
    activations = ("gelu", "relu", "silu", "tanh")
    envelope = Envelope((0, 3), (1, 16), activations, ("layer", "none"), 3)
    return Editor(
        EditorInfo("trial", config, envelope, requirement="equalized_odds", budget_range=(0.002, 4.0)),
        weights,
        engine=engine,
    )


@st.composite
def mlps(draw: st.DrawFn) -> MLP:
    hidden = draw(st.lists(st.integers(4, 9), max_size=3))
    norm = st.sampled_from(["none", "layer"])
    layers = [LayerSpec(width, draw(st.sampled_from(["relu", "silu", "tanh"])), norm=draw(norm)) for width in hidden]
    spec = MLPSpec(N_INPUTS, (*layers, LayerSpec(draw(st.sampled_from([1, 2])))))
    return MLP(spec, 0.6 * np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal(spec.n_parameters))


def population(count: int = 6) -> list[MLP]:
    spec = MLPSpec.simple((N_INPUTS, 8, 6, 2), "tanh", norm="layer")
    return [MLP(spec, np.random.default_rng(i).normal(0, 0.8, spec.n_parameters)) for i in range(count)]


def differences(models: list[MLP], table: Table = PROBE) -> np.ndarray:
    groups = (table.sensitive == "m").astype(np.int64)
    return equalized_odds_difference(evaluate(models, table.X, table.y, groups).counts)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(mlps(), STRENGTHS, st.integers(0, 2**32 - 1))
def test_the_edit_commutes_with_neuron_permutations(mlp: MLP, strength: float, seed: int) -> None:
    assume(np.ptp(mlp.predict(X)) > 0)
    permutations = random_permutations(mlp.spec, np.random.default_rng(seed))
    expected = editor().edit_theta(mlp, strength, probe=PROBE)[theta_order(mlp.spec, permutations)]
    found = editor().edit_theta(permute_neurons(mlp, permutations), strength, probe=PROBE)
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


@settings(max_examples=15, deadline=None)
@given(st.lists(mlps(), min_size=2, max_size=5), STRENGTHS)
def test_neighbours_threads_and_names_of_groups_change_no_bit(models: list[MLP], strength: float) -> None:
    # A model that ignores its inputs has equal rates, and then which group counts as the higher one is open.
    assume(all(np.ptp(mlp.log_proba(X)[:, 0]) > 1e-3 for mlp in models))
    alone = [editor().edit_theta(mlp, strength, probe=PROBE).tobytes() for mlp in models]
    renamed = Table(X, Y, sensitive=np.where(SEX == "f", 7, 3))
    for threads, probe in ((1, PROBE), (3, PROBE), (2, renamed)):
        found = editor().edit_batch(models, strength, probe=probe, num_threads=threads)
        assert [theta.tobytes() for theta in found] == alone


def test_weaker_edits_change_less_and_none_asked_for_changes_nothing() -> None:
    mlp = population(1)[0]
    change = [
        np.linalg.norm(editor().edit_theta(mlp, strength, probe=PROBE) - mlp.theta) for strength in (1e-5, 1e-4, 1e-3)
    ]
    assert change[0] < change[1] < change[2]
    assert editor().edit_theta(mlp, 0.0, probe=PROBE).tobytes() == mlp.theta.tobytes()


def test_both_engines_agree() -> None:
    native, session = (editor(e).edit_batch(population(), 0.3, probe=PROBE) for e in ("native", "onnxruntime"))
    for a, b in zip(native, session, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


def test_a_limit_is_met_or_approached_and_what_meets_it_stays() -> None:
    models = [mlp for mlp in population(40) if differences([mlp])[0] > 0.02][:12]
    before = differences(models)
    limit = float(np.median(before))
    found = edit_models(editor(), models, 4.0, limit=limit, probe=PROBE)
    edited = [mlp.replace(theta) for mlp, theta in zip(models, found.thetas, strict=True)]
    after = differences(edited)
    assert (after <= before).all()
    for mlp, new, was, now in zip(models, edited, before, after, strict=True):
        if was <= limit:
            assert new.theta.tobytes() == mlp.theta.tobytes()
        elif now > limit:  # then no strength that was tried met it; the largest was
            strongest = mlp.replace(editor().edit_theta(mlp, 4.0, probe=PROBE))
            assert now <= differences([strongest])[0]
    assert (after < before).any()
    for threads in (1, 3):
        again = edit_models(editor(), models[3:5], 4.0, limit=limit, probe=PROBE, num_threads=threads).thetas
        assert [theta.tobytes() for theta in again] == [theta.tobytes() for theta in found.thetas[3:5]]


def test_the_public_edit_seeks_a_difference_and_reports_it() -> None:
    models = population(4)
    data = Table(np.tile(X, (2, 1)), np.tile(Y, 2), sensitive=np.tile(SEX, 2))
    result = mf.edit(models, editor(), target={"equalized_odds_difference": 0.1}, data=data, probe_rows=400)
    for record in result:
        assert record.status == "edited"
        assert record.metrics["after"].keys() == {"jsd", "accuracy", "equalized_odds_difference"}
    assert result.settings["limit"] == 0.1
    refined = mf.edit(models, editor(), target={"equalized_odds_difference": 0.1}, data=data, probe_rows=400, refine=5)
    assert all(record.status == "edited" for record in refined)
    by_strength = mf.edit(models[0], editor(), strength=0.3, data=data, probe_rows=400)[0]
    assert by_strength.metrics["after"]["jsd"] > 0
    weighed = mf.edit(models[0], editor(), strength=0.3, data=data, probe_rows=400, refine=5)[0]
    table = split_rows(data, 400, 0)[0]
    term = OddsTerm(table.y, table.sensitive, strength=5 * 0.3, noise=3.0)
    expected, info = refine(by_strength.model, models[0], table.X, steps=5, odds=term)
    assert weighed.model.theta.tobytes() == expected.theta.tobytes()
    assert info.history[info.best_step] < info.history[0]
    untouched = mf.edit(models[0], editor(), target={"equalized_odds_difference": 1.0}, data=data)[0]
    assert untouched.status == "unchanged"


@pytest.mark.parametrize(
    ("data", "asked", "message"),
    [
        (X, {"strength": 1.0}, "got no sensitive"),
        (Table(X, Y), {"strength": 1.0}, "got no sensitive"),
        (Table(X, sensitive=SEX), {"strength": 1.0}, "got no y"),
        (None, {"strength": 1.0}, "pass data=Table"),
        (PROBE, {"strength": -1.0}, "0 or more"),
        (PROBE, {"target": {"equalized_odds_difference": 1.5}}, "0 to 1"),
    ],
)
def test_what_is_missing_is_named(data, asked, message) -> None:
    with pytest.raises(ValueError, match=message):
        mf.edit(population(1), editor(), data=data, on_error="raise", **asked)
