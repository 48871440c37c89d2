"""A whole edit of a population through the public call, refinement, and the measuring of an edit."""

from __future__ import annotations

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing.refine import refine
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.requirements.masks import kept_count


@pytest.mark.parametrize("num_threads", [1, 2])
def test_edit_64_models(benchmark, population, editor, num_threads) -> None:
    result = benchmark(mf.edit, population, editor, target={"sparsity": 0.9}, num_threads=num_threads)
    assert result.status_counts["edited"] == len(population)
    for mlp, edited in zip(population, result.models, strict=True):
        kept = np.count_nonzero(edited.theta[: mlp.spec.n_weights])
        assert kept <= kept_count(mlp.spec.n_weights, 0.9)
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / len(population)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_edit_batch_64_models(benchmark, population, editor, num_threads) -> None:
    """The edit alone, on a batch that stands."""
    batch = WeightGraphBatch.from_mlps(population)
    found = benchmark(editor.edit_batch, batch, 0.9, num_threads=num_threads)
    for mlp, theta in zip(population, found, strict=True):
        assert theta.tobytes() == editor.edit_theta(mlp, 0.9).tobytes()
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / len(population)


def test_edit_one_small_model(benchmark, editor) -> None:
    """The latency of the public call for a 14-64-64-2 network on a batch that stands."""
    spec = MLPSpec.simple((14, 64, 64, 2))
    mlp = MLP(spec, np.random.default_rng(0).normal(0, 0.15, spec.n_parameters))
    (theta,) = benchmark(editor.edit_batch, WeightGraphBatch.from_mlps([mlp]), 0.9)
    assert np.count_nonzero(theta[: spec.n_weights]) == kept_count(spec.n_weights, 0.9)


def test_refine_30_steps(benchmark, population, rows) -> None:
    mlp = min(population, key=lambda m: abs(m.spec.n_weights - 2600))
    theta = mlp.theta.copy()
    weights = theta[: mlp.spec.n_weights]
    weights[np.abs(weights) < np.quantile(np.abs(weights), 0.9)] = 0
    pruned = mlp.replace(theta)
    refined, info = benchmark(refine, pruned, mlp, rows, steps=30)
    assert info.after < info.before
    assert mean_jsd(mlp, refined, rows) == pytest.approx(info.after, rel=1e-3)


def test_forward_1000_rows(benchmark, population) -> None:
    x = np.random.default_rng(2).normal(size=(1000, population[0].spec.n_inputs)).astype(np.float32)
    found = benchmark(lambda: [mlp.logits(x) for mlp in population])
    for mlp, logits in zip(population, found, strict=True):
        np.testing.assert_allclose(logits, mlp.logits(x, np.float64), rtol=1e-3, atol=1e-3)
