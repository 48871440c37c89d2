"""What an engine is given and what it gives back: models with budgets, edited models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.groups import LabelledRows
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import Requirement

Float32 = NDArray[np.float32]

TOO_LARGE = "the weights or activations are so large that float32 cannot hold them"


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


# Edits all models of a job, each at its own budget, ``[M]``; the result for one depends neither on the others nor on
# the threads.
Edit = Callable[[Sequence[float]], Edits]


class Engine(Protocol):
    """An editor that is ready to run; threads may share one."""

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in: the one that was asked for, or a finer one."""
        ...

    def start(self, job: EditJob, *, num_threads: int) -> Edit:
        """What edits the models of ``job``, at its budgets or others; what does not depend on them is found once."""
        ...


class Network(Protocol):
    """A metanetwork that is ready to run, what most engines are made of."""

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
