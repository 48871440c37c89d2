"""Dispatch by type, files, and what is imported on the way."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.convert import open_model, read_model, write_model
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec


def an_mlp(seed=0, widths=(3, 4, 2), **options):
    spec = MLPSpec.simple(widths, **options)
    return MLP(spec, np.random.default_rng(seed).normal(size=spec.n_parameters))


def test_an_mlp_is_opened_as_itself():
    mlp, other = an_mlp(), an_mlp(1)
    opened = open_model(mlp)
    assert opened.kind == "mlp"
    assert opened.mlp.content_hash() == mlp.content_hash()
    before = mlp.content_hash()
    assert opened.write(other).content_hash() == other.content_hash()
    assert mlp.content_hash() == before
    opened.write_into(other)
    assert mlp.content_hash() == other.content_hash()
    assert not np.shares_memory(mlp.theta, other.theta)
    with pytest.raises(UnsupportedModelError, match="architecture"):
        opened.write(an_mlp(widths=(3, 5, 2)))


def test_a_torch_module_is_opened():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    opened = open_model(module)
    assert opened.kind == "torch"
    assert read_model(module).content_hash() == opened.mlp.content_hash()
    assert isinstance(opened.write(opened.mlp), torch.nn.Sequential)


def test_an_estimator_is_opened():
    neural_network = pytest.importorskip("sklearn.neural_network")
    x = np.random.default_rng(0).normal(size=(20, 3))
    estimator = neural_network.MLPRegressor(hidden_layer_sizes=(4,)).partial_fit(x, x[:, 0])
    assert open_model(estimator).kind == "sklearn"


def test_files_and_protos(tmp_path):
    mlp = an_mlp(norm="layer", skips=[(0, 1)])
    path = tmp_path / "model.onnx"
    write_model(mlp, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    for model in (path, str(path), onnx.load(path)):
        opened = open_model(model)
        assert opened.kind == "onnx"
        assert opened.mlp.content_hash() == mlp.content_hash()
        assert isinstance(opened.write(opened.mlp), onnx.ModelProto)


def test_write_leaves_the_file_alone_and_write_into_replaces_it(tmp_path):
    path = tmp_path / "model.onnx"
    mlp, other = an_mlp(), an_mlp(1)
    write_model(mlp, path)
    opened, before = open_model(path), path.read_bytes()
    written = opened.write(other)
    assert path.read_bytes() == before
    assert read_model(written).content_hash() == other.content_hash()
    opened.write_into(other)
    assert read_model(path).content_hash() == other.content_hash()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("as_path", [True, False])
def test_a_template_keeps_its_graph(tmp_path, as_path):
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    mlp, other = an_mlp(), an_mlp(1)
    write_model(mlp, source)
    proto = onnx.load(source)
    proto.doc_string = "the user's own words"
    onnx.save(proto, source)
    write_model(other, target, template=source if as_path else proto)
    assert onnx.load(target).doc_string == "the user's own words"
    assert read_model(target).content_hash() == other.content_hash()
    assert read_model(source).content_hash() == mlp.content_hash()
    with pytest.raises(UnsupportedModelError, match="architecture"):
        write_model(an_mlp(widths=(3, 5, 2)), target, template=source)
    assert read_model(target).content_hash() == other.content_hash()


def test_a_template_must_be_onnx(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"template: expected .* of onnx, got one of 'mlp'"):
        write_model(an_mlp(), tmp_path / "a.onnx", template=an_mlp())
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    write_model(an_mlp(), path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_model(an_mlp(1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.pkl", "a.joblib", "A.PT"])
def test_pickles_are_refused_before_they_are_opened(name, tmp_path):
    for call in (lambda: open_model(tmp_path / name), lambda: write_model(an_mlp(), tmp_path / name)):
        with pytest.raises(UnsupportedModelError, match="a pickle runs any code that is inside"):
            call()


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"notes\.txt: expected a name that ends in \.onnx.*got '\.txt'"):
        open_model("notes.txt")
    with pytest.raises(UnsupportedModelError, match=r"a\.pt2.*torch\.export\.load"):
        open_model("a.pt2")
    with pytest.raises(UnsupportedModelError, match=r"got ''"):
        open_model(tmp_path / "neither")


@pytest.mark.parametrize("name", ["none.onnx", "none.safetensors"])
def test_a_missing_file_is_a_missing_file(name, tmp_path):
    with pytest.raises(FileNotFoundError):
        open_model(tmp_path / name)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff\xfe not a protobuf")
    with pytest.raises(UnsupportedModelError):
        open_model(path)


@pytest.mark.parametrize("model", [None, 3, {"a": 1}, np.zeros(3), b"bytes"])
def test_other_objects_are_refused_with_their_type(model):
    kind = rf"{type(model).__module__}\.{type(model).__name__}"
    with pytest.raises(UnsupportedModelError, match=f"model: expected a torch.*got a {kind}"):
        open_model(model)


def test_an_mlp_needs_neither_torch_nor_sklearn():
    code = (
        "import sys, numpy as np\n"
        "from metaedit_fast.models.convert import open_model\n"
        "from metaedit_fast.models.mlp import MLP\n"
        "from metaedit_fast.models.spec import MLPSpec\n"
        "spec = MLPSpec.simple((3, 4, 2))\n"
        "open_model(MLP(spec, np.zeros(spec.n_parameters)))\n"
        "print(sorted({'torch', 'sklearn', 'onnx', 'onnxruntime', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
