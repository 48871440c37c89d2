"""Several requirements at once: editors one after the other, in both orders, and three in a row.

    python experiments/composition.py adult     # -> experiments/results/adult_composition.json

Every model keeps 6 input features and meets a sparsity; the third editor then evens out the odds. Beside it the
paper's pair for this: FS & Retrain, then SNIP. What an editor removed stays removed by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import typer
from common import RESULTS, WORK, DataFolder, ResultsFolder, WorkFolder, console, groups_of
from fronts import MODELS, REFINE_STEPS, Bench, test_models

import metaedit_fast as mf
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.baselines import data_minimisation as inputs
from metaedit_fast.evaluation.measure import Method
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import DataMinimisation
from metaedit_fast.requirements.odds import equalized_odds_difference

FEATURES, SPARSITIES, STRENGTH = 6, (0.8, 0.9, 0.95), 0.1


def main(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Measure compositions of editors."""
    chosen = test_models(dataset, work, models or MODELS)
    bench = Bench(dataset, "pruning", work, results, data_folder, chosen, experiment="composition")
    data, val = bench.data, bench.data.val
    probe, rows = val.x[:PROBE_ROWS], val.x[:2048]
    groups = groups_of(dataset, data)
    table = mf.Table(val.x, val.y, sensitive=groups.labels(val))
    requirements = ("data_minimisation", "pruning", "equalized_odds")
    editors = {name: bench.editor_for(name) for name in requirements}
    version = " ".join(editor.describe()["weights_sha256"] for editor in editors.values())

    def minimised(mlps: Sequence[MLP], _: float = 0.0) -> list[MLP]:
        budget = DataMinimisation().budget_of_target(FEATURES, data.n_features)
        return methods.edits(editors["data_minimisation"], probe)(mlps, budget)

    def pruned(mlps: Sequence[MLP], sparsity: float) -> list[MLP]:
        return methods.edits(editors["pruning"], probe)(mlps, sparsity)

    def evened(mlps: Sequence[MLP], _: float = 0.0) -> list[MLP]:
        thetas = editors["equalized_odds"].edit_batch(mlps, STRENGTH, probe=table, num_threads=1)
        return [mlp.replace(theta) for mlp, theta in zip(mlps, thetas, strict=True)]

    features_first = in_turn(minimised, pruned)
    snip = methods.pruning_baselines(probe, val.y[:PROBE_ROWS])["snip"]
    retrained = inputs.retrained_selection(inputs.permutation_ranking(rows, val.y[:2048]), rows, num_threads=1)
    compositions: dict[str, Method] = {
        "editor features, editor sparsity": features_first,
        "editor sparsity, editor features": in_turn(pruned, minimised),
        "editor features, editor sparsity, refine": methods.refined(features_first, probe, steps=REFINE_STEPS),
        "editor features, editor sparsity, editor odds": in_turn(features_first, evened),
        "FS & Retrain, SNIP": in_turn(lambda mlps, _: retrained(mlps, FEATURES), snip),
    }
    for name, method in compositions.items():
        bench.measure(name, method, SPARSITIES, version)
    codes = groups.codes(data.test)
    held_out = bench.held_out.mlps
    stages = {"before": held_out, "features and sparsity 0.8": features_first(held_out, 0.8)}
    stages["and odds"] = evened(stages["features and sparsity 0.8"])
    differences = {}
    for stage, mlps in stages.items():
        counts = evaluate(mlps, data.test.x, data.test.y, codes).counts
        assert counts is not None
        differences[stage] = float(np.mean(equalized_odds_difference(counts)))
    console.print(differences)
    bench.write(
        f"python experiments/composition.py {bench.dataset}",
        models,
        details={"features": FEATURES, "strength": STRENGTH, "equalized_odds_difference": differences},
        hypervolume=False,
    )


def in_turn(first: Method, second: Method) -> Method:
    """``second`` on what ``first`` gives, both at the same budget."""

    def both(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        return list(second(list(first(mlps, budget)), budget))  # type: ignore[arg-type]

    return both


if __name__ == "__main__":
    typer.run(main)
