"""MLPs in torch, many at once and differentiable in θ: what the objective evaluates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec


def stacked_logits(spec: MLPSpec, thetas: Tensor, x: Tensor) -> Tensor:
    """Logits ``[G, rows, n_outputs]`` of ``G`` MLPs of one architecture, ``thetas [G, n_parameters]``.

    ``x`` is ``[rows, n_inputs]`` or ``[G, rows, n_inputs]``, normalised already.
    """
    values = {
        (kind, i): thetas[:, where].reshape(-1, *(shape if kind == "weight" else (1, *shape)))
        for kind, i, where, shape in spec.parameter_slices
    }
    outputs = [x.expand(len(thetas), -1, -1)]
    for i, layer in enumerate(spec.layers):
        z = torch.baddbmm(values["bias", i], outputs[i], values["weight", i])
        if layer.norm == "layer":
            z = functional.layer_norm(z, (layer.width,), eps=layer.eps)
            z = z * values["norm_scale", i] + values["norm_shift", i]
        for source in spec.skips_into(i + 1):
            shared = min(spec.widths[source], layer.width)
            z = z + functional.pad(outputs[source][..., :shared], (0, layer.width - shared))
        outputs.append(activate(layer, z))
    return outputs[-1]


def activate(layer: LayerSpec, z: Tensor) -> Tensor:
    """The activation of ``layer``."""
    match layer.activation:
        case "identity":
            return z
        case "gelu_tanh":
            return functional.gelu(z, approximate="tanh")
        case "leaky_relu":
            return functional.leaky_relu(z, layer.alpha)
        case "elu":
            return functional.elu(z, layer.alpha)
        case name:
            activation: Tensor = getattr(functional, name)(z)
            return activation


def log_proba(logits: Tensor) -> Tensor:
    """Log-probabilities; one output stands for two classes with logits (0, z)."""
    if logits.shape[-1] == 1:
        logits = functional.pad(logits, (1, 0))
    return functional.log_softmax(logits, -1)


def jsd(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats, mean over rows: ``[..., rows, classes]`` to ``[...]``."""
    log_m = torch.logaddexp(log_p, log_q) - 0.6931471805599453
    terms = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return 0.5 * terms.sum(-1).mean(-1)


def population_jsd(mlps: list[MLP], edited: list[Tensor], rows: Tensor) -> Tensor:
    """JSD between each MLP and its edited parameters on shared raw rows, ``[M]``; MLPs of one
    architecture run stacked.
    """
    groups: dict[tuple[MLPSpec, bytes], list[int]] = {}
    for index, mlp in enumerate(mlps):
        prefix = b"".join(b"" if p is None else p.tobytes() for p in (mlp.input_scale, mlp.input_shift))
        groups.setdefault((mlp.spec, prefix), []).append(index)
    order: list[int] = []
    found: list[Tensor] = []
    for (spec, _), members in groups.items():
        x = torch.from_numpy(mlps[members[0]].normalised(rows.numpy()))
        with torch.no_grad():
            original = torch.stack([torch.from_numpy(mlps[i].theta) for i in members])
            log_p = log_proba(stacked_logits(spec, original, x))
        log_q = log_proba(stacked_logits(spec, torch.stack([edited[i] for i in members]), x))
        found.append(jsd(log_p, log_q))
        order += members
    return torch.cat(found)[torch.tensor(order).argsort()]
