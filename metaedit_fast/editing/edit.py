"""``edit`` and ``edit_``: models in, edited models of the same kind out, one at a time and in parallel."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.data import Table
from metaedit_fast.editing.blas import one_blas_thread
from metaedit_fast.editing.editor import Editor
from metaedit_fast.editing.plan import PROBE_ROWS, Plan, make_plan
from metaedit_fast.editing.progress import progress_bar
from metaedit_fast.editing.refine import refine as refine_steps
from metaedit_fast.editing.result import EditRecord, EditResult
from metaedit_fast.editing.sources import Source, require_writable, sources_of
from metaedit_fast.errors import MetaeditError, UnsupportedModelError
from metaedit_fast.models.divergence import jsd
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Opened
from metaedit_fast.population.store import Population

if TYPE_CHECKING:
    from metaedit_fast.datasets import Rows


def edit(
    models: Any,
    editor: Editor | str | Path,
    *,
    target: Mapping[str, float] | None = None,
    strength: float | None = None,
    data: Table | Rows | ArrayLike | None = None,
    refine: int = 0,
    probe_rows: int = PROBE_ROWS,
    num_threads: int | None = None,
    on_error: str = "refuse",
    seed: int = 0,
    progress: bool = False,
) -> EditResult:
    """Edit models so that they meet a requirement. Inputs are never modified.

    ``models``: one or many of torch modules, scikit-learn MLPs, ONNX ``ModelProto``, paths to ``.onnx``
    files, ``MLP``; or a ``Population``. Each comes back as the same kind of model, a path as a
    ``ModelProto``. ``editor``: an ``Editor``, a path, or the name of a bundled one.

    Exactly one of ``target`` (``{"sparsity": 0.9}``: remove exactly that fraction of every model's
    weights) and ``strength`` is given; for pruning a strength is a sparsity. 0 returns copies of the
    models, bit for bit, with the status ``"unchanged"``.

    ``data``: rows ``[rows, n_inputs]`` in the form that the models were trained on, as an array, a
    ``Table``, or a split of a dataset. ``probe_rows`` of them, drawn with ``seed``, are the probe, for
    editors that read activations and for ``refine`` steps of optimisation per model (``refine.refine``),
    which keep the removed weights removed; they need no labels. Without data an editor's own probe rows
    serve, if it carries any. Metrics before and after are measured on the other rows, or on all where the
    others would be fewer than the probe (``result.settings["metric_rows_held_out"]`` tells).

    A model that cannot be read, has non-finite parameters or does not fit the editor is refused alone,
    with a reason, and the rest go on; ``on_error="raise"`` raises ``UnsupportedModelError`` at the first.
    ``num_threads`` (default: ``METAEDIT_NUM_THREADS``, else all processors) models are edited at a time;
    the result for a model depends on neither that, the other models nor their order.

    Raises ``ValueError`` for arguments that make no sense together, before any work.
    """
    plan = make_plan(
        editor,
        target=target,
        strength=strength,
        data=data,
        refine=refine,
        probe_rows=probe_rows,
        num_threads=num_threads,
        on_error=on_error,
        seed=seed,
    )
    sources = sources_of(models)

    def write(opened: Opened[Any], edited: MLP) -> Any:
        return opened.write(edited)

    records = _run(sources, plan, write, progress=progress)
    return _result(records, plan, models if isinstance(models, Population) else None)


def edit_(
    models: Any,
    editor: Editor | str | Path,
    *,
    target: Mapping[str, float] | None = None,
    strength: float | None = None,
    data: Table | Rows | ArrayLike | None = None,
    refine: int = 0,
    probe_rows: int = PROBE_ROWS,
    num_threads: int | None = None,
    on_error: str = "refuse",
    seed: int = 0,
    progress: bool = False,
) -> EditResult:
    """Edit models in place; arguments and result are those of ``edit``.

    For torch modules, scikit-learn estimators, ``ModelProto`` and ``MLP``. Each model is written to once,
    when its edit is complete, or not at all; with ``on_error="raise"`` no model is written to before
    all edits are complete. Raises ``ValueError`` for paths, populations, and an object that is given twice.
    """
    plan = make_plan(
        editor,
        target=target,
        strength=strength,
        data=data,
        refine=refine,
        probe_rows=probe_rows,
        num_threads=num_threads,
        on_error=on_error,
        seed=seed,
    )
    sources = sources_of(models)
    require_writable(sources)
    waiting: list[Callable[[], None]] = []

    def write(opened: Opened[Any], edited: MLP) -> Any:
        if plan.on_error == "raise":
            opened.write(edited)  # what cannot be written must be known before the first is
            waiting.append(lambda: opened.write_into(edited))
        else:
            opened.write_into(edited)
        return opened.model

    records = _run(sources, plan, write, progress=progress)
    for commit in waiting:
        commit()
    return _result(records, plan, None)


def _result(records: Sequence[EditRecord], plan: Plan, source: Population | None) -> EditResult:
    return EditResult(records, settings=plan.settings(), editor=plan.editor.describe(), source=source)


def _run(
    sources: Sequence[Source], plan: Plan, write: Callable[[Opened[Any], MLP], Any], *, progress: bool
) -> list[EditRecord]:
    """Edit every source on a pool of threads; the records stand in the order of the sources."""
    raising = plan.on_error == "raise"
    # The largest first, so that no thread is left alone with one at the end. To raise at the first of
    # several bad models, whatever the number of threads, they are taken in order.
    order = range(len(sources)) if raising else sorted(range(len(sources)), key=lambda i: -sources[i].size)
    records: list[EditRecord | None] = [None] * len(sources)
    if plan.budget > 0:
        plan.editor.prepare()  # once, so that it counts in no model's time
    with (
        one_blas_thread,
        progress_bar("editing", len(sources), shown=progress) as advance,
        ThreadPoolExecutor(min(plan.num_threads, max(1, len(sources)))) as pool,
    ):
        futures: dict[Future[EditRecord], int] = {pool.submit(_edit_one, sources[i], plan, write): i for i in order}
        try:
            for future in futures if raising else as_completed(futures):
                record = records[futures[future]] = future.result()
                if raising and record.status == "refused":
                    raise UnsupportedModelError(f"{_place(record)}: {record.reason}") from record.error
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [record for record in records if record is not None]


def _edit_one(source: Source, plan: Plan, write: Callable[[Opened[Any], MLP], Any]) -> EditRecord:
    """Edit one model; whatever goes wrong with it becomes a refusal, and then nothing was written."""
    started = time.perf_counter()
    measuring = 0.0
    record = EditRecord(source.index, source.name, source.model, "refused", origin=source.record)
    try:
        opened = source.open()
        original = opened.mlp
        record = dataclasses.replace(
            record, kind=opened.kind, n_weights=original.spec.n_weights, notes=tuple(opened.notes)
        )
        notes = _require_fitting(original, plan)
        edited = original if plan.budget == 0 else _edited(original, plan)
        before = time.perf_counter()
        metrics = _metrics(original, edited, plan.measured)
        measuring = time.perf_counter() - before
        record = dataclasses.replace(
            record,
            model=write(opened, edited),
            status="unchanged" if edited is original else "edited",
            notes=(*record.notes, *notes),
            metrics=metrics,
        )
    except Exception as error:
        known = isinstance(error, (MetaeditError, OSError, ValueError))
        reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        record = dataclasses.replace(record, reason=reason, error=error)
    return dataclasses.replace(record, ms=1000 * (time.perf_counter() - started - measuring))


def _require_fitting(mlp: MLP, plan: Plan) -> tuple[str, ...]:
    """Give the editor's notes on ``mlp``. Raises ``UnsupportedModelError`` where it must not edit it."""
    for kind, layer, values in mlp.parameters():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise UnsupportedModelError(f"the {kind} of layer {layer} has {bad} values that are NaN or infinite")
    found = plan.editor.check(mlp)
    if not found.ok:
        raise UnsupportedModelError("; ".join(found.reasons))
    low, high = plan.editor.info.budget_range
    if plan.budget > 0 and not low <= plan.budget <= high:
        return (*found.notes, f"the editor was trained on {low:g} to {high:g}; asked for {plan.budget:g}")
    return found.notes


