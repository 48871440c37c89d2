"""Random architectures for hypothesis (``st.from_type(MLPSpec)``, ``st.from_type(MLP)``) and a torch forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec


@st.composite
def hidden_layers(draw: st.DrawFn) -> LayerSpec:
    return LayerSpec(
        width=draw(st.integers(1, 6)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        alpha=draw(st.sampled_from([0.0, 0.3])),
        norm=draw(st.sampled_from(NORMS)),
        eps=draw(st.sampled_from([1e-5, 1e-2])),
        bias=draw(st.booleans()),
        norm_affine=draw(st.booleans()),
    )


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    hidden = draw(st.lists(hidden_layers(), max_size=4))
    possible = [(s, t) for t in range(1, len(hidden) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(possible), max_size=4)) if possible else []
    output = draw(st.sampled_from(["logits", "softmax", "log_softmax", "sigmoid", "identity"]))
    last = LayerSpec(1 if output == "sigmoid" else draw(st.integers(1, 4)), bias=draw(st.booleans()))
    return MLPSpec(draw(st.integers(1, 5)), (*hidden, last), tuple(skips), output)


@st.composite
def mlps(draw: st.DrawFn) -> MLP:
    spec = draw(st.from_type(MLPSpec))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mlp = MLP(spec, rng.normal(0, 0.8, spec.n_parameters))
    for kind, i, view in mlp.parameters():
        if kind == "bias" and not spec.layers[i].bias:
            view[:] = 0
        elif kind != "weight" and kind != "bias" and not spec.layers[i].norm_affine:
            view[:] = kind == "norm_scale"
    if draw(st.booleans()):
        mlp.input_scale = rng.uniform(0.5, 2, spec.n_inputs).astype(np.float32)
    if draw(st.booleans()):
        mlp.input_shift = rng.normal(size=spec.n_inputs).astype(np.float32)
    return mlp


st.register_type_strategy(MLPSpec, specs())
st.register_type_strategy(MLP, mlps())


@pytest.fixture(scope="session")
def torch_activation() -> Callable[[str, Any, float], Any]:
    """torch's own activation functions by our names: ``f(name, z, alpha)``."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    functions = {
        "identity": lambda z, alpha: z,
        "relu": lambda z, alpha: functional.relu(z),
        "gelu": lambda z, alpha: functional.gelu(z),
        "gelu_tanh": lambda z, alpha: functional.gelu(z, approximate="tanh"),
        "silu": lambda z, alpha: functional.silu(z),
        "tanh": lambda z, alpha: torch.tanh(z),
        "leaky_relu": lambda z, alpha: functional.leaky_relu(z, alpha),
        "sigmoid": lambda z, alpha: torch.sigmoid(z),
        "elu": lambda z, alpha: functional.elu(z, alpha),
        "relu6": lambda z, alpha: functional.relu6(z),
    }
    assert set(functions) == set(ACTIVATIONS)
    return lambda name, z, alpha=0.0: functions[name](z, alpha)


@pytest.fixture(scope="session")
def torch_layers(torch_activation: Callable[..., Any]) -> Callable[..., tuple[Any, list[Any], list[Any]]]:
    """``f(mlp, x, dtype) -> (θ, linear outputs, neuron layers)``: the definition, in torch, with gradients.

    θ is a leaf; all else depends on it.
    """
    torch = pytest.importorskip("torch")

    def run(mlp: MLP, x: np.ndarray, dtype: Any = None) -> tuple[Any, list[Any], list[Any]]:
        dtype = dtype or torch.float64
        theta = torch.tensor(mlp.theta).to(dtype).requires_grad_()
        part = {(kind, i): theta[where].reshape(shape) for kind, i, where, shape in mlp.spec.parameter_slices}
        rows = torch.tensor(x).to(dtype)
        if mlp.input_scale is not None:
            rows = rows * torch.tensor(mlp.input_scale).to(dtype)
        if mlp.input_shift is not None:
            rows = rows + torch.tensor(mlp.input_shift).to(dtype)
        neurons, linear = [rows], []
        for i, layer in enumerate(mlp.spec.layers):
            z = torch.nn.functional.linear(neurons[-1], part["weight", i].T, part["bias", i])
            linear.append(z)
            if layer.norm == "layer":
                scale, shift = part["norm_scale", i], part["norm_shift", i]
                z = torch.nn.functional.layer_norm(z, (layer.width,), scale, shift, layer.eps)
            for source, target in mlp.spec.skips:
                if target == i + 1:
                    shared = min(mlp.spec.widths[source], layer.width)
                    z = torch.cat([z[:, :shared] + neurons[source][:, :shared], z[:, shared:]], dim=1)
            neurons.append(torch_activation(layer.activation, z, layer.alpha))
        return theta, linear, neurons

    return run
