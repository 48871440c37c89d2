"""A record's figures as tables: Markdown for pages, rich for terminals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaedit_fast.evaluation.record import Point, Record

if TYPE_CHECKING:
    from rich.table import Table

MISSING = "–"


@dataclasses.dataclass(frozen=True)
class TextTable:
    """Cells as text; the first column is text, the others hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, *self.rows)]
        lines.insert(1, "|---|" + "---:|" * (len(self.header) - 1))
        return "\n".join(lines)

    def rich(self, title: str = "", caption: str = "") -> Table:
        """The table for a terminal; a comma in a cell becomes a new line, which keeps columns narrow."""
        from rich import box
        from rich.table import Table

        table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, leading=1, padding=(0, 1, 0, 0))
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
        for row in self.rows:
            table.add_row(*(cell.replace(", ", "\n") for cell in row))
        return table


def budget_table(record: Record, methods: Sequence[str] | None = None) -> TextTable:
    """Methods against budgets: JSD × 1000 ± its standard error, accuracy; then hypervolume and mean time."""
    chosen = list(record.curves) if methods is None else list(methods)
    budgets = sorted({point.budget for method in chosen for point in record.curves[method]})
    rows = []
    for method in chosen:
        points = {point.budget: point for point in record.curves[method]}
        cells = [_of_point(points[budget]) if budget in points else MISSING for budget in budgets]
        rows.append((method, *cells, *_last_cells(record, method)))
    labels = [budget_label(record.requirement, budget) for budget in budgets]
    return TextTable(("JSD × 1000, accuracy", *labels, *_last_columns(record)), tuple(rows))


def reading_table(record: Record, methods: Sequence[str] | None = None) -> TextTable:
    """Methods against values of the requirement that their fronts reach: JSD × 1000 ± its standard error, accuracy,
    flipped decisions; then the hypervolume and the mean time.
    """
    chosen = {method: record.readings[method] for method in (record.readings if methods is None else methods)}
    values = sorted({reading.requirement for found in chosen.values() for reading in found}, reverse=True)
    rows = []
    for method, found in chosen.items():
        at = {reading.requirement: reading for reading in found}
        cells = [
            MISSING
            if value not in at
            else f"{_jsd(at[value].jsd_mean, at[value].jsd_se)}, {_percent(at[value].accuracy_mean)}, "
            f"{_percent(at[value].flips_mean)}"
            for value in values
        ]
        if at:
            rows.append((method, *cells, *_last_cells(record, method)))
    labels = [f"{value:g}" for value in values]
    return TextTable(("JSD × 1000, accuracy, flips", *labels, *_last_columns(record)), tuple(rows))


def points_table(record: Record, methods: Sequence[str]) -> TextTable:
    """Every point of ``methods``: where it lies, what it keeps, and what it takes."""
    rows = [
        (
            f"{method} at {budget_label(record.requirement, point.budget)}"
            if len(record.curves[method]) > 1
            else method,
            _value(point.requirement_mean, point.requirement_se),
            _jsd(point.jsd_mean, point.jsd_se),
            _percent(point.accuracy_mean),
            _percent(point.flips_mean),
            _hypervolume(record, method),
            _milliseconds(point.ms_per_model),
        )
        for method in methods
        for point in record.curves[method]
    ]
    header = ("method", record.unit, "JSD × 1000", "accuracy", "flips", "hypervolume", "ms a model")
    return TextTable(header, tuple(rows))


def comparison_table(record: Record) -> TextTable:
    """The hypervolumes that are compared in pairs, model by model."""
    rows = [
        (method, found.against, f"{found.mean:+.4f}" + ("" if math.isnan(found.se) else f" ± {found.se:.4f}"))
        for method, found in record.comparisons.items()
    ]
    return TextTable(("hypervolume in pairs", "less that of", "mean difference"), tuple(rows))


def budget_label(requirement: str, budget: float) -> str:
    """A budget as people say it: a sparsity in per cent, any other number as it is."""
    return f"{100 * budget:g} %" if requirement == "pruning" else f"{budget:g}"


def _last_columns(record: Record) -> tuple[str, ...]:
    return ("hypervolume", "ms a model") if record.hypervolume else ("ms a model",)


def _last_cells(record: Record, method: str) -> tuple[str, ...]:
    """The hypervolume with its standard error, where the record has any, and the mean time over budgets."""
    curve = record.curves[method]
    ms = _milliseconds(sum(point.ms_per_model for point in curve) / len(curve))
    return (_hypervolume(record, method), ms) if record.hypervolume else (ms,)


def _hypervolume(record: Record, method: str) -> str:
    found = record.hypervolume.get(method)
    return MISSING if found is None else _value(found.mean, found.se)


def _of_point(point: Point) -> str:
    accuracy = "" if math.isnan(point.accuracy_mean) else f", {_percent(point.accuracy_mean)}"
    return f"{_jsd(point.jsd_mean, point.jsd_se)}{accuracy}"


def _jsd(mean: float, se: float) -> str:
    return MISSING if math.isnan(mean) else f"{1e3 * mean:.2f}" + ("" if math.isnan(se) else f" ± {1e3 * se:.2f}")


def _value(mean: float, se: float) -> str:
    return MISSING if math.isnan(mean) else f"{mean:.3f}" + ("" if math.isnan(se) else f" ± {se:.3f}")


def _percent(fraction: float) -> str:
    return MISSING if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def _milliseconds(ms: float) -> str:
    return MISSING if math.isnan(ms) else f"{ms:.1f}"
