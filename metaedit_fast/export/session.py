"""The torch-free engine: a metanetwork in ONNX Runtime, on the CPU, for one model at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.graph import DENSE, WeightGraphBatch
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = ("score", "relative", "additive", "node")
_ERRORS_ONLY = 3  # ONNX Runtime prints its warnings to stderr


class EditorSession:
    """Runs a model of ``export_metanetwork``. Many Python threads may call one session at once.

    ``n_threads`` is the number of threads inside one call; the result does not depend on it. With the
    default of one, a thread pool over models uses all cores, because ONNX Runtime releases the GIL.
    """

    arithmetic = "float32"

    def __init__(self, model: ModelProto | bytes, *, n_threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        data = model if isinstance(model, bytes) else model.SerializeToString()
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def heads(self, mlp: MLP, features: ModelFeatures, condition: NDArray[np.float32]) -> Heads:
        """What the metanetwork gives for ``mlp``; ``condition`` is ``[4]`` (``Requirement.condition``)."""
        found = self._session.run(OUTPUTS, model_inputs(mlp.spec, features, condition))
        return Heads(*found)


def model_inputs(
    spec: MLPSpec, features: ModelFeatures, condition: NDArray[np.float32]
) -> dict[str, NDArray[np.generic]]:
    """The graph's inputs for one model, by name."""
    return {
        **topology_inputs(spec),
        "edge_features": features.edge,
        "saliency": features.saliency,
        "node_features": features.node,
        "node_type": features.node_type,
        "condition": condition.reshape(1, -1),
    }


@lru_cache(maxsize=256)
def topology_inputs(spec: MLPSpec) -> dict[str, NDArray[np.generic]]:
    """The inputs that depend on the architecture alone, by name; do not write to them."""
    batch = WeightGraphBatch.from_mlps([MLP(spec, np.zeros(spec.n_parameters, np.float32))])
    source, target = batch.to_edge_index()
    blocks = batch.blocks[batch.blocks[:, 5] == DENSE]
    skips = slice(spec.n_weights, None)
    degrees = (np.bincount(x, minlength=batch.n_nodes).astype(np.float32) for x in (target, source))
    in_degree, out_degree = degrees
    return {
        "source": source,
        "target": target,
        "blocks": blocks[:, [4, 1, 3]],
        "skip_in": _edges_at(target[skips], batch.n_nodes),
        "skip_out": _edges_at(source[skips], batch.n_nodes),
        "in_degree": in_degree,
        "out_degree": out_degree,
    }


def _edges_at(node: NDArray[np.int64], n_nodes: int) -> NDArray[np.int64]:
    """``[n_nodes, K]`` numbers of the edges whose end is each node, filled up with ``len(node)``; K >= 1."""
    counts = np.bincount(node, minlength=n_nodes)
    table = np.full((n_nodes, max(1, int(counts.max()))), len(node), np.int64)
    order = np.argsort(node, kind="stable")
    first = np.cumsum(counts) - counts
    table[node[order], np.arange(len(node)) - first[node[order]]] = order
    return table
