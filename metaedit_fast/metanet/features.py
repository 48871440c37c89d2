"""What the metanetwork sees of a model: edge and node features, from weights alone or with a probe.

docs/method.md, "What the metanetwork sees"; ours. All features are clamped to ±8.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.statistics import ProbeStatistics

Floats32 = NDArray[np.float32]
LIMIT = 8.0
TINY_WEIGHT = 1e-6
TINY_FISHER = 1e-12


@dataclasses.dataclass(frozen=True)
class ModelFeatures:
    """Features of one model, float32.

    ``edge [n_weights, F_e]`` in the order of θ, ``node [neurons, F_n]`` inputs first,
    ``node_type [neurons]`` int64. ``saliency [n_weights]`` is the score that the metanetwork's own
    score corrects: centred log|w|, or the log Fisher saliency with a probe. ``rms [n_weights]`` is the
    root mean square of the weight's own matrix, the unit of additive edits.
    """

    edge: Floats32
    node: Floats32
    node_type: NDArray[np.int64]
    saliency: Floats32
    rms: Floats32


def model_features(mlp: MLP, config: MetanetConfig, statistics: ProbeStatistics | None = None) -> ModelFeatures:
    """Features of ``mlp``; ``statistics`` are needed exactly where ``config.probe`` says so.

    Raises ``ValueError`` where they are missing, or where the model's inputs or outputs do not fit.
    """
    if config.probe and statistics is None:
        raise ValueError("probe: this editor reads activations, so it needs a probe of unlabelled rows, got none")
    types = np.asarray(config.node_types(mlp.spec), np.int64)
    n_layers = len(mlp.spec.layers)
    weights = [mlp.weight(i) for i in range(n_layers)]
    rms = [_rms(w) + TINY_WEIGHT for w in weights]
    rms_in = [_rms(w, axis=0) + TINY_WEIGHT for w in weights]
    rms_out = [_rms(w, axis=1) + TINY_WEIGHT for w in weights]
    log_w = _centred([np.log(np.abs(w) + TINY_WEIGHT) for w in weights])
    edge = [
        [w / rms[i], log_w[i], w / rms_in[i], w / rms_out[i][:, None], np.full_like(w, np.log(rms[i]))]
        for i, w in enumerate(weights)
    ]
    node = _weight_node_features(mlp, rms_in, rms_out)
    saliency = log_w
    if config.probe and statistics is not None:
        saliency = _add_probe_features(edge, node, weights, mlp, statistics)
    return ModelFeatures(
        edge=np.concatenate([_clamped(columns).reshape(-1, config.n_edge_features) for columns in edge]),
        node=np.concatenate([_clamped(columns) for columns in node]),
        node_type=types,
        saliency=_flat(saliency),
        rms=_flat([np.broadcast_to(np.float32(r), w.shape) for r, w in zip(rms, weights, strict=True)]),
    )


def _weight_node_features(mlp: MLP, rms_in: list[Floats32], rms_out: list[Floats32]) -> list[list[Floats32]]:
    """One list of columns a neuron layer."""
    spec, depth = mlp.spec, len(mlp.spec.layers)
    columns = []
    for position, width in enumerate(spec.widths):
        zero = np.zeros(width, np.float32)
        bias = scale = shift = log_in = has_norm = zero
        if position > 0:
            bias, log_in = mlp.bias(position - 1), np.log(rms_in[position - 1])
            if spec.layers[position - 1].norm == "layer":
                scale = mlp.parameter("norm_scale", position - 1) - 1
                shift = mlp.parameter("norm_shift", position - 1)
                has_norm = zero + 1
        log_out = np.log(rms_out[position]) if position < depth else zero
        place = (position / depth, 1 - position / depth, depth / 4, math.log(width / 16))
        columns.append([bias, log_in, log_out, scale, shift, has_norm, *(zero + np.float32(p) for p in place)])
    return columns


def _add_probe_features(
    edge: list[list[Floats32]],
    node: list[list[Floats32]],
    weights: list[Floats32],
    mlp: MLP,
    statistics: ProbeStatistics,
) -> list[Floats32]:
    """Append the probe's columns in place; returns the centred log saliency of every layer."""
    slices = [where for kind, _, where, _ in mlp.spec.parameter_slices if kind == "weight"]
    fisher = [statistics.edge[s].reshape(w.shape) for s, w in zip(slices, weights, strict=True)]
    saliency = _centred([_half_log(w * w * f) for w, f in zip(weights, fisher, strict=True)])
    sensitivity = _centred([_half_log(f) for f in fisher])
    gradient = _centred([_half_log(g) for g in statistics.gradient])
    for i, w in enumerate(weights):
        moved = w * statistics.std[i][:, None]
        total = np.sqrt(np.square(moved).sum(axis=0)).clip(TINY_WEIGHT)
        edge[i] += [saliency[i], sensitivity[i], moved / total]
    for position, columns in enumerate(node):
        mean, std = statistics.mean[position], statistics.std[position]
        columns += [mean, std, gradient[position - 1] if position > 0 else np.zeros_like(mean)]
    return saliency


def _rms(w: Floats32, axis: int | None = None) -> Floats32:
    return np.asarray(np.sqrt(np.square(w).mean(axis=axis)), np.float32)


def _half_log(x: Floats32) -> Floats32:
    return np.asarray(0.5 * np.log(x + TINY_FISHER), np.float32)


def _centred(layers: list[Floats32]) -> list[Floats32]:
    """Minus the mean over all layers, clamped."""
    mean = np.float32(sum(float(x.sum(dtype=np.float64)) for x in layers) / sum(x.size for x in layers))
    return [np.clip(x - mean, -LIMIT, LIMIT) for x in layers]


def _clamped(columns: list[Floats32]) -> Floats32:
    return np.clip(np.stack(columns, axis=-1), -LIMIT, LIMIT)


def _flat(layers: list[Floats32]) -> Floats32:
    return np.concatenate([x.ravel() for x in layers])
