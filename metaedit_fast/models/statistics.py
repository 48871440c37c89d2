"""What a probe of unlabelled rows tells about a model: activations, Fisher gradients, their products."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP

Floats32 = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class ProbeStatistics:
    """Moments over the rows of a probe; all arrays are float32.

    ``mean`` and ``std`` are indexed by neuron layer (0 = the normalised inputs, the last = the
    logits): the activations ``a`` as the next weight matrix receives them, ``[width]`` each; ``std``
    divides by the number of rows.

    ``gradient`` is indexed by linear layer: ``E[g²]``, ``[n_out]`` each, and ``edge`` is
    ``E[a_i² g_j²]`` for every weight, ``[n_weights]`` in the order of θ, where

        g_j² = Σ_c p_c (∂ log p_c / ∂z_j)²

    is the diagonal of the model's own Fisher information with respect to the linear output ``z`` (in
    front of a norm). So ``edge`` is the diagonal Fisher information of the weights, and
    ``½ w² · edge`` estimates the KL divergence that removing one weight costs (Optimal Brain Damage,
    LeCun, Denker & Solla 1990, with the Fisher information as the curvature).
    """

    mean: list[Floats32]
    std: list[Floats32]
    gradient: list[Floats32]
    edge: Floats32


def probe_statistics(mlp: MLP, x: ArrayLike | _core.PanelRows) -> ProbeStatistics:
    """Statistics of ``mlp`` on rows ``[rows, n_inputs]``, or on what ``native.rows_of`` made of rows.

    No labels are needed.
    Two classes (or one output) take one backward pass, C > 2 classes take C. The sum over the
    classes is exact. A regressor (``output == "identity"``) has no classes; its Fisher information is
    that of a Gaussian of unit variance around the outputs, ``g_j² = Σ_c (∂u_c / ∂z_j)²``.

    Raises ``ValueError`` where ``x`` has no rows or another number of columns than the model.
    """
    mean, std, gradient, edge = native.probe_statistics(mlp, x)
    neurons = list(itertools.accumulate(mlp.spec.widths))[:-1]
    linear = list(itertools.accumulate(mlp.spec.widths[1:]))[:-1]
    return ProbeStatistics(np.split(mean, neurons), np.split(std, neurons), np.split(gradient, linear), edge)
