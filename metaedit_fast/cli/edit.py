"""``metaedit edit``: models from files in, edited models and a report out."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaedit_fast.cli.console import REFUSED, give, reports_errors, shows_progress

if TYPE_CHECKING:
    from metaedit_fast.population.store import Population, StoredPopulation


@reports_errors
def edit(
    models: Annotated[
        list[str],
        typer.Argument(
            help=".onnx and .safetensors files, folders with config.json and model.safetensors, patterns "
            "('models/*.onnx'), or a population folder."
        ),
    ],
    editor: Annotated[str, typer.Option(help="A bundled editor's name or an editor's file; see 'metaedit info'.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the edited models and result.json.")],
    sparsity: Annotated[float | None, typer.Option(help="Pruning: fraction of the weights to remove, 0 to 1.")] = None,
    features: Annotated[int | None, typer.Option(help="Data minimisation: input features to keep.")] = None,
    odds: Annotated[
        float | None, typer.Option(help="Equalised odds: the largest difference between groups to allow, 0 to 1.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Instead: how much to edit, in the editor's own unit.")] = None,
    data: Annotated[Path | None, typer.Option(help="Rows as .csv, .parquet or .npz, in the models' own form.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the data that holds the class index.")] = None,
    sensitive: Annotated[str | None, typer.Option(help="Column of the data that holds the group.")] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Pruning: remove the weights in so many rounds, with refinement in between.")
    ] = 1,
    refine: Annotated[
        int, typer.Option(min=0, help="Steps of refinement per model, on --data or the rows that the editor carries.")
    ] = 0,
    probe_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows drawn for the probe; metrics take the others.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Models edited at a time.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former result in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Edit models so that they meet a requirement. The given files are not changed.

    Exit codes: 0 all models were edited; 1 some were refused; 2 a wrong argument or unreadable input.
    """
    from metaedit_fast.data import read_table
    from metaedit_fast.editing.edit_folder import edit_into

    for name, column in (("--label", label), ("--sensitive", sensitive)):
        if column is not None and data is None:
            raise ValueError(f"{name}: it names a column of --data, which is missing")
    asked = {"sparsity": sparsity, "features": features, "equalized_odds_difference": odds}
    target = {name: float(value) for name, value in asked.items() if value is not None}
    if len(target) + (strength is not None) != 1:
        raise ValueError("exactly one of --sparsity, --features, --odds and --strength is needed")
    result = edit_into(
        out,
        find_sources(models),
        editor,
        overwrite=overwrite,
        target=target or None,
        strength=strength,
        data=None if data is None else read_table(data, label=label, sensitive=sensitive),
        rounds=rounds,
        refine=refine,
        probe_rows=probe_rows,
        num_threads=threads,
        seed=seed,
        progress=shows_progress(as_json=as_json),
    )
    give({"out": str(out), **result.to_dict()}, f"{result.report()}\n\nwritten to {out}", as_json=as_json)
    if result.status_counts["refused"]:
        raise typer.Exit(REFUSED)


def find_models(arguments: list[str]) -> list[Path] | Population:
    """The files and folders of models, or the population, that arguments name; raises what ``find_sources`` does."""
    from metaedit_fast.population.store import Population, StoredPopulation

    found = find_sources(arguments)
    return Population.load(found.folder) if isinstance(found, StoredPopulation) else found


def find_sources(arguments: list[str]) -> list[Path] | StoredPopulation:
    """The files and folders of models, or the population, that the arguments name, none of it read.

    A folder with a ``config.json`` is a model. Raises ``ValueError`` for a pattern without a match, and a population
    beside anything else; ``FileNotFoundError`` for what does not exist.
    """
    from metaedit_fast.population.store import StoredPopulation

    models = {argument for argument in arguments if (Path(argument) / "config.json").is_file()}
    folders = [argument for argument in arguments if Path(argument).is_dir() and argument not in models]
    if folders:
        if len(arguments) > 1:
            raise ValueError(f"models: a population folder is given alone, got {folders[0]!r} and others")
        return StoredPopulation(folders[0])
    found: list[Path] = []
    for argument in arguments:
        if Path(argument).is_file() or argument in models:
            found.append(Path(argument))
        elif glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute patterns too)
            if not matches:
                raise ValueError(f"models: no file matches {argument!r}")
            found += map(Path, matches)
        else:
            raise FileNotFoundError(f"models: there is no file {argument!r}")
    return found
