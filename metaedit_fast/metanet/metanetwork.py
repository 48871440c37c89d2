"""The metanetwork in plain torch: embeddings, reference layers, heads (docs/method.md; arXiv 2512.15469, section 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.kernels.reference import LAYERS, Topology, flat_edges, initial_edges
from metaedit_fast.metanet.apply import SCORE_GAIN, Heads
from metaedit_fast.metanet.config import CONDITION_SIZE, EMBEDDING_SIZE, MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.mlp import MLP


@dataclasses.dataclass(frozen=True)
class MetanetInputs:
    """A batch of models as tensors: per-edge features in the batch's edge order (identity edges 0),
    per-node features and types, saliency per weight, ``condition [M, 4]``.
    """

    topology: Topology
    edge: Tensor
    node: Tensor
    node_type: Tensor
    saliency: Tensor
    condition: Tensor
    node_model: Tensor
    weight_edges: Tensor

    @classmethod
    def build(cls, mlps: Sequence[MLP], features: Sequence[ModelFeatures], condition: Tensor) -> MetanetInputs:
        """Join models and their features; ``condition`` is ``[M, 4]`` (``Requirement.condition``)."""
        batch = WeightGraphBatch.from_mlps(mlps, order="shape")
        weight_edges = torch.from_numpy(batch.weight_edges)
        per_weight = torch.from_numpy(np.concatenate([f.edge for f in features]))
        edge = per_weight.new_zeros(batch.n_edges, per_weight.shape[1])
        edge[weight_edges] = per_weight
        sizes = np.diff(batch.node_offsets)
        return cls(
            topology=Topology(batch),
            edge=edge,
            node=torch.from_numpy(np.concatenate([f.node for f in features])),
            node_type=torch.from_numpy(np.concatenate([f.node_type for f in features])),
            saliency=torch.from_numpy(np.concatenate([f.saliency for f in features])),
            condition=condition,
            node_model=torch.from_numpy(np.repeat(np.arange(len(mlps)), sizes)),
            weight_edges=weight_edges,
        )


class EdgeHead(nn.Module):
    """A two-layer MLP on ``[e_uv, h_u, h_v]`` whose first linear is split; small at the start."""

    def __init__(self, config: MetanetConfig, n_out: int) -> None:
        super().__init__()
        self.edge = nn.Linear(config.d_e, config.head_hidden)
        self.source = nn.Linear(config.d_v, config.head_hidden, bias=False)
        self.target = nn.Linear(config.d_v, config.head_hidden, bias=False)
        self.out = nn.Linear(config.head_hidden, n_out)
        _start_small(self.out)

    def forward(self, h: Tensor, e: list[Tensor], topology: Topology) -> Tensor:
        """Values of every edge, ``[E, n_out]``."""
        at_source, at_target = self.source(h), self.target(h)
        found = [
            self.out(silu(self.edge(x) + group.join(at_source, at_target)))
            for group, x in zip(topology.groups, e, strict=True)
        ]
        return flat_edges(found)


class Metanetwork(nn.Module):
    """Maps a batch of weight graphs and a budget to ``Heads``; equivariant to the permutations of neurons."""

    def __init__(self, config: MetanetConfig) -> None:
        super().__init__()
        self.config = config
        self.condition_in = nn.Linear(CONDITION_SIZE, EMBEDDING_SIZE)
        self.condition_node = nn.Linear(EMBEDDING_SIZE, config.d_v)
        self.condition_edge = nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.edge_in = nn.Linear(config.n_edge_features, EMBEDDING_SIZE)
        self.edge_out = nn.Linear(EMBEDDING_SIZE, config.d_e)
        self.skip_edge = nn.Parameter(torch.randn(config.d_e) * 0.3)
        self.node_in = nn.Linear(config.n_node_features, config.d_v)
        self.node_type = nn.Embedding(config.n_node_types, config.d_v)
        nn.init.normal_(self.node_type.weight, std=0.4)
        self.layers = nn.ModuleList(LAYERS[config.form](config.d_e, config.d_v) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_v)
        self.score_head = EdgeHead(config, 1)
        self.saliency_gain = nn.Parameter(torch.ones(()))
        if config.edits_parameters:
            self.edit_head = EdgeHead(config, 2)
            self.node_head = nn.Linear(config.d_v, 3)
            _start_small(self.node_head)

    def forward(self, inputs: MetanetInputs) -> Heads:
        topology = inputs.topology
        budget = silu(self.condition_in(inputs.condition))
        h = self.node_in(inputs.node) + self.node_type(inputs.node_type)
        h = h + self.condition_node(budget)[inputs.node_model]
        at_edge = self.condition_edge(budget)
        e = []
        for group, x in zip(topology.groups, initial_edges(inputs.edge, topology), strict=True):
            if group.dense:
                e.append(self.edge_out(silu(self.edge_in(x) + at_edge[group.model][:, None, None])))
            else:
                e.append(self.skip_edge.expand(*group.source.shape, -1))
        for layer in self.layers:
            h, e = layer(h, e, topology)
        h = self.final_norm(h)
        score = self.score_head(h, e, topology)[inputs.weight_edges, 0]
        score = SCORE_GAIN * score + self.saliency_gain * inputs.saliency
        if not self.config.edits_parameters:
            nothing = torch.zeros_like(score)
            return Heads(score, nothing, nothing, h.new_zeros(len(h), 3))
        edit = self.edit_head(h, e, topology)[inputs.weight_edges]
        return Heads(score, edit[:, 0], edit[:, 1], self.node_head(h))


def _start_small(linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.zero_()
