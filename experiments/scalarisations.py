"""Editors for equalised odds that differ in their scalarisation alone: sum, smooth maximum, Pareto optimal search.

    python experiments/scalarisations.py bank     # -> experiments/results/bank_scalarisations.json

Each is trained for the same number of steps on the same runs, fewer than the bundled editors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import typer
from common import RESULTS, SEED, WORK, DataFolder, ResultsFolder, WorkFolder, dataset_of, groups_of, population_of
from fronts import MODELS, STRENGTHS, Bench, test_models

import metaedit_fast as mf
from metaedit_fast.evaluation.measure import Method
from metaedit_fast.models.mlp import MLP
from metaedit_fast.training.fit import fit_editor
from metaedit_fast.training.scalarisation import SCALARISATIONS
from metaedit_fast.training.trainer import TrainerConfig

RUNS, STEPS = 600, 800


def main(
    dataset: str,
    runs: int = RUNS,
    steps: int = STEPS,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Train and measure one editor for each scalarisation."""
    data = dataset_of(dataset, data_folder)
    groups = groups_of(dataset, data)
    table = mf.Table(data.val.x, data.val.y, sensitive=groups.labels(data.val))
    chosen = test_models(dataset, work, models or MODELS)
    bench = Bench(dataset, "equalized_odds", work, results, data_folder, chosen, experiment="scalarisations")
    for name in SCALARISATIONS:
        settings = TrainerConfig(
            steps=steps, evaluate_every=max(1, steps // 8), patience=steps, seed=SEED, scalarisation=name
        )
        editor = fit_editor(
            population_of(dataset, work, runs=runs),
            data,
            requirement="equalized_odds",
            groups=groups,
            settings=settings,
            folder=work / "editors" / f"{dataset}-scalarisation-{name}",
        )
        bench.measure(f"editor, {name}", of(editor, table), STRENGTHS, editor.describe()["weights_sha256"])
    bench.write(
        f"python experiments/scalarisations.py {bench.dataset}",
        models,
        editor=editor,
        at=np.linspace(0.06, 0.01, 6).round(3).tolist(),
        details={"groups": list(groups.names), "training_runs": runs, "training_steps": steps},
    )


def of(editor: mf.Editor, table: mf.Table) -> Method:
    """``editor`` as a method."""

    def edited(mlps: Sequence[MLP], strength: float) -> list[MLP]:
        found = editor.edit_batch(mlps, strength, probe=table, num_threads=1)
        return [mlp.replace(theta) for mlp, theta in zip(mlps, found, strict=True)]

    return edited


if __name__ == "__main__":
    typer.run(main)
