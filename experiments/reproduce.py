"""Everything that docs/results.md shows, in order: populations, editors, fronts, page.

    python experiments/reproduce.py            # the committed sizes: about a day on two cores; resumable
    python experiments/reproduce.py --small    # every step at a small size, into build/small: minutes

Stops and goes on at any time; what is done already is not done again.
"""

from __future__ import annotations

import dataclasses
import itertools
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
import refinement
import report
import scalarisations
import seeds
import shift
import typer
import unseen
from common import DATASETS, EDITORS, EPOCHS, RESULTS, RUNS, WORK, DataFolder, console, editor_folder


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
    runs=256,
    epochs=15,
    editor_runs=64,
    steps=60,
    models=4,
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
    rows: dict[str, Any] = {"work": size.work, "data_folder": data_folder}
    where: dict[str, Any] = {**rows, "models": size.models, "results": size.results}
    trained: dict[str, Any] = {**rows, "runs": size.editor_runs, "steps": size.steps, "threads": jobs}
    started = time.perf_counter()

    def done(what: str) -> None:
        console.print(f"{what}: done {(time.perf_counter() - started) / 60:.1f} minutes after the start")

    for dataset in DATASETS:
        editors.population(dataset, runs=size.runs, epochs=size.epochs, jobs=jobs, **rows)
        done(f"population {dataset}")
    for name, seed in itertools.product(EDITORS, seeds.SEEDS):
        if not (editor_folder(size.work, name, seed) / "editor.onnx").exists():
            editors.train(name, seed=seed, **trained)
    done("editors")
    for dataset in DATASETS:
        for experiment in (fronts.pruning, fronts.data_minimisation, fronts.fairness, refinement.odds):
            experiment(dataset, **where)
    refinement.rounds("adult", **where)
    done("fronts")
    for name in EDITORS:
        seeds.main(name, **where)
    done("seeds")
    composition.main("adult", **where)
    unseen.main("adult", runs=size.unseen_runs, results=size.results, **rows)
    scalarisations.main(
        "bank", runs=size.editor_runs or scalarisations.RUNS, steps=size.steps or scalarisations.STEPS, **where
    )
    for shifted in (shift.pruning, shift.data_minimisation):
        shifted("adult", **where)
    for dataset in other_groups.SPLITS:
        other_groups.main(dataset, **where)
    digits.main(runs=size.editor_runs or digits.RUNS, steps=size.steps or digits.STEPS, **where)
    done("other models, rows, groups and tables")
    for name in ablations.EXPERIMENTS:
        ablations.main(name, "adult", steps=size.steps, threads=jobs, **where)
    amortisation.main(timed_runs=size.timed_runs, out=size.costs, **rows)
    if not small:
        report.write()
    done("everything")


if __name__ == "__main__":
    typer.run(main)
