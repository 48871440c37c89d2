"""One step of training: a batch of models in, edited parameters and their preservation out.

``min_φ E[O_pres(θ, F_φ(θ))]`` at a sampled budget, which is met exactly (arXiv 2512.15469, eq. 14, with
the budget as an input of the network instead of λ; ours).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.metanet.apply import Heads, node_parameters, weight_step
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures, model_features
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.requirements import Requirement
from metaedit_fast.training.networks import population_jsd

LOSS_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Example:
    """A model with its features, ready to enter a batch."""

    mlp: MLP
    features: ModelFeatures


class ExampleSource:
    """Models of a population as examples; features are computed once and kept.

    With ``single_output=True`` a two-logit model is taken as its equal with one logistic output, so
    that an editor also knows models written that way (scikit-learn's binary classifiers; ours).
    """

    def __init__(self, mlps: Sequence[MLP], config: MetanetConfig, probe: NDArray[np.float32] | None) -> None:
        self.mlps = mlps
        self.config = config
        self.probe = probe
        self._known: dict[tuple[int, bool], Example] = {}

    def get(self, index: int, *, single_output: bool = False) -> Example:
        key = (index, single_output)
        if key not in self._known:
            mlp = as_single_output(self.mlps[index]) if single_output else self.mlps[index]
            statistics = None if self.probe is None else probe_statistics(mlp, self.probe)
            self._known[key] = Example(mlp, model_features(mlp, self.config, statistics))
        return self._known[key]


def as_single_output(mlp: MLP) -> MLP:
    """A two-logit classifier as the equal one with a single logistic output, ``z = z_1 - z_0``.

    Raises ``ValueError`` where the model has not two outputs.
    """
    if mlp.spec.n_outputs != 2:
        raise ValueError(f"outputs: expected 2, got {mlp.spec.n_outputs}")
    last = len(mlp.spec.layers) - 1
    spec = MLPSpec(mlp.spec.n_inputs, (*mlp.spec.layers[:-1], LayerSpec(1)), mlp.spec.skips, "sigmoid")
    result = MLP(spec, np.empty(spec.n_parameters, np.float32), mlp.input_scale, mlp.input_shift)
    for kind, layer, view in result.parameters():
        value = mlp.parameter(kind, layer)
        view[...] = value[..., 1:] - value[..., :1] if layer == last else value
    return result


def relaxed_edit(
    net: Metanetwork, requirement: Requirement, examples: Sequence[Example], budgets: Sequence[float]
) -> list[Tensor]:
    """Edited θ of every example, differentiable in the network's parameters."""
    conditions = torch.from_numpy(np.stack([requirement.condition(budget) for budget in budgets]))
    inputs = MetanetInputs.build([e.mlp for e in examples], [e.features for e in examples], conditions)
    heads: Heads = net(inputs)
    edited = []
    weight = node = 0
    for example, budget in zip(examples, budgets, strict=True):
        spec = example.mlp.spec
        own = slice(weight, weight + spec.n_weights)
        part = Heads(
            heads.score[own], heads.relative[own], heads.additive[own], heads.node[node : node + sum(spec.widths)]
        )
        edited.append(_edited_theta(net.config, requirement, example, part, budget))
        weight, node = own.stop, node + sum(spec.widths)
    return edited


def _edited_theta(
    config: MetanetConfig, requirement: Requirement, example: Example, heads: Heads, budget: float
) -> Tensor:
    spec = example.mlp.spec
    theta = torch.from_numpy(example.mlp.theta)
    mask = requirement.relaxed_mask(heads.score, budget)
    gain = config.gamma * requirement.residual_share(budget)
    weights, rest = theta[: spec.n_weights], theta[spec.n_weights :]
    where = node_parameters(spec)
    step = heads.node[torch.from_numpy(where.neuron), torch.from_numpy(where.column)]
    kept = mask * (weights + weight_step(weights, torch.from_numpy(example.features.rms), heads, gain))
    return torch.cat([kept, rest + gain * step * torch.from_numpy(where.editable)])


def preservation(examples: Sequence[Example], edited: list[Tensor], rows: Tensor) -> Tensor:
    """JSD of every example on raw rows ``[rows, n_inputs]``, in nats, ``[M]``."""
    return population_jsd([e.mlp for e in examples], edited, rows)


def loss_of(divergence: Tensor) -> Tensor:
    """Mean log(JSD + 1e-4): every budget counts alike, however small its divergence."""
    return torch.log(divergence + LOSS_FLOOR).mean()
