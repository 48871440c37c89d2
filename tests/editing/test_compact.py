"""``compact``: one model, many, a population; the records, the folder and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import metaedit_fast as mf
from metaedit_fast.cli import app
from metaedit_fast.models.safetensors import mlp_to_safetensors


@pytest.fixture
def sparse_mlps(small_mlps):
    """Models of five inputs in which some hidden neurons and an input have no effect."""
    found = []
    for mlp in small_mlps[:4]:
        mlp = mlp.replace(mlp.theta.copy())
        mlp.weight(0)[2] = 0
        mlp.weight(len(mlp.spec.layers) - 1)[[0, 5]] = 0
        found.append(mlp)
    return found


def test_one_model(sparse_mlps):
    result = mf.compact(sparse_mlps[0])
    (record,) = result
    assert record.status == "compacted"
    assert record.kind == "mlp"
    assert record.widths == ((5, 8, 2), (5, 6, 2))
    assert record.parameters == (66, 50)
    assert (record.neurons_removed, record.inputs_removed) == (2, 0)
    assert record.kept_inputs == (0, 1, 2, 3, 4)
    x = np.random.default_rng(0).normal(size=(9, 5))
    np.testing.assert_allclose(result.model.forward(x), sparse_mlps[0].forward(x), rtol=1e-5, atol=1e-6)
    assert sparse_mlps[0].spec.widths == (5, 8, 2)


def test_dropped_inputs_are_told(sparse_mlps):
    (record,) = mf.compact(sparse_mlps[0], drop_inputs=True)
    assert record.kept_inputs == (0, 1, 3, 4)
    assert record.inputs_removed == 1
    assert record.model.spec.n_inputs == 4


def test_many_models(sparse_mlps, small_mlps):
    broken = small_mlps[0].replace(np.full(small_mlps[0].spec.n_parameters, np.nan))
    result = mf.compact([sparse_mlps[0], small_mlps[4], broken, "no.onnx", object()])
    assert [record.status for record in result] == ["compacted", "unchanged", "refused", "refused", "refused"]
    assert result.status_counts == {"compacted": 1, "unchanged": 1, "refused": 3}
    assert result.models[2] is broken
    assert result.models[1] is not small_mlps[4]
    assert "finite" in str(result[2].reason)
    assert "FileNotFoundError" in str(result[3].reason)
    assert json.loads(json.dumps(result.to_dict()))["records"][0]["widths"] == [[5, 8, 2], [5, 6, 2]]
    assert "5-8-2 -> 5-6-2" in result.report()
    assert "parameters in all: 78 -> 62" in result.report()
    assert "refused: model-00004" in result.report(max_rows=40)
    assert len(result.report(max_rows=1).splitlines()) < len(result.report().splitlines())
    assert "1 compacted" in repr(result)
    with pytest.raises(ValueError, match="5 models"):
        _ = result.model
    with pytest.raises(ValueError, match="list of models"):
        _ = result.population
    with pytest.raises(ValueError, match="got NoneType"):
        mf.compact(None)


def test_populations_and_their_folder(sparse_mlps, tmp_path):
    population = mf.Population.from_mlps(sparse_mlps, dataset="some")
    result = mf.compact(population)
    assert result.is_population
    result.save(tmp_path / "out")
    read = mf.Population.load(tmp_path / "out" / "population")
    assert read.dataset == "some"
    assert read.info["compaction"] == {"drop_inputs": False}
    assert [r.run for r in read] == [0, 1, 2, 3]
    x = np.random.default_rng(0).normal(size=(9, 5))
    for before, after in zip(sparse_mlps, read.mlps, strict=True):
        assert after.spec.n_parameters <= before.spec.n_parameters
        np.testing.assert_allclose(after.forward(x), before.forward(x), rtol=1e-5, atol=1e-5)
    assert read[1].mlp.spec.widths == (5, 12, 6, 2)  # its layer norms keep their layers


def test_the_command(sparse_mlps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, mlp in enumerate(sparse_mlps):
        mf.write_model(mlp, f"m{i}.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    done = CliRunner().invoke(app, ["compact", "m*.onnx", "--out", "out", "--drop-inputs", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["out"] == "out"
    assert printed["records"][3]["kept_inputs"] == [0, 1, 3, 4]
    assert mf.read_model("out/m0.onnx").spec.widths == (4, 6, 2)
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert saved["format"] == "metaedit_fast.compaction"
    assert saved["records"][0]["file"] == "m0.onnx"
    again = ["compact", "m0.onnx", "bad.onnx", "--out", "out"]
    assert CliRunner().invoke(app, again).exit_code == 2
    done = CliRunner().invoke(app, [*again, "--overwrite"])
    assert done.exit_code == 1
    assert "refused: bad" in done.stdout
    assert not (tmp_path / "out" / "m1.onnx").exists()


def test_tensors_stay_tensors(sparse_mlps, tmp_path):
    """In the same layout, with a note; what a program of torch cannot do is refused."""
    for folder in (True, False):
        model = mlp_to_safetensors(sparse_mlps[0], folder=folder)
        (record,) = mf.compact(model)
        assert record.status == "compacted"
        assert record.model.is_folder == folder
        assert mf.read_model(record.model).content_hash() == mf.compact(sparse_mlps[0]).models[0].content_hash()
        assert any("float32" in note for note in record.notes)


def test_inputs_behind_other_steps_are_not_dropped():
    neural_network = pytest.importorskip("sklearn.neural_network")
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    x = np.random.default_rng(0).normal(size=(30, 6))
    pipeline = make_pipeline(PCA(4), neural_network.MLPRegressor(hidden_layer_sizes=(5,)))
    pipeline[1].partial_fit(pipeline[0].fit_transform(x), x[:, 0])
    pipeline[1].coefs_[0][1] = 0
    pipeline[1].coefs_[0][:, 2] = 0
    (record,) = mf.compact(pipeline, drop_inputs=True)
    assert record.status == "refused"
    assert "the steps in front of the MLP give all of its inputs" in record.reason
    (record,) = mf.compact(pipeline)
    assert record.status == "compacted"
    assert np.allclose(record.model.predict(x), pipeline.predict(x))
