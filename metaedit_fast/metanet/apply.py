"""From the metanetwork's heads to edited parameters: ``θ' = m ⊙ (θ + γ · residual)`` (docs/method.md).

The arithmetic is written once, for numpy arrays and torch tensors alike.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.spec import MLPSpec

SCORE_GAIN = 4.0
FULL_RESIDUAL_FROM = 0.4


@dataclasses.dataclass(frozen=True)
class Heads:
    """What the metanetwork gives for a model or a batch, numpy arrays or torch tensors.

    ``score``, ``relative``, ``additive`` are ``[n_weights]`` in the order of θ; ``node`` is
    ``[neurons, 3]``: residuals of bias, norm scale and norm shift. Mask-only networks give zeros
    for all but ``score``.
    """

    score: Any
    relative: Any
    additive: Any
    node: Any


@dataclasses.dataclass(frozen=True)
class NodeParameters:
    """Where the parameters behind the weights get their residual: ``node[neuron, column]``, both
    ``[n_parameters - n_weights]`` int64; ``editable`` (float32, 0 or 1) is 0 where the model does not
    own the parameter.
    """

    neuron: NDArray[np.int64]
    column: NDArray[np.int64]
    editable: NDArray[np.float32]


@lru_cache(maxsize=4096)
def node_parameters(spec: MLPSpec) -> NodeParameters:
    """Residuals of everything behind the weights in θ; see ``NodeParameters``."""
    starts = np.cumsum([0, *spec.widths])
    neuron, column, editable = [], [], []
    for kind, i, _, shape in spec.parameter_slices:
        if kind == "weight":
            continue
        layer = spec.layers[i]
        owned = layer.bias if kind == "bias" else layer.norm_affine
        neuron.append(np.arange(shape[0]) + starts[i + 1])
        column.append(np.full(shape[0], ("bias", "norm_scale", "norm_shift").index(kind)))
        editable.append(np.full(shape[0], owned, np.float32))
    return NodeParameters(np.concatenate(neuron), np.concatenate(column), np.concatenate(editable))


def condition(sparsity: float) -> NDArray[np.float32]:
    """The budget as the metanetwork reads it: ``t = ln(1 - sparsity)`` as (t, t²/4, sin t, cos t)."""
    t = math.log1p(-sparsity)
    return np.array([t, t * t / 4, math.sin(t), math.cos(t)], np.float32)


def residual_gain(gamma: float, sparsity: float) -> float:
    """γ, fading to 0 with the sparsity below 0.4, so that asking for nothing changes nothing (ours)."""
    return gamma * min(1.0, sparsity / FULL_RESIDUAL_FROM)


def weight_step(weights: Any, features_rms: Any, heads: Heads, gain: Any) -> Any:
    """Residual of the weights before masking: relative and additive parts, ``[n_weights]``."""
    return gain * (heads.relative * weights + features_rms * heads.additive)


def edited_theta(
    spec: MLPSpec,
    theta: NDArray[np.float32],
    features: ModelFeatures,
    heads: Heads,
    mask: NDArray[np.bool_],
    sparsity: float,
    config: MetanetConfig,
) -> NDArray[np.float32]:
    """θ' of one model. Where residual and mask change nothing, the bits of θ stay, those of -0.0 too.

    A weight that is zero already stays zero: an earlier edit removed it, and a later one must not bring it back.
    """
    gain = np.float32(residual_gain(config.gamma, sparsity))
    rest = node_parameters(spec)
    n = spec.n_weights
    step = np.concatenate(
        [
            weight_step(theta[:n], features.rms, heads, gain),
            gain * heads.node[rest.neuron, rest.column] * rest.editable,
        ]
    )
    step[:n][theta[:n] == 0] = 0
    edited: NDArray[np.float32] = np.where(step == 0, theta, theta + step).astype(np.float32)
    edited[:n][~mask] = 0.0
    return edited
