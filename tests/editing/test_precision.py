"""Editors whose metanetwork runs in a lower precision: what changes, what stays, and what is told."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast import _core
from metaedit_fast.models.divergence import mean_jsd

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
# Levels with kernels of their own.
FASTER = {"bf16x3": ("amx",), "bf16": ("avx512_bf16", "amx")}


def bundled(precision: str) -> mf.Editor:
    return mf.load_editor("adult-pruning", precision=precision)


@pytest.mark.parametrize("precision", ["float32", "bf16x3", "bf16"])
def test_the_editor_tells_what_runs(precision: str) -> None:
    editor = bundled(precision)
    assert editor.precision == precision
    assert editor.arithmetic == (precision if _core.isa() in FASTER.get(precision, ()) else "float32")


def test_edits_are_as_good_in_bf16() -> None:
    """The editor's own models: other weights at the margin, the same mean divergence within 5 %."""
    rows = np.load(DEMO / "rows.npz", allow_pickle=False)
    mlps = mf.Population.load(DEMO / "population").mlps
    x = rows["x_test"][:2000].astype(np.float32)
    for sparsity in (0.8, 0.95):
        divergence = {}
        for precision in ("float32", "bf16"):
            editor = bundled(precision)
            thetas = [editor.edit_theta(mlp, sparsity, probe=rows["x_probe"]) for mlp in mlps]
            edited = [mf.MLP(mlp.spec, theta) for mlp, theta in zip(mlps, thetas, strict=True)]
            for mlp, other in zip(mlps, edited, strict=True):
                assert np.count_nonzero(other.theta[: mlp.spec.n_weights]) <= round((1 - sparsity) * mlp.spec.n_weights)
            divergence[precision] = np.mean([mean_jsd(mlp, other, x) for mlp, other in zip(mlps, edited, strict=True)])
        assert divergence["bf16"] == pytest.approx(divergence["float32"], rel=0.05)
        if editor.arithmetic == "bf16":
            assert divergence["bf16"] != divergence["float32"]


def test_a_copy_keeps_the_precision_and_the_file_does_not(tmp_path: Path) -> None:
    editor = bundled("bf16")
    assert copy.deepcopy(editor).precision == "bf16"
    editor.save(tmp_path / "editor.onnx")
    assert mf.load_editor(tmp_path / "editor.onnx").precision == "float32"


def test_what_an_engine_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: expected one of .*'float32', 'bf16x3', 'bf16'.* got 'half'"):
        bundled("half")
    with pytest.raises(ValueError, match="precision: the engine 'onnxruntime' computes in 'float32' alone, got 'bf16'"):
        mf.load_editor("adult-pruning", engine="onnxruntime", precision="bf16")
    with pytest.raises(ValueError, match="engine: expected one of"):
        mf.load_editor("adult-pruning", engine="abacus")
