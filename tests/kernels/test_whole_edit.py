"""Whole edits on the compiled kernels against the numpy path, and what their bits must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import edited_theta
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import model_features
from metaedit_fast.models import native as mlps
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.requirements.masks import kept_count
from metaedit_fast.requirements.pruning import Pruning

N_INPUTS = 5
PROBE = np.random.default_rng(9).normal(size=(70, N_INPUTS)).astype(np.float32)
CONFIGS = {
    "weights": MetanetConfig(N_INPUTS, d_v=32, n_layers=2),
    "probe": MetanetConfig(N_INPUTS, d_v=32, n_layers=2, probe=True),
    "mask only": MetanetConfig(N_INPUTS, d_v=32, n_layers=2, edits_parameters=False),
}


def packed(config: MetanetConfig, size: float = 0.3):
    rng = np.random.default_rng(0)
    return native.pack(
        config, {name: rng.normal(0, size, shape).astype(np.float32) for name, shape in weight_shapes(config)}
    )


EDITORS = {name: packed(config) for name, config in CONFIGS.items()}


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 20), max_size=4))
    pairs = [(s, t) for t in range(1, len(widths) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)) if pairs else []
    hidden = tuple(
        LayerSpec(
            w,
            draw(st.sampled_from(ACTIVATIONS)),
            norm=draw(st.sampled_from(["none", "layer"])),
            bias=draw(st.booleans()),
            norm_affine=draw(st.booleans()),
        )
        for w in widths
    )
    return MLPSpec(N_INPUTS, (*hidden, LayerSpec(draw(st.sampled_from([1, 2])))), tuple(skips))


def models_of(found: list[MLPSpec], seed: int = 0) -> list[MLP]:
    rng = np.random.default_rng(seed)
    return [MLP(spec, rng.normal(0, 0.7, spec.n_parameters)) for spec in found]


def edit(name: str, models: list[MLP], budgets: list[float], **options: object) -> native.Edits:
    config, pruning = CONFIGS[name], Pruning()
    gain = [config.gamma * pruning.residual_share(budget) for budget in budgets]
    return native.edit_models(
        EDITORS[name],
        config,
        WeightGraphBatch.from_mlps(models),
        np.array([pruning.condition(budget) for budget in budgets], np.float32).reshape(-1, 4),
        np.array(gain, np.float32),
        np.array([kept_count(m.spec.n_weights, b) for m, b in zip(models, budgets, strict=True)], np.int64),
        probe=[mlps.rows_of(mlp, PROBE) for mlp in models] if config.probe else None,
        **{"num_threads": 1, **options},
    )


def thetas(models: list[MLP], edits: native.Edits) -> list[np.ndarray]:
    return WeightGraphBatch.from_mlps(models).split(edits.theta)


def in_steps(name: str, mlp: MLP, budget: float, isa: str, *, plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """θ' and scores by the functions that the whole edit joins; ``plain`` takes numpy's features."""
    config, pruning = CONFIGS[name], Pruning()
    if plain:
        features = model_features(mlp, config, probe_statistics(mlp, PROBE) if config.probe else None)
    else:
        statistics = mlps.probe_statistics(mlp, PROBE, isa=isa) if config.probe else None
        features = native.model_features(mlp, config, statistics, isa=isa)
    graph, condition = WeightGraphBatch.from_mlps([mlp]), pruning.condition(budget).reshape(1, -1)
    heads = native.metanetwork_forward(EDITORS[name], graph, [features], condition, num_threads=1, isa=isa)
    mask = pruning.mask(mlp.theta[: mlp.spec.n_weights], heads.score, budget)
    gain = config.gamma * pruning.residual_share(budget)
    return edited_theta(mlp.spec, mlp.theta, features, heads, mask, gain), heads.score


@settings(max_examples=25, deadline=None)
@given(found=st.lists(specs(), min_size=1, max_size=3), name=st.sampled_from(list(CONFIGS)), seed=st.integers(0, 99))
def test_the_whole_is_its_parts_to_the_bit(isa: str, found: list[MLPSpec], name: str, seed: int) -> None:
    models = models_of(found, seed)
    budgets = list(np.random.default_rng(seed).uniform(0, 0.99, len(models)))
    edits = edit(name, models, budgets, isa=isa, scores=True)
    assert edits.scores is not None
    assert (edits.status == native.EDITED).all()
    assert (edits.seconds > 0).all()
    first = 0
    for mlp, budget, theta in zip(models, budgets, thetas(models, edits), strict=True):
        expected, score = in_steps(name, mlp, budget, isa, plain=False)
        assert edits.scores[first : first + score.size].tobytes() == score.tobytes()
        assert theta.tobytes() == expected.tobytes()
        first += score.size


@settings(max_examples=25, deadline=None)
@given(spec=specs(), name=st.sampled_from(list(CONFIGS)), seed=st.integers(0, 99), budget=st.floats(0.01, 0.98))
def test_it_agrees_with_the_numpy_path(isa: str, spec: MLPSpec, name: str, seed: int, budget: float) -> None:
    # What a probe finds behind the layer norm of two or three neurons is rounding noise (docs/results.md).
    assume(not (CONFIGS[name].probe and any(x.norm == "layer" and x.width < 4 for x in spec.layers)))
    (mlp,) = models = models_of([spec], seed)
    theta = edit(name, models, [budget], isa=isa).theta
    expected, score = in_steps(name, mlp, budget, isa, plain=True)
    threshold = np.sort(score)[score.size - kept_count(score.size, budget)]
    clear = np.ones(theta.size, np.bool_)
    clear[: score.size] = np.abs(score - threshold) > 1e-4 * (1 + np.abs(score).max())
    np.testing.assert_array_equal((theta == 0)[clear], (expected == 0)[clear])
    # With a probe, the logarithm of a Fisher information that is next to nothing is as inexact as that is.
    tolerance = 1e-4 if CONFIGS[name].probe else 1e-6
    both = (theta != 0) & (expected != 0)
    np.testing.assert_allclose(theta[both], expected[both], rtol=tolerance, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(
    found=st.lists(specs(), min_size=2, max_size=6),
    name=st.sampled_from(list(CONFIGS)),
    n_threads=st.integers(2, 9),
    order=st.randoms(use_true_random=False),
)
def test_no_bit_depends_on_threads_neighbours_or_order(
    isa: str, found: list[MLPSpec], name: str, n_threads: int, order
) -> None:
    models = models_of(found)
    budgets = [0.1 + 0.8 * m / len(models) for m in range(len(models))]
    expected = thetas(models, edit(name, models, budgets, isa=isa))
    places = list(range(len(models)))
    order.shuffle(places)
    shuffled = [models[p] for p in places]
    edits = edit(name, shuffled, [budgets[p] for p in places], isa=isa, num_threads=n_threads)
    for place, theta in zip(places, thetas(shuffled, edits), strict=True):
        assert theta.tobytes() == expected[place].tobytes()
    alone = edit(name, models[:1], budgets[:1], isa=isa, num_threads=n_threads).theta
    assert alone.tobytes() == expected[0].tobytes()


def exact_features(mlp: MLP, statistics: tuple[np.ndarray, ...] | None) -> dict[str, np.ndarray]:
    """The features of docs/method.md in float64 where they are learned numbers; norms and positions apart."""
    spec, theta = mlp.spec, mlp.theta.astype(np.float64)
    weights = [mlp.weight(i).astype(np.float64) for i in range(len(spec.layers))]
    rms = [np.sqrt((w**2).mean()) + 1e-6 for w in weights]
    of_target = [np.sqrt((w**2).mean(axis=0)) + 1e-6 for w in weights]
    of_source = [np.sqrt((w**2).mean(axis=1)) + 1e-6 for w in weights]
    log_weight = np.log(np.abs(theta[: spec.n_weights]) + 1e-6)
    log_weight -= log_weight.mean()
    columns = [
        np.concatenate([(w / r).ravel() for w, r in zip(weights, rms, strict=True)]),
        log_weight,
        np.concatenate([(w / r).ravel() for w, r in zip(weights, of_target, strict=True)]),
        np.concatenate([(w / r[:, None]).ravel() for w, r in zip(weights, of_source, strict=True)]),
        np.concatenate([np.full(w.size, np.log(r)) for w, r in zip(weights, rms, strict=True)]),
    ]
    saliency = log_weight
    if statistics is not None:
        _, std, _, fisher = (s.astype(np.float64) for s in statistics)
        moved = [w * s[:, None] for w, s in zip(weights, np.split(std, np.cumsum(spec.widths))[:-2], strict=True)]
        saliency = 0.5 * np.log(theta[: spec.n_weights] ** 2 * fisher + 1e-12)
        sensitivity = 0.5 * np.log(fisher + 1e-12)
        share = [m / np.sqrt((m**2).sum(axis=0)).clip(1e-6) for m in moved]
        saliency = saliency - saliency.mean()
        columns += [saliency, sensitivity - sensitivity.mean(), np.concatenate([s.ravel() for s in share])]
    log_in = np.concatenate([np.zeros(spec.n_inputs), *(np.log(r) for r in of_target)])
    log_out = np.concatenate([*(np.log(r) for r in of_source), np.zeros(spec.n_outputs)])
    return {
        "edge": np.stack(columns, axis=1).clip(-8, 8),
        "node": np.stack([log_in, log_out], axis=1).clip(-8, 8),
        "saliency": saliency.clip(-8, 8),
        "rms": np.concatenate([np.full(w.size, r) for w, r in zip(weights, rms, strict=True)]),
    }


@pytest.mark.parametrize("name", ["weights", "probe"])
def test_features_are_as_good_as_those_of_numpy(isa: str, name: str) -> None:
    """Errors against float64 over many models, beside those of numpy in float32."""
    config = CONFIGS[name]
    shapes = [(5, 2), (5, 1, 2), (5, 33, 17, 2), (5, 128, 64, 2), (5, 512, 3, 2)]
    models = models_of([MLPSpec.simple(s, "tanh", norm=n) for s in shapes for n in ("none", "layer")] * 3)
    squares = np.zeros((2, 4))
    for mlp in models:
        statistics = mlps.probe_statistics(mlp, PROBE) if config.probe else None
        exact = exact_features(mlp, statistics)
        numpy = model_features(mlp, config, probe_statistics(mlp, PROBE) if config.probe else None)
        found = native.model_features(mlp, config, statistics, isa=isa)
        np.testing.assert_array_equal(found.node_type, numpy.node_type)
        np.testing.assert_allclose(found.node, numpy.node, rtol=1e-5, atol=3e-6)
        for row, got in enumerate((found, numpy)):
            arrays = {"edge": got.edge, "node": got.node[:, 1:3], "saliency": got.saliency, "rms": got.rms}
            errors = [np.square(arrays[kind] - exact[kind]).sum() for kind in exact]
            squares[row] += errors
    # The last rounding is most of the error where numpy's own steps are exact ones; there the two are alike.
    assert (squares[0] <= 1.02 * squares[1]).all(), squares
    assert (squares[1] > 0).all()


def test_an_empty_batch(isa: str) -> None:
    edits = edit("weights", [], [], isa=isa, num_threads=3, scores=True)
    assert [x.shape for x in (edits.theta, edits.status, edits.seconds, edits.scores)] == [(0,)] * 4


ODD = {
    "one neuron": (MLPSpec.simple((N_INPUTS, 1, 1, 1), skips=[(0, 1), (1, 2)]), lambda theta: theta),
    "no hidden layer": (MLPSpec.simple((N_INPUTS, 1)), lambda theta: theta),
    "all zero": (MLPSpec.simple((N_INPUTS, 9, 2)), lambda theta: theta * 0),
    "negative zeros": (MLPSpec.simple((N_INPUTS, 9, 2)), lambda theta: np.where(theta < 0.3, np.float32(-0.0), theta)),
    "denormal": (MLPSpec.simple((N_INPUTS, 9, 2)), lambda theta: theta * np.float32(1e-42)),
    "tiny": (MLPSpec.simple((N_INPUTS, 9, 2)), lambda theta: theta * np.float32(1e-30)),
    "large": (MLPSpec.simple((N_INPUTS, 9, 2)), lambda theta: theta * np.float32(1e9)),
    "wide": (MLPSpec.simple((N_INPUTS, 512, 40, 2), norm="layer", skips=[(1, 2)]), lambda theta: theta),
}


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("which", list(ODD))
def test_odd_models(isa: str, name: str, which: str) -> None:
    spec, change = ODD[which]
    mlp = MLP(spec, change(models_of([spec])[0].theta))
    for budget in (0.0, 0.5, 0.97):
        edits = edit(name, [mlp], [budget], isa=isa)
        if edits.status[0] != native.EDITED:
            assert (which, name) == ("large", "probe")
            continue
        assert np.isfinite(edits.theta).all()
        assert edits.theta.tobytes() == in_steps(name, mlp, budget, isa, plain=False)[0].tobytes()
        weights, old = edits.theta[: spec.n_weights], mlp.theta[: spec.n_weights]
        assert np.count_nonzero(weights) <= kept_count(spec.n_weights, budget)
        assert not weights[old == 0].any()


def test_equal_scores_keep_the_first(isa: str) -> None:
    """An editor of zeros but for the saliency's gain ranks by |w|, and here only three sizes exist."""
    config = CONFIGS["mask only"]
    zeros = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(config)}
    editor = native.pack(config, {**zeros, "saliency_gain": np.ones((), np.float32)})
    spec = MLPSpec.simple((N_INPUTS, 40, 2))
    theta = np.random.default_rng(0).choice([-0.5, 0.0, -0.0, 0.25, 0.5, 2.0], spec.n_parameters).astype(np.float32)
    mlp = MLP(spec, theta)
    weights = mlp.theta[: spec.n_weights]
    rank = np.lexsort((np.arange(spec.n_weights), -np.abs(weights)))
    for kept in (0, 1, 7, 100, 150, spec.n_weights):
        expected = mlp.theta.copy()
        expected[rank[kept:]] = 0
        found = native.edit_models(
            editor,
            config,
            WeightGraphBatch.from_mlps([mlp]),
            np.zeros((1, 4), np.float32),
            np.zeros(1, np.float32),
            np.array([kept]),
            num_threads=1,
            isa=isa,
        )
        assert found.theta.tobytes() == expected.tobytes(), kept


