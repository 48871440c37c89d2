"""The engines give the same edits: to rounding in float32, with masks that differ at ties alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing.bundled import bundled_editors
from metaedit_fast.editing.engines import ENGINES
from metaedit_fast.metanet.features import model_features
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.requirements import get_requirement
from metaedit_fast.requirements.masks import kept_count

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
# Relative to the norm of what is compared (docs/deployment.md).
EDITS, HEADS = 1e-6, 2e-6
BUDGETS = {"pruning": 0.9, "data_minimisation": 0.5, "equalized_odds": 0.5}
OTHERS = [name for name in ENGINES if name != "native"]


def distance(one, two):
    return np.linalg.norm(np.asarray(one) - np.asarray(two)) / np.linalg.norm(two)


def needs(engine):
    if engine == "torch":
        pytest.importorskip("torch")


@pytest.fixture(scope="module")
def models():
    """Trained models of 14 inputs, and untrained ones of 16."""
    rng = np.random.default_rng(0)
    specs = [mf.MLPSpec.simple((16, 32, 2), "gelu"), mf.MLPSpec.simple((16, 24, 16, 2), "tanh", norm="layer")]
    return {
        14: mf.Population.load(DEMO / "population").mlps[:6],
        16: [mf.MLP(spec, rng.normal(0, 0.4, spec.n_parameters).astype(np.float32)) for spec in specs],
    }


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(1)
    found = {n: rng.normal(size=(200, n)).astype(np.float32) for n in (14, 16)}
    return {n: mf.Table(x, x[:, 0] > 0, sensitive=np.where(x[:, 1] > 0, "a", "b")) for n, x in found.items()}


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", bundled_editors())
def test_edits_agree(models, tables, engine, name):
    needs(engine)
    native, other = mf.load_editor(name), mf.load_editor(name, engine=engine)
    n_inputs, budget = native.info.config.n_inputs, BUDGETS[native.info.requirement]
    edits = [e.edit_batch(models[n_inputs], budget, probe=tables[n_inputs]) for e in (native, other)]
    for mlp, one, two in zip(models[n_inputs], *edits, strict=True):
        n = mlp.spec.n_weights
        differ = np.flatnonzero((one[:n] == 0) != (two[:n] == 0))
        assert differ.size <= 2, "ties that rounding decides are rare"
        one[differ] = two[differ] = 0
        assert not np.array_equal(one, mlp.theta)
        assert distance(one, two) < EDITS


def test_what_the_network_gives_agrees_and_masks_differ_at_ties_alone(models, tables):
    """The engine onnxruntime runs whole edits; what its network gives is compared in tests/export."""
    pytest.importorskip("torch")
    native, other = mf.load_editor("adult-pruning"), mf.load_editor("adult-pruning", engine="torch")
    requirement = get_requirement("pruning")
    condition = requirement.condition(0.9)[None]
    for mlp in models[14]:
        features = model_features(mlp, native.info.config, probe_statistics(mlp, tables[14].X))
        one, two = (e.prepare().heads([mlp], [features], condition, num_threads=1) for e in (native, other))
        for part in ("score", "relative", "additive", "node"):
            assert distance(getattr(one, part), getattr(two, part)) < HEADS, part
        n = mlp.spec.n_weights
        first, second = (requirement.mask(mlp.theta[:n], np.asarray(heads.score), 0.9) for heads in (one, two))
        margin = np.sort(two.score)[-kept_count(n, 0.9)]
        assert (np.abs(two.score[first != second] - margin) <= 1e-5 * np.abs(two.score).max()).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_result_does_not_depend_on_the_others(models, tables, engine):
    needs(engine)
    editor = mf.load_editor("adult-pruning", engine=engine)
    together = editor.edit_batch(models[14], 0.9, probe=tables[14], num_threads=2)
    for mlp, theta in zip(models[14], together, strict=True):
        assert editor.edit_theta(mlp, 0.9, probe=tables[14]).tobytes() == theta.tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_float32_cannot_hold_fails_alone(models, tables, engine):
    needs(engine)
    editor = mf.load_editor("adult-pruning", engine=engine)
    huge = models[14][0].replace(np.full_like(models[14][0].theta, 1e30))
    result = mf.edit([huge, models[14][1]], editor, target={"sparsity": 0.5}, data=tables[14].X)
    assert [record.status for record in result] == ["refused", "edited"]
    assert "so large that float32 cannot hold them" in result[0].reason


def test_torch_runs_without_gradients_and_in_float32(models):
    torch = pytest.importorskip("torch")
    editor = mf.load_editor("adult-pruning", engine="torch")
    assert editor.arithmetic == "float32"
    found = editor.edit_theta(models[14][0], 0.9)
    assert isinstance(found, np.ndarray)
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="precision: the engine 'torch' computes in 'float32' alone, got 'bf16'"):
        mf.load_editor("adult-pruning", engine="torch", precision="bf16")


def test_the_engine_torch_names_its_extra_where_torch_is_absent():
    code = """
import sys
sys.modules["torch"] = None
import metaedit_fast as mf
try:
    mf.load_editor("adult-pruning", engine="torch")
except mf.errors.MissingDependencyError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "engine='torch' needs the package 'torch': pip install 'metaedit_fast[train]'"
