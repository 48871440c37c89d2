"""What runs a metanetwork: the compiled kernels, ONNX Runtime, or torch. In float32 they agree to rounding."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.errors import MissingDependencyError, UnsupportedModelError
from metaedit_fast.export.weights import Weights
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads, edited_theta
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures, model_features
from metaedit_fast.models.groups import LabelledRows
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.requirements import Requirement, WeightRanking

if TYPE_CHECKING:
    from metaedit_fast.editing.torch_engine import TorchEngine

ENGINES = ("native", "onnxruntime", "torch")
PRECISIONS = ("float32", "bf16x3", "bf16")

Float32 = NDArray[np.float32]

TOO_LARGE = "the weights or activations are so large that float32 cannot hold them"
_NAN_SCORE = "scores: expected numbers, got NaN"


@dataclasses.dataclass(frozen=True)
class EditJob:
    """Models that fit the editor, each with a budget above 0, and what they are edited with.

    ``mlps`` are those of the batch, with their input normalisation where they have one. ``rows`` is the probe as the
    first layer of each model receives it, exactly where ``config.probe``; ``labelled`` the same rows before that,
    with labels and groups, exactly where ``config.context`` is ``"groups"``.
    """

    batch: WeightGraphBatch
    mlps: Sequence[MLP]
    budgets: Sequence[float]
    rows: Sequence[_core.PanelRows] | None
    labelled: LabelledRows | None
    requirement: Requirement
    config: MetanetConfig

    def at(self, budgets: Sequence[float]) -> EditJob:
        """The same with other budgets."""
        return dataclasses.replace(self, budgets=budgets)

    @cached_property
    def conditions(self) -> Float32:
        """``Requirement.condition`` of every model's budget, ``[M, 4]``."""
        known = {budget: self.requirement.condition(budget) for budget in set(self.budgets)}
        return np.array([known[budget] for budget in self.budgets], np.float32).reshape(-1, 4)

    def gain(self, model: int) -> float:
        """The factor of the learned residual: γ times the requirement's share of it."""
        return self.config.gamma * self.requirement.residual_share(self.budgets[model])


@dataclasses.dataclass(frozen=True)
class Edits:
    """Edited models: ``theta`` (float32 ``[P]``, the models of the job one after the other; θ itself where a
    model failed), ``failures`` by the model's number, ``seconds`` that a thread worked on each (float64 ``[M]``).
    """

    theta: Float32
    failures: dict[int, Exception]
    seconds: NDArray[np.float64]


class Engine(Protocol):
    """A metanetwork that is ready to run; threads may share one."""

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in: the one that was asked for, or a finer one."""
        ...

    def heads(
        self, mlps: Sequence[MLP], features: Sequence[ModelFeatures], conditions: Float32, *, num_threads: int
    ) -> Heads:
        """What the metanetwork gives for M models, one after the other in every array; ``conditions`` is ``[M, 4]``
        (``Requirement.condition``).
        """
        ...

    def edit(self, job: EditJob, *, num_threads: int) -> Edits:
        """Edit all models of a job, whose requirement ranks weights (``WeightRanking``); the result for one depends
        neither on the others nor on the threads.
        """
        ...


class NativeEngine:
    """The compiled kernels, on the instruction set that ``METAEDIT_ISA`` names or the best the machine has."""

    def __init__(self, config: MetanetConfig, weights: Weights, precision: str = "float32") -> None:
        self._config = config
        self._packed = native.pack(config, weights)
        self._precision = precision

    @property
    def arithmetic(self) -> str:
        return self._packed.arithmetic(self._precision)

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
        requirement = _weight_ranking(job)
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


class SessionEngine:
    """The metanetwork as an ONNX graph in ONNX Runtime; features and write-back in numpy."""

    def __init__(self, config: MetanetConfig, weights: Weights) -> None:
        from metaedit_fast.export.onnx import build_metanetwork
        from metaedit_fast.export.session import EditorSession

        self._session = EditorSession(build_metanetwork(config, weights))

    @property
    def arithmetic(self) -> str:
        return self._session.arithmetic

    def heads(
        self, mlps: Sequence[MLP], features: Sequence[ModelFeatures], conditions: Float32, *, num_threads: int
    ) -> Heads:
        """One model a task of a pool of threads, because ONNX Runtime releases the lock."""
        with ThreadPoolExecutor(min(num_threads, max(1, len(mlps)))) as pool:
            return Heads.joined(list(pool.map(self._session.heads, mlps, features, conditions)))

    def edit(self, job: EditJob, *, num_threads: int) -> Edits:
        """One model a task of a pool of threads, because ONNX Runtime and numpy release the lock."""
        batch = job.batch
        theta, failures = batch.theta.copy(), dict[int, Exception]()
        seconds = np.zeros(batch.n_models)

        def edit_one(m: int) -> None:
            started = time.perf_counter()
            try:
                theta[batch.theta_offsets[m] : batch.theta_offsets[m + 1]] = self._edited(job, m)
            except ValueError as error:
                failures[m] = error
            seconds[m] = time.perf_counter() - started

        with ThreadPoolExecutor(min(num_threads, max(1, batch.n_models))) as pool:
            for _ in pool.map(edit_one, range(batch.n_models)):
                pass
        return Edits(theta, failures, seconds)

    def _edited(self, job: EditJob, m: int) -> Float32:
        mlp = job.mlps[m]
        features = _finite_features(mlp, job.config, None if job.rows is None else job.rows[m])
        heads = self._session.heads(mlp, features, job.conditions[m])
        mask = _weight_ranking(job).mask(mlp.theta[: mlp.spec.n_weights], heads.score, job.budgets[m])
        with np.errstate(over="ignore", invalid="ignore"):  # whoever edits looks at the result
            return edited_theta(mlp.spec, mlp.theta, features, heads, mask, job.gain(m))


def _weight_ranking(job: EditJob) -> WeightRanking:
    if not isinstance(job.requirement, WeightRanking):
        raise TypeError(f"requirement: expected one that ranks weights, got {job.requirement.name}")
    return job.requirement


def _finite_features(mlp: MLP, config: MetanetConfig, rows: _core.PanelRows | None) -> ModelFeatures:
    with np.errstate(over="ignore", invalid="ignore"):
        features = model_features(mlp, config, None if rows is None else probe_statistics(mlp, rows))
    for values in (features.edge, features.node, features.saliency, features.rms):
        if not np.isfinite(values).all():
            raise UnsupportedModelError(TOO_LARGE)
    return features


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


def start_engine(name: str, config: MetanetConfig, weights: Weights, precision: str = "float32") -> Engine:
    """The engine called ``name`` for a precision that ``check_engine`` let pass."""
    if name == "torch":
        return _torch_engine()(config, weights)
    return NativeEngine(config, weights, precision) if name == "native" else SessionEngine(config, weights)


def _torch_engine() -> type[TorchEngine]:
    """The class, which is imported where it is asked for, because most installations have no torch."""
    try:
        from metaedit_fast.editing.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "engine='torch' needs the package 'torch': pip install 'metaedit_fast[train]'"
        ) from error
    return TorchEngine
