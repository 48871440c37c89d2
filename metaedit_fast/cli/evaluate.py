"""``metaedit evaluate``: an editor's front and table on a user's own models and rows."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaedit_fast.cli.console import REFUSED, give, reports_errors, say

if TYPE_CHECKING:
    from metaedit_fast.data import Table
    from metaedit_fast.evaluation.measure import Measurement
    from metaedit_fast.evaluation.record import Record
    from metaedit_fast.evaluation.tables import TextTable
    from metaedit_fast.models.mlp import MLP

RESULT, TABLE, FIGURE = "result.json", "table.md", "front.svg"


@reports_errors
def evaluate(
    models: Annotated[list[str], typer.Argument(help="A population folder, or .onnx files and patterns.")],
    editor: Annotated[str, typer.Option(help="A bundled editor's name or an editor's file; see 'metaedit info'.")],
    out: Annotated[Path, typer.Option(help=f"Folder for {RESULT}, {TABLE} and {FIGURE}.")],
    dataset: Annotated[str | None, typer.Option(help="adult, bank or bank-full: test rows are measured on.")] = None,
    data_folder: Annotated[Path | None, typer.Option(help="Folder with the dataset's file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Rows as .csv, .parquet or .npz, instead.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the data that holds the class index.")] = None,
    sensitive: Annotated[str | None, typer.Option(help="Column of groups; of a dataset, such as sex,race.")] = None,
    split: Annotated[str, typer.Option(help="Models of a population: test, val, train or all.")] = "test",
    budgets: Annotated[
        str | None, typer.Option(help="Budgets with commas, such as 0.5,0.9; by default a grid of the trained range.")
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Measure the usual other methods too.")] = False,
    refine: Annotated[int, typer.Option(min=0, help="Measure the editor with so many steps of refinement too.")] = 0,
    probe_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows that methods see; others are measured on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of these rows and of random methods.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former evaluation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure an editor on models: JSD, accuracy, requirement and time at each budget. Needs the extra 'report'.

    Exit codes: 0 all models were measured; 1 the editor refused some; 2 a wrong argument or unreadable input.
    """
    from metaedit_fast.editing.editor import load_editor
    from metaedit_fast.editing.plan import default_probe_rows
    from metaedit_fast.evaluation.extras import require_report_extra
    from metaedit_fast.evaluation.of_editor import Subject, evaluate_editor

    require_report_extra()  # better known before the work than after it
    _require_free(out, overwrite=overwrite)
    loaded = load_editor(editor)
    mlps, names, runs = _models(models, split)
    n_probe = probe_rows or default_probe_rows(loaded)
    probe, measured, held_out = _tables(dataset, data_folder, data, label, sensitive, n_probe, seed)
    record, refused = evaluate_editor(
        loaded,
        Subject(mlps, names, runs, probe, measured),
        name=f"evaluation of {loaded.info.name}",
        dataset=dataset or str(data),
        command=f"metaedit {shlex.join(sys.argv[1:])}",
        budgets=None if budgets is None else _numbers(budgets),
        baselines=baselines,
        refine=refine,
        seed=seed,
        report=_told if sys.stderr.isatty() and not as_json else None,
    )
    _write(record, out)
    if not held_out:
        say("note: too few rows to hold some out; methods saw rows that are measured on")
    for name, reason in list(refused.items())[:20]:
        say(f"refused: {name}: {reason}")
    give({"out": str(out), **json.loads(record.to_json())}, _text(record, out), as_json=as_json)
    if refused:
        raise typer.Exit(REFUSED)


def _told(found: Measurement) -> None:
    say(repr(found))


def _require_free(out: Path, *, overwrite: bool) -> None:
    from metaedit_fast.evaluation.record import read_record

    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out: expected a folder, got the file {str(out)!r}")
    for name in (RESULT, TABLE, FIGURE):
        if (out / name).exists() and not overwrite:
            raise FileExistsError(f"--out: {out / name} exists; --overwrite replaces it")
    if (out / RESULT).exists():
        try:
            read_record(out / RESULT)
        except ValueError as error:
            raise FileExistsError(f"--out: {out / RESULT} is no evaluation and is not replaced ({error})") from error


def _models(arguments: list[str], split: str) -> tuple[list[MLP], list[str], list[int]]:
    """The models, their names, and the training run of each; files are runs of their own."""
    from metaedit_fast.cli.edit import find_models
    from metaedit_fast.editing.sources import sources_of
    from metaedit_fast.population.sampling import SPLITS
    from metaedit_fast.population.store import Population

    if split not in (*SPLITS, "all"):
        raise ValueError(f"--split: expected one of {(*SPLITS, 'all')}, got {split!r}")
    found = find_models(arguments)
    if isinstance(found, Population):
        chosen = found.select(split=None if split == "all" else split)
        if not len(chosen):
            raise ValueError(f"--split: this population has no models of {split!r}; 'all' takes every one")
        return chosen.mlps, [source.name for source in sources_of(chosen)], [record.run for record in chosen]
    sources = list(sources_of(found))
    return [source.open().mlp for source in sources], [s.name for s in sources], [s.index for s in sources]


def _tables(
    dataset: str | None,
    folder: Path | None,
    data: Path | None,
    label: str | None,
    sensitive: str | None,
    probe_rows: int,
    seed: int,
) -> tuple[Table, Table, bool]:
    """Rows that methods see, rows that are measured on, and whether these are others."""
    from metaedit_fast.data import Table, read_table
    from metaedit_fast.datasets import load_dataset, rows_groups
    from metaedit_fast.editing.plan import split_rows

    if (dataset is None) == (data is None):
        raise ValueError("--dataset, --data: expected exactly one of them")
    if dataset is None:
        assert data is not None
        return split_rows(read_table(data, label=label, sensitive=sensitive), probe_rows, seed)
    if label is not None:
        raise ValueError("--label: it names a column of --data, which is missing")
    loaded = load_dataset(dataset, folder=folder)
    groups = None if sensitive is None else rows_groups(loaded, sensitive.split(","))
    val, test = (
        Table(rows.x, rows.y, sensitive=None if groups is None else groups.labels(rows))
        for rows in (loaded.val, loaded.test)
    )
    return split_rows(val, probe_rows, seed)[0], test, True


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--budgets: expected numbers with commas between them, got {text!r}") from None


def _write(record: Record, out: Path) -> None:
    from metaedit_fast.atomic import write_atomically
    from metaedit_fast.evaluation.figures import draw_front
    from metaedit_fast.evaluation.record import write_record

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / TABLE, (_table(record).markdown() + "\n").encode())
    draw_front(record, out / FIGURE)
    write_record(record, out / RESULT)


def _table(record: Record) -> TextTable:
    """By budget where budgets are met exactly; otherwise every point with what it reached."""
    from metaedit_fast.evaluation.tables import budget_table, points_table
    from metaedit_fast.requirements import get_requirement

    needs_labels = get_requirement(record.requirement).needs_labels
    return points_table(record, list(record.curves)) if needs_labels else budget_table(record)


def _text(record: Record, out: Path) -> str:
    """The table for a terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = _table(record).rich(title=f"{record.models} models, {record.rows} rows of {record.dataset}")
    with console.capture() as capture:
        console.print(table)
    return f"{capture.get()}\nwritten to {out}: {RESULT}, {TABLE}, {FIGURE}"
