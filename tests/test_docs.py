"""The documentation's examples run as they stand, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast import _core
from metaedit_fast.editing.editor import Editor
from metaedit_fast.evaluation.record import Point, Reading, Record, read_record
from metaedit_fast.models.safetensors import config
from metaedit_fast.population.store import arrow_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def python_blocks(page: Path) -> list[str]:
    return [code for language, code in FENCED.findall(page.read_text()) if language == "python"]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_formats_examples_run(tmp_path, monkeypatch, tiny_editor, tiny_probe_editor, small_mlps):
    rows = np.random.default_rng(0).normal(size=(64, tiny_probe_editor.info.config.n_inputs))
    Editor(tiny_probe_editor.info, tiny_probe_editor.weights, rows).save(tmp_path / "editor.onnx")
    tiny_editor.save(tmp_path / "weights_only.onnx")
    mf.write_model(small_mlps[1], tmp_path / "model.onnx")
    mf.Population.from_mlps(small_mlps).save(tmp_path / "population")
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / "docs" / "formats.md")
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for code in blocks:
        exec(code, names)
    np.testing.assert_array_equal(names["probe"], rows.astype(np.float32))
    specs = [mf.MLPSpec.simple((5, 8, 2)), mf.MLPSpec.simple((5, 6, 6, 2), "tanh", "layer", skips=[(1, 2)])]
    thetas = np.split(names["inputs"]["theta"], [specs[0].n_parameters])
    expected = tiny_editor.edit_batch(list(map(mf.MLP, specs, thetas)), [0.5, 0.9])
    np.testing.assert_allclose(names["edited"], np.concatenate(expected), rtol=1e-5, atol=1e-6)
    assert names["report"]["status_counts"] == {"edited": 1, "unchanged": 0, "refused": 0}
    assert mf.read_model(tmp_path / "edited" / names["report"]["records"][0]["file"]).sparsity >= 0.89


@pytest.mark.filterwarnings("ignore")  # of torch about its exporter, of scikit-learn about iterations
def test_models_examples_run(tmp_path, monkeypatch):
    for name in ("torch", "sklearn", "skl2onnx", "safetensors"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / "docs" / "models.md")
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for code in blocks:
        exec(code, names)
    assert {p.name for p in Path("edited/my-model").iterdir()} == {"config.json", "model.safetensors"}
    assert mf.read_model("copy").content_hash() == mf.read_model("my-model").content_hash()


def test_the_keys_of_an_architecture_are_documented():
    text = (ROOT / "docs" / "models.md").read_text()
    keys = {*config._FLAT_KEYS, *config._COMMON_KEYS, *config._WITHOUT_EFFECT}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]
    assert not [name for name in config._ACTIVATIONS if name not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        target, _, anchor = link.partition("#")
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        place = (page.parent / target) if target else page
        assert place.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {link}"


def test_deployment_examples_run(tmp_path, monkeypatch):
    (tmp_path / "examples" / "demo").mkdir(parents=True)
    (tmp_path / "examples" / "demo" / "population").symlink_to(ROOT / "examples" / "demo" / "population")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = python_blocks(ROOT / "docs" / "deployment.md")
    assert len(blocks) == 3
    calls = _core.ort_call_count()
    for code in blocks:
        exec(code, names)
    assert _core.ort_call_count() == calls + 1
    found = np.split(names["by_kernels"], np.cumsum([mlp.theta.size for mlp in names["models"]])[:-1])
    expected = names["editor"].edit_batch(names["models"], 0.9, probe=names["rows"])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*names["edited_by"].values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert mf.read_model("edited-7.onnx").sparsity == pytest.approx(0.9, abs=1e-3)


def test_what_deployment_says_is_checked_where_it_says():
    page = (ROOT / "docs" / "deployment.md").read_text()
    named = re.findall(r"`((?:tests|packages)/[\w/]+\.py)`", page)
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]


def test_evaluation_example_runs(tmp_path, monkeypatch, tiny_editor, small_mlps, capsys):
    pytest.importorskip("moocore")
    monkeypatch.chdir(tmp_path)
    (code,) = python_blocks(ROOT / "docs" / "evaluation.md")
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    names = {"models": small_mlps, "runs": [0, 0, 1, 1, 2], "x": x, "y": (x[:, 0] > 0).astype(int), "probe": x[:16]}
    exec(code, {**names, "editor": tiny_editor, "Path": Path})
    record = read_record("my_experiment.json")
    assert set(record.curves) == set(record.hypervolume) >= {"editor", "editor+refine", "random"}
    assert "editor at 0.5: JSD" in capsys.readouterr().out


def test_fields_of_results_are_documented():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    fields = [field.name for kind in (Record, Point, Reading) for field in dataclasses.fields(kind)]
    assert not [name for name in fields if f"`{name}`" not in text and name != "details"]


def test_fields_of_files_are_documented(tiny_probe_editor, small_mlps):
    """A field that is added to a file must be added to the page."""
    text = (ROOT / "docs" / "formats.md").read_text()
    rows = np.zeros((8, tiny_probe_editor.info.config.n_inputs), np.float32)
    result = mf.edit(small_mlps[:1], tiny_probe_editor, strength=0.5, data=rows).to_dict()
    description = tiny_probe_editor.describe()
    fields = {*result, *result["settings"], *result["records"][0], *description}
    fields |= {*description["config"], *description["envelope"]}
    fields |= set(arrow_schema("").names)
    assert not [name for name in sorted(fields) if f"`{name}`" not in text]
