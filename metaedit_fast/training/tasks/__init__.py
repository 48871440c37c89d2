"""What trainings optimise, one file a requirement."""

from __future__ import annotations

from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.requirements import DataMinimisation, EqualizedOdds, Requirement, WeightRanking
from metaedit_fast.training.soft_odds import TEMPERATURE
from metaedit_fast.training.tasks.base import Measured, Task, TrainingRows
from metaedit_fast.training.tasks.data_minimisation import InputTask
from metaedit_fast.training.tasks.equalized_odds import GroupTask
from metaedit_fast.training.tasks.pruning import WeightTask

__all__ = ["Measured", "Task", "TrainingRows", "make_task"]


def make_task(
    requirement: Requirement,
    config: MetanetConfig,
    rows: TrainingRows,
    *,
    rows_per_step: int | None,
    num_threads: int,
    scalarisation: str = "linear",
    temperature: float = TEMPERATURE,
) -> Task:
    """The training of an editor for ``requirement``. Raises ``ValueError`` for one that has none, and for another
    scalarisation than ``"linear"`` or another temperature than the default where budgets are met exactly, which leaves
    one objective without soft decisions.
    """
    if isinstance(requirement, EqualizedOdds):
        return GroupTask(
            requirement,
            config,
            rows,
            rows_per_step=rows_per_step,
            num_threads=num_threads,
            scalarisation=scalarisation,
            temperature=temperature,
        )
    if scalarisation != "linear":
        raise ValueError(
            f"scalarisation: {requirement.name} has one objective, expected 'linear', got {scalarisation!r}"
        )
    if temperature != TEMPERATURE:
        raise ValueError(
            f"temperature: {requirement.name} has no soft decisions, expected {TEMPERATURE}, got {temperature!r}"
        )
    if isinstance(requirement, WeightRanking):
        return WeightTask(requirement, config, rows, rows_per_step=rows_per_step, num_threads=num_threads)
    if isinstance(requirement, DataMinimisation):
        return InputTask(requirement, config, rows, rows_per_step=rows_per_step, num_threads=num_threads)
    raise ValueError(f"requirement: no training is known for {requirement.name!r}")
