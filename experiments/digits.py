"""A table of 64 columns and 10 classes: scikit-learn's digits, with a population and an editor of their own.

    python experiments/digits.py      # -> experiments/results/digits_pruning.json

Small on purpose: 320 runs of 60 epochs, an editor for pruning trained for 1000 steps.
"""

from __future__ import annotations

import typer
from common import RESULTS, SEED, WORK, DataFolder, ResultsFolder, WorkFolder, dataset_of
from fronts import REFINE_STEPS, SPARSITIES, Bench, test_models

from metaedit_fast.editing.plan import PROBE_ROWS
from metaedit_fast.evaluation import methods
from metaedit_fast.evaluation.baselines.optimisation import optimised_pruning
from metaedit_fast.population import build_population
from metaedit_fast.requirements import get_requirement
from metaedit_fast.training.fit import default_config, fit_editor
from metaedit_fast.training.trainer import TrainerConfig

NAME = "digits"
RUNS, EPOCHS, STEPS, MODELS, ADAM_STEPS = 320, 60, 1000, 48, 100
# A constant prediction among ten classes costs far more than among two.
REFERENCE_JSD = 0.5


def main(
    runs: int = RUNS,
    steps: int = STEPS,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Train the population and the editor, and measure its front."""
    data = dataset_of(NAME, data_folder)
    population = build_population(data, runs, seed=SEED, out_dir=work / "populations" / NAME, epochs=EPOCHS, jobs=1)
    folder = work / "editors" / f"{NAME}-pruning"
    if not (folder / "editor.onnx").exists():
        settings = TrainerConfig(steps=steps, evaluate_every=max(1, steps // 5), patience=steps, seed=SEED)
        config = default_config(get_requirement("pruning"), population[0].mlp.spec, probe=True)
        editor = fit_editor(
            population, data, requirement="pruning", config=config, settings=settings, folder=folder, num_threads=1
        )
        editor.save(folder / "editor.onnx")
    bench = Bench(NAME, "pruning", work, results, data_folder, test_models(NAME, work, models or MODELS))
    editor, val = bench.editor, bench.data.val
    probe, labels = val.x[:PROBE_ROWS], val.y[:PROBE_ROWS]
    baselines = methods.pruning_baselines(probe, labels)
    measured = {
        **methods.editor_methods(editor, probe, steps=REFINE_STEPS),
        **{name: baselines[name] for name in ("snip", "fisher", "magnitude_layer")},
        "snip+refine": methods.refined(baselines["snip"], probe, steps=REFINE_STEPS),
        f"adam, mask too, {ADAM_STEPS}": optimised_pruning(
            probe, labels, steps=ADAM_STEPS, learn_mask=True, num_threads=1
        ),
    }
    version = editor.describe()["weights_sha256"]
    for name, method in measured.items():
        bench.measure(name, method, SPARSITIES, version)
    bench.write(
        "python experiments/digits.py",
        models,
        reference_jsd=REFERENCE_JSD,
        details={"attribution": data.attribution, "features": data.n_features},
    )


if __name__ == "__main__":
    typer.run(main)
