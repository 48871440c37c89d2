"""MLPs as torch modules: ``SkipMLP``, for architectures with skips, and ``mlp_to_torch``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec


class InputNormalisation(nn.Module):
    """``x * scale + shift`` per column, fixed: the two are buffers, not parameters."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows ``[rows, n_inputs]`` in, the same shape out."""
        return x * self.scale + self.shift


class SkipMLP(nn.Module):
    """The network of an ``MLPSpec``, skips included.

    Layer t computes ``z = norm(linear(h))``, adds the first ``min(width_s, width_t)`` columns of ``h_s``
    for each skip ``(s, t)``, then applies activation and dropout. Equivalent to, for one skip:
    ``z[:, :c] += h_s[:, :c]``, but out of place, so that it can be traced and exported.

    ``dropout`` and ``batch_norm`` are one value for all hidden layers or one per hidden layer; batch
    norm stands where the spec has no norm. ``normalisation`` is put in front of the first layer.
    Raises ``ValueError`` where their numbers do not fit the spec.
    """

    def __init__(
        self,
        spec: MLPSpec,
        *,
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool | Sequence[bool] = False,
        normalisation: InputNormalisation | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        hidden = len(spec.layers) - 1
        rates = [*_per_layer("dropout", dropout, hidden), 0.0]
        batched = [*map(bool, _per_layer("batch_norm", batch_norm, hidden)), False]
        self.normalisation = nn.Identity() if normalisation is None else normalisation
        widths = zip(spec.widths[:-1], spec.layers, strict=True)
        self.linears = nn.ModuleList(nn.Linear(n, layer.width, bias=layer.bias) for n, layer in widths)
        self.norms = nn.ModuleList(_norm(layer, b) for layer, b in zip(spec.layers, batched, strict=True))
        self.activations = nn.ModuleList(map(_activation, spec.layers))
        self.dropouts = nn.ModuleList(nn.Dropout(rate) if rate else nn.Identity() for rate in rates)
        self.tail = _tail(spec)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows ``[rows, n_inputs]`` in, ``[rows, n_outputs]`` out."""
        outputs = [self.normalisation(x)]
        parts = zip(self.linears, self.norms, self.activations, self.dropouts, strict=True)
        for t, (linear, norm, activation, dropout) in enumerate(parts, start=1):
            z = norm(linear(outputs[-1]))
            for s in self.spec.skips_into(t):
                z = z + _fitted(outputs[s], self.spec.widths[s], self.spec.widths[t])
            outputs.append(dropout(activation(z)))
        result: torch.Tensor = self.tail(outputs[-1])
        return result


def mlp_to_torch(mlp: MLP) -> nn.Module:
    """Build a float32 module in evaluation mode: ``nn.Sequential``, or ``SkipMLP`` where the MLP has skips.

    A value that the spec calls no parameter but that is not neutral, such as a bias left by a folded
    batch norm, becomes a parameter that needs no gradient.
    """
    spec = _with_homes(mlp)
    prefix = _input_normalisation(mlp)
    with torch.random.fork_rng(devices=[]):  # the initial values are thrown away; so is what they draw
        network = SkipMLP(spec, normalisation=prefix)
    with torch.no_grad():
        for kind, index, value in mlp.parameters():
            owner = network.linears[index] if kind in ("weight", "bias") else network.norms[index]
            parameter = owner.bias if kind in ("bias", "norm_shift") else owner.weight
            if isinstance(parameter, nn.Parameter):
                layer = mlp.spec.layers[index]
                parameter.copy_(torch.from_numpy(value.T.copy()))
                parameter.requires_grad_({"weight": True, "bias": layer.bias}.get(kind, layer.norm_affine))
    if spec.skips:
        return network.eval()
    modules: list[nn.Module] = [] if prefix is None else [prefix]
    for linear, norm, activation in zip(network.linears, network.norms, network.activations, strict=True):
        modules += [linear, norm, activation]
    modules.append(network.tail)
    return nn.Sequential(*(module for module in modules if not isinstance(module, nn.Identity))).eval()


def _fitted(h: torch.Tensor, width: int, target: int) -> torch.Tensor:
    if width > target:
        return h[:, :target]
    return functional.pad(h, (0, target - width)) if width < target else h


def _with_homes(mlp: MLP) -> MLPSpec:
    """Give the spec in which every value that is not neutral is a parameter."""
    layers = []
    for index, layer in enumerate(mlp.spec.layers):
        bias = layer.bias or bool(mlp.bias(index).any())
        affine = layer.norm_affine
        if layer.norm == "layer":
            scale, shift = mlp.parameter("norm_scale", index), mlp.parameter("norm_shift", index)
            affine = affine or bool((scale != 1).any() or shift.any())
        fields = (layer.width, layer.activation, layer.alpha, layer.norm, layer.eps)
        layers.append(LayerSpec(*fields, bias=bias, norm_affine=affine))
    return MLPSpec(mlp.spec.n_inputs, tuple(layers), mlp.spec.skips, mlp.spec.output)


def _input_normalisation(mlp: MLP) -> InputNormalisation | None:
    if mlp.input_scale is None and mlp.input_shift is None:
        return None
    n = mlp.spec.n_inputs
    scale = np.ones(n, np.float32) if mlp.input_scale is None else mlp.input_scale
    shift = np.zeros(n, np.float32) if mlp.input_shift is None else mlp.input_shift
    return InputNormalisation(torch.tensor(scale), torch.tensor(shift))


def _norm(layer: LayerSpec, batch_norm: bool) -> nn.Module:
    if layer.norm == "layer":
        if batch_norm:
            raise ValueError("batch_norm: expected False where the spec has a layer norm, got True")
        return nn.LayerNorm(layer.width, layer.eps, elementwise_affine=layer.norm_affine)
    return nn.BatchNorm1d(layer.width) if batch_norm else nn.Identity()


def _activation(layer: LayerSpec) -> nn.Module:
    match layer.activation:
        case "relu":
            return nn.ReLU()
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU("tanh")
        case "silu":
            return nn.SiLU()
        case "tanh":
            return nn.Tanh()
        case "leaky_relu":
            return nn.LeakyReLU(layer.alpha)
        case "sigmoid":
            return nn.Sigmoid()
        case "elu":
            return nn.ELU(layer.alpha)
        case "relu6":
            return nn.ReLU6()
    return nn.Identity()


def _tail(spec: MLPSpec) -> nn.Module:
    if spec.output == "softmax":
        return nn.Softmax(dim=-1)
    if spec.output == "log_softmax":
        return nn.LogSoftmax(dim=-1)
    return nn.Sigmoid() if spec.output == "sigmoid" else nn.Identity()


def _per_layer(name: str, value: object, n: int) -> list[float]:
    values: list[float] = list(value) if isinstance(value, Sequence) else [value] * n  # type: ignore[list-item]
    if len(values) != n:
        raise ValueError(f"{name}: expected one value for each of {n} hidden layers, got {len(values)}")
    return values
