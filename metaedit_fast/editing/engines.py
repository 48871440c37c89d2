"""What runs a metanetwork without torch: the compiled kernels, or ONNX Runtime. In float32 they agree to rounding."""

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
PRECISIONS = ("float32", "bf16x3", "bf16")


class Engine(Protocol):
    """A metanetwork that is ready to run; threads may share one."""

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in: the one that was asked for, or a finer one."""
        ...

    def heads(self, mlp: MLP, features: ModelFeatures, condition: NDArray[np.float32]) -> Heads:
        """What the metanetwork gives for one model; ``condition`` is ``[4]`` (``Requirement.condition``)."""
        ...


class NativeEngine:
    """The compiled kernels, on the instruction set that ``METAEDIT_ISA`` names or the best the machine has."""

    def __init__(self, config: MetanetConfig, weights: Weights, precision: str = "float32") -> None:
        from metaedit_fast.metanet import native

        self._packed = native.pack(config, weights)
        self._forward = native.metanetwork_forward
        self._precision = precision

    @property
    def arithmetic(self) -> str:
        return self._packed.arithmetic(self._precision)

    def heads(self, mlp: MLP, features: ModelFeatures, condition: NDArray[np.float32]) -> Heads:
        """One model on the calling thread; ``edit`` shares models out to threads."""
        batch = WeightGraphBatch.from_mlps([mlp])
        rows = condition.reshape(1, -1)
        return self._forward(self._packed, batch, [features], rows, num_threads=1, precision=self._precision)


def check_engine(name: str, precision: str) -> None:
    """Raises ``ValueError`` unless ``name`` is one of ``ENGINES`` and has ``precision``."""
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {ENGINES}, got {name!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
    if name != "native" and precision != "float32":
        raise ValueError(f"precision: the engine {name!r} computes in 'float32' alone, got {precision!r}")


def start_engine(name: str, config: MetanetConfig, weights: Weights, precision: str = "float32") -> Engine:
    """The engine called ``name`` for a precision that ``check_engine`` let pass."""
    if name == "native":
        return NativeEngine(config, weights, precision)
    from metaedit_fast.export.onnx import build_metanetwork
    from metaedit_fast.export.session import EditorSession

    return EditorSession(build_metanetwork(config, weights))
