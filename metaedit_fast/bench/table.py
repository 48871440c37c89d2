"""The result for a person to read."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = {
    "case": "case",
    "form": "form",
    "engine": "engine",
    "precision": "precision",
    "threads": "threads",
    "ms_per_model": "ms / model",
    "ratio_to_pyg": "× PyG",
    "fraction_of_bound": "of bound",
    "error": "error",
    "peak_mb": "peak MB",
    "note": "note",
}
_NUMBERS = ("threads", "ms_per_model", "ratio_to_pyg", "fraction_of_bound", "error", "peak_mb")


def cell(name: str, value: Any) -> str:
    """One value as the table shows it; empty for None."""
    if value is None:
        return ""
    if name == "error":
        return f"{value:.1e}"
    if name == "fraction_of_bound":
        return f"{value:.0%}"
    if name == "ratio_to_pyg":
        return f"{value:.1f}"
    if name == "peak_mb":
        return f"{value:.0f}"
    if name == "ms_per_model":
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)


def as_text(report: dict[str, Any], width: int = 160) -> str:
    """The machine, then a table a task, with the columns that have a value somewhere in it."""
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        for name, value in report["machine"].items():
            shown = value if not isinstance(value, dict) else ", ".join(f"{k} {_short(v)}" for k, v in value.items())
            console.print(f"{name}: {shown}", markup=False)
        for task in dict.fromkeys(row["task"] for row in report["rows"]):
            console.print(_table(task, [row for row in report["rows"] if row["task"] == task]))
    return captured.get().rstrip()


def _table(task: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=task, title_justify="left", box=box.SIMPLE_HEAD)
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    for name in shown:
        table.add_column(COLUMNS[name], justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(name, row.get(name)) for name in shown))
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