def test_no_mask_keeps_every_weight(isa: str) -> None:
    models = models_of([MLPSpec.simple((N_INPUTS, 16, 2))] * 2)
    batch = WeightGraphBatch.from_mlps(models)
    conditions, gain = np.zeros((2, 4), np.float32), np.ones(2, np.float32)
    kept = np.array([native.KEEP_ALL, models[1].spec.n_weights])
    found = native.edit_models(
        EDITORS["weights"], CONFIGS["weights"], batch, conditions, gain, kept, num_threads=1, isa=isa
    )
    assert np.count_nonzero(found.theta) == found.theta.size
    assert not (found.theta == batch.theta).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e19])
def test_what_float32_cannot_hold_is_told_and_left_alone(isa: str, value: float) -> None:
    models = models_of([MLPSpec.simple((N_INPUTS, 19, 2))] * 3)
    expected = thetas(models, edit("weights", models, [0.5] * 3, isa=isa))
    models[1].theta[:8] = value
    found = edit("weights", models, [0.5] * 3, isa=isa, num_threads=2)
    assert list(found.status) == [native.EDITED, native.TOO_LARGE, native.EDITED]
    edited = thetas(models, found)
    assert edited[1].tobytes() == models[1].theta.tobytes()
    for m in (0, 2):
        assert edited[m].tobytes() == expected[m].tobytes()


def test_a_score_that_is_nan_is_told(isa: str) -> None:
    editor = packed(CONFIGS["weights"], 1e30)
    (mlp,) = models_of([MLPSpec.simple((N_INPUTS, 19, 2))])
    found = native.edit_models(
        editor,
        CONFIGS["weights"],
        WeightGraphBatch.from_mlps([mlp]),
        np.ones((1, 4), np.float32),
        np.ones(1, np.float32),
        np.array([10]),
        isa=isa,
    )
    assert found.status[0] == native.NAN_SCORE
    assert found.theta.tobytes() == mlp.theta.tobytes()
