"""The weight graph of many MLPs as one ragged batch: block descriptors and flat arrays, no edge index.

A node per neuron, an edge per weight. A weight matrix is a *dense block*, a skip connection an
*identity block* of edges with fixed weight 1 (docs/method.md, "Weight graph").
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

DENSE, IDENTITY = 0, 1
BLOCK_FIELDS = ("src_offset", "n_src", "dst_offset", "n_dst", "edge_offset", "kind")

Int64 = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class WeightGraphBatch:
    """Many MLPs as one graph.

    Nodes are numbered model by model, neuron layer by neuron layer. ``blocks`` is int64 ``[B, 6]``
    with the columns ``BLOCK_FIELDS``: the edge from source ``u`` to target ``v`` of a dense block is
    number ``edge_offset + u * n_dst + v``; edge ``k`` of an identity block joins source ``k`` to
    target ``k`` and ``n_src == n_dst``. ``theta`` (float32 ``[P]``) holds the models' θ one after
    the other, ``block_theta[b]`` says where the weights of block ``b`` start in it (-1 for identity
    blocks), ``block_model[b]`` whose they are. Offsets are int64 ``[M + 1]``.
    """

    specs: tuple[MLPSpec, ...]
    theta: NDArray[np.float32]
    theta_offsets: Int64
    node_offsets: Int64
    blocks: Int64
    block_model: Int64
    block_theta: Int64

    @classmethod
    def from_mlps(cls, mlps: Sequence[MLP], *, order: str = "model") -> WeightGraphBatch:
        """Join MLPs; O(blocks) besides one copy of θ (none for a single model).

        ``order="model"`` keeps the edges of a model together, dense blocks first; ``"shape"`` puts
        blocks of equal shape next to each other, which lets plain torch treat them as one tensor.
        """
        if order not in ("model", "shape"):
            raise ValueError(f"order: expected 'model' or 'shape', got {order!r}")
        thetas = [mlp.theta for mlp in mlps]
        theta = thetas[0] if len(thetas) == 1 else np.concatenate([np.empty(0, np.float32), *thetas])
        theta_offsets = _offsets([mlp.spec.n_parameters for mlp in mlps])
        node_offsets = _offsets([sum(mlp.spec.widths) for mlp in mlps])
        tables = [np.empty((0, 7), np.int64), *(_blocks_of(mlp.spec) for mlp in mlps)]
        blocks = np.concatenate(tables)
        block_model = np.repeat(np.arange(len(mlps)), [len(table) for table in tables[1:]])
        blocks[:, [0, 2]] += node_offsets[block_model, None]
        blocks[:, 6] += np.where(blocks[:, 5] == DENSE, theta_offsets[block_model], 0)
        if order == "shape":
            by_shape = np.lexsort((blocks[:, 3], blocks[:, 1], blocks[:, 5]))
            blocks, block_model = blocks[by_shape], block_model[by_shape]
        sizes = np.where(blocks[:, 5] == DENSE, blocks[:, 1] * blocks[:, 3], blocks[:, 1])
        blocks[:, 4] = _offsets(sizes)[:-1]
        specs = tuple(mlp.spec for mlp in mlps)
        return cls(specs, theta, theta_offsets, node_offsets, blocks[:, :6].copy(), block_model, blocks[:, 6].copy())

    @property
    def n_models(self) -> int:
        return len(self.specs)

    @property
    def n_nodes(self) -> int:
        return int(self.node_offsets[-1])

    @property
    def n_edges(self) -> int:
        """Dense and identity edges."""
        return int(self.block_sizes.sum())

    @property
    def block_sizes(self) -> Int64:
        """Edges in each block, ``[B]``."""
        _, n_src, _, n_dst, _, kind = self.blocks.T
        sizes: Int64 = np.where(kind == DENSE, n_src * n_dst, n_src)
        return sizes

    def theta_of(self, model: int) -> NDArray[np.float32]:
        """θ of one model, as a view."""
        return self.theta[self.theta_offsets[model] : self.theta_offsets[model + 1]]

    def split(self, theta: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Views of a batch-long parameter vector, one a model: the way edited parameters go back."""
        if theta.shape != self.theta.shape:
            raise ValueError(f"theta: expected shape {self.theta.shape}, got {theta.shape}")
        return [theta[a:b] for a, b in zip(self.theta_offsets[:-1], self.theta_offsets[1:], strict=True)]

    @property
    def weight_edges(self) -> Int64:
        """The edge number of every weight, models one after the other, each in the order of its θ."""
        dense = np.flatnonzero(self.blocks[:, 5] == DENSE)
        dense = dense[np.argsort(self.block_theta[dense], kind="stable")]
        sizes = self.block_sizes[dense]
        first = np.repeat(self.blocks[dense, 4] - _offsets(sizes)[:-1], sizes)
        return first + np.arange(len(first))

    def to_edge_index(self) -> Int64:
        """``[2, n_edges]`` source and target of every edge, as PyTorch Geometric wants it."""
        parts = [np.empty((2, 0), np.int64)]
        for src, n_src, dst, n_dst, _, kind in self.blocks:
            if kind == DENSE:
                parts.append(
                    np.stack([np.repeat(np.arange(n_src) + src, n_dst), np.tile(np.arange(n_dst) + dst, n_src)])
                )
            else:
                parts.append(np.stack([np.arange(n_src) + src, np.arange(n_src) + dst]))
        return np.concatenate(parts, axis=1)


def _offsets(sizes: Sequence[int] | Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)


@functools.lru_cache(maxsize=4096)
def _blocks_of(spec: MLPSpec) -> Int64:
    """The block fields of one model alone, with the offset of the weights in its θ behind them; dense ones first.

    ``edge_offset`` is left to the caller.
    """
    starts = _offsets(spec.widths)
    rows: list[tuple[int, ...]] = []
    weight = 0
    for i, (n_src, n_dst) in enumerate(zip(spec.widths[:-1], spec.widths[1:], strict=True)):
        rows.append((int(starts[i]), n_src, int(starts[i + 1]), n_dst, 0, DENSE, weight))
        weight += n_src * n_dst
    for source, target in spec.skips:
        shared = min(spec.widths[source], spec.widths[target])
        rows.append((int(starts[source]), shared, int(starts[target]), shared, 0, IDENTITY, -1))
    table = np.array(rows, np.int64)
    table.flags.writeable = False
    return table
