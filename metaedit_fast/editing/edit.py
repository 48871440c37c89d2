"""``edit``, ``edit_`` and ``edit_stream``: models in, edited models of the same kind out, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaedit_fast.editing import pipeline
from metaedit_fast.editing.editor import Editor
from metaedit_fast.editing.plan import EditOptions, Plan, make_plan, require_integer, takes_options
from metaedit_fast.editing.result import EditRecord, EditResult
from metaedit_fast.editing.sources import Source, require_writable, sources_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Opened
from metaedit_fast.population.store import Population
from metaedit_fast.progress import progress_bar

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
def edit(
    models: Any,
    editor: Editor | str | Path,
    *,
    progress: bool = False,
    **options: Unpack[EditOptions],
) -> EditResult:
    """Edit models so that they meet a requirement. Inputs are never modified.

    ``models``: one or many of torch modules and exported programs, scikit-learn MLPs, ONNX ``ModelProto``, paths to
    models, ``MLP``; or a ``Population``. Each comes back as the same kind of model, a path as a ``ModelProto`` or a
    ``SafetensorsModel`` (docs/models.md). ``editor``: an ``Editor``, a path, or the name of a bundled one.

    Exactly one of ``target`` and ``strength`` is given. ``target`` is in the requirement's own unit:
    ``{"sparsity": 0.9}`` removes exactly that fraction of every model's weights, ``{"features": 6}`` keeps exactly so
    many input features, ``{"equalized_odds_difference": 0.05}`` seeks the least edit that has no larger difference on
    the probe. ``strength`` is the share of the weights or of the features that is removed, or the weight λ of the
    equalised-odds difference. Nothing asked for returns
    copies of the models, bit for bit, with the status ``"unchanged"``.

    ``data``: rows ``[rows, n_inputs]`` in the form that the models were trained on, as an array, a
    ``Table``, or a split of a dataset; an editor for equalised odds needs a ``Table`` with ``y`` and ``sensitive``.
    ``probe_rows`` of them (by default 256, with labels and groups 4096), drawn with ``seed``, are the probe, for
    editors that read activations and for ``refine`` steps of optimisation per model (``refine.refine``),
    which keep the removed weights removed; they need no labels but for equalised odds, where about 10 steps are best
    (``editing.odds``). Without data an editor's own probe rows
    serve, if it carries any. Metrics before and after are measured on the other rows, or on all where the
    others would be fewer than the probe (``result.settings["metric_rows_held_out"]`` tells).

    ``rounds`` above 1, for pruning, with ``refine``, leave the last of the weights that are removed to refined models:
    the editor removes fewer than asked for, then refinement and removal of the rest alternate (``editing.rounds``).
    Two rounds take about half as much time again as one, and keep more.

    A model that cannot be read, has non-finite parameters or does not fit the editor is refused alone,
    with a reason, and the rest go on; ``on_error="raise"`` raises ``UnsupportedModelError`` at the first.
    ``num_threads`` (default: ``METAEDIT_NUM_THREADS``, else all processors) models are edited at a time;
    the result for a model depends on neither that, the other models nor their order.

    Raises ``ValueError`` for arguments that make no sense together, before any work.
    """
    plan = make_plan(editor, **options)
    records = _collected(list(sources_of(models)), plan, written, progress=progress)
    return _result(records, plan, models if isinstance(models, Population) else None)


@takes_options
def edit_(
    models: Any,
    editor: Editor | str | Path,
    *,
    progress: bool = False,
    **options: Unpack[EditOptions],
) -> EditResult:
    """Edit models in place; arguments and result are those of ``edit``.

    For torch modules and programs, scikit-learn estimators, ``ModelProto``, ``SafetensorsModel`` and ``MLP``.
    Each model is written to once, when its edit is complete, or not at all; with ``on_error="raise"`` no model is
    written to before all edits are complete. Raises ``ValueError`` for paths, populations, and an object that is given
    twice.
    """
    plan = make_plan(editor, **options)
    sources = list(sources_of(models))
    require_writable(sources)
    waiting: list[Callable[[], None]] = []

    def write(opened: Opened[Any], edited: MLP) -> Any:
        if plan.on_error == "raise":
            opened.write(edited)  # what cannot be written must be known before the first is
            waiting.append(lambda: opened.write_into(edited))
        else:
            opened.write_into(edited)
        return opened.model

    records = _collected(sources, plan, write, progress=progress)
    for commit in waiting:
        commit()
    return _result(records, plan, None)


@takes_options
def edit_stream(
    models: Any, editor: Editor | str | Path, *, batch: int = 256, **options: Unpack[EditOptions]
) -> Generator[EditRecord, None, None]:
    """Edit models as they come, in memory for few of them: gives a record of each, in order.

    ``models`` is an iterator of what ``edit`` takes one of, such as paths, without an end if need be; the other
    arguments, and the edit of each model to the bit, are those of ``edit``. Models are read and edited up to
    ``batch`` at a time (fewer where they are large), so a record comes when its batch is complete, and at most two
    batches are in memory beside what the caller keeps. Records hold their models: keep what you need of them.

    Raises ``ValueError`` as ``edit``, at once; with ``on_error="raise"`` the first model that cannot be edited ends
    the stream with ``UnsupportedModelError``, behind the records of those before it.
    """
    plan = make_plan(editor, **options)
    require_integer("batch", batch, 1)
    return pipeline.run(sources_of(models), plan, written, batch=batch)


def written(opened: Opened[Any], edited: MLP) -> Any:
    """A new model with the edited parameters."""
    return opened.write(edited)


def _collected(sources: Sequence[Source], plan: Plan, write: pipeline.Write, *, progress: bool) -> list[EditRecord]:
    records = []
    with progress_bar("editing", len(sources), shown=progress) as advance:
        for record in pipeline.run(sources, plan, write):
            records.append(record)
            advance()
    return records


def _result(records: Sequence[EditRecord], plan: Plan, source: Population | None) -> EditResult:
    return EditResult(records, settings=plan.settings(), editor=plan.editor.describe(), source=source)
