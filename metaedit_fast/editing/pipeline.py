"""The work of one ``edit``: sources in, records out, a chunk of models at a time.

Reading and writing go model by model; the edit, refinement and the metrics take a whole chunk in one native call
each. Two chunks at most are held in memory, one that is being read and one whose records leave; no result depends on
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaedit_fast.data import Table
from metaedit_fast.editing.batch import edit_models
from metaedit_fast.editing.labelled import groups_of, labelled_rows
from metaedit_fast.editing.odds import OddsTerm, term_after
from metaedit_fast.editing.plan import Plan
from metaedit_fast.editing.refine import refine_all
from metaedit_fast.editing.result import EditRecord
from metaedit_fast.editing.rounds import refine_in_rounds
from metaedit_fast.editing.sources import Source
from metaedit_fast.errors import MetaeditError, UnsupportedModelError
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Opened
from metaedit_fast.requirements import WeightRanking, get_requirement
from metaedit_fast.requirements.odds import equalized_odds_difference

Write = Callable[[Opened[Any], MLP], Any]

# Parameters of a chunk for each thread: some hundred models of the usual size.
_CHUNK_PARAMETERS = 1 << 19


def run(
    sources: Iterable[Source], plan: Plan, write: Write, *, batch: int | None = None
) -> Generator[EditRecord, None, None]:
    """Edit every source; ``write`` gives the model of a record from what was opened and its edited MLP.

    The records come in the order of the sources, of which at most ``batch`` (default: as many as make a chunk of
    the usual size) are read ahead. Whatever goes wrong with a model becomes its refusal, and then nothing was
    written; with ``plan.on_error == "raise"`` the first in order is raised instead.
    """
    if plan.budget > 0:
        plan.editor.prepare()  # once, so that it counts in no model's time
    for chunk in _chunks(sources, plan, batch):
        _edit(chunk, plan)
        if plan.refine and plan.budget > 0:
            _refine(chunk, plan)
        _measure(chunk, plan)
        for work in chunk:
            record = work.record(plan, write)
            if plan.on_error == "raise" and work.error is not None:
                raise UnsupportedModelError(f"{_place(record)}: {record.reason}") from work.error
            yield record


class _Work:
    """One model on its way; ``error`` is what ended it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.opened: Opened[Any] | None = None
        self.error: Exception | None = None
        self.notes: tuple[str, ...] = ()
        self.metrics: dict[str, dict[str, float]] = {}
        self.seconds = 0.0
        # The model as it is edited and measured, and what became of it; MLPs once it was opened.
        self.subject: Any = None
        self.edited: Any = None

    def open(self, plan: Plan) -> None:
        """Read the model and look whether the editor may have it."""
        started = time.perf_counter()
        try:
            self.opened = self.source.open()
            self.notes = tuple(self.opened.notes)
            self.notes = (*self.notes, *_require_fitting(self.opened.mlp, plan))
            self.subject = self.edited = self.opened.mlp
            if plan.on_editors_rows and not _is_bare(self.subject):
                self.subject = self.edited = self.subject.without_normalisation()
                self.notes = (
                    *self.notes,
                    "the editor's own rows were taken as they enter the first layer, behind the normalisation",
                )
        except Exception as error:
            self.error = error
        self.seconds += time.perf_counter() - started

    def tell(self, name: str, before: float, after: float) -> None:
        """Add a metric."""
        self.metrics["before"][name], self.metrics["after"][name] = before, after

    def record(self, plan: Plan, write: Write) -> EditRecord:
        """Write the model, where all went well, and tell what became of it."""
        started = time.perf_counter()
        model, status, reason = self.source.model, "refused", None
        if self.error is None and self.opened is not None:
            try:
                model = write(self.opened, self.opened.mlp.replace(self.edited.theta))
                status = "unchanged" if plan.budget == 0 else "edited"
            except Exception as error:
                self.error = error
        if self.error is not None:
            known = isinstance(self.error, (MetaeditError, OSError, ValueError))
            reason = str(self.error) if known else f"unexpected {type(self.error).__name__}: {self.error}"
        self.seconds += time.perf_counter() - started
        return EditRecord(
            index=self.source.index,
            name=self.source.name,
            model=model,
            status=status,
            reason=reason,
            notes=self.notes,
            metrics=self.metrics if status != "refused" else {},
            ms=1000.0 * self.seconds,
            kind=None if self.opened is None else self.opened.kind,
            n_weights=None if self.opened is None else self.opened.mlp.spec.n_weights,
            error=self.error,
            origin=self.source.record,
        )


