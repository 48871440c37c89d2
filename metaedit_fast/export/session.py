"""Editors' graphs in ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.export.library import open_session
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, MLPSpec

if TYPE_CHECKING:
    from onnx import ModelProto

Arrays = dict[str, NDArray[np.generic]]


class EditorSession:
    """Runs a model of ``export.onnx``. Many Python threads may call one session at once.

    ``n_threads`` is the number of threads inside one call; the result does not depend on it. With the default of one,
    a thread pool over parts of a batch uses all cores, because ONNX Runtime releases the GIL.

    ``kernels``, ``precision`` and ``isa`` are those of ``library.open_session``: without ``kernels`` the functions in
    the file run. ``runs_kernels`` tells which runs, ``arithmetic`` the precision that it stays within.
    """

    def __init__(
        self,
        model: ModelProto | bytes,
        *,
        n_threads: int = 1,
        kernels: bool = False,
        precision: str = "float32",
        isa: str | None = None,
    ) -> None:
        data = model if isinstance(model, bytes) else model.SerializeToString()
        opened = open_session(data, n_threads=n_threads, kernels=kernels, precision=precision, isa=isa)
        self._session, self.runs_kernels = opened.session, opened.runs_kernels
        self.arithmetic = precision if opened.runs_kernels else "float32"
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """The outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


def structure_inputs(specs: Sequence[MLPSpec]) -> Arrays:
    """The graph's inputs that tell the architectures: ``layers`` and ``skips``."""
    tables = [_tables(spec) for spec in specs]
    layers = np.concatenate([np.zeros((0, 6), np.int64), *(layers for layers, _ in tables)])
    skips = np.concatenate([np.zeros((0, 3), np.int64), *(skips for _, skips in tables)])
    layers[:, 0] = np.repeat(np.arange(len(specs)), [len(layers) for layers, _ in tables])
    skips[:, 0] = np.repeat(np.arange(len(specs)), [len(skips) for _, skips in tables])
    return {"layers": layers, "skips": skips}


def network_inputs(
    specs: Sequence[MLPSpec], features: Sequence[ModelFeatures], conditions: NDArray[np.float32]
) -> Arrays:
    """Those of ``build_network``; ``conditions`` is ``[M, 4]`` (``Requirement.condition``)."""
    return {
        **structure_inputs(specs),
        "edge_features": np.concatenate([own.edge for own in features]),
        "saliency": np.concatenate([own.saliency for own in features]),
        "node_features": np.concatenate([own.node for own in features]),
        "node_type": np.concatenate([own.node_type for own in features]),
        "condition": conditions,
    }


@lru_cache(maxsize=4096)
def _tables(spec: MLPSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those of one model; do not write to them."""
    layers = [
        (0, n_in, layer.width, ACTIVATIONS.index(layer.activation), NORMS.index(layer.norm), _owned(spec, i))
        for i, (n_in, layer) in enumerate(zip(spec.widths[:-1], spec.layers, strict=True))
    ]
    skips = [(0, source, target) for source, target in spec.skips]
    return np.array(layers, np.int64), np.array(skips, np.int64).reshape(-1, 3)


def _owned(spec: MLPSpec, layer: int) -> int:
    return int(spec.layers[layer].bias) + 2 * int(spec.layers[layer].norm_affine)
