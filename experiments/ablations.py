"""What an editor owes to its training: editors that differ in one thing alone, trained for equally many steps.

    python experiments/ablations.py training-runs adult   # -> experiments/results/adult_training_runs.json
    python experiments/ablations.py architectures adult   # ... adult_architectures.json: trained on one family alone
    python experiments/ablations.py budgets adult         # ... adult_budgets.json: one editor for all, or one for each
    python experiments/ablations.py probe adult           # ... adult_probe.json: with rows to look at, or without
    python experiments/ablations.py temperature adult     # ... adult_temperature.json: that of soft decisions

All but the last are about pruning. The editors take far fewer steps than the bundled ones, which ``--steps`` changes;
else they are trained by the recipes of ``experiments/common.py``. Editors and measurements are kept in ``build``, so
that what was stopped goes on. Needs the extras ``train`` and ``report``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from common import EDITORS, RESULTS, SEED, WORK, DataFolder, ResultsFolder, WorkFolder, population_of
from fronts import FAIRNESS_MODELS, MODELS, READ_AT, SPARSITIES, STRENGTHS, Bench, test_models
from scalarisations import of as editor_of_groups

import metaedit_fast as mf
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.measure import Measurement
from metaedit_fast.evaluation.uncertainty import estimate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population import Population
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.requirements import get_requirement
from metaedit_fast.training.fit import default_config, fit_editor
from metaedit_fast.training.soft_odds import TEMPERATURE
from metaedit_fast.training.trainer import TrainerConfig

# Of how many models an editor can make use shows with more steps; those for equalised odds take longer.
STEPS, EVALUATE_EVERY = {"training-runs": 1000, "temperature": 300}, 100
OTHER_STEPS = 500
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
# Fewer may lack an activation or a norm, and models that have it are refused.
FEWEST_RUNS = 20
OWN_BUDGETS = (0.8, 0.9, 0.95)
TEMPERATURES = (0.1, 0.3, 1.0)
# Activations and norms that it has not seen an editor refuses, so they make no families here. Each family has so many
# training runs, all architectures together as many; they are compared by kind of test model at one sparsity.
FAMILY_RUNS = 189
READ_SPARSITY = 0.9
FAMILIES: Mapping[str, Callable[[PopulationRecord], bool]] = {
    "1 or 2 layers": lambda record: len(record.mlp.spec.layers) <= 3,
    "at most 32 wide": lambda record: max(layer.width for layer in record.mlp.spec.layers[:-1]) <= 32,
    "no skips": lambda record: not record.mlp.spec.skips,
}


class Study:
    """Editors that are trained on equal terms, and the bench on which they are measured."""

    def __init__(
        self,
        experiment: str,
        dataset: str,
        requirement: str,
        *,
        steps: int,
        models: int,
        threads: int,
        work: Path,
        results: Path,
        data_folder: Path | None,
    ) -> None:
        self.requirement, self.steps, self.threads, self.work = requirement, steps, threads, work
        recipe = EDITORS[f"{dataset}-{requirement.replace('_', '-')}"]
        self.population = population_of(dataset, work, runs=recipe.runs)
        self.tested = test_models(dataset, work, models)
        self.bench = Bench(dataset, requirement, work, results, data_folder, self.tested, experiment=experiment)
        val = self.bench.data.val
        self.probe = val.x[:PROBE_ROWS]
        self.editors: dict[str, mf.Editor] = {}

    def train(
        self, label: str, population: Population | None = None, *, probe: bool = True, **settings: Any
    ) -> mf.Editor:
        """The editor of a label, by the recipe but for what is told; on the whole population by default."""
        requirement, models = get_requirement(self.requirement), population or self.population
        name = re.sub("[^a-z0-9.]+", "-", f"{self.bench.dataset}-{self.requirement}-{self.steps}-{label}")
        folder = self.work / "editors" / name
        editor = fit_editor(
            models,
            self.bench.data,
            requirement=self.requirement,
            groups=self.bench.groups,
            name=name,
            config=default_config(requirement, models[0].mlp.spec, probe=probe),
            settings=TrainerConfig(
                **{
                    "steps": self.steps,
                    "evaluate_every": EVALUATE_EVERY,
                    "patience": self.steps,
                    "seed": SEED,
                    **settings,
                }
            ),
            folder=folder,
            num_threads=self.threads,
        )
        editor.save(folder / "editor.onnx")
        self.editors[label] = editor
        return editor

    def measure(self, name: str, editor: mf.Editor, budgets: Sequence[float] = SPARSITIES) -> list[Measurement]:
        """Add an editor's curve for pruning."""
        self.bench.measure(name, methods.edits(editor, self.probe), budgets, version_of(editor))
        return self.bench.curves[name]

    def against(self, label: str) -> dict[str, str]:
        """Every curve compared in pairs with the one of a label."""
        name = f"editor, {label}"
        return {other: name for other in self.bench.curves if other != name}

    @property
    def training_note(self) -> str:
        """How many models each editor was trained on, and for how long."""
        counts = [f"{label} {editor.info.metrics['training_models']}" for label, editor in self.editors.items()]
        return f"Every editor was trained for {self.steps} steps; models that it learned from: {', '.join(counts)}."


def train_runs(population: Population, keep: Callable[[PopulationRecord], bool] = lambda _: True) -> list[int]:
    """The runs of a population's split train whose models are to be kept, in a random order that is always the same."""
    runs: dict[int, bool] = {}
    for record in population.select(split="train"):
        runs[record.run] = runs.get(record.run, True) and keep(record)
    order = np.random.default_rng(SEED).permutation(list(runs)).tolist()
    return [run for run in order if runs[run]]


