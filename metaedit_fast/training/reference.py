"""The objective of a training step in plain torch, model by model: what the trainer's fast path is compared with.

Values and gradients in any precision, that of ``rows``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from metaedit_fast.metanet.apply import Heads, node_parameters, weight_step
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.requirements import Requirement
from metaedit_fast.requirements.masks import kept_count, top_k_mask
from metaedit_fast.training.examples import Example


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


def population_jsd(mlps: Sequence[MLP], edited: Sequence[Tensor], rows: Tensor) -> Tensor:
    """JSD between each MLP and its edited parameters on shared raw rows, ``[M]``."""
    found = []
    for mlp, theta in zip(mlps, edited, strict=True):
        x = torch.from_numpy(mlp.normalised(rows.numpy(), rows.numpy().dtype.type))
        original = torch.from_numpy(mlp.theta).to(rows.dtype)
        log_p, log_q = (log_proba(stacked_logits(mlp.spec, t[None], x))[0] for t in (original, theta))
        found.append(jsd(log_p, log_q))
    return torch.stack(found)


def relaxed_top_k(scores: Tensor, kept: int, temperature: float = 1.0) -> Tensor:
    """Mask of the ``kept`` highest of one model's scores, with the gradient that ``requirements.relaxed`` states."""
    hard = torch.from_numpy(top_k_mask(scores.detach().numpy(), kept)).to(scores.dtype)
    if kept == scores.numel():
        return hard
    ordered = scores.detach().sort(descending=True).values
    threshold = (ordered[kept - 1] + ordered[kept]) / 2
    slope = torch.sigmoid((scores.detach() - threshold) / temperature)
    slope = slope * (1 - slope)
    moved = (scores * slope).sum() / (slope.sum() + 1e-9)
    soft = torch.sigmoid((scores - threshold - (moved - moved.detach())) / temperature)
    return hard + soft - soft.detach()


def edited_thetas(
    gamma: float, requirement: Requirement, examples: Sequence[Example], heads: Heads, budgets: Sequence[float]
) -> list[Tensor]:
    """Edited θ of every example under pruning, from the heads of all, in their precision."""
    edited = []
    weight = node = 0
    for example, budget in zip(examples, budgets, strict=True):
        spec = example.mlp.spec
        own = slice(weight, weight + spec.n_weights)
        part = Heads(heads.score[own], heads.relative[own], heads.additive[own], heads.node[node:])
        theta = torch.from_numpy(example.mlp.theta).to(part.score.dtype)
        weights, rest = theta[: spec.n_weights], theta[spec.n_weights :]
        mask = relaxed_top_k(part.score, kept_count(spec.n_weights, budget))
        gain = gamma * requirement.residual_share(budget)
        where = node_parameters(spec)
        step = part.node[torch.from_numpy(where.neuron), torch.from_numpy(where.column)]
        kept = mask * (weights + weight_step(weights, torch.from_numpy(example.features.rms), part, gain))
        edited.append(torch.cat([kept, rest + gain * step * torch.from_numpy(where.editable)]))
        weight, node = own.stop, node + sum(spec.widths)
    return edited
