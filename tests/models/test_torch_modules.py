"""``SkipMLP`` and ``mlp_to_torch``: the same network in torch, read back as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from metaedit_fast.models.torch import open_torch  # noqa: E402
from metaedit_fast.models.torch.modules import SkipMLP, mlp_to_torch  # noqa: E402


def predictions(module, x):
    double = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        return double(torch.from_numpy(x)).numpy().reshape(len(x), -1)


@st.composite
def skip_specs(draw, norms=("none", "layer")):
    widths = draw(st.lists(st.integers(1, 6), min_size=3, max_size=6))
    n = len(widths) - 1
    layers = []
    for width in widths[1:-1]:
        name, norm = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(norms))
        layers.append(LayerSpec(width, name, norm=norm, bias=draw(st.booleans()), norm_affine=draw(st.booleans())))
    pairs = [(s, t) for t in range(1, n) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), unique=True))
    outputs = ["logits", "softmax", "log_softmax"] if widths[-1] > 1 else ["logits", "sigmoid"]
    last = LayerSpec(widths[-1], bias=draw(st.booleans()))
    return MLPSpec(widths[0], (*layers, last), tuple(skips), draw(st.sampled_from(outputs)))


def without_unused(spec):
    """A spec as a module can tell it: without a norm, there is no affine flag to keep."""
    layers = [
        LayerSpec(x.width, x.activation, x.alpha, x.norm, x.eps, x.bias, x.norm_affine or x.norm == "none")
        for x in spec.layers
    ]
    return MLPSpec(spec.n_inputs, tuple(layers), spec.skips, spec.output)


@settings(max_examples=80, deadline=None)
@given(skip_specs(), st.integers(0, 2**31))
def test_skip_mlps_are_read_with_their_spec(spec, seed):
    torch.manual_seed(seed)
    module = SkipMLP(spec, dropout=0.2)
    opened = open_torch(module)
    assert opened.mlp.spec == without_unused(spec)

    class Traced(SkipMLP):
        """Another class, so its forward is traced."""

    module.__class__ = Traced
    traced = open_torch(module)
    module.__class__ = SkipMLP
    assert traced.mlp.content_hash() == opened.mlp.content_hash()
    assert [slot.key for slot in traced.slots] == [slot.key for slot in opened.slots]
    x = np.random.default_rng(seed).normal(size=(6, spec.n_inputs))
    assert np.allclose(opened.mlp.forward(x, np.float64), predictions(module, x), rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(skip_specs(norms=("none",)), st.integers(0, 2**31))
def test_skip_mlps_with_batch_norm(spec, seed):
    torch.manual_seed(seed)
    module = SkipMLP(spec, batch_norm=True)
    for norm in module.norms:
        if isinstance(norm, nn.BatchNorm1d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    module.eval()
    mlp = open_torch(module).mlp
    assert mlp.spec.skips == spec.skips
    assert all(layer.bias for layer in mlp.spec.layers[:-1])
    x = np.random.default_rng(seed).normal(size=(6, spec.n_inputs))
    assert np.allclose(mlp.forward(x, np.float64), predictions(module, x), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(skip_specs(), st.booleans(), st.integers(0, 2**31))
def test_mlp_to_torch_and_back(spec, normalised, seed):
    rng = np.random.default_rng(seed)
    spec = without_unused(spec)
    prefix = rng.normal(size=(2, spec.n_inputs)) if normalised else (None, None)
    mlp = open_torch(mlp_to_torch(MLP(spec, rng.normal(size=spec.n_parameters), *prefix))).mlp
    module = mlp_to_torch(mlp)
    assert type(module) is (SkipMLP if spec.skips else nn.Sequential)
    assert not module.training
    again = open_torch(module).mlp
    assert again.content_hash() == mlp.content_hash()
    x = rng.normal(size=(6, spec.n_inputs))
    assert np.allclose(mlp.forward(x, np.float64), predictions(module, x), rtol=1e-6, atol=1e-6)


def test_mlp_to_torch_draws_no_random_numbers():
    spec = MLPSpec.simple((3, 4, 2))
    before = torch.random.get_rng_state()
    mlp_to_torch(MLP(spec, np.ones(spec.n_parameters)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_values_that_are_no_parameters_become_frozen_ones():
    spec = MLPSpec(2, (LayerSpec(3, "relu", norm="layer", bias=False, norm_affine=False), LayerSpec(2, bias=False)))
    mlp = MLP(spec, np.arange(spec.n_parameters))
    module = mlp_to_torch(mlp)
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert frozen == ["0.bias", "1.weight", "1.bias", "3.bias"]
    x = np.random.default_rng(0).normal(size=(4, 2))
    assert np.allclose(mlp.forward(x, np.float64), predictions(module, x))


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about themselves
@pytest.mark.parametrize("dynamo", [False, True])
def test_an_exported_skip_mlp_is_read_as_the_same_mlp(dynamo, tmp_path):
    onnx = pytest.importorskip("onnx")
    from metaedit_fast.models.onnx import open_onnx

    torch.manual_seed(0)
    module = SkipMLP(MLPSpec.simple((6, 4, 9, 9, 2), "gelu", "layer", skips=[(0, 1), (0, 2), (1, 3), (2, 3)])).eval()
    path = tmp_path / "skip.onnx"
    if dynamo:
        pytest.importorskip("onnxscript")
        options = {"dynamic_shapes": [{0: torch.export.Dim("rows")}], "external_data": False, "verbose": False}
    else:
        options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "rows"}}}
    torch.onnx.export(module, (torch.randn(5, 6),), str(path), dynamo=dynamo, **options)
    assert open_onnx(onnx.load(path)).mlp.content_hash() == open_torch(module).mlp.content_hash()


def test_skip_mlp_trains():
    torch.manual_seed(0)
    module = SkipMLP(MLPSpec.simple((4, 8, 8, 2), skips=[(0, 2), (1, 2)]), dropout=[0.1, 0.0], batch_norm=[True, False])
    x, y = torch.randn(64, 4), torch.randint(0, 2, (64,))
    optimiser = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(F.cross_entropy(module(x), y))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_skip_mlp_refuses_numbers_that_do_not_fit():
    spec = MLPSpec.simple((4, 8, 8, 2), norm="layer")
    with pytest.raises(ValueError, match="dropout: expected one value for each of 2 hidden layers, got 3"):
        SkipMLP(spec, dropout=[0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="batch_norm"):
        SkipMLP(spec, batch_norm=True)