def trained_on(population: Population, runs: Sequence[int]) -> Population:
    """The population with no other runs in its split train; those that choose and test stay."""
    chosen = set(runs)
    kept = [record for record in population if record.split != "train" or record.run in chosen]
    return Population(kept, dataset=population.dataset, info=population.info)


def per_cent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def version_of(editor: mf.Editor) -> str:
    return str(editor.describe()["weights_sha256"])


def training_runs(study: Study) -> dict[str, Any]:
    """Shares of the training runs, each within the next; the runs that choose the best network are all there."""
    runs = train_runs(study.population)
    for share in SHARES:
        if round(share * len(runs)) < FEWEST_RUNS:
            continue
        label = "all" if share == 1 else f"{per_cent(share)} of the runs"
        chosen = trained_on(study.population, runs[: round(share * len(runs))])
        study.measure(f"editor, {label}", study.train(label, None if share == 1 else chosen))
    return {"against": study.against("all")}


def architectures(study: Study) -> dict[str, Any]:
    """Editors of one family of architectures beside one of all, from equally many runs."""
    models = study.population
    runs = {"all architectures": train_runs(models)} | {name: train_runs(models, own) for name, own in FAMILIES.items()}
    count = min(FAMILY_RUNS, *map(len, runs.values()))
    curves = {
        name: study.measure(f"editor, {name}", study.train(f"{name} alone", trained_on(models, own[:count])))
        for name, own in runs.items()
    }
    place = SPARSITIES.index(READ_SPARSITY)
    notes = []
    for name, belongs in FAMILIES.items():
        inside = np.array([belongs(record) for record in study.tested])
        if inside.all() or not inside.any():
            continue
        parts = [
            " and ".join(_mean_jsd(curves[trained][place], tested) for tested in (inside, ~inside))
            for trained in (name, "all architectures")
        ]
        notes.append(
            f"JSD × 1000 at {per_cent(READ_SPARSITY)} on the {inside.sum()} models of {name} and on the "
            f"{(~inside).sum()} others: {parts[0]} if trained on {name}, {parts[1]} if on all architectures."
        )
    return {"against": study.against("all architectures"), "details": {"notes": notes}}


def _mean_jsd(measured: Measurement, models: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    found = estimate(1e3 * measured.jsd[models], measured.runs[models].tolist())
    return f"{found.mean:.2f} ± {found.se:.2f}"


def budgets(study: Study) -> dict[str, Any]:
    """One editor that is told the budget beside one editor for each budget, as the paper trains them."""
    own = {budget: study.train(f"{budget:g} alone", trained_budgets=(budget,)) for budget in OWN_BUDGETS}

    def edited(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        return methods.edits(own[budget], study.probe)(mlps, budget)

    study.measure("editor, one for all budgets", study.train("all"), OWN_BUDGETS)
    study.bench.measure(
        "editor, one for each budget", edited, OWN_BUDGETS, " ".join(version_of(editor) for editor in own.values())
    )
    return {"hypervolume": False}


def probe(study: Study) -> dict[str, Any]:
    """The editor that looks at 256 unlabelled rows beside the paper's, which sees weights alone."""
    study.measure("editor, weights and rows", study.train("all"))
    study.measure("editor, weights alone", study.train("weights alone", probe=False))
    return {"against": study.against("weights and rows")}


def temperature(study: Study) -> dict[str, Any]:
    """Temperatures of the soft decisions whose rates the training for equalised odds compares."""
    bench, groups = study.bench, study.bench.groups
    assert groups is not None
    val = bench.data.val
    table = mf.Table(val.x, val.y, sensitive=groups.labels(val))
    for value in TEMPERATURES:
        editor = study.train(f"temperature {value:g}", temperature=value)
        bench.measure(f"editor, {value:g}", editor_of_groups(editor, table), STRENGTHS, version_of(editor))
    return {"at": READ_AT, "against": study.against(f"{TEMPERATURE:g}"), "details": {"groups": list(groups.names)}}


EXPERIMENTS: Mapping[str, Callable[[Study], dict[str, Any]]] = {
    "training-runs": training_runs,
    "architectures": architectures,
    "budgets": budgets,
    "probe": probe,
    "temperature": temperature,
}


def main(
    experiment: str,
    dataset: str,
    steps: int | None = None,
    models: int | None = None,
    threads: int = 1,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Train and measure the editors of one experiment."""
    if experiment not in EXPERIMENTS:
        raise typer.BadParameter(f"expected one of {', '.join(EXPERIMENTS)}, got {experiment!r}")
    fair = experiment == "temperature"
    study = Study(
        experiment.replace("-", "_"),
        dataset,
        "equalized_odds" if fair else "pruning",
        steps=steps or STEPS.get(experiment, OTHER_STEPS),
        models=models or (FAIRNESS_MODELS if fair else MODELS),
        threads=threads,
        work=work,
        results=results,
        data_folder=data_folder,
    )
    options = EXPERIMENTS[experiment](study)
    details = options.pop("details", {})
    details["notes"] = [study.training_note, *details.get("notes", [])]
    command = f"python experiments/ablations.py {experiment} {study.bench.dataset}" + (
        "" if steps is None else f" --steps {steps}"
    )
    last = study.editors["all"] if "all" in study.editors else next(reversed(study.editors.values()))
    study.bench.write(command, models, editor=last, details=details, **options)


if __name__ == "__main__":
    typer.run(main)
