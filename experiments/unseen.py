"""Architectures that no editor was trained on: 5 and 6 hidden layers, up to 256 neurons wide.

    python experiments/unseen.py adult      # -> experiments/results/adult_unseen.json

Editors were trained on 1 to 4 hidden layers of 16 to 128 neurons; the runs here differ in nothing else from the
populations of ``experiments/editors.py``, but for fewer epochs.
"""

from __future__ import annotations

import dataclasses

import typer
from common import RESULTS, SEED, WORK, DataFolder, ResultsFolder, WorkFolder, console, dataset_of
from fronts import REFINE_STEPS, SPARSITIES, Bench

from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.population import Population, build_population
from metaedit_fast.population.sampling import Ranges

RUNS, EPOCHS = 24, 15
UNSEEN = Ranges(depths=(5, 6), widths=(64, 128, 256), split_of_20=(0, 0, 20))


def main(
    dataset: str,
    runs: int = RUNS,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Measure the editor for pruning on them."""
    folder = work / "populations" / f"{dataset}-unseen"
    data = dataset_of(dataset, data_folder)
    build_population(data, runs, seed=SEED, out_dir=folder, epochs=EPOCHS, ranges=UNSEEN, jobs=2)
    bench = Bench(dataset, "pruning", work, results, data_folder, Population.load(folder), experiment="unseen")
    editor, val = bench.editor, bench.data.val
    probe, labels = val.x[:PROBE_ROWS], val.y[:PROBE_ROWS]
    version = editor.describe()["weights_sha256"]
    measured = methods.editor_methods(editor, probe, steps=REFINE_STEPS)
    baselines = methods.pruning_baselines(probe, labels)
    measured |= {name: baselines[name] for name in ("snip", "fisher", "magnitude_layer")}
    measured["snip+refine"] = methods.refined(baselines["snip"], probe, steps=REFINE_STEPS)
    for name, method in measured.items():
        bench.measure(name, method, SPARSITIES, version)
    console.print(sorted({tuple(mlp.spec.widths) for mlp in bench.held_out.mlps}))
    bench.write(f"python experiments/unseen.py {bench.dataset}", None, details={"ranges": dataclasses.asdict(UNSEEN)})


if __name__ == "__main__":
    typer.run(main)
