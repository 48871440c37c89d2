"""One step of training: a batch of models in, edited parameters and their preservation out.

``min_φ E[O_pres(θ, F_φ(θ))]`` at a sampled budget, which is met exactly (arXiv 2512.15469, eq. 14, with
the budget as an input of the network instead of λ; ours).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.metanet.apply import Heads, weight_step
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork
from metaedit_fast.requirements import Requirement
from metaedit_fast.training.divergence import population_jsd
from metaedit_fast.training.examples import ExampleBatch

LOSS_FLOOR = 1e-4


def relaxed_edit(net: Metanetwork, requirement: Requirement, batch: ExampleBatch, budgets: Sequence[float]) -> Tensor:
    """Edited θ of every example, one after the other ``[P]``, differentiable in the network's parameters."""
    conditions = torch.from_numpy(np.stack([requirement.condition(budget) for budget in budgets]))
    inputs = MetanetInputs.build(batch.mlps, [e.features for e in batch.examples], conditions)
    heads: Heads = net(inputs)
    gain = np.array([net.config.gamma * requirement.residual_share(budget) for budget in budgets], np.float32)
    return edited_theta(batch, heads, requirement.relaxed_mask(heads.score, batch.n_weights, budgets), gain)


def edited_theta(batch: ExampleBatch, heads: Heads, mask: Tensor, gain: NDArray[np.float32]) -> Tensor:
    """``θ' = m ⊙ (θ + γ · residual)`` of all models, ``[P]``; ``gain [M]`` is γ times the share of the residual."""
    at_weights, at_rest = (torch.from_numpy(np.repeat(gain, n)) for n in (batch.n_weights, batch.n_rest))
    kept = mask * (batch.weights + weight_step(batch.weights, batch.rms, heads, at_weights))
    rest = batch.rest + at_rest * heads.node.flatten()[batch.rest_step] * batch.editable
    parts = zip(kept.split(batch.n_weights), rest.split(batch.n_rest), strict=True)
    return torch.cat(list(itertools.chain.from_iterable(parts)))


def preservation(batch: ExampleBatch, edited: Tensor, rows: Tensor) -> Tensor:
    """JSD of every example on raw rows ``[rows, n_inputs]``, in nats, ``[M]``."""
    return population_jsd(batch.mlps, edited, rows)


def loss_of(divergence: Tensor) -> Tensor:
    """Mean log(JSD + 1e-4): every budget counts alike, however small its divergence."""
    return torch.log(divergence + LOSS_FLOOR).mean()