def _edited(original: MLP, plan: Plan) -> MLP:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        reads = plan.editor.info.config.probe
        theta = plan.editor.edit_theta(original, plan.budget, probe=plan.probe if reads else None)
        edited = _finite(original.replace(theta), "the edit")
        if plan.refine:
            assert plan.probe is not None
            edited = _finite(refine_steps(edited, original, plan.probe, steps=plan.refine)[0], "the refinement")
    return edited


def _finite(mlp: MLP, what: str) -> MLP:
    if not mlp.is_finite:
        raise UnsupportedModelError(f"{what} gave parameters that are not finite; the model is left as it is")
    return mlp


def _metrics(original: MLP, edited: MLP, table: Table | None) -> dict[str, dict[str, float]]:
    before, after = {"sparsity": float(original.sparsity)}, {"sparsity": float(edited.sparsity)}
    if table is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # a model may overflow: its figures are then NaN
            log_p, log_q = original.log_proba(table.X), edited.log_proba(table.X)
            before["jsd"], after["jsd"] = 0.0, float(jsd(log_p, log_q).mean())
        if table.y is not None:
            for figures, log_proba in ((before, log_p), (after, log_q)):
                figures["accuracy"] = float(np.mean(np.argmax(log_proba, axis=1) == table.y))
    return {"before": before, "after": after}


def _place(record: EditRecord) -> str:
    where = f"models[{record.index}]"
    return f"{where} ({record.model})" if isinstance(record.model, (str, Path)) else where
