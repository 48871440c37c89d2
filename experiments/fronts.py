"""Fronts of editors and everything they are compared with, on held-out models and rows.

    python experiments/fronts.py pruning adult              # -> experiments/results/adult_pruning.json
    python experiments/fronts.py data-minimisation adult    # ... adult_data_minimisation.json
    python experiments/fronts.py fairness adult             # ... adult_equalized_odds.json

The datasets are adult and bank. Editors are those of ``experiments/editors.py``. All methods see rows of the dataset's
validation split; models are of population-test, rows of the test split. Measurements are kept in
``build/measured``, so that what was stopped goes on. Needs the extras ``train``, ``baselines`` and ``report``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from common import (
    RESULTS,
    WORK,
    DataFolder,
    ResultsFolder,
    WorkFolder,
    console,
    dataset_of,
    editor_folder,
    groups_of,
    population_of,
)

import metaedit_fast as mf
from metaedit_fast.datasets import RowGroups, Rows
from metaedit_fast.editing.batch import edit_models
from metaedit_fast.editing.odds import OddsTerm
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.baselines import data_minimisation as inputs
from metaedit_fast.evaluation.baselines.fair_optimisation import optimised_fairness
from metaedit_fast.evaluation.baselines.fairness import POST_PROCESSORS, fairness_methods
from metaedit_fast.evaluation.baselines.optimisation import optimised_pruning
from metaedit_fast.evaluation.baselines.rates import RATES
from metaedit_fast.evaluation.measure import HeldOut, Measurement, Method
from metaedit_fast.evaluation.pareto import hypervolumes
from metaedit_fast.evaluation.quantities import quantity_of
from metaedit_fast.evaluation.record import write_record
from metaedit_fast.evaluation.summary import summarise
from metaedit_fast.evaluation.uncertainty import estimate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population import Population

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
FEATURES = (1, 2, 3, 4, 6, 8, 10, 12)
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 3.0)
LIMITS = (0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.0)
READ_AT = (0.08, 0.06, 0.05, 0.04, 0.03)
REFINE_STEPS = 30
ADAM_STEPS, MASK_STEPS = (10, 30, 100, 300, 1000), (10, 30, 100, 300)
# For equalised odds: steps of refinement at a strength, of Adam, and of Adam on the last layer.
ODDS_STEPS, ODDS_ADAM_STEPS, LAST_LAYER_STEPS = 10, (100, 300, 1000), (100, 300)
# Lottery tickets take as long as 300 steps of Adam, and are shown once.
LOTTERY = ("adult",)
# Per-model optimisation for fairness takes seconds a model.
MODELS, FAIRNESS_MODELS = 100, 48

app = typer.Typer(add_completion=False, help=__doc__)
Curves = dict[str, list[Measurement]]


class Bench:
    """One experiment: the models and rows held out, and what was measured so far."""

    def __init__(
        self,
        dataset: str,
        requirement: str,
        work: Path,
        results: Path,
        data_folder: Path | None,
        models: Population,
        experiment: str | None = None,
        groups: RowGroups | None = None,
        measured: Rows | None = None,
    ) -> None:
        """``groups`` are by default those of ``common.groups_of``, the rows ``measured`` the dataset's test rows."""
        self.dataset, self.requirement, self.work, self.results = dataset, requirement, work, results
        self.name = f"{dataset}_{experiment or requirement}"
        self.data = dataset_of(dataset, data_folder)
        if groups is None and requirement == "equalized_odds":
            groups = groups_of(dataset, self.data)
        self.groups = groups
        rows = self.data.test if measured is None else measured
        self.held_out = HeldOut(
            models.mlps,
            [record.run for record in models],
            rows.x,
            rows.y,
            groups.codes(rows) if groups else None,
            quantity=quantity_of(requirement, self.data.n_features),
            keep=work / "measured" / self.name,
        )
        self.curves: Curves = {}

    def editor_for(self, requirement: str) -> mf.Editor:
        """The editor for this dataset and a requirement."""
        name = f"{self.dataset}_{requirement}".replace("_", "-")
        return mf.load_editor(editor_folder(self.work, name) / "editor.onnx")

    @property
    def editor(self) -> mf.Editor:
        """The editor for the requirement that is measured."""
        return self.editor_for(self.requirement)

    @property
    def group_names(self) -> list[str]:
        """The groups that equalised odds are measured by."""
        return list(self.groups.names) if self.groups else []

    def measure(self, name: str, method: Method, budgets: Sequence[float], version: str = "") -> None:
        """Add a curve."""
        self.curves[name] = self.held_out.measure(name, method, budgets, version=version, report=console.print)

    def hypervolume(self, curve: Sequence[Measurement]) -> float:
        """The mean over models of a curve's hypervolume, as records have it."""
        return float(hypervolumes(curve, self.held_out.quantity, before=self.held_out.before).mean())

    def write(self, command: str, models: int | None, *, editor: mf.Editor | None = None, **options: Any) -> None:
        """Write the record of ``command``; ``models`` is what it was given, ``editor`` another one than the usual."""
        editor = editor or self.editor
        record = summarise(
            self.name,
            self.dataset,
            self.held_out,
            self.curves,
            command=command + ("" if models is None else f" --models {models}"),
            details={"editor": editor.describe(), **options.pop("details", {})},
            **options,
        )
        self.results.mkdir(parents=True, exist_ok=True)
        path = self.results / f"{self.name}.json"
        write_record(record, path)
        console.print(f"wrote {path}")


