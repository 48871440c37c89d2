"""``metaedit compact``: models from files in, smaller ones with the same predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaedit_fast.cli.console import REFUSED, give, reports_errors
from metaedit_fast.cli.edit import find_models


@reports_errors
def compact(
    models: Annotated[
        list[str], typer.Argument(help=".onnx files, patterns ('models/*.onnx'), or a population folder.")
    ],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the smaller models and result.json.")],
    drop_inputs: Annotated[
        bool, typer.Option("--drop-inputs", help="Let the models take only the inputs that have an effect.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former result in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Take out of models the neurons that have no effect. Predictions stay, and so do the given files.

    Exit codes: 0 all models were read; 1 some were refused; 2 a wrong argument or unreadable input.
    """
    from metaedit_fast.editing import compact as compacting
    from metaedit_fast.editing.saving import require_replaceable

    require_replaceable(out, overwrite=overwrite)  # better known before the work than after it
    result = compacting.compact(find_models(models), drop_inputs=drop_inputs)
    folder = result.save(out, overwrite=overwrite)
    give({"out": str(folder), **result.to_dict()}, f"{result.report()}\n\nwritten to {folder}", as_json=as_json)
    if result.status_counts["refused"]:
        raise typer.Exit(REFUSED)
