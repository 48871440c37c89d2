"""What the populations cost, for the account of editors against work on every model.

    python experiments/amortisation.py      # -> experiments/costs.json

Times a few runs of each population again, evenly spread over it, for a few epochs on one thread, and extrapolates to
all of it. What editors' trainings and edits took is in the records; experiments/report.py puts all together.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import typer
from common import DATASETS, EPOCHS, ROOT, SEED, WORK, DataFolder, WorkFolder, console, dataset_of, population_of

from metaedit_fast.atomic import write_atomically
from metaedit_fast.evaluation.amortisation import Costs, PopulationCost
from metaedit_fast.population.sampling import sample_run
from metaedit_fast.population.training import train_run
from metaedit_fast.versions import versions

TIMED_RUNS, TIMED_EPOCHS = 128, 2
COSTS = ROOT / "experiments" / "costs.json"


def main(
    timed_runs: int = TIMED_RUNS, out: Path = COSTS, work: WorkFolder = WORK, data_folder: DataFolder = None
) -> None:
    """Time runs of both populations."""
    found = {}
    for name in DATASETS:
        data = dataset_of(name, data_folder)
        runs = 1 + max(record.run for record in population_of(name, work))
        seconds = []
        for i in np.linspace(0, runs - 1, timed_runs).round().astype(int).tolist():
            run = sample_run(i, seed=SEED, n_inputs=data.n_features)
            started = time.process_time()
            train_run(run, data, checkpoints=(TIMED_EPOCHS,))
            seconds.append((time.process_time() - started) * EPOCHS / TIMED_EPOCHS)
        error = float(np.std(seconds, ddof=1)) / len(seconds) ** 0.5
        found[name] = PopulationCost(
            runs, EPOCHS, float(np.mean(seconds)) * runs, error * runs, len(seconds), TIMED_EPOCHS
        )
        console.print(name, found[name])
    costs = Costs(found, versions()["processor"], "python experiments/amortisation.py")
    write_atomically(out, costs.to_json().encode())
    console.print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
