"""What one call of ``edit`` does to each of its models, checked before any work begins."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.data import Table, as_table
from metaedit_fast.editing.editor import Editor, load_editor
from metaedit_fast.editing.labelled import groups_of, labelled_rows
from metaedit_fast.editing.rounds import round_budgets
from metaedit_fast.editing.targets import budget_of
from metaedit_fast.requirements import Requirement, WeightRanking, get_requirement
from metaedit_fast.threads import thread_count

if TYPE_CHECKING:
    from metaedit_fast.datasets import Rows

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

ON_ERROR = ("refuse", "raise")
PROBE_ROWS = 256
# Rates of the smallest groups are means over few rows.
LABELLED_PROBE_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Plan:
    """The editor, how much it edits (``budget``; 0 is nothing), and the rows that it and the metrics look at.

    ``limit`` is the equalised-odds difference that is asked for instead of a budget.
    ``rounds`` above 1 are in ``editing.rounds``.
    ``probe`` is None where neither editor nor refinement reads rows.
    ``measured`` is None where no data were given. ``held_out`` says that no row of it is in the probe.
    """

    editor: Editor
    budget: float
    limit: float | None
    rounds: int
    refine: int
    seed: int
    num_threads: int
    on_error: str
    probe: Table | None
    measured: Table | None
    held_out: bool

    @property
    def on_editors_rows(self) -> bool:
        """Whether the rows are the editor's own, which are in the form that a model's first layer receives."""
        return self.probe is not None and self.probe.X is self.editor.probe

    @property
    def budgets(self) -> list[float]:
        """What each round leaves, the editor's first."""
        return round_budgets(self.budget, self.rounds)

    def settings(self) -> dict[str, Any]:
        """What a reader of the result needs to know about the call, as JSON takes it."""
        return {
            "requirement": self.editor.info.requirement,
            "budget": self.budget,
            "limit": self.limit,
            "rounds": self.rounds,
            "refine": self.refine,
            "seed": self.seed,
            "probe_rows": 0 if self.probe is None else len(self.probe),
            "probe_from": None if self.probe is None else "editor" if self.on_editors_rows else "data",
            "metric_rows": 0 if self.measured is None else len(self.measured),
            "metric_rows_held_out": self.held_out,
        }


class EditOptions(TypedDict, total=False):
    """The keyword arguments that ``edit``, ``edit_`` and ``edit_stream`` share: those of ``make_plan``, which has
    their defaults. ``edit`` documents them.
    """

    target: Mapping[str, float] | None
    strength: float | None
    data: Table | Rows | ArrayLike | None
    rounds: int
    refine: int
    probe_rows: int | None
    num_threads: int | None
    on_error: str
    seed: int


def make_plan(
    editor: Editor | str | Path,
    *,
    target: Mapping[str, float] | None = None,
    strength: float | None = None,
    data: Table | Rows | ArrayLike | None = None,
    rounds: int = 1,
    refine: int = 0,
    probe_rows: int | None = None,
    num_threads: int | None = None,
    on_error: str = "refuse",
    seed: int = 0,
) -> Plan:
    """Check the arguments of ``edit`` and choose the rows. Raises ``ValueError`` that names the argument."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {ON_ERROR}, got {on_error!r}")
    for name, value, least in (("rounds", rounds, 1), ("refine", refine, 0), ("seed", seed, 0)):
        require_integer(name, value, least)
    if probe_rows is not None:
        require_integer("probe_rows", probe_rows, 1)
    threads = thread_count(num_threads)
    loaded = editor if isinstance(editor, Editor) else load_editor(editor)
    requirement = get_requirement(loaded.info.requirement)
    budget = budget_of(requirement, loaded.info.config.n_inputs, target, strength)
    table = None if data is None else _fitting(as_table(data), loaded)
    limit = None if target is None or not requirement.needs_labels else float(target[requirement.target])
    if rounds > 1:
        _require_rounds(requirement, refine)
    probe, measured, held_out = None, table, table is not None
    if table is None and loaded.probe is not None:
        probe = measured = Table(loaded.probe)
    elif budget > 0 and (loaded.info.config.probe or refine > 0):
        if requirement.needs_labels:
            _require_labelled(table)
        if table is not None:
            probe, measured, held_out = split_rows(table, probe_rows or default_probe_rows(loaded), seed)
        else:
            who = "this editor" if loaded.needs_probe else "refine"
            raise ValueError(f"data: {who} reads a probe of unlabelled rows, got none; pass data=rows or a Table")
    return Plan(loaded, budget, limit, rounds, refine, seed, threads, on_error, probe, measured, held_out)


def takes_options(function: FunctionT) -> FunctionT:
    """For a function with ``**options: Unpack[EditOptions]``: ``help`` shows them with their defaults."""
    options = [p for p in inspect.signature(make_plan).parameters.values() if p.kind is p.KEYWORD_ONLY]
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    before = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    signature = inspect.signature(function).replace(parameters=[*before, *options, *own[len(before) :]])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def split_rows(table: Table, probe_rows: int, seed: int) -> tuple[Table, Table, bool]:
    """``probe_rows`` rows drawn with ``seed``, and the rows to measure on: the others.

    Where fewer others would be left than the probe has, the metrics take all rows, and the third value,
    which says whether they are held out, is False.
    """
    count = min(probe_rows, len(table))
    order = np.random.default_rng(seed).permutation(len(table))
    probe = table.take(np.sort(order[:count]))
    if len(table) - count < count:
        return probe, table, False
    return probe, table.take(np.sort(order[count:])), True


def _require_rounds(requirement: Requirement, refine: int) -> None:
    if not isinstance(requirement, WeightRanking):
        raise ValueError(f"rounds: an edit for {requirement.name} has one, expected 1")
    if refine == 0:
        raise ValueError("rounds: those behind the first remove weights of refined models; pass refine=30, or rounds=1")


def _require_labelled(table: Table | None) -> None:
    if table is None:
        raise ValueError("data: this editor reads labels and groups; pass data=Table(X, y, sensitive=...)")
    labelled_rows(table, groups_of(table))


def default_probe_rows(editor: Editor) -> int:
    """How many rows an editor sees unless the user says otherwise."""
    return LABELLED_PROBE_ROWS if editor.info.config.context == "groups" else PROBE_ROWS


def _fitting(table: Table, editor: Editor) -> Table:
    n_inputs, n_classes = editor.info.config.n_inputs, editor.info.config.n_classes
    if table.n_features != n_inputs:
        raise ValueError(f"data: this editor's models take {n_inputs} features, got rows of {table.n_features}")
    if table.y is not None and table.y.max() >= n_classes:
        raise ValueError(
            f"y: this editor's models have the classes 0 to {n_classes - 1}, got {int(table.y.max())}; "
            "labels are indices of the model's outputs"
        )
    return table


def require_integer(name: str, value: object, least: int) -> None:
    """Raises ``ValueError`` that names the argument unless it is an integer of at least ``least``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
