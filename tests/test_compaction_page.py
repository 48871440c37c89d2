"""The table of docs/compaction.md is that of the committed measurement, and its script runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.bench.timing import Rounds

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compaction", ROOT / "benchmarks" / "compaction.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_committed_result(script: ModuleType) -> None:
    assert f"{script.BEGIN}\n{script.tables()}\n{script.END}" in script.PAGE.read_text()


def test_models_are_measured_before_and_after(script: ModuleType, small_mlps: list[mf.MLP]) -> None:
    pytest.importorskip("torch")
    models = [mlp.replace(mlp.theta.copy()) for mlp in small_mlps[:2]]
    models[0].weight(1)[:3] = 0
    models[0].weight(0)[1] = 0
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    found = script.measured(models, x, drop_inputs=True, row_counts=(2,), rounds=Rounds(1, 1, 0.0))
    assert found["unchanged"] == 1
    assert found["inputs_removed"] == 0.5
    assert found["parameters_after"] < found["parameters_before"]
    assert found["largest_change"] < 1e-6
    assert set(found["torch_2"]) == {"before", "after", "spread"}
    assert found["onnxruntime_2"]["after"] > 0


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mlps: list[mf.MLP]) -> None:
    mf.write_model(small_mlps[0], tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    code = (ROOT / "docs" / "compaction.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})
    assert (tmp_path / "compacted" / "model.onnx").exists()
