"""What a metanetwork is told beside the model, as further columns of its features (``MetanetConfig.context``)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.metanet.features import LIMIT, Floats32, ModelFeatures
from metaedit_fast.models.groups import GroupStatistics
from metaedit_fast.models.inputs import kept_weights
from metaedit_fast.models.spec import MLPSpec

TINY_JSD = 1e-6
TINY_STD = 1e-3
TINY_GRADIENT = 1e-12


def input_context(
    features: ModelFeatures, spec: MLPSpec, kept: NDArray[np.bool_], worth: NDArray[np.float64] | None
) -> ModelFeatures:
    """The features of a model with those of the context ``"inputs"``.

    ``kept`` is bool ``[n_inputs]``; ``worth`` is what ``models.inputs.input_worth`` gives for the model, exactly
    where the metanetwork has a probe.
    """
    removed = ~kept_weights(spec, kept)
    edge = np.stack([removed, removed * features.edge[:, 0]], axis=1)
    columns = [~kept]
    if worth is not None:
        for log_jsd in np.log(worth.T + TINY_JSD):
            columns += [log_jsd / 2 + 3, (log_jsd - log_jsd.mean()) / 2]
    node = np.zeros((len(features.node), len(columns)), np.float32)
    node[: spec.n_inputs] = np.stack(columns, axis=1)
    return _with_columns(features, edge, node)


def group_context(
    features: ModelFeatures, spec: MLPSpec, statistics: GroupStatistics, mean: Floats32, std: Floats32
) -> ModelFeatures:
    """The features of a model with those of the context ``"groups"``.

    ``mean`` and ``std`` are those of all its neurons on the same rows, ``[neurons]``.
    """
    n_weights, n_inputs = spec.n_weights, spec.n_inputs
    n_neurons = sum(spec.widths)
    edge, at_bias = [], []
    biases = [(where.start, shape[0]) for kind, _, where, shape in spec.parameter_slices if kind == "bias"]
    of_bias = np.concatenate([np.arange(start, start + size) for start, size in biases])
    for gradient in statistics.gradient:
        edge += _signed_and_log(gradient[:n_weights] * features.rms)
        own = np.zeros((2, n_neurons), np.float32)
        own[:, n_inputs:] = _signed_and_log(gradient[of_bias])
        at_bias += list(own)
    means = (statistics.means - mean[:, None]) / (std[:, None] + TINY_STD)
    rates = np.broadcast_to(3 * statistics.rates.ravel(), (n_neurons, 4))
    node = np.concatenate([np.clip(means, -5, 5), np.stack(at_bias, axis=1), rates], axis=1)
    return _with_columns(features, np.stack(edge, axis=1), node)


def _signed_and_log(gradient: Floats32) -> list[Floats32]:
    """A gradient in units of its root mean square, and the logarithm of its size."""
    unit = gradient / (np.sqrt(np.square(gradient, dtype=np.float64).mean()) + TINY_GRADIENT)
    return [unit.astype(np.float32), np.log(np.abs(unit) + TINY_STD).astype(np.float32)]


def _with_columns(features: ModelFeatures, edge: NDArray[np.generic], node: NDArray[np.generic]) -> ModelFeatures:
    """``features`` with further columns, ``[n_weights, ...]`` and ``[neurons, ...]``."""
    return dataclasses.replace(features, edge=_joined(features.edge, edge), node=_joined(features.node, node))


def _joined(first: Floats32, further: NDArray[np.generic]) -> Floats32:
    return np.concatenate([first, np.clip(further, -LIMIT, LIMIT).astype(np.float32)], axis=1)
