"""Odd graphs that are read can be compacted, in place where their nodes allow it."""

from __future__ import annotations

import numpy as np

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.compaction.plan import plan_of
from metaedit_fast.models.compaction.rebuild import rebuilt
from metaedit_fast.models.onnx import open_onnx


def test_what_is_read_can_be_compacted(kit: type, odd: type) -> None:
    """Half of the neurons of each layer lose what enters or leaves them; the compacted graph predicts the same."""
    in_place = 0
    for seed in range(300):
        drawn = odd.Drawn(seed)
        model = drawn.model(kit)
        try:
            opened = open_onnx(model)
        except UnsupportedModelError:
            continue
        mlp = opened.mlp.replace(opened.mlp.theta.copy())
        for i, width in enumerate(mlp.spec.widths[1:-1], start=1):
            gone = drawn.rng.random(width) < 0.5
            mlp.weight(i - 1)[:, gone & (drawn.rng.random(width) < 0.5)] = 0
            mlp.weight(i)[gone] = 0
        try:
            sparse = opened.write(mlp)
        except UnsupportedModelError:  # behind a scale of 0
            continue
        plan = plan_of(mlp)
        smaller, notes = rebuilt(open_onnx(sparse), plan)
        rows = drawn.rng.normal(size=(3, mlp.spec.n_inputs))
        expected = mlp.forward(rows, np.float64)
        got = open_onnx(smaller).mlp.forward(rows, np.float64)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * (1 + np.abs(expected).max()))
        if notes or plan.is_identity:
            continue
        in_place += 1
        x = drawn.rng.normal(size=drawn.dims).astype(np.float32)
        before, after = odd.truth(sparse, x), odd.truth(smaller, x)
        if before is not None:
            assert after is not None
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * (1 + np.abs(before).max()))
    assert in_place > 10