def _chunks(sources: Iterable[Source], plan: Plan, batch: int | None) -> Iterator[list[_Work]]:
    """Opened models, as many as a chunk may hold; to raise early, a chunk ends at one that cannot be opened."""
    chunk: list[_Work] = []
    size = 0
    for source in sources:
        work = _Work(source)
        work.open(plan)
        chunk.append(work)
        size += 0 if work.opened is None else work.opened.mlp.spec.n_parameters
        is_last = plan.on_error == "raise" and work.error is not None
        if is_last or len(chunk) == batch or size >= _CHUNK_PARAMETERS * plan.num_threads:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _require_fitting(mlp: MLP, plan: Plan) -> tuple[str, ...]:
    """Give the editor's notes on ``mlp``. Raises ``UnsupportedModelError`` where it must not edit it."""
    if not mlp.is_finite:
        for kind, layer, values in mlp.parameters():
            bad = int(values.size - np.count_nonzero(np.isfinite(values)))
            if bad:
                raise UnsupportedModelError(f"the {kind} of layer {layer} has {bad} values that are NaN or infinite")
    found = plan.editor.check_spec(mlp.spec)
    if not found.ok:
        raise UnsupportedModelError("; ".join(found.reasons))
    low, high = plan.editor.info.budget_range
    if plan.budget > 0 and not low <= plan.budget <= high:
        return (*found.notes, f"the editor was trained on {low:g} to {high:g}; asked for {plan.budget:g}")
    return found.notes


def _going(chunk: Iterable[_Work]) -> list[_Work]:
    return [work for work in chunk if work.error is None]


def _edit(chunk: Sequence[_Work], plan: Plan) -> None:
    works = _going(chunk)
    if plan.budget == 0:
        return
    try:
        found = edit_models(
            plan.editor,
            [work.subject for work in works],
            plan.budgets[0],
            limit=plan.limit,
            probe=plan.probe if plan.editor.info.config.probe else None,
            num_threads=plan.num_threads,
        )
    except Exception as error:  # nothing of one model, or it would be among the failures
        for work in works:
            work.error = error
        return
    for m, work in enumerate(works):
        work.seconds += float(found.seconds[m])
        work.error = found.failures.get(m)
        _take(work, work.subject.replace(found.thetas[m]), "the edit")


def _refine(chunk: Sequence[_Work], plan: Plan) -> None:
    works = _going(chunk)
    assert plan.probe is not None
    started = time.perf_counter()
    try:
        found = _refined([work.edited for work in works], [work.subject for work in works], plan.probe, plan)
    except Exception as error:
        for work in works:
            work.error = error
        return
    # The kernels do not tell the models' times apart, so each has the share of its weights that are left.
    spent = (time.perf_counter() - started) * min(plan.num_threads, max(1, len(works)))
    sizes = [float(np.count_nonzero(work.edited.theta)) + 1.0 for work in works]
    for work, refined, size in zip(works, found, sizes, strict=True):
        work.seconds += spent * size / sum(sizes)
        _take(work, refined, "the refinement")


def _refined(edited: Sequence[MLP], subjects: Sequence[MLP], probe: Table, plan: Plan) -> list[MLP]:
    requirement = get_requirement(plan.editor.info.requirement)
    if isinstance(requirement, WeightRanking):
        return refine_in_rounds(
            edited,
            subjects,
            probe.X,
            plan.budgets[1:],
            requirement,
            steps=plan.refine,
            num_threads=plan.num_threads,
        )
    odds = _odds_term(probe, plan) if requirement.needs_labels else None
    found = refine_all(edited, subjects, probe.X, steps=plan.refine, odds=odds, num_threads=plan.num_threads)
    return [mlp for mlp, _ in found]


def _odds_term(probe: Table, plan: Plan) -> OddsTerm:
    rows = labelled_rows(probe, groups_of(probe))
    return term_after(rows.labels, rows.groups, strength=plan.budget, limit=plan.limit)


def _take(work: _Work, edited: MLP, what: str) -> None:
    if work.error is None and not edited.is_finite:
        work.error = UnsupportedModelError(f"{what} gave parameters that are not finite; the model is left as it is")
    work.edited = edited


def _measure(chunk: Sequence[_Work], plan: Plan) -> None:
    works = _going(chunk)
    requirement, table = get_requirement(plan.editor.info.requirement), plan.measured
    for work in works:
        work.metrics = {"before": {}, "after": {}}
        if not requirement.needs_labels:
            work.tell(requirement.target, requirement.measure(work.subject), requirement.measure(work.edited))
    if table is None or not works:
        return
    subjects, edited = [work.subject for work in works], [work.edited for work in works]
    groups = None
    if table.y is not None and table.sensitive is not None:
        groups = groups_of(table).encode(table.sensitive)
    now = evaluate(edited, table.X, table.y, groups, originals=subjects, num_threads=plan.num_threads)
    assert now.jsd is not None
    for work, divergence in zip(works, now.jsd, strict=True):
        work.tell("jsd", 0.0, float(divergence))
    if table.y is None:
        return
    was = evaluate(subjects, table.X, table.y, groups, num_threads=plan.num_threads)
    for work, first, last in zip(works, was.accuracy, now.accuracy, strict=True):
        work.tell("accuracy", float(first), float(last))
    if groups is None:
        return
    assert was.counts is not None
    assert now.counts is not None
    gaps = equalized_odds_difference(was.counts), equalized_odds_difference(now.counts)
    for work, first, last in zip(works, *gaps, strict=True):
        work.tell("equalized_odds_difference", float(first), float(last))


def _is_bare(mlp: MLP) -> bool:
    return mlp.input_scale is None and mlp.input_shift is None


def _place(record: EditRecord) -> str:
    where = f"models[{record.index}]"
    return f"{where} ({record.model})" if isinstance(record.model, (str, Path)) else where
