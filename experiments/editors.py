"""The populations and editors that the experiments measure.

    python experiments/editors.py population adult       # 4000 runs x 60 epochs; resumable
    python experiments/editors.py train adult-pruning    # build/editors/adult-pruning/editor.onnx; resumable
    python experiments/editors.py bundle                 # the editors that are there into the packages
    python experiments/editors.py resave                 # the packages' editors with the graph of this version
    python experiments/editors.py demo                   # 64 test models and rows into examples/demo

Names: {adult,bank}-{pruning,data-minimisation,equalized-odds}. Needs the extras ``train`` and ``sklearn``, and the
tables (``metaedit_fast.load_dataset``; ``--data-folder``).
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import typer
from common import (
    EDITORS,
    EPOCHS,
    ROOT,
    RUNS,
    SEED,
    WORK,
    DataFolder,
    WorkFolder,
    bundled_place,
    console,
    dataset_of,
    editor_folder,
    groups_of,
    population_of,
)

from metaedit_fast.atomic import write_atomically
from metaedit_fast.editing.info import EditorInfo
from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.export import files
from metaedit_fast.population import Population, build_population

DEMO_MODELS, DEMO_ROWS = 64, 4000

app = typer.Typer(add_completion=False, help=__doc__)

SOURCES = {
    "adult": "Adult (Becker, B. and Kohavi, R., 1996, UCI Machine Learning Repository, doi:10.24432/C5XW20, CC BY 4.0)",
    "bank": "Bank Marketing (Moro, S., Rita, P. and Cortez, P., 2014, UCI Machine Learning Repository, "
    "doi:10.24432/C5K306, CC BY 4.0)",
}


@app.command()
def population(
    dataset: str,
    runs: int = RUNS,
    epochs: int = EPOCHS,
    jobs: int = 2,
    work: WorkFolder = WORK,
    data_folder: DataFolder = None,
) -> None:
    """Train a population."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    made = build_population(
        dataset_of(dataset, data_folder),
        runs,
        seed=SEED,
        out_dir=work / "populations" / dataset,
        epochs=epochs,
        jobs=jobs,
        progress=sys.stderr.isatty(),
    )
    console.print(made)


@app.command()
def train(
    name: str,
    seed: int = SEED,
    runs: int | None = None,
    steps: int | None = None,
    threads: int = 2,
    work: WorkFolder = WORK,
    data_folder: DataFolder = None,
) -> None:
    """Train an editor by its recipe."""
    from metaedit_fast.requirements import get_requirement
    from metaedit_fast.training.fit import default_config, fit_editor
    from metaedit_fast.training.trainer import TrainerConfig

    recipe = EDITORS[name]
    data = dataset_of(recipe.dataset, data_folder)
    models = population_of(recipe.dataset, work, runs=runs or recipe.runs)
    requirement = get_requirement(recipe.requirement)
    n_steps = steps or recipe.steps
    folder = editor_folder(work, name, seed)
    embeds = not requirement.needs_labels
    source = f"trained on {SOURCES[recipe.dataset]}"
    editor = fit_editor(
        models,
        data,
        requirement=recipe.requirement,
        groups=groups_of(recipe.dataset, data) if requirement.needs_labels else None,
        name=name,
        config=default_config(requirement, models[0].mlp.spec, probe=recipe.probe),
        settings=TrainerConfig(steps=n_steps, evaluate_every=max(1, n_steps // 16), patience=n_steps, seed=seed),
        embed_probe=embeds,
        folder=folder,
        num_threads=threads,
        license=f"Apache-2.0; {source}" + (", from which the embedded probe rows come, standardised" if embeds else ""),
    )
    editor.save(folder / "editor.onnx")
    console.print(editor, editor.info.metrics)


@app.command()
def bundle(work: WorkFolder = WORK) -> None:
    """Put the trained editors into the package and the distribution of data beside it."""
    for name in EDITORS:
        path = editor_folder(work, name) / "editor.onnx"
        if path.exists():
            _write_with_present_graph(path, bundled_place(name))


@app.command()
def resave() -> None:
    """Write the packages' editors anew after a change of the graph; description, weights and rows keep their bits."""
    for name in EDITORS:
        _write_with_present_graph(bundled_place(name), bundled_place(name))


def _write_with_present_graph(source: Path, target: Path) -> None:
    description, weights, probe = files.parse_editor(source.read_bytes(), str(source))
    info = EditorInfo.from_json(description)
    rows = None if probe is None else probe.reshape(-1, info.config.n_inputs)
    data = files.editor_bytes(info.config, info.requirement, weights, description, rows)
    assert _content(files.parse_editor(data, str(target))) == _content((description, weights, probe))
    write_atomically(target, data)
    console.print(f"wrote {target}: weights {files.weights_hash(weights)[:12]}")


def _content(parts: tuple[str, dict[str, np.ndarray], np.ndarray | None]) -> tuple[object, ...]:
    """All that a reader takes from an editor file, to the bit."""
    description, weights, probe = parts
    rows = None if probe is None else probe.tobytes()
    return description, {name: (value.shape, value.tobytes()) for name, value in weights.items()}, rows


@app.command()
def demo(work: WorkFolder = WORK, data_folder: DataFolder = None) -> None:
    """Put a sample of Adult's population-test and of its rows into examples/demo."""
    data = dataset_of("adult", data_folder)
    models = population_of("adult", work).select(split="test")
    chosen = np.sort(np.random.default_rng(SEED).choice(len(models), DEMO_MODELS, replace=False))
    target = ROOT / "examples" / "demo"
    shutil.rmtree(target / "population", ignore_errors=True)
    sample = Population([models[int(i)] for i in chosen], dataset=models.dataset, info=models.info)
    sample.save(target / "population")
    rows = np.sort(np.random.default_rng(SEED + 1).choice(len(data.test), DEMO_ROWS, replace=False))
    np.savez_compressed(
        target / "rows.npz",
        x_probe=data.val.x[:PROBE_ROWS],
        y_probe=data.val.y[:PROBE_ROWS].astype(np.int8),
        x_test=data.test.x[rows],
        y_test=data.test.y[rows].astype(np.int8),
    )
    console.print(f"wrote {target}")


if __name__ == "__main__":
    app()