def test_models(dataset: str, work: Path, count: int) -> Population:
    """At most ``count`` models of population-test, evenly spread."""
    test = population_of(dataset, work).select(split="test")
    chosen = np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int)
    return Population([test[i] for i in chosen], dataset=test.dataset, info=test.info)


@app.command()
def pruning(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """JSD at exact sparsities."""
    bench = Bench(dataset, "pruning", work, results, data_folder, test_models(dataset, work, models or MODELS))
    editor, val = bench.editor, bench.data.val
    probe, labels = val.x[:PROBE_ROWS], val.y[:PROBE_ROWS]
    version = editor.describe()["weights_sha256"]
    for name, method in methods.editor_methods(editor, probe, steps=REFINE_STEPS).items():
        bench.measure(name, method, SPARSITIES, version)
    baselines = methods.pruning_baselines(probe, labels, lottery=dataset in LOTTERY)
    for name, method in baselines.items():
        bench.measure(name, method, SPARSITIES)
    bench.measure("snip+refine", methods.refined(baselines["snip"], probe, steps=REFINE_STEPS), SPARSITIES)  # type: ignore[arg-type]
    families = {"editor": ["editor", "editor+refine"]}
    for family, learns, counts in (("adam", False, ADAM_STEPS), ("adam, mask too", True, MASK_STEPS)):
        families[family] = [f"{family}, {steps}" for steps in counts]
        for name, steps in zip(families[family], counts, strict=True):
            method = optimised_pruning(probe, labels, steps=steps, learn_mask=learns, num_threads=1)
            tuned = RATES["pruning-mask" if learns else "pruning"][steps]
            bench.measure(name, method, SPARSITIES, version=str(tuned))
    bench.write(f"python experiments/fronts.py pruning {bench.dataset}", models, families=families)


@app.command(name="data-minimisation")
def data_minimisation(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """JSD at exact numbers of features."""
    bench = Bench(
        dataset, "data_minimisation", work, results, data_folder, test_models(dataset, work, models or MODELS)
    )
    editor, val = bench.editor, bench.data.val
    probe, n_inputs = val.x[:PROBE_ROWS], bench.data.n_features
    # What ranks, refines or retrains sees more rows than the editor does; fewer would make it worse.
    rows, labels = val.x, val.y
    version = editor.describe()["weights_sha256"]
    edits = methods.edits(editor, probe)

    def edited(mlps: Sequence[MLP], features: float) -> list[MLP]:
        return edits(mlps, 1.0 - features / n_inputs)

    bench.measure("editor", edited, FEATURES, version)
    bench.measure("editor+refine", methods.refined(edited, rows, steps=REFINE_STEPS), FEATURES, version)
    rankings = {
        "pfi": inputs.permutation_ranking(rows, labels),
        "greedy": inputs.greedy_ranking(rows, num_threads=1),
        "random": inputs.random_ranking(),
    }
    for name, ranking in rankings.items():
        bench.measure(f"{name}, zeroed", of_features(inputs.feature_selection(ranking)), FEATURES)
    for name in ("pfi", "greedy"):
        refined = inputs.refined_selection(rankings[name], rows, steps=REFINE_STEPS, num_threads=1)
        bench.measure(f"{name}, refined", of_features(refined), FEATURES)
        retrained = inputs.retrained_selection(rankings[name], rows, num_threads=1)
        bench.measure(f"{name}, retrained", of_features(retrained), FEATURES, version=str(RATES["retraining"]))
    others = {name: curve for name, curve in bench.curves.items() if name.endswith(("zeroed", "retrained"))}
    bench.write(
        f"python experiments/fronts.py data-minimisation {bench.dataset}",
        models,
        details={"notes": [against_best(name, bench.curves[name], others) for name in ("editor", "editor+refine")]},
    )


def against_best(name: str, curve: Sequence[Measurement], others: Curves) -> str:
    """The JSD of a method less that of the best of the others at each budget, model by model, in a sentence."""
    said = []
    for i, own in enumerate(curve):
        best = min(others.values(), key=lambda other: float(other[i].jsd.mean()))[i]
        difference = estimate(1e3 * (own.jsd - best.jsd), own.runs.tolist())
        said.append(f"{difference.mean:+.2f} ± {difference.se:.2f} at {own.budget:g} ({best.method})")
    return f"JSD × 1000 of {name} less that of the best that is no editor, model by model: {'; '.join(said)}."


def of_features(method: Callable[[Sequence[MLP], int], list[MLP]]) -> Method:
    return lambda mlps, features: method(mlps, int(features))


@app.command()
def fairness(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """JSD against the equalised-odds difference that is reached."""
    bench = Bench(
        dataset, "equalized_odds", work, results, data_folder, test_models(dataset, work, models or FAIRNESS_MODELS)
    )
    measure_fairness(bench)
    bench.write(
        f"python experiments/fronts.py fairness {bench.dataset}",
        models,
        at=READ_AT,
        details={"groups": bench.group_names},
    )


def measure_fairness(
    bench: Bench,
    *,
    adam: Sequence[int] = ODDS_ADAM_STEPS,
    last_layer: Sequence[int] = LAST_LAYER_STEPS,
    post: Collection[str] = tuple(POST_PROCESSORS),
) -> None:
    """Add the curves of the editor for equalised odds and of what it is compared with: refinement of the original
    models, so many steps of Adam on all parameters and on the last layer, post-processors.
    """
    editor, data, groups = bench.editor, bench.data, bench.groups
    assert groups is not None
    codes, test_codes = groups.codes(data.val), groups.codes(data.test)
    table = mf.Table(data.val.x, data.val.y, sensitive=groups.labels(data.val))
    version = editor.describe()["weights_sha256"]
    edited = methods.edits(editor, table)

    def limited(mlps: Sequence[MLP], limit: float) -> list[MLP]:
        found = edit_models(editor, mlps, 1.0, limit=limit, probe=table, num_threads=1)
        return [mlp.replace(theta) for mlp, theta in zip(mlps, found.thetas, strict=True)]

    def held_to_a_limit(start: methods.ModelsMethod) -> Method:
        return methods.refined_odds(
            start, table, steps=REFINE_STEPS, term=lambda y, groups, limit: OddsTerm(y, groups, limit=limit)
        )

    bench.measure("editor", edited, STRENGTHS, version)
    bench.measure("editor+refine", methods.refined_odds(edited, table, steps=ODDS_STEPS), STRENGTHS, version)
    bench.measure("refine", methods.refined_odds(unedited, table, steps=ODDS_STEPS), STRENGTHS)
    bench.measure("editor, to a limit", limited, LIMITS, version)
    bench.measure("editor+refine, to a limit", held_to_a_limit(limited), LIMITS, version)
    bench.measure("refine, to a limit", held_to_a_limit(unedited), LIMITS)
    for last, counts in ((True, last_layer), (False, adam)):
        for steps in counts:
            method = optimised_fairness(data.val.x, data.val.y, codes, steps=steps, last_layer=last, num_threads=1)
            tuned = RATES["fairness-last-layer" if last else "fairness"][steps]
            bench.measure(f"{'last-layer ' if last else ''}adam-{steps}", method, STRENGTHS, version=str(tuned))
    fitted = fairness_methods(data.val.x, data.val.y, codes, data.test.x, test_codes, names=groups.names)
    for name in post:
        bench.measure(name, fitted[name], POST_PROCESSORS[name].budgets)


def unedited(mlps: Sequence[MLP], _: float) -> list[MLP]:
    return list(mlps)


if __name__ == "__main__":
    app()
