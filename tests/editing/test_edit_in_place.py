"""``edit_`` edits the given objects, each wholly or not at all."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.models.onnx import mlp_to_onnx
from metaedit_fast.models.opened import OpenedMLP

SPARSITY = {"sparsity": 0.75}


def torch_module():
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def sklearn_model():
    neural_network = pytest.importorskip("sklearn.neural_network")
    x = np.random.default_rng(0).normal(size=(60, 5))
    return neural_network.MLPClassifier((6,), max_iter=300, tol=1e-1, random_state=0).fit(x, x[:, 0] > 0)


@pytest.fixture
def models(small_mlps):
    return [copy.deepcopy(small_mlps[0]), torch_module(), sklearn_model(), mlp_to_onnx(small_mlps[1])]


@pytest.mark.parametrize("on_error", ["refuse", "raise"])
def test_in_place_gives_what_edit_gives(models, tiny_editor, on_error):
    expected = [mf.read_model(model).theta for model in mf.edit(models, tiny_editor, target=SPARSITY).models]
    result = mf.edit_(models, tiny_editor, target=SPARSITY, on_error=on_error)
    assert result.status_counts == {"edited": 4, "unchanged": 0, "refused": 0}
    for given, returned, theta in zip(models, result.models, expected, strict=True):
        assert returned is given
        assert mf.read_model(given).theta.tobytes() == theta.tobytes()


def test_parameters_of_torch_stay_the_same_objects(tiny_editor):
    module = torch_module()
    before = [id(parameter) for parameter in module.parameters()]
    mf.edit_(module, tiny_editor, target=SPARSITY)
    assert [id(parameter) for parameter in module.parameters()] == before
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_strength_zero_touches_nothing(models, tiny_editor):
    before = [mf.read_model(model).theta.tobytes() for model in models]
    result = mf.edit_(models, tiny_editor, strength=0)
    assert result.status_counts["unchanged"] == 4
    assert [mf.read_model(model).theta.tobytes() for model in models] == before


def test_a_refused_model_stays_as_it_is(models, tiny_editor):
    models[0].theta[0] = np.nan
    before = models[0].content_hash()
    result = mf.edit_(models, tiny_editor, target=SPARSITY)
    assert [record.status for record in result] == ["refused", "edited", "edited", "edited"]
    assert models[0].content_hash() == before


def test_raise_leaves_every_model_as_it_is(models, tiny_editor):
    before = [mf.read_model(model).theta.tobytes() for model in models]
    with pytest.raises(mf.UnsupportedModelError, match=r"models\[4\]"):
        mf.edit_([*models, 7], tiny_editor, target=SPARSITY, on_error="raise")
    assert [mf.read_model(model).theta.tobytes() for model in models] == before


@pytest.mark.parametrize("on_error", ["refuse", "raise"])
def test_what_cannot_be_written_leaves_nothing_half_written(monkeypatch, models, tiny_editor, on_error):
    def fails(self, mlp):
        raise mf.UnsupportedModelError("no room")

    monkeypatch.setattr(OpenedMLP, "_written", fails)
    before = [mf.read_model(model).theta.tobytes() for model in models]
    if on_error == "raise":
        with pytest.raises(mf.UnsupportedModelError, match=r"models\[0\]: no room"):
            mf.edit_(models, tiny_editor, target=SPARSITY, on_error=on_error)
        assert [mf.read_model(model).theta.tobytes() for model in models] == before
    else:
        assert mf.edit_(models, tiny_editor, target=SPARSITY)[0].reason == "no room"
        assert models[0].theta.tobytes() == before[0]


def test_a_path_cannot_be_edited_in_place(tmp_path, tiny_editor, small_mlps):
    mf.write_model(small_mlps[0], tmp_path / "net.onnx")
    before = (tmp_path / "net.onnx").read_bytes()
    for path in (tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        with pytest.raises(ValueError, match=r"models\[0\]: the file .*net\.onnx' cannot be edited in place"):
            mf.edit_(path, tiny_editor, target=SPARSITY)
    assert (tmp_path / "net.onnx").read_bytes() == before


def test_a_population_cannot_be_edited_in_place(tiny_editor, small_mlps):
    population = mf.Population.from_mlps(small_mlps)
    with pytest.raises(ValueError, match=r"use edit\(\.\.\.\)\.population"):
        mf.edit_(population, tiny_editor, target=SPARSITY)


def test_shared_parameters_are_an_error(tiny_editor, small_mlps):
    torch = pytest.importorskip("torch")
    mlp = copy.deepcopy(small_mlps[0])
    module = torch_module()
    shares = torch.nn.Sequential(module[0], torch.nn.Tanh(), torch.nn.Linear(4, 2))
    proto = mlp_to_onnx(small_mlps[0])
    for pair in ([mlp, mlp], [mlp, mlp.replace(mlp.theta)], [module, shares], [proto, proto]):
        before = [mf.read_model(model).theta.tobytes() for model in pair]
        with pytest.raises(ValueError, match=r"models\[0\] and models\[1\] share parameters"):
            mf.edit_(pair, tiny_editor, target=SPARSITY)
        assert [mf.read_model(model).theta.tobytes() for model in pair] == before
