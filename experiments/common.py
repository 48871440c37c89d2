"""What the experiments share: datasets with their groups, populations, editors, and where they lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from digits_table import digits
from rich.console import Console

import metaedit_fast as mf
from metaedit_fast.datasets import Dataset, RowGroups, rows_groups
from metaedit_fast.editing.bundled import IN_DISTRIBUTION
from metaedit_fast.population import Population

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
RUNS, EPOCHS, SEED = 4000, 60, 0
DATASETS = ("adult", "bank")

DataFolder = Annotated[Path | None, typer.Option(help="folder with the dataset's table")]
WorkFolder = Annotated[Path, typer.Option(help="where populations, checkpoints and measurements are kept")]
ResultsFolder = Annotated[Path, typer.Option(help="where the records are written")]
WORK = ROOT / "build"

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an editor is trained: for what, on the models of the first ``runs`` training runs, for how many steps."""

    dataset: str
    requirement: str
    runs: int
    steps: int
    probe: bool = True

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.requirement.replace('_', '-')}"


# The teacher of data minimisation takes its time for every model, so fewer models are shown to it.
EDITORS = {
    recipe.name: recipe
    for recipe in (
        Recipe("adult", "pruning", RUNS, 8000),
        Recipe("bank", "pruning", RUNS, 4000),
        *(Recipe(dataset, "data_minimisation", 1000, 3000) for dataset in DATASETS),
        *(Recipe(dataset, "equalized_odds", 1500, 4000) for dataset in DATASETS),
    )
}


def bundled_place(name: str) -> Path:
    """Where the editor ``name`` lies in the checkout: in the package, or in the distribution of data beside it."""
    if name in IN_DISTRIBUTION:
        return ROOT / "packages" / "editors" / "metaedit_fast_editors" / f"{name}.onnx"
    return ROOT / "metaedit_fast" / "editors" / f"{name}.onnx"


def editor_folder(work: Path, name: str, seed: int = SEED) -> Path:
    """Where the editor of a recipe is trained; other seeds have a folder of their own."""
    return work / "editors" / (name if seed == SEED else f"{name}-seed{seed}")


def dataset_of(name: str, folder: Path | None) -> Dataset:
    if name == "digits":
        return digits()
    return mf.load_dataset(name, folder=folder)


def groups_of(name: str, data: Dataset) -> RowGroups:
    """The groups of the experiments on fairness: sex in Adult; in Bank, which has fewer rows, married or not."""
    return rows_groups(data, ("sex",)) if name == "adult" else rows_groups(data, ("marital",), min_rows=60)


def population_of(name: str, work: Path, *, runs: int = RUNS) -> Population:
    """The models of the first ``runs`` runs of a dataset's population, as many of them as there are."""
    whole = Population.load(work / "populations" / name, partial=True)
    return Population([record for record in whole if record.run < runs], dataset=whole.dataset, info=whole.info)
