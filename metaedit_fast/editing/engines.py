"""What runs a metanetwork without torch: the compiled kernels, or ONNX Runtime. They agree to float32 rounding."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.export.weights import Weights
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.mlp import MLP

ENGINES = ("native", "onnxruntime")


class Engine(Protocol):
    """A metanetwork that is ready to run; threads may share one."""

    def heads(self, mlp: MLP, features: ModelFeatures, condition: NDArray[np.float32]) -> Heads:
        """What the metanetwork gives for one model; ``condition`` is ``[4]`` (``Requirement.condition``)."""
        ...


class NativeEngine:
    """The compiled kernels, on the instruction set that ``METAEDIT_ISA`` names or the best the machine has."""

    def __init__(self, config: MetanetConfig, weights: Weights) -> None:
        from metaedit_fast.metanet import native

        self._packed = native.pack(config, weights)
        self._forward = native.metanetwork_forward

    def heads(self, mlp: MLP, features: ModelFeatures, condition: NDArray[np.float32]) -> Heads:
        """One model on the calling thread; ``edit`` shares models out to threads."""
        batch = WeightGraphBatch.from_mlps([mlp])
        return self._forward(self._packed, batch, [features], condition.reshape(1, -1), num_threads=1)


def start_engine(name: str, config: MetanetConfig, weights: Weights) -> Engine:
    """The engine called ``name``, one of ``ENGINES``. Raises ``ValueError`` for another name."""
    if name == "native":
        return NativeEngine(config, weights)
    if name == "onnxruntime":
        from metaedit_fast.export.onnx import build_metanetwork
        from metaedit_fast.export.session import EditorSession

        return EditorSession(build_metanetwork(config, weights))
    raise ValueError(f"engine: expected one of {ENGINES}, got {name!r}")
