"""The least time that the arithmetic of a task can take, from counted operations and measured peaks.

docs/performance.md states the formulas. Only work that no rearrangement known to us avoids is counted: a message's
second linear comes after the sum over edges, that of the edge update is folded into the products of the next layer,
and linears without anything between them are one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from metaedit_fast.bench.machine import Peaks
from metaedit_fast.metanet.config import CONDITION_SIZE, EMBEDDING_SIZE, MetanetConfig
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

_NODE_OUTPUTS = 3


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations on single values: multiply-adds inside products, SiLUs, multiply-adds of norms, and additions
    (a minimum or maximum is one) beside them.
    """

    products: float = 0.0
    silus: float = 0.0
    norms: float = 0.0
    additions: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(a * times for a in dataclasses.astuple(self)))

    def seconds(self, peaks: Peaks, precision: str = "float32") -> float | None:
        """On as many threads as the peaks were measured on. None where the machine has no peak for it.

        The vector units do one of these at a time, so the times add up; an addition counts with what it costs more
        beside multiply-adds.
        """
        product, silu = peaks.multiply_add, peaks.silu
        if precision == "bf16":
            product, silu = peaks.bf16_product, peaks.bf16_silu
        elif precision != "float32":
            return None
        if product is None or silu is None or peaks.multiply_add is None or peaks.addition is None:
            return None
        total = self.products * product + self.silus * silu
        total += self.norms * peaks.multiply_add + self.additions * peaks.addition
        return total / peaks.threads


def network_work(config: MetanetConfig, mlps: Iterable[MLP], precision: str = "float32") -> Work:
    """The whole metanetwork, forward, on these models.

    In float32 the official form is bounded by its products and SiLUs alone. Below, where these are cheap, its norms
    and sums count too.
    """
    total = sum((_network_work(config, mlp.spec) for mlp in mlps), Work())
    if config.form == "official" and precision == "float32":
        return dataclasses.replace(total, norms=0.0, additions=0.0)
    return total


def training_work(config: MetanetConfig, mlps: Iterable[MLP]) -> Work:
    """Forward, and backward to all parameters: of each product two more, for the gradient of what goes in and for that
    of the weights. What a backward pass computes anew instead of storing it is not counted.
    """
    forward = network_work(config, mlps)
    return dataclasses.replace(forward, products=3 * forward.products)


def _network_work(config: MetanetConfig, spec: MLPSpec) -> Work:
    weights, nodes = spec.n_weights, sum(spec.widths)
    edges = weights + sum(min(spec.widths[s], spec.widths[t]) for s, t in spec.skips)
    d_e, d_v, head = config.d_e, config.d_v, (1 + config.edits_parameters) * config.head_hidden
    budget = EMBEDDING_SIZE * (CONDITION_SIZE + d_v + EMBEDDING_SIZE)
    embedding = Work(products=EMBEDDING_SIZE * config.n_edge_features, silus=EMBEDDING_SIZE) * weights
    total = Work(products=budget, silus=EMBEDDING_SIZE) + embedding
    total += Work(products=config.n_node_features * d_v) * nodes
    layer = _official_layer if config.form == "official" else _shipped_layer
    total += layer(d_e, d_v, edges, nodes) * config.n_layers
    # The second linear of the embedding, on its own, or as a part of the products of the first official layer.
    second = EMBEDDING_SIZE * d_e
    if config.form == "official":
        second = min(second, 3 * second - 3 * d_e * d_e)
    total += Work(products=second) * weights
    n_outputs = 1 + 2 * config.edits_parameters
    readout = config.head_hidden * n_outputs
    total += Work(products=d_e * head + readout, silus=head, additions=head) * weights
    total += Work(products=2 * d_v * head + d_v * _NODE_OUTPUTS * config.edits_parameters) * nodes
    return total


def _official_layer(d_e: int, d_v: int, edges: int, nodes: int) -> Work:
    # Norms: a square for the variance, the factor 1 / deviation, scale and shift. Additions: both ends' terms of the
    # edge message, and the two sums.
    per_edge = Work(products=3 * d_e * d_e, silus=3 * d_e, norms=9 * d_e, additions=3 * d_e)
    node_in = (d_v + 2 * d_e) * d_v
    per_node = Work(products=4 * d_e * d_v + node_in + 2 * d_v * d_v, silus=d_v)
    return per_edge * edges + per_node * nodes


def _shipped_layer(d_e: int, d_v: int, edges: int, nodes: int) -> Work:
    # Additions: both ends' terms, the residual, and sum and maximum at both ends.
    per_edge = Work(products=2 * d_e * d_e, silus=d_e, additions=6 * d_e)
    per_node = Work(products=2 * d_e * d_v + (d_v + 4 * d_e) * 2 * d_v + 2 * d_v * d_v, silus=2 * d_v)
    return per_edge * edges + per_node * nodes


def passes_work(mlps: Iterable[MLP], rows: int, *, backward: bool = False, density: float = 1.0) -> Work:
    """Products of MLPs on ``rows`` rows, each: forward, and where wanted backward to all parameters.

    Backward, each weight takes part in the gradient of the layer below (except in the first layer) and in its own.
    Activations and divergence are left out, so this is a bound that a real pass stays well clear of.
    """
    total = 0.0
    for mlp in mlps:
        first = mlp.spec.widths[0] * mlp.spec.widths[1]
        total += density * rows * (3 * mlp.spec.n_weights - first if backward else mlp.spec.n_weights)
    return Work(products=total)
