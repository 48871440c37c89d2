"""The README's examples run as they stand, on smaller numbers; the committed result is what it claims."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import metaedit_fast as mf
from metaedit_fast.datasets.sources import cache_file
from metaedit_fast.evaluation.record import read_record

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# What a reader would wait for is made small; each of these must stand in the README.
SMALLER = {
    "data, 300, seed": "data, 40, seed",
    "epochs=15, jobs=2": "epochs=1, jobs=1",
    "steps=2000": "steps=4, models_per_step=4, evaluate_every=2",
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def adult_in_cache(workplace: Path, shared_data: Path) -> None:
    """The Adult table where ``load_dataset("adult")`` looks first."""
    target = cache_file("adult")
    target.parent.mkdir(parents=True)
    shutil.copy(shared_data / "adult.csv.gz", target)


def run_example(word: str) -> dict[str, Any]:
    (code,) = [code for code in EXAMPLES if word in code]
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    assert len(code.strip().splitlines()) < 10
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_every_example_is_run_by_a_test_below() -> None:
    assert len(EXAMPLES) == 5
    assert all(long in README for long in SMALLER)


def test_onnx(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlp = mf.Population.load(ROOT / "examples" / "demo" / "population")[0].mlp
    mf.write_model(mlp, "model.onnx")
    run_example('"model.onnx"')
    edited = mf.read_model("edited/model.onnx")
    assert edited.sparsity == pytest.approx(0.9, abs=0.5 / mlp.spec.n_weights)
    assert mf.read_model("model.onnx").content_hash() == mlp.content_hash()
    assert json.loads((workplace / "edited" / "result.json").read_text())
    assert "edited" in capsys.readouterr().out


def test_torch(workplace: Path) -> None:
    torch = pytest.importorskip("torch")
    names = run_example("import torch")
    assert type(names["pruned"]) is torch.nn.Sequential
    assert mf.read_model(names["pruned"]).sparsity == pytest.approx(0.9, abs=1e-3)
    assert mf.read_model(names["model"]).sparsity == 0.0


@pytest.mark.usefixtures("adult_in_cache")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sklearn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    names = run_example("MLPClassifier")
    metrics = names["result"][0].metrics
    assert metrics["after"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert metrics["before"]["accuracy"] - metrics["after"]["accuracy"] < 0.05
    assert str(metrics["after"]) in capsys.readouterr().out


@pytest.mark.usefixtures("adult_in_cache")
def test_features_and_groups(tmp_path: Path) -> None:
    sample = mf.Population.load(ROOT / "examples" / "demo" / "population")
    small = mf.Population([sample[i] for i in range(6)], dataset=sample.dataset, info=sample.info)
    small.save(tmp_path / "examples" / "demo" / "population")
    names = run_example("adult-data-minimisation")
    assert all(record.metrics["after"]["features"] == 6 for record in names["minimised"])
    for record in [*names["evened"], *names["evened_by_strength"]]:
        before, after = (record.metrics[when]["equalized_odds_difference"] for when in ("before", "after"))
        assert after < max(0.08, before)


@pytest.mark.usefixtures("adult_in_cache")
def test_train_an_editor(workplace: Path) -> None:
    pytest.importorskip("torch")
    run_example("fit_editor")
    mine = mf.load_editor(str(workplace / "my-editor.onnx"))
    assert mine.info.data_name == "adult"
    assert mine.info.config.n_inputs == 14


def test_the_committed_result_is_of_the_bundled_editor_and_meets_what_is_claimed() -> None:
    result = read_record(ROOT / "experiments" / "results" / "adult_pruning.json")
    bundled = mf.load_editor("adult-pruning").describe()
    assert result.details["editor"]["weights_sha256"] == bundled["weights_sha256"]
    jsd = {name: {p.budget: p.jsd_mean for p in curve} for name, curve in result.curves.items()}
    for sparsity in (0.8, 0.9, 0.95):
        rivals = min(jsd[name][sparsity] for name in ("snip", "magnitude", "magnitude_layer"))
        assert jsd["editor"][sparsity] <= rivals / 5
        assert jsd["editor+refine"][sparsity] < jsd["editor"][sparsity]
