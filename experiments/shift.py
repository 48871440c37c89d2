"""Rows of other people than those an editor was trained with: what a probe of the young is worth, and for whom.

    python experiments/shift.py pruning adult     # -> experiments/results/adult_shift_pruning_{young,older}.json
    python experiments/shift.py data-minimisation adult      # ... adult_shift_data_minimisation_{young,older}.json

Models and editors know people of all ages. Every method is given validation rows once of all ages, which is what the
editors carry, and once of people under 30 alone; each is measured on test rows of people under 30, as for a user who
has no others, and on those of all the older, whom the rows of the young do not show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import typer
from common import RESULTS, WORK, DataFolder, ResultsFolder, WorkFolder, dataset_of
from fronts import REFINE_STEPS, SPARSITIES, Bench, of_features, test_models

import metaedit_fast as mf
from metaedit_fast.datasets import Rows
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.baselines import data_minimisation as inputs
from metaedit_fast.evaluation.baselines.optimisation import optimised_pruning
from metaedit_fast.evaluation.measure import Method

AGE, ADAM_STEPS = 30, 100
# Rankings of inputs take a tenth of a second for every model and budget.
MODELS, RANKED_MODELS, FEATURES = 48, 24, (1, 3, 6, 10)
SEEN = ("all ages", "the young")

app = typer.Typer(add_completion=False, help=__doc__)
MethodsOf = Callable[[mf.Editor, Rows], Mapping[str, Method]]


@app.command()
def pruning(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """JSD at exact sparsities."""

    def methods_of(editor: mf.Editor, rows: Rows) -> Mapping[str, Method]:
        probe, labels = rows.x[:PROBE_ROWS], rows.y[:PROBE_ROWS]
        snip = methods.pruning_baselines(probe, labels)["snip"]
        return {
            **methods.editor_methods(editor, probe, steps=REFINE_STEPS),
            "snip": snip,
            "snip+refine": methods.refined(snip, probe, steps=REFINE_STEPS),  # type: ignore[arg-type]
            f"adam, mask too, {ADAM_STEPS}": optimised_pruning(
                probe, labels, steps=ADAM_STEPS, learn_mask=True, num_threads=1
            ),
        }

    measure("pruning", dataset, models, MODELS, SPARSITIES, methods_of, work, results, data_folder)


@app.command(name="data-minimisation")
def data_minimisation(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """JSD at exact numbers of features."""

    def methods_of(editor: mf.Editor, rows: Rows) -> Mapping[str, Method]:
        # As in fronts.py, what ranks or refines sees more rows than the editor does; there are fewer of the young.
        x, y = rows.x[:2048], rows.y[:2048]
        alone = methods.editor_methods(editor, rows.x[:PROBE_ROWS], steps=0)["editor"]
        pfi = inputs.permutation_ranking(x, y)
        return {
            "editor": alone,
            "editor+refine": methods.refined(alone, x, steps=REFINE_STEPS),  # type: ignore[arg-type]
            "pfi, zeroed": of_features(inputs.feature_selection(pfi)),
            "pfi, refined": of_features(inputs.refined_selection(pfi, x, steps=REFINE_STEPS, num_threads=1)),
        }

    measure("data_minimisation", dataset, models, RANKED_MODELS, FEATURES, methods_of, work, results, data_folder)


def measure(
    requirement: str,
    dataset: str,
    models: int | None,
    default_models: int,
    budgets: Sequence[float],
    methods_of: MethodsOf,
    work: Path,
    results: Path,
    data_folder: Path | None,
) -> None:
    """Measure what ``methods_of`` an editor and rows gives, with rows of all ages and of the young."""
    data = dataset_of(dataset, data_folder)
    chosen = test_models(dataset, work, models or default_models)
    is_young = data.test.sensitive["age"] < AGE
    seen = dict(zip(SEEN, (data.val, part(data.val, data.val.sensitive["age"] < AGE)), strict=True))
    for name, people, rows in (
        ("young", f"under {AGE}", part(data.test, is_young)),
        ("older", f"of {AGE} and older", part(data.test, ~is_young)),
    ):
        experiment = f"shift_{requirement}_{name}"
        bench = Bench(dataset, requirement, work, results, data_folder, chosen, experiment, measured=rows)
        version = bench.editor.describe()["weights_sha256"]
        for shown, given in seen.items():
            for method, one in methods_of(bench.editor, given).items():
                bench.measure(f"{method}; {shown}", one, budgets, version)
        bench.write(
            f"python experiments/shift.py {requirement.replace('_', '-')} {bench.dataset}",
            models,
            against={f"{method}; {SEEN[1]}": f"{method}; {SEEN[0]}" for method in methods_of(bench.editor, data.val)},
            details={
                "notes": [f"The rows measured are those of people {people}."],
                "rows_seen": {shown: len(given) for shown, given in seen.items()},
            },
        )


def part(rows: Rows, chosen: np.ndarray) -> Rows:
    """The rows where ``chosen [rows]`` holds."""
    sensitive = {name: codes[chosen] for name, codes in rows.sensitive.items()}
    return Rows(rows.x[chosen], rows.y[chosen], rows.index[chosen], sensitive)


if __name__ == "__main__":
    app()
