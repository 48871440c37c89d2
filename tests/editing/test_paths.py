"""Files and folders of models through ``edit``, ``save`` and the command line: each comes back in its own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import metaedit_fast as mf
from metaedit_fast.cli import app
from metaedit_fast.models.safetensors import SafetensorsModel, mlp_to_safetensors

SPARSITY = {"sparsity": 0.75}


@pytest.fixture
def place(tmp_path, monkeypatch, small_mlps, tiny_editor):
    """A folder of models: ONNX, tensors with the architecture in the header, beside them, and in config.json."""
    mf.write_model(small_mlps[0], tmp_path / "net.onnx")
    mf.write_model(small_mlps[1], tmp_path / "net.safetensors")
    mlp_to_safetensors(small_mlps[2], folder=True).save(tmp_path / "v1.2")
    model = mlp_to_safetensors(small_mlps[3], folder=True)
    (tmp_path / "result.safetensors").write_bytes(model.container.to_bytes())
    (tmp_path / "result.json").write_bytes(model.description)
    tiny_editor.save(tmp_path / "editor.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MODELS = ["net.onnx", "net.safetensors", "v1.2", "result.safetensors"]
# The sidecar of the last one must not be taken for the result's own file.
SAVED = {
    "net.onnx", "net.safetensors", "v1.2/model.safetensors", "v1.2/config.json", "result-2.safetensors",
    "result-2.json", "result.json",
}  # fmt: skip


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_each_comes_back_in_its_format(place, tiny_editor, small_mlps):
    before = {name: (place / name).read_bytes() for name in files(place)}
    result = mf.edit(MODELS, tiny_editor, target=SPARSITY)
    assert [record.kind for record in result] == ["onnx", *["safetensors"] * 3]
    assert [record.name for record in result] == ["net", "net", "v1.2", "result"]
    assert isinstance(result[1].model, SafetensorsModel)
    result.save("out")
    assert files(place / "out") == SAVED
    text = json.loads(Path("out/result.json").read_text())
    assert set(text["files"]) == SAVED
    for record, saved, original in zip(result, text["records"], small_mlps, strict=False):
        mlp = mf.read_model(Path("out") / saved["file"])
        assert mlp.spec == original.spec
        assert mlp.sparsity == pytest.approx(0.75, abs=0.05)
        assert mlp.content_hash() == mf.read_model(record.model).content_hash()
    assert {name: (place / name).read_bytes() for name in before} == before
    again = mf.edit(result.models, tiny_editor, strength=0)
    assert again.status_counts["unchanged"] == 4


def test_alike_names_are_told_apart(place, tiny_editor):
    twice = ["net.safetensors", "./net.safetensors", "v1.2", place / "v1.2"]
    mf.edit(twice, tiny_editor, strength=0.5).save("out")
    found = {p.name for p in (place / "out").iterdir()}
    assert found == {"net.safetensors", "net-2.safetensors", "v1.2", "v1.2-2", "result.json"}


def test_paths_are_not_edited_in_place(place, tiny_editor):
    with pytest.raises(ValueError, match=r"the file 'v1\.2' cannot be edited in place"):
        mf.edit_("v1.2", tiny_editor, target=SPARSITY)


def test_a_model_of_tensors_is_edited_in_place(tiny_editor, small_mlps):
    model = mlp_to_safetensors(small_mlps[0])
    mf.edit_(model, tiny_editor, target=SPARSITY)
    assert mf.read_model(model).sparsity == pytest.approx(0.75, abs=0.05)


def test_refusals_stand_beside_edits(place, tiny_editor):
    (place / "weights.safetensors").write_bytes(b"\xff" * 100)
    (place / "empty").mkdir()
    result = mf.edit(["net.onnx", "weights.safetensors", "empty", "a.bin"], tiny_editor, target=SPARSITY)
    assert [record.status for record in result] == ["edited", "refused", "refused", "refused"]
    assert all(isinstance(record.error, mf.UnsupportedModelError) for record in result[1:])
    assert "a pickle runs any code" in result[3].reason


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line(place):
    done = run("edit", *MODELS, "--editor", "editor.onnx", "--out", "out", "--sparsity", 0.75)
    assert done.exit_code == 0, done.output
    assert files(place / "out") == SAVED
    assert mf.read_model("out/v1.2").sparsity == pytest.approx(0.75, abs=0.05)
    found = json.loads(run("info", "v1.2", "--json").stdout)
    assert (found["kind"], found["widths"]) == ("model", [5, 6, 6, 2])


def test_a_population_beside_a_folder_is_refused(place, small_mlps):
    mf.Population.from_mlps(small_mlps).save(place / "population")
    done = run("edit", "v1.2", "population", "--editor", "editor.onnx", "--out", "out", "--sparsity", 0.75)
    assert done.exit_code == 2
    assert "a population folder is given alone, got 'population' and others" in done.output


def test_programs_and_pipelines(tiny_editor):
    torch = pytest.importorskip("torch")
    neural_network = pytest.importorskip("sklearn.neural_network")
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    x = np.random.default_rng(0).normal(size=(40, 8))
    front = make_pipeline(PCA(5), neural_network.MLPRegressor(hidden_layer_sizes=(6,)))
    classifier = make_pipeline(PCA(5), neural_network.MLPClassifier((6,)))
    front[0].fit(x)
    classifier[0].fit(x)
    front[1].partial_fit(front[0].transform(x), x[:, 0])
    classifier[1].partial_fit(classifier[0].transform(x), np.arange(40) % 2, classes=[0, 1])
    module = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    program = torch.export.export(module, (torch.randn(2, 5),))
    with pytest.raises(ValueError, match=r"models\[0\] and models\[1\] share parameters"):
        mf.edit_([module, program], tiny_editor, target=SPARSITY)
    result = mf.edit([front, classifier, program], tiny_editor, target=SPARSITY)
    assert [record.status for record in result] == ["refused", "edited", "edited"]  # editors know classifiers
    assert "regressor" in result[0].reason
    assert any("stay in front" in note for note in result[1].notes)
    inner = result[1].model[:-1].transform(x)
    mlp = mf.read_model(result[1].model)
    assert np.allclose(mlp.forward(inner)[:, 0], result[1].model.predict_proba(x)[:, 1], atol=1e-5)
    weights = [result[2].model.state_dict[name] for name in ("0.weight", "2.weight")]
    assert sum(int((w == 0).sum()) for w in weights) == 32  # of 42
