"""Odd graphs are read right, or refused; never wrong.

test_random_graphs.py builds networks that must be readable. Here most are not: shapes, axes and broadcasts are drawn
at random, so what is read has to be what ONNX Runtime computes, and what is refused is refused by the one error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.onnx import open_onnx

SEEDS_PER_TEST = 60


def rows_of(
    dims: tuple[int | None, ...], x: np.ndarray, y: np.ndarray, n_inputs: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Input and output as rows, along the first open axis, else as many as fit; None where the output's are unclear."""
    axis = dims.index(None) if None in dims else 0
    n_rows = x.shape[axis] if None in dims else x.size // n_inputs
    if n_rows > 1:
        if y.shape.count(n_rows) != 1:
            return None
        y = np.moveaxis(y, y.shape.index(n_rows), 0)
    return np.moveaxis(x, axis, 0).reshape(n_rows, -1), y.reshape(n_rows, -1)


def agree(odd: type, drawn: Any, model: onnx.ModelProto) -> str:
    """``"invalid"``, ``"refused"`` or ``"read"``; fails where the reading is wrong."""
    try:
        opened = open_onnx(model)
    except UnsupportedModelError:
        return "refused"
    n_inputs = opened.mlp.spec.n_inputs
    dims = (drawn.dims[0], n_inputs) if drawn.x == (None, None) else drawn.dims
    x = drawn.rng.normal(size=dims).astype(np.float32)
    y = odd.truth(model, x)
    pair = None if y is None else rows_of(drawn.x, x, y, n_inputs)
    if pair is None:
        return "invalid"
    rows, expected = pair
    got = opened.mlp.forward(rows, np.float64)
    scale = 1.0 + np.abs(expected).max()
    np.testing.assert_allclose(
        got, expected, rtol=1e-4, atol=1e-4 * scale, err_msg="\n".join(drawn.nodes) + f"\n{drawn.x}"
    )
    assert opened.write(opened.mlp) == model
    return "read"


@pytest.mark.parametrize("start", range(0, 600, SEEDS_PER_TEST))
def test_random_graphs_are_read_right_or_refused(kit: type, odd: type, start: int) -> None:
    outcomes = []
    for seed in range(start, start + SEEDS_PER_TEST):
        drawn = odd.Drawn(seed)
        outcomes.append(agree(odd, drawn, drawn.model(kit)))
    assert outcomes.count("read") >= SEEDS_PER_TEST // 10
    assert outcomes.count("refused") >= SEEDS_PER_TEST // 10
