"""The metanetwork layer in plain torch: what every kernel is compared with, values and gradients.

Both forms are stated unfolded, as docs/method.md writes them. Edge states travel as one tensor for each
*group* of neighbouring blocks of equal shape: ``[G, n_src, n_dst, d]`` for dense blocks,
``[G, n, d]`` for identity blocks; a batch built with ``order="shape"`` has few groups. Node states
are ``[V, d_v]``.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from metaedit_fast.graph import DENSE, WeightGraphBatch


@dataclasses.dataclass(frozen=True)
class Group:
    """Neighbouring blocks of one shape: node numbers ``source [G, n_src]``, ``target [G, n_dst]``,
    and the model of each block ``[G]``.
    """

    dense: bool
    edges: slice
    source: Tensor
    target: Tensor
    model: Tensor

    def view(self, flat: Tensor) -> Tensor:
        """This group's part of per-edge values ``[E, ...]``, in the group's shape."""
        shape = (*self.source.shape, self.target.shape[1]) if self.dense else self.source.shape
        return flat[self.edges].reshape(*shape, *flat.shape[1:])

    def join(self, at_source: Tensor, at_target: Tensor) -> Tensor:
        """``at_source[u] + at_target[v]`` on every edge, from per-node values ``[V, d]``."""
        s, t = at_source[self.source], at_target[self.target]
        return s.unsqueeze(2) + t.unsqueeze(1) if self.dense else s + t


class Topology:
    """A ``WeightGraphBatch`` as the layers need it: groups and degrees."""

    def __init__(self, batch: WeightGraphBatch) -> None:
        self.n_nodes = batch.n_nodes
        self.groups: list[Group] = []
        rows = zip(batch.blocks.tolist(), batch.block_model.tolist(), strict=True)
        for (kind, n_src, n_dst), run in itertools.groupby(rows, key=lambda row: (row[0][5], row[0][1], row[0][3])):
            blocks, models = zip(*run, strict=True)
            table = torch.tensor(blocks)
            size = n_src * n_dst if kind == DENSE else n_src
            start = blocks[0][4]
            edges = slice(start, start + size * len(blocks))
            source = table[:, :1] + torch.arange(n_src)
            target = table[:, 2:3] + torch.arange(n_dst)
            self.groups.append(Group(kind == DENSE, edges, source, target, torch.tensor(models)))
        self.in_degree = self._degree(towards_target=True)
        self.out_degree = self._degree(towards_target=False)

    def _degree(self, *, towards_target: bool) -> Tensor:
        degree = torch.zeros(self.n_nodes, 1)
        for group in self.groups:
            near, far = (group.target, group.source) if towards_target else (group.source, group.target)
            count = float(far.shape[1]) if group.dense else 1.0
            degree.index_add_(0, near.flatten(), torch.full((near.numel(), 1), count))
        return degree

    def gather(self, per_edge: list[Tensor], *, towards_target: bool, maximum: bool) -> Tensor:
        """Sum or maximum of edge vectors at each node, ``[V, d]``; 0 where a node has no such edge."""
        nodes, rows = [], []
        for group, q in zip(self.groups, per_edge, strict=True):
            if group.dense:
                over = 1 if towards_target else 2
                q = q.amax(over) if maximum else q.sum(over)
            nodes.append((group.target if towards_target else group.source).flatten())
            rows.append(q.flatten(0, 1))
        index, values = torch.cat(nodes), torch.cat(rows)
        zeros = values.new_zeros(self.n_nodes, values.shape[1])
        if maximum:
            return zeros.scatter_reduce(0, index.unsqueeze(1).expand_as(values), values, "amax", include_self=False)
        return zeros.index_add(0, index, values)


class ShippedLayer(nn.Module):
    """One message shared by both directions and the edge update.

    ::

        q_uv  = SiLU(W e_uv + U LN(h_u) + V LN(h_v))
        h_v  += MLP([LN h_v, mean_u q_uv, max_u q_uv, mean_w q_vw, max_w q_vw])
        e_uv += P q_uv
    """

    def __init__(self, d_e: int, d_v: int) -> None:
        super().__init__()
        self.edge = nn.Linear(d_e, d_e)  # W
        self.source = nn.Linear(d_v, d_e, bias=False)  # U
        self.target = nn.Linear(d_v, d_e, bias=False)  # V
        self.update = nn.Linear(d_e, d_e)  # P
        self.norm = nn.LayerNorm(d_v)
        self.node_in = nn.Linear(d_v + 4 * d_e, 2 * d_v)
        self.node_out = nn.Linear(2 * d_v, d_v)
        nn.init.zeros_(self.update.bias)
        with torch.no_grad():  # residual branches start small
            self.update.weight.mul_(0.5)
            self.node_out.weight.mul_(0.5)

    def forward(self, h: Tensor, e: list[Tensor], topology: Topology) -> tuple[Tensor, list[Tensor]]:
        normed = self.norm(h)
        at_source, at_target = self.source(normed), self.target(normed)
        q = [silu(self.edge(x) + group.join(at_source, at_target)) for group, x in zip(topology.groups, e, strict=True)]
        seen = [normed]
        for towards_target, degree in ((True, topology.in_degree), (False, topology.out_degree)):
            total = topology.gather(q, towards_target=towards_target, maximum=False)
            seen.append(total / degree.clamp(min=1).to(total.dtype))
            seen.append(topology.gather(q, towards_target=towards_target, maximum=True))
        h = h + self.node_out(silu(self.node_in(torch.cat(seen, -1))))
        return h, [x + self.update(y) for x, y in zip(e, q, strict=True)]


class OfficialLayer(nn.Module):
    """Bidirectional messages and an edge update, each a two-layer MLP with LayerNorm, aggregated by sums.

    ::

        m_f = MLP_f([e_uv, h_u])   m_b = MLP_b([e_uv, h_v])   e'_uv = MLP_e([e_uv, h_u, h_v])
        h'_v = MLP_n([h_v, sum_u m_f, sum_w m_b]) + Q h_v

    After ScaleGMN without the scale part (Kalogeropoulos et al. 2024), as arXiv 2512.15469 uses it.
    """

    def __init__(self, d_e: int, d_v: int) -> None:
        super().__init__()
        self.forward_in, self.forward_norm = nn.Linear(d_e + d_v, d_e), nn.LayerNorm(d_e)
        self.forward_out = nn.Linear(d_e, d_v)
        self.backward_in, self.backward_norm = nn.Linear(d_e + d_v, d_e), nn.LayerNorm(d_e)
        self.backward_out = nn.Linear(d_e, d_v)
        self.edge_in, self.edge_norm = nn.Linear(d_e + 2 * d_v, d_e), nn.LayerNorm(d_e)
        self.edge_out = nn.Linear(d_e, d_e)
        self.node_in, self.node_norm = nn.Linear(3 * d_v, d_v), nn.LayerNorm(d_v)
        self.node_out = nn.Linear(d_v, d_v)
        self.residual = nn.Linear(d_v, d_v)  # Q

    def forward(self, h: Tensor, e: list[Tensor], topology: Topology) -> tuple[Tensor, list[Tensor]]:
        nothing = torch.zeros_like(h)
        at_source = [group.join(h, nothing) for group in topology.groups]
        at_target = [group.join(nothing, h) for group in topology.groups]
        m_f, m_b, updated = [], [], []
        for x, u, v in zip(e, at_source, at_target, strict=True):
            m_f.append(self.forward_out(silu(self.forward_norm(self.forward_in(torch.cat([x, u], -1))))))
            m_b.append(self.backward_out(silu(self.backward_norm(self.backward_in(torch.cat([x, v], -1))))))
            updated.append(self.edge_out(silu(self.edge_norm(self.edge_in(torch.cat([x, u, v], -1))))))
        received = topology.gather(m_f, towards_target=True, maximum=False)
        returned = topology.gather(m_b, towards_target=False, maximum=False)
        inner = self.node_norm(self.node_in(torch.cat([h, received, returned], -1)))
        return self.node_out(silu(inner)) + self.residual(h), updated


LAYERS = {"shipped": ShippedLayer, "official": OfficialLayer}


def initial_edges(flat: Tensor, topology: Topology) -> list[Tensor]:
    """Per-edge values ``[E, d]`` as one tensor a group."""
    return [group.view(flat) for group in topology.groups]


def flat_edges(groups: list[Tensor]) -> Tensor:
    """Inverse of ``initial_edges``: ``[E, d]`` in the batch's edge order."""
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in groups])
