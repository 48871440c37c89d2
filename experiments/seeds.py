"""Three editors that differ in their seed alone, trained in full.

    python experiments/editors.py train adult-pruning --seed 1
    python experiments/editors.py train adult-pruning --seed 2
    python experiments/seeds.py adult-pruning        # -> experiments/results/adult_pruning_seeds.json

Names, models and rows are those of ``experiments/editors.py`` and ``experiments/fronts.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import typer
from common import EDITORS, RESULTS, SEED, WORK, DataFolder, ResultsFolder, WorkFolder, editor_folder
from fronts import FAIRNESS_MODELS, FEATURES, MODELS, READ_AT, SPARSITIES, STRENGTHS, Bench, test_models

import metaedit_fast as mf
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.measure import Measurement

SEEDS = (SEED, 1, 2)
BUDGETS = {"pruning": SPARSITIES, "data_minimisation": FEATURES, "equalized_odds": STRENGTHS}


def main(
    name: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Measure the editors of all seeds."""
    if name not in EDITORS:
        raise typer.BadParameter(f"expected one of {', '.join(EDITORS)}, got {name!r}")
    dataset, requirement = EDITORS[name].dataset, EDITORS[name].requirement
    fair, budgets = requirement == "equalized_odds", BUDGETS[requirement]
    tested = test_models(dataset, work, models or (FAIRNESS_MODELS if fair else MODELS))
    bench = Bench(dataset, requirement, work, results, data_folder, tested, f"{requirement}_seeds")
    val, groups = bench.data.val, bench.groups
    rows = mf.Table(val.x[:PROBE_ROWS]) if groups is None else mf.Table(val.x, val.y, sensitive=groups.labels(val))
    found = []
    for seed in SEEDS:
        editor = mf.load_editor(editor_folder(work, name, seed) / "editor.onnx")
        alone = methods.editor_methods(editor, rows, steps=0)["editor"]
        bench.measure(f"editor, seed {seed}", alone, budgets, editor.describe()["weights_sha256"])
        found.append(bench.curves[f"editor, seed {seed}"])
    bench.write(
        f"python experiments/seeds.py {name}",
        models,
        at=READ_AT if fair else (),
        seeds=SEEDS,
        by_seed={"editor, mean of seeds": found},
        details={
            "title": f"Three seeds, {name}",
            "groups": bench.group_names,
            "notes": [spread(found, [bench.hypervolume(curve) for curve in found])],
        },
    )


def spread(curves: Sequence[Sequence[Measurement]], volumes: Sequence[float]) -> str:
    """The standard deviations over seeds in a sentence."""
    found = [
        (at[0].budget, float(np.std([1e3 * one.jsd.mean() for one in at], ddof=1))) for at in zip(*curves, strict=True)
    ]
    told = ", ".join(f"{deviation:.2f} at {budget:g}" for budget, deviation in found)
    return (
        f"Standard deviation over seeds of the mean JSD × 1000, by budget: {told}; of the mean hypervolume: "
        f"{np.std(volumes, ddof=1):.4f}."
    )


if __name__ == "__main__":
    typer.run(main)
