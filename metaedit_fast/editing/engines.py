"""What runs an editor: the compiled kernels, ONNX Runtime, or torch. In float32 they agree to rounding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.editing.by_network import start
from metaedit_fast.editing.job import TOO_LARGE, Edit, EditJob, Edits, Engine
from metaedit_fast.errors import MissingDependencyError, UnsupportedModelError
from metaedit_fast.export.weights import Weights
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import WeightRanking

if TYPE_CHECKING:
    from metaedit_fast.editing.torch_engine import TorchEngine

ENGINES = ("native", "onnxruntime", "torch")
PRECISIONS = ("float32", "bf16x3", "bf16")

Float32 = NDArray[np.float32]

_NAN_SCORE = "scores: expected numbers, got NaN"


class NativeEngine:
    """The compiled kernels, on the instruction set that ``METAEDIT_ISA`` names or the best the machine has."""

    def __init__(self, config: MetanetConfig, weights: Weights, precision: str = "float32") -> None:
        self._config = config
        self._packed = native.pack(config, weights)
        self._precision = precision

    @property
    def arithmetic(self) -> str:
        return self._packed.arithmetic(self._precision)

    def start(self, job: EditJob, *, num_threads: int) -> Edit:
        return start(self, job, num_threads=num_threads)

    def heads(
        self, mlps: Sequence[MLP], features: Sequence[ModelFeatures], conditions: Float32, *, num_threads: int
    ) -> Heads:
        """All models in one native call."""
        batch = WeightGraphBatch.from_mlps(mlps)
        return native.metanetwork_forward(
            self._packed, batch, features, conditions, num_threads=num_threads, precision=self._precision
        )

    def edit(self, job: EditJob, *, num_threads: int) -> Edits:
        """All models in one native call. Masks come from there too where the requirement ranks all weights alike
        (``Requirement.kept_weights``), else from ``Requirement.mask``.
        """
        batch, specs = job.batch, job.batch.specs
        requirement = job.requirement
        assert isinstance(requirement, WeightRanking)
        kept = [requirement.kept_weights(s.n_weights, b) for s, b in zip(specs, job.budgets, strict=True)]
        masked_here = [m for m, count in enumerate(kept) if count is None]
        found = native.edit_models(
            self._packed,
            self._config,
            batch,
            job.conditions,
            np.array([job.gain(m) for m in range(len(specs))], np.float32),
            np.array([native.KEEP_ALL if count is None else count for count in kept], np.int64),
            probe=job.rows,
            scores=bool(masked_here),
            num_threads=num_threads,
            precision=self._precision,
        )
        failures: dict[int, Exception] = {
            int(m): UnsupportedModelError(TOO_LARGE if found.status[m] == native.TOO_LARGE else _NAN_SCORE)
            for m in np.flatnonzero(found.status)
        }
        if found.scores is not None:
            first = [0, *itertools.accumulate(spec.n_weights for spec in specs)]
            for m in masked_here:
                if m not in failures:
                    weights = batch.theta_of(m)[: specs[m].n_weights]
                    mask = requirement.mask(weights, found.scores[first[m] : first[m + 1]], job.budgets[m])
                    found.theta[batch.theta_offsets[m] :][: weights.size][~mask] = 0.0
        return Edits(found.theta, failures, found.seconds)


def check_engine(name: str, precision: str) -> None:
    """Raises ``ValueError`` unless ``name`` is one of ``ENGINES`` and has ``precision``, and
    ``MissingDependencyError`` where it needs a package that is absent.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {ENGINES}, got {name!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
    if name == "torch":
        _torch_engine()
    if name != "native" and precision != "float32":
        raise ValueError(f"precision: the engine {name!r} computes in 'float32' alone, got {precision!r}")


def start_engine(
    name: str, config: MetanetConfig, requirement: str, weights: Weights, precision: str = "float32"
) -> Engine:
    """The engine called ``name`` for a precision that ``check_engine`` let pass, to edit for a requirement."""
    if name == "torch":
        return _torch_engine()(config, weights)
    if name == "onnxruntime":
        from metaedit_fast.editing.session_engine import SessionEngine

        return SessionEngine(config, requirement, weights)
    return NativeEngine(config, weights, precision)


def _torch_engine() -> type[TorchEngine]:
    """The class, which is imported where it is asked for, because most installations have no torch."""
    try:
        from metaedit_fast.editing.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "engine='torch' needs the package 'torch': pip install 'metaedit_fast[train]'"
        ) from error
    return TorchEngine
