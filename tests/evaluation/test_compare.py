"""The table of methods: its figures are those of each model by itself."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.evaluation.compare import clustered_standard_error, compare
from metaedit_fast.models.divergence import accuracy, mean_jsd
from metaedit_fast.models.mlp import MLP


def test_rows_hold_the_means_over_models(small_mlps: list[MLP]) -> None:
    mlps = small_mlps
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    reported = []
    rows = compare(
        mlps,
        [0, 0, 1, 1, 2],
        {"magnitude": lambda mlp, s: prune("magnitude", mlp, s), "same": lambda mlp, s: mlp},
        (0.3, 0.6),
        x,
        y,
        reported.append,
    )
    assert rows == reported
    assert [(row.method, row.sparsity, row.models) for row in rows] == [
        ("magnitude", 0.3, 5),
        ("magnitude", 0.6, 5),
        ("same", 0.3, 5),
        ("same", 0.6, 5),
    ]
    for row in rows[:2]:
        edited = [prune("magnitude", mlp, row.sparsity) for mlp in mlps]
        divergence = np.array([mean_jsd(m, e, x) for m, e in zip(mlps, edited, strict=True)])
        assert row.jsd_mean == pytest.approx(divergence.mean(), rel=1e-5)
        assert row.jsd_se == pytest.approx(clustered_standard_error(divergence, [0, 0, 1, 1, 2]), rel=1e-5)
        assert row.accuracy_mean == pytest.approx(np.mean([accuracy(e, x, y) for e in edited]))
        assert row.ms_per_model > 0
    assert rows[2].jsd_mean == rows[3].jsd_se == 0.0
