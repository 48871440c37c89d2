"""A whole edit of a population through the public call, refinement, and the measuring of an edit."""

from __future__ import annotations

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing.masks import kept_count
from metaedit_fast.editing.refine import refine
from metaedit_fast.models.divergence import mean_jsd


@pytest.mark.parametrize("num_threads", [1, 2])
def test_edit_64_models(benchmark, population, editor, num_threads) -> None:
    result = benchmark(mf.edit, population, editor, target={"sparsity": 0.9}, num_threads=num_threads)
    assert result.status_counts["edited"] == len(population)
    for mlp, edited in zip(population, result.models, strict=True):
        kept = np.count_nonzero(edited.theta[: mlp.spec.n_weights])
        assert kept <= kept_count(mlp.spec.n_weights, 0.9)
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / len(population)


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
