"""Files and folders of tensors: the same predictions, exact round trips, refusals by name."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.convert import open_model, read_model, write_model
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.safetensors import SafetensorsModel, mlp_to_safetensors, open_safetensors
from metaedit_fast.models.safetensors.container import Container
from metaedit_fast.models.spec import LayerSpec, MLPSpec

FLAT = {"model_type": "mlp", "input_size": 4, "hidden_sizes": [6, 5], "num_labels": 3, "hidden_act": "relu"}


def arrays_of(*widths, names=None, seed=0):
    """Weights [out, in] and biases of linear layers under the given names, by default those of an nn.Sequential."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        name = str(2 * i) if names is None else names[i]
        arrays[f"{name}.weight"] = rng.normal(0, 0.8, (m, n)).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.5, m).astype(np.float32)
    return arrays


def model_of(arrays, description=FLAT):
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    return SafetensorsModel(Container.of(arrays, {}), text)


def edited(opened, seed=0):
    rng = np.random.default_rng(seed)
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    for slot in opened.slots:
        view = mlp.parameter(slot.kind, slot.layer)
        view[rng.random(view.shape) < 0.3] = 0.25
    return mlp


@settings(max_examples=60, deadline=None)
@given(mlp=st.from_type(MLP), folder=st.booleans())
def test_what_is_written_is_read_bit_for_bit(mlp, folder):
    assume("softmax" not in mlp.spec.output or mlp.spec.n_outputs > 1)
    opened = open_safetensors(mlp_to_safetensors(mlp, folder=folder))
    assert opened.mlp.content_hash() == mlp.content_hash()
    assert opened.write(opened.mlp).files() == opened.model.files()
    other = edited(opened)
    written = opened.write(other)
    assert open_safetensors(written).mlp.content_hash() == other.content_hash()
    assert open_safetensors(opened.model).mlp.content_hash() == mlp.content_hash()


def test_values_that_the_model_does_not_own_are_kept():
    layers = (LayerSpec(4, "relu", bias=False), LayerSpec(3, "tanh", norm="layer", norm_affine=False), LayerSpec(2))
    spec = MLPSpec(3, layers)
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    opened = open_safetensors(mlp_to_safetensors(mlp))
    assert opened.mlp.content_hash() == mlp.content_hash()
    other = mlp.replace(mlp.theta.copy())
    other.bias(0)[...] = 0
    with pytest.raises(UnsupportedModelError, match="no parameter for the bias of layer 0"):
        opened.write(other)


