"""One editor on many models: which of them it may edit, then the engine on those."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast import _core
from metaedit_fast.data import Table
from metaedit_fast.editing.groups import edit_to
from metaedit_fast.editing.job import EditJob, Edits, Engine
from metaedit_fast.editing.labelled import groups_of, labelled_rows
from metaedit_fast.editing.passes import Clock
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.models import native
from metaedit_fast.models.groups import LabelledRows
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import EqualizedOdds, Requirement, get_requirement
from metaedit_fast.threads import thread_count

if TYPE_CHECKING:
    from metaedit_fast.editing.editor import Editor

Models = WeightGraphBatch | Sequence[MLP]


@dataclasses.dataclass(frozen=True)
class BatchEdits:
    """``thetas[m]`` is θ' of model m, a copy of θ where ``failures[m]`` says why it was not edited;
    ``seconds`` is the time that a thread worked on each model, float64 ``[M]``.
    """

    thetas: list[NDArray[np.float32]]
    failures: dict[int, Exception]
    seconds: NDArray[np.float64]


def edit_models(
    editor: Editor,
    models: Models,
    budget: float | Sequence[float],
    *,
    probe: Table | ArrayLike | None = None,
    limit: float | None = None,
    num_threads: int | None = None,
) -> BatchEdits:
    """``Editor.edit_batch``, with the models that cannot be edited in ``failures`` instead of an exception.

    For an editor for equalised odds, ``limit`` is the difference to reach on the probe with as little strength as it
    takes; then no ``budget`` above 0 makes a difference.
    """
    threads = thread_count(num_threads)
    n_models = models.n_models if isinstance(models, WeightGraphBatch) else len(models)
    requirement = get_requirement(editor.info.requirement)
    budgets = _budgets(requirement, budget, n_models)
    failures = _unfit(editor, models, budgets)
    chosen = [m for m in range(n_models) if budgets[m] > 0 and m not in failures]
    seconds = np.zeros(n_models)
    if not chosen:
        thetas = [_theta(models, m).copy() for m in range(n_models)]
        return BatchEdits(thetas, failures, seconds)
    whole = len(chosen) == n_models
    part = models if whole else [_mlp(models, m) for m in chosen]
    if isinstance(part, WeightGraphBatch):
        batch, mlps = part, [_mlp(part, m) for m in range(part.n_models)]
    else:
        batch, mlps = WeightGraphBatch.from_mlps(part), list(part)
    job = EditJob(
        batch,
        mlps,
        [budgets[m] for m in chosen],
        _rows(editor, part, probe),
        _labelled(editor, probe),
        requirement,
        editor.info.config,
    )
    found = _run(editor.prepare(), job, threads, limit)
    edited = batch.split(found.theta)
    if whole:
        return BatchEdits(edited, found.failures, found.seconds)
    seconds[chosen] = found.seconds
    failures.update({chosen[i]: error for i, error in found.failures.items()})
    places = dict(zip(chosen, edited, strict=True))
    thetas = [places[m] if m in places else _theta(models, m).copy() for m in range(n_models)]
    return BatchEdits(thetas, failures, seconds)


def _run(engine: Engine, job: EditJob, num_threads: int, limit: float | None) -> Edits:
    clock = Clock(job, num_threads)
    edit = engine.start(job, num_threads=num_threads)
    if limit is None or not isinstance(job.requirement, EqualizedOdds):
        return edit(job.budgets)
    return edit_to(job, edit, limit, *job.requirement.trained_range, clock=clock, num_threads=num_threads)


def _budgets(requirement: Requirement, budget: float | Sequence[float], n_models: int) -> list[float]:
    if isinstance(budget, numbers.Real):
        return [requirement.check_budget(float(budget))] * n_models
    budgets = [requirement.check_budget(float(one)) for one in budget]  # type: ignore[union-attr]
    if len(budgets) != n_models:
        raise ValueError(f"budget: expected one for each of {n_models} models, got {len(budgets)}")
    return budgets


def _unfit(editor: Editor, models: Models, budgets: Sequence[float]) -> dict[int, Exception]:
    """Why models that something is asked of cannot be edited, by their number."""
    specs = models.specs if isinstance(models, WeightGraphBatch) else [mlp.spec for mlp in models]
    # One pass over a whole batch; which model it is matters only where one has such a value.
    finite = isinstance(models, WeightGraphBatch) and bool(np.isfinite(models.theta).all())
    found: dict[int, Exception] = {}
    for m, spec in enumerate(specs):
        if budgets[m] == 0:
            continue
        check = editor.check_spec(spec) if finite else editor.check(_mlp(models, m))
        if not check.ok:
            found[m] = UnsupportedModelError("; ".join(check.reasons))
    return found


def _labelled(editor: Editor, probe: Table | ArrayLike | None) -> LabelledRows | None:
    """The probe with its labels and groups, for an editor that reads these."""
    if editor.info.config.context != "groups":
        return None
    if not isinstance(probe, Table):
        raise ValueError("probe: this editor reads labels and groups, so it needs a Table with y and sensitive")
    return labelled_rows(probe, groups_of(probe))


def _rows(editor: Editor, models: Models, probe: Table | ArrayLike | None) -> list[_core.PanelRows] | None:
    """The probe as the first layer of each model receives it; None for an editor that reads weights alone.

    A batch knows no normalisation, and an editor's own rows are in that form already.
    """
    if not editor.info.config.probe:
        return None
    n_models = models.n_models if isinstance(models, WeightGraphBatch) else len(models)
    if probe is None:
        if editor.probe is None:
            raise ValueError("probe: this editor reads activations, so it needs a probe of unlabelled rows, got none")
        return [_core.PanelRows(editor.probe)] * n_models
    rows = editor.probe_rows(probe.X if isinstance(probe, Table) else probe)
    if isinstance(models, WeightGraphBatch):
        return [_core.PanelRows(rows)] * n_models
    return native.rows_of_all(models, rows)


def _theta(models: Models, m: int) -> NDArray[np.float32]:
    return models.theta_of(m) if isinstance(models, WeightGraphBatch) else models[m].theta


def _mlp(models: Models, m: int) -> MLP:
    return MLP(models.specs[m], models.theta_of(m)) if isinstance(models, WeightGraphBatch) else models[m]
