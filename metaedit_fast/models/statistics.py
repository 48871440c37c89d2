"""What a probe of unlabelled rows tells about a model: activations, Fisher gradients, their products."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.models.backprop import Floats, Trace, backward, trace
from metaedit_fast.models.mlp import MLP, log_proba_of

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


def probe_statistics(mlp: MLP, x: ArrayLike) -> ProbeStatistics:
    """Statistics of ``mlp`` on rows ``[rows, n_inputs]``; no labels are needed.

    Two classes (or one output) take one backward pass, C > 2 classes take C. The sum over the
    classes is exact. A regressor (``output == "identity"``) has no classes; its Fisher information is
    that of a Gaussian of unit variance around the outputs, ``g_j² = Σ_c (∂u_c / ∂z_j)²``.

    Raises ``ValueError`` where ``x`` has no rows or another number of columns than the model.
    """
    run = trace(mlp, x)
    rows = run.outputs[0].shape[0]
    if rows == 0:
        raise ValueError("x: expected at least one row, got none")
    squared: list[Floats] = []
    for output_gradient in _fisher_directions(run):
        found: list[Floats] = [np.square(g) for g in backward(run, output_gradient).linear]
        squared = [a + b for a, b in zip(squared, found, strict=True)] if squared else found
    spec = mlp.spec
    edge = np.empty(spec.n_weights, np.float32)
    for kind, i, where, shape in spec.parameter_slices:
        if kind == "weight":
            np.matmul((run.outputs[i] * run.outputs[i]).T, squared[i], out=edge[where].reshape(shape))
    edge /= rows
    return ProbeStatistics(
        mean=[a.mean(axis=0, dtype=np.float32) for a in run.outputs],
        std=[a.std(axis=0, dtype=np.float32) for a in run.outputs],
        gradient=[g.mean(axis=0, dtype=np.float32) for g in squared],
        edge=edge,
    )


def _fisher_directions(run: Trace) -> list[Floats]:
    """Gradients at the logits whose backpropagated squares add up to g², ``[rows, n_outputs]`` each.

    Two classes need one: both terms are multiples of the gradient of the logit difference, and their
    sum is p (1 - p) times its square. The exponential of the two log-probabilities keeps p (1 - p)
    accurate where the model is nearly certain.
    """
    logits = run.outputs[-1]
    n_outputs = logits.shape[1]
    if run.mlp.spec.output == "identity":
        return [np.broadcast_to(row, logits.shape) for row in np.eye(n_outputs, dtype=logits.dtype)]
    log_p = log_proba_of(logits)
    if n_outputs <= 2:
        root = np.exp(log_p.sum(axis=1, keepdims=True) / 2)
        return [root if n_outputs == 1 else np.concatenate([-root, root], axis=1)]
    p = np.exp(log_p)
    eye = np.eye(n_outputs, dtype=logits.dtype)
    return [np.sqrt(p[:, c : c + 1]) * (eye[c] - p) for c in range(n_outputs)]