@pytest.mark.parametrize("form", ["header", "sidecar", "folder"])
def test_paths_come_back_in_their_own_form(tmp_path, form):
    spec = MLPSpec.simple((4, 6, 3), "tanh")
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    path = tmp_path / ("model" if form == "folder" else "model.safetensors")
    if form == "sidecar":
        model = mlp_to_safetensors(mlp, folder=True)
        (tmp_path / "model.json").write_bytes(model.description)
        path.write_bytes(model.container.to_bytes())
    else:
        write_model(mlp, path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    opened = open_model(path)
    assert opened.kind == "safetensors"
    assert read_model(str(path)).content_hash() == mlp.content_hash()
    other = edited(opened)
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    opened.write(other).save(copy)
    assert read_model(copy).content_hash() == other.content_hash()
    assert sorted(p.relative_to(copy.parent) for p in copy.parent.rglob("*")) == sorted(
        p.relative_to(tmp_path) for p in tmp_path.rglob("*") if copy.parent not in (p, *p.parents)
    )
    assert {p: p.read_bytes() for p in before} == before
    write_model(mlp, copy, template=copy)
    assert read_model(copy).content_hash() == mlp.content_hash()
    opened.write_into(other)
    assert read_model(path).content_hash() == other.content_hash()


def test_a_folder_with_a_dot_in_its_name_is_written_to(tmp_path):
    spec = MLPSpec.simple((4, 6, 3))
    (tmp_path / "v1.2").mkdir()
    write_model(MLP(spec, np.zeros(spec.n_parameters)), tmp_path / "v1.2")
    assert sorted(p.name for p in (tmp_path / "v1.2").iterdir()) == ["config.json", "model.safetensors"]
    assert read_model(tmp_path / "v1.2").spec == spec


def test_the_kind_of_a_template_is_kept(tmp_path):
    spec = MLPSpec.simple((4, 6, 3))
    mlp = MLP(spec, np.zeros(spec.n_parameters))
    write_model(mlp, tmp_path / "folder")
    with pytest.raises(UnsupportedModelError, match=r"a\.safetensors: expected a folder"):
        write_model(mlp, tmp_path / "a.safetensors", template=tmp_path / "folder")
    with pytest.raises(UnsupportedModelError, match="template: expected a model or a path of onnx, got one of 'safet"):
        write_model(mlp, tmp_path / "a.onnx", template=tmp_path / "folder")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_names_dtypes_and_untouched_bytes_are_kept(tmp_path, dtype):
    """A state of torch, as its owner would save it; one weight and one bias are edited."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    nn, kind = torch.nn, getattr(torch, dtype)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).to(kind)
    (tmp_path / "config.json").write_text(json.dumps({**FLAT, "architectures": ["MLP"], "torch_dtype": dtype}))
    path = tmp_path / "model.safetensors"
    library.save_file(module.state_dict(), path, metadata={"format": "pt", "author": "somebody"})
    opened = open_model(tmp_path)
    other = opened.mlp.replace(opened.mlp.theta.copy())
    other.weight(1)[2, 3] = 0
    other.bias(2)[1] = 0.25
    opened.write_into(other)
    after = library.load_file(path)
    with torch.no_grad():
        module[2].weight[3, 2] = 0
        module[4].bias[1] = 0.25
    assert {name: tensor.dtype for name, tensor in after.items()} == dict.fromkeys(module.state_dict(), kind)
    for name, tensor in module.state_dict().items():
        assert torch.equal(after[name], tensor), name
    assert Container(path.read_bytes()).metadata == {"format": "pt", "author": "somebody"}
    assert Container(path.read_bytes()).header == opened.model.container.header
    x = torch.randn(7, 4)
    with torch.no_grad():
        expected = module.to(torch.float64)(x.double()).numpy()
    assert np.allclose(read_model(tmp_path).forward(x.numpy(), np.float64), expected, atol=1e-6)


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
def test_norms_compute_what_torchs_do(norm):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    kind = nn.LayerNorm if norm == "layer_norm" else nn.BatchNorm1d
    module = nn.Sequential(
        *(nn.Linear(4, 6), kind(6, eps=1e-3), nn.SiLU(), nn.Linear(6, 5), kind(5, eps=1e-3), nn.SiLU(), nn.Linear(5, 3))
    )
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 1:
                tensor.uniform_(0.5, 2) if "var" in name else tensor.add_(torch.randn_like(tensor) * 0.3)
    module.eval()
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items() if tensor.ndim}
    opened = open_safetensors(model_of(arrays, {**FLAT, "hidden_act": "swish", "norm": norm, f"{norm}_eps": 1e-3}))
    x = torch.randn(9, 4)
    other = edited(opened)
    written = opened.write(other)
    with torch.no_grad():
        assert np.allclose(opened.mlp.forward(x.numpy()), module(x).numpy(), atol=1e-5)
        module.load_state_dict(
            {name: torch.from_numpy(written.container.array(name).copy()) for name in arrays}, strict=False
        )
        assert np.allclose(other.forward(x.numpy()), module(x).numpy(), atol=1e-4)
    assert any("batch norm '1' is folded" in note for note in opened.notes) == (norm == "batch_norm")


@pytest.mark.parametrize(
    ("change", "output", "activation"),
    [
        ({}, "logits", "relu"),
        ({"hidden_act": "gelu_new"}, "logits", "gelu_tanh"),
        ({"problem_type": "regression"}, "identity", "relu"),
        ({"output": "softmax"}, "softmax", "relu"),
        ({"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}, "output_size": 3}, "logits", "relu"),
    ],
)
def test_flat_configurations(change, output, activation):
    spec = open_safetensors(model_of(arrays_of(4, 6, 5, 3), {**FLAT, **change})).mlp.spec
    assert spec == MLPSpec.simple((4, 6, 5, 3), activation, output=output)


@pytest.mark.parametrize(
    "names", [["0", "2", "10"], ["fc1", "fc2", "fc10"], ["net.0.fc", "net.1.fc", "net.11.fc"], ["l1", "l1.2", "l1.3"]]
)
def test_numbers_in_names_tell_the_order(names):
    arrays = arrays_of(4, 4, 4, 4, names=names)
    config = {**FLAT, "hidden_sizes": [4, 4], "num_labels": 4}
    mlp = open_safetensors(model_of(arrays, config)).mlp
    for i, name in enumerate(names):
        assert np.array_equal(mlp.weight(i), arrays[f"{name}.weight"].T)


def test_listed_modules_tell_the_order():
    arrays = arrays_of(4, 4, 4, 4, names=["stem", "body", "head"])
    config = {**FLAT, "hidden_sizes": [4, 4], "num_labels": 4}
    refused(arrays, config, "names whose numbers tell the order.*modules, got 'body' and 'head'")
    mlp = open_safetensors(model_of(arrays, {**config, "modules": ["stem", "body", "head"]})).mlp
    assert np.array_equal(mlp.weight(1), arrays["body.weight"].T)
    refused(arrays, {**config, "modules": ["stem", "head"]}, "modules: expected each module with tensors once")


def refused(arrays, description, message):
    with pytest.raises(UnsupportedModelError, match=message):
        open_safetensors(model_of(arrays, description))


NORM = {"1.weight": np.ones(6, np.float32), "1.bias": np.ones(6, np.float32)}
STATISTICS = {"1.running_mean": np.ones(6, np.float32), "1.running_var": np.ones(6, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"5.weight": np.ones((2, 2, 2), np.float32)}, "module '5': expected a weight of one or two axes"),
        ({"6.weight": np.ones((3, 3), np.float32)}, r"module '6' \(linear layer\): expected no tensors beside"),
        ({"0.scale": np.ones(3, np.float32)}, r"module '0' \(linear layer\): expected tensors named bias, weight"),
        ({"0.weight": np.ones((6, 5), np.float32)}, r"tensor '0.weight': expected shape \[6, 4\].*got \[6, 5\]"),
        ({"0.bias": None}, r"module '0' \(linear layer\): expected a bias, as the architecture says"),
        ({"4.weight": None, "4.bias": None}, "layer 2: expected the tensors of a linear layer, got no more"),
        (NORM, r"module '1' \(norm\): expected the linear layer of layer 1, got a norm"),
        ({**NORM, **STATISTICS}, r"module '1' \(batch norm\): expected batch_norm_eps"),
        ({"x.scale": np.ones(4, np.float32), "y.shift": np.ones(4, np.float32)}, "one scale and shift of the inputs"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message):
    arrays = {name: a for name, a in {**arrays_of(4, 6, 5, 3), **change}.items() if a is not None}
    refused(arrays, FLAT, message)


def test_a_norm_behind_an_activation_is_refused():
    """Its number tells: of ``Linear, ReLU, LayerNorm`` it is 2, not 1."""
    arrays = arrays_of(4, 6, 3, names=["0", "3"])
    config = {**FLAT, "hidden_sizes": [6], "norm": "layer_norm", "layer_norm_eps": 1e-5}
    norm = {name.replace("1.", "2."): array for name, array in NORM.items()}
    refused({**arrays, **norm}, config, r"module '2' \(norm\): expected a norm right behind its linear layer")
    assert open_safetensors(model_of({**arrays, **NORM}, config)).mlp.spec.layers[0].norm == "layer"


def without(key):
    return {name: value for name, value in FLAT.items() if name != key}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"\xff", "expected a JSON object"),
        (b"[" * 10**5, "expected a JSON object"),
        (b" " * (2 << 20), "at most 1048576 bytes"),
        (b"[]", "expected a JSON object, got 'list'"),
        ({**FLAT, "model_type": "bert"}, "model_type: expected 'mlp', got 'bert'"),
        (without("model_type"), "expected the JSON of an MLPSpec"),
        ({**FLAT, "residual": True}, r"known keys alone, because another may change.*\['residual'\]"),
        (without("hidden_act"), "hidden_act: expected one of relu, .* got None"),
        ({**FLAT, "hidden_act": "mish"}, "hidden_act: expected one of relu, .* got 'mish'"),
        ({**FLAT, "hidden_act": ["relu"]}, "hidden_act"),
        ({**FLAT, "hidden_sizes": 6}, "hidden_sizes: expected a list of widths"),
        ({**FLAT, "hidden_sizes": [6, -1]}, "width: expected a positive int, got -1"),
        (without("input_size"), "n_inputs: expected a positive int"),
        (without("num_labels"), "output_size, num_labels or id2label"),
        ({**FLAT, "output_size": 4}, "to tell one number of outputs"),
        ({**FLAT, "num_labels": "3"}, "width: expected a positive int, got '3'"),
        ({**FLAT, "norm": "rms_norm"}, "norm: expected one of none, layer_norm, batch_norm"),
        ({**FLAT, "norm": "layer_norm"}, "layer_norm_eps: expected a number with norm"),
        ({**FLAT, "norm": "layer_norm", "layer_norm_eps": "x"}, "layer_norm_eps: expected a number"),
        ({**FLAT, "batch_norm_eps": 1e-5}, "batch_norm_eps: expected a number with norm"),
        ({**FLAT, "problem_type": "multi_label_classification"}, "problem_type: expected single_label"),
        ({**FLAT, "output": "probabilities"}, "output: expected one of"),
        ({**FLAT, "bias": "yes"}, "bias: expected True or False"),
        ({**FLAT, "hidden_sizes": [1] * 1000}, "at most 1000 layers and 1000 skips, got '1001 layers and 0 skips'"),
        ({**FLAT, "modules": [1]}, "modules: expected a list of names"),
        ({"layers": [{"width": 3}], "n_inputs": 4, "skips": []}, "not the JSON of an MLPSpec"),
        ({"layers": 3, "n_inputs": 4, "skips": [], "output": "logits"}, "not the JSON of an MLPSpec"),
    ],
)
def test_descriptions_that_say_something_else_are_refused(description, message):
    refused(arrays_of(4, 6, 5, 3), description, message)


def test_files_without_an_architecture_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(Container.of(arrays_of(4, 6, 5, 3), {}).to_bytes())
    with pytest.raises(UnsupportedModelError, match=r"weights\.json or under 'metaedit_fast\.spec'.*tensors alone"):
        open_model(path)
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    with pytest.raises(UnsupportedModelError, match="tensors alone; pass the folder"):
        open_model(path)


def test_folders_without_a_model_are_refused(tmp_path):
    def said():
        with pytest.raises(UnsupportedModelError) as caught:
            open_model(tmp_path)
        return str(caught.value)

    assert "expected a file model.safetensors, got none" in said()
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "got pytorch_model.bin: a pickle runs any code that is inside" in said()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert "got a model in several files" in said()
    (tmp_path / "population.json").write_text("{}")
    assert "got a population; load it with Population.load" in said()
    for name in ("population.json", "config.json"):
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").write_bytes(Container.of(arrays_of(4, 6, 5, 3), {}).to_bytes())
    assert "expected the architecture in config.json, got tensors alone" in said()
