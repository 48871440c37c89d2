"""Everything that docs/results.md shows, in order: populations, editors, fronts, page.

    python experiments/reproduce.py            # the committed sizes: about a day on two cores; resumable
    python experiments/reproduce.py --small    # every step at a small size, into build/small: minutes

Stops and goes on at any time; what is done already is not done again.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import ablations
import amortisation
import composition
import digits
import editors
import fronts
import other_groups
import report
import scalarisations
import shift
import typer
import unseen
from common import DATASETS, EDITORS, EPOCHS, RESULTS, RUNS, WORK, DataFolder, console


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything; None for what a recipe says."""

    work: Path
    results: Path
    runs: int
    epochs: int
    editor_runs: int | None
    steps: int | None
    models: int | None
    unseen_runs: int
    timed_runs: int
    costs: Path


FULL = Size(WORK, RESULTS, RUNS, EPOCHS, None, None, None, unseen.RUNS, amortisation.TIMED_RUNS, amortisation.COSTS)
SMALL = Size(
    WORK / "small",
    WORK / "small" / "results",
    runs=64,
    epochs=15,
    editor_runs=64,
    steps=120,
    models=8,
    unseen_runs=2,
    timed_runs=2,
    costs=WORK / "small" / "costs.json",
)


def main(
    small: Annotated[bool, typer.Option("--small", help="every step at a small size, into build/small")] = False,
    data_folder: DataFolder = None,
    jobs: int = 2,
) -> None:
    """Run every experiment."""
    size = SMALL if small else FULL
    started = time.perf_counter()
    for dataset in DATASETS:
        editors.population(
            dataset, runs=size.runs, epochs=size.epochs, jobs=jobs, work=size.work, data_folder=data_folder
        )
    for name in EDITORS:
        if not (size.work / "editors" / name / "editor.onnx").exists():
            editors.train(
                name, runs=size.editor_runs, steps=size.steps, threads=jobs, work=size.work, data_folder=data_folder
            )
    for dataset in DATASETS:
        for experiment in (fronts.pruning, fronts.data_minimisation, fronts.fairness):
            experiment(dataset, models=size.models, work=size.work, results=size.results, data_folder=data_folder)
    fronts.rounds("adult", models=size.models, work=size.work, results=size.results, data_folder=data_folder)
    where: dict[str, Any] = {"work": size.work, "results": size.results, "data_folder": data_folder}
    composition.main("adult", models=size.models, **where)
    unseen.main("adult", runs=size.unseen_runs, **where)
    scalarisations.main(
        "bank",
        runs=size.editor_runs or scalarisations.RUNS,
        steps=size.steps or scalarisations.STEPS,
        models=size.models,
        **where,
    )
    for shifted in (shift.pruning, shift.data_minimisation):
        shifted("adult", models=size.models, **where)
    for dataset in other_groups.SPLITS:
        other_groups.main(dataset, models=size.models, **where)
    digits.main(runs=size.editor_runs or digits.RUNS, steps=size.steps or digits.STEPS, models=size.models, **where)
    for name in ablations.EXPERIMENTS:
        ablations.main(name, "adult", steps=size.steps, models=size.models, threads=jobs, **where)
    amortisation.main(timed_runs=size.timed_runs, out=size.costs, work=size.work, data_folder=data_folder)
    if not small:
        report.write()
    console.print(f"done in {(time.perf_counter() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    typer.run(main)
