"""Refinement itself: in rounds, and of edits for equalised odds.

    python experiments/refinement.py rounds adult    # -> experiments/results/adult_rounds.json
    python experiments/refinement.py odds adult      # ... adult_refined_odds.json

Editors, models, rows and what is kept in ``build`` are those of ``experiments/fronts.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import typer
from common import RESULTS, WORK, DataFolder, ResultsFolder, WorkFolder
from fronts import (
    FAIRNESS_MODELS,
    MODELS,
    ODDS_STEPS,
    READ_AT,
    REFINE_STEPS,
    SPARSITIES,
    STRENGTHS,
    Bench,
    test_models,
    unedited,
)
from numpy.typing import ArrayLike

import metaedit_fast as mf
from metaedit_fast.editing.odds import PRICE_OF_STRENGTH, OddsTerm
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.measure import Measurement
from metaedit_fast.evaluation.uncertainty import estimate

ROUNDS = (2, 3, 5)
NOISES = (0.0, 1.0, 3.0, 10.0)

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def rounds(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Refinement in rounds beside refinement in one go, on the usual rows and on four times as many."""
    bench = Bench(
        dataset, "pruning", work, results, data_folder, test_models(dataset, work, models or MODELS), "rounds"
    )
    editor, x = bench.editor, bench.data.val.x
    version = editor.describe()["weights_sha256"]
    families: dict[str, list[str]] = {}
    notes: list[str] = []
    for n_rows in (PROBE_ROWS, 4 * PROBE_ROWS):
        probe, among = x[:n_rows], f"{n_rows} rows"
        trials = {f"editor, {among}": methods.edits(editor, probe)}
        trials |= {
            f"editor+refine, {steps} steps, {among}": methods.in_rounds(editor, probe, 1, steps=steps)
            for steps in (REFINE_STEPS, 2 * REFINE_STEPS)
        }
        trials |= {
            f"editor+refine, {n} rounds, {among}": methods.in_rounds(editor, probe, n, steps=REFINE_STEPS)
            for n in ROUNDS
        }
        for name, method in trials.items():
            bench.measure(name, method, SPARSITIES, version)
        families |= {f"one round, {among}": list(trials)[:3], f"rounds, {among}": list(trials)[3:]}
        _, once, _, *several = (bench.curves[name] for name in trials)
        notes += [f"On {among}: {_less(n, curve, once)}." for n, curve in zip(ROUNDS, several, strict=True)]
    bench.write(
        f"python experiments/refinement.py rounds {bench.dataset}",
        models,
        families=families,
        details={"title": f"Refinement in rounds, {dataset.capitalize()}", "notes": notes},
    )


def _less(n: int, curve: Sequence[Measurement], once: Sequence[Measurement]) -> str:
    """How much ``n`` rounds are better than one, model by model."""
    found = [estimate(b.jsd - a.jsd, a.runs.tolist()) for a, b in zip(curve, once, strict=True)]
    told = ", ".join(
        f"{1e3 * e.mean:.2f} ± {1e3 * e.se:.2f} at {100 * m.budget:g} %" for e, m in zip(found, curve, strict=True)
    )
    return f"{n} rounds have less JSD × 1000 than one with {REFINE_STEPS} steps, model by model, by {told}"


@app.command()
def odds(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Refinement of edits for equalised odds, by how much the sampling error of rates counts and for how many steps."""
    tested = test_models(dataset, work, models or FAIRNESS_MODELS)
    bench = Bench(dataset, "equalized_odds", work, results, data_folder, tested, "refined_odds")
    groups, val = bench.groups, bench.data.val
    assert groups is not None
    table = mf.Table(val.x, val.y, sensitive=groups.labels(val))
    version, edited = bench.editor.describe()["weights_sha256"], methods.edits(bench.editor, table)

    def measure(name: str, start: methods.ModelsMethod, steps: int, version: str = "") -> None:
        for noise in NOISES:
            term = functools.partial(weighed, noise)
            method = methods.refined_odds(start, table, steps=steps, term=term)
            bench.measure(f"{name}, {steps} steps, noise {noise:g}", method, STRENGTHS, version)

    bench.measure("editor", edited, STRENGTHS, version)
    measure("editor+refine", edited, ODDS_STEPS, version)
    measure("editor+refine", edited, REFINE_STEPS, version)
    measure("refine", unedited, ODDS_STEPS)
    bench.write(
        f"python experiments/refinement.py odds {bench.dataset}",
        models,
        at=READ_AT,
        details={"title": f"Refinement for equalised odds, {dataset.capitalize()}", "groups": bench.group_names},
    )


def weighed(noise: float, labels: ArrayLike, groups: ArrayLike, strength: float) -> OddsTerm:
    """What an edit at a strength is refined with, but for the noise."""
    return OddsTerm(labels, groups, strength=PRICE_OF_STRENGTH * strength, noise=noise)


if __name__ == "__main__":
    app()
