"""Edits of kept weights alone, of models that threads share, and in memory that calls leave behind: the same bits as
the network's heads for all weights, put together by the functions that the whole edit joins.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import edited_theta
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models import native as mlps
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.requirements.masks import top_k_mask

N_INPUTS = 5
GAIN = 0.7
CONDITION = np.array([[-2.3, 1.3, -0.7, -0.66]], np.float32)
PROBE = np.random.default_rng(9).normal(size=(70, N_INPUTS)).astype(np.float32)
CONFIGS = {
    "shipped": MetanetConfig(N_INPUTS, d_v=32, n_layers=2),
    "wide": MetanetConfig(N_INPUTS, d_e=32, d_v=32, n_layers=1, head_hidden=40),
    "odd width": MetanetConfig(N_INPUTS, d_e=13, d_v=20, n_layers=1),
    "probe": MetanetConfig(N_INPUTS, d_v=32, n_layers=1, probe=True),
    "mask only": MetanetConfig(N_INPUTS, d_v=32, n_layers=1, edits_parameters=False),
    "official": MetanetConfig(N_INPUTS, form="official", d_v=32, n_layers=2),
}


def packed(config: MetanetConfig):
    rng = np.random.default_rng(0)
    shapes = dict(weight_shapes(config))
    return native.pack(config, {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()})


EDITORS = {name: packed(config) for name, config in CONFIGS.items()}

SPECS = {
    "dense": MLPSpec.simple((N_INPUTS, 33, 17, 2)),
    "one neuron": MLPSpec.simple((N_INPUTS, 1, 1, 1), skips=[(0, 1), (1, 2)]),
    "no hidden layer": MLPSpec.simple((N_INPUTS, 1)),
    "skips": MLPSpec.simple((N_INPUTS, 16, 20, 16, 2), "tanh", norm="layer", skips=[(0, 2), (1, 3)]),
}
# Large enough for threads to share: edges times d_e of 2^18 and more.
LARGE = MLPSpec.simple((N_INPUTS, 150, 130, 2), skips=[(1, 2)])


def model_of(spec: MLPSpec, zeros: float = 0.0) -> MLP:
    """Of its weights the fraction ``zeros`` is zero, half of these with a sign."""
    rng = np.random.default_rng(3)
    theta = rng.normal(0, 0.7, spec.n_parameters).astype(np.float32)
    where = rng.random(spec.n_weights) < zeros
    theta[: spec.n_weights][where] = rng.choice([0.0, -0.0], int(where.sum()))
    return MLP(spec, theta)


def edit(name: str, models: list[MLP], kept: list[int], **options: object) -> list[np.ndarray]:
    batch, config = WeightGraphBatch.from_mlps(models), CONFIGS[name]
    found = native.edit_models(
        EDITORS[name],
        config,
        batch,
        np.repeat(CONDITION, len(models), axis=0),
        np.full(len(models), GAIN, np.float32),
        np.array(kept, np.int64),
        probe=[mlps.rows_of(mlp, PROBE) for mlp in models] if config.probe else None,
        **{"num_threads": 1, **options},
    )
    assert (found.status == native.EDITED).all()
    return batch.split(found.theta)


def with_all_heads(name: str, mlp: MLP, kept: int, isa: str, precision: str = "float32") -> np.ndarray:
    config = CONFIGS[name]
    statistics = mlps.probe_statistics(mlp, PROBE, isa=isa) if config.probe else None
    features = native.model_features(mlp, config, statistics, isa=isa)
    heads = native.metanetwork_forward(
        EDITORS[name],
        WeightGraphBatch.from_mlps([mlp]),
        [features],
        CONDITION,
        num_threads=1,
        isa=isa,
        precision=precision,
    )
    weights = mlp.theta[: mlp.spec.n_weights]
    ranked = np.where(weights == 0, -np.inf, heads.score)
    mask = np.ones(weights.size, np.bool_) if kept == native.KEEP_ALL else top_k_mask(ranked, kept)
    return edited_theta(mlp.spec, mlp.theta, features, heads, mask, GAIN)


@pytest.mark.parametrize("zeros", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("which", list(SPECS))
@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_edit_head_of_kept_weights_gives_the_bits_of_that_of_all(
    arithmetic: dict[str, str], name: str, which: str, zeros: float
) -> None:
    mlp = model_of(SPECS[which], zeros)
    n = mlp.spec.n_weights
    for kept in sorted({native.KEEP_ALL, 0, 1, 15, 16, 17, n // 100, n // 10, n // 2, n - 1, n}):
        if kept <= n:
            (found,) = edit(name, [mlp], [kept], **arithmetic)
            assert found.tobytes() == with_all_heads(name, mlp, kept, **arithmetic).tobytes(), kept


@pytest.mark.parametrize("name", list(CONFIGS))
def test_threads_that_share_a_model_change_no_bit(arithmetic: dict[str, str], name: str) -> None:
    assert LARGE.n_weights * CONFIGS[name].d_e >= 2**18
    large, small = model_of(LARGE, 0.1), model_of(SPECS["skips"])
    n = LARGE.n_weights
    for kept in (native.KEEP_ALL, 0, 1, n // 10, n // 2):
        expected = with_all_heads(name, large, kept, **arithmetic)
        for n_threads in (2, 3, 8):
            (found,) = edit(name, [large], [kept], num_threads=n_threads, **arithmetic)
            assert found.tobytes() == expected.tobytes(), (kept, n_threads)
    # One is shared, the others are not.
    models, counts = [small, large, small], [7, n // 3, 30]
    expected = [with_all_heads(name, mlp, kept, **arithmetic) for mlp, kept in zip(models, counts, strict=True)]
    found = edit(name, models, counts, num_threads=6, **arithmetic)
    assert [theta.tobytes() for theta in found] == [theta.tobytes() for theta in expected]


def test_memory_of_earlier_calls_changes_no_bit(isa: str) -> None:
    """Of models in any order of size, by two instruction sets in turn, from threads at once."""
    models = [model_of(spec) for spec in (*SPECS.values(), LARGE)]
    other = native._core.available_isas()[0]
    jobs = [(m, level) for m in range(len(models)) for level in (isa, other)]
    expected = {
        (m, level): with_all_heads("shipped", models[m], models[m].spec.n_weights // 2, level) for m, level in jobs
    }

    def run(seed: int) -> None:
        for place in np.random.default_rng(seed).permutation(len(jobs)):
            m, level = jobs[place]
            (found,) = edit("shipped", [models[m]], [models[m].spec.n_weights // 2], isa=level)
            assert found.tobytes() == expected[m, level].tobytes(), jobs[place]

    with ThreadPoolExecutor(6) as pool:
        for _ in pool.map(run, range(12)):
            pass


def _edit_in_child(queue: multiprocessing.Queue) -> None:
    queue.put(edit("shipped", [model_of(SPECS["dense"])], [60])[0].tobytes())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_child_edits() -> None:
    expected = edit("shipped", [model_of(SPECS["dense"])], [60])[0].tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_edit_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
    assert edit("shipped", [model_of(SPECS["dense"])], [60])[0].tobytes() == expected
