"""``metaedit population``: train a population of MLPs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaedit_fast.cli.console import give, reports_errors, shows_progress


@reports_errors
def population(
    dataset: Annotated[str, typer.Option(help="adult, bank or bank-full.")],
    out: Annotated[Path, typer.Option(help="Folder of the population; an unfinished one is continued.")],
    runs: Annotated[int, typer.Option(min=1, help="Training runs; each gives three checkpoints.")] = 100,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each run.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of architectures and training.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Threads, each of which trains runs of its own.")] = 1,
    data_folder: Annotated[Path | None, typer.Option(help="Folder with the dataset's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as one JSON object.")] = False,
) -> None:
    """Train a population of MLPs with many architectures."""
    from metaedit_fast.datasets import load_dataset
    from metaedit_fast.population.build import build_population

    data = load_dataset(dataset, folder=data_folder)
    built = build_population(
        data, runs, seed=seed, out_dir=out, epochs=epochs, jobs=jobs, progress=shows_progress(as_json=as_json)
    )
    summary = {
        "out": str(out),
        "dataset": data.name,
        "models": len(built),
        "runs": runs,
        "finite": sum(record.finite for record in built),
        "content_hash": built.content_hash(),
    }
    text = f"{summary['models']} models of {runs} runs on {data.name}, {summary['finite']} finite, written to {out}"
    give(summary, text, as_json=as_json)
