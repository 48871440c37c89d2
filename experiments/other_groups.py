"""Equalised odds between groups that the editor was not trained with.

    python experiments/other_groups.py adult     # -> experiments/results/adult_other_groups.json
    python experiments/other_groups.py bank      # ... bank_other_groups.json

Adult's editor learned from the sexes and is asked here to even out sex and race together, Bank's learned from married
or not and is asked to even out ages; both read the new groups in the rows that they are given, as does whatever they
are compared with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import typer
from common import RESULTS, WORK, DataFolder, ResultsFolder, WorkFolder, dataset_of
from fronts import READ_AT, Bench, measure_fairness, test_models

from metaedit_fast.datasets import RowGroups, Rows, rows_groups

MODELS = 24


class Split(NamedTuple):
    """How rows are grouped: ``rows_groups`` takes both. Differences are read at ``at``."""

    by: tuple[str, ...]
    min_rows: int
    at: tuple[float, ...]


SPLITS = {
    "adult": Split(("sex", "race"), 100, (0.13, 0.12, 0.11, 0.1, 0.09, 0.08)),
    "bank": Split(("age",), 20, (0.1, *READ_AT)),
}


def main(
    dataset: str,
    models: int | None = None,
    work: WorkFolder = WORK,
    results: ResultsFolder = RESULTS,
    data_folder: DataFolder = None,
) -> None:
    """Measure the editor for equalised odds on other groups."""
    data, split = dataset_of(dataset, data_folder), SPLITS[dataset]
    groups = rows_groups(data, split.by, min_rows=split.min_rows)
    chosen = test_models(dataset, work, models or MODELS)
    bench = Bench(dataset, "equalized_odds", work, results, data_folder, chosen, "other_groups", groups)
    measure_fairness(
        bench,
        adam=(100,),
        last_layer=(100,),
        post=("hard_labels", "threshold_optimizer", "fair_cls", "linear_post"),
    )
    fewest = {name: smallest_cell(groups, rows) for name, rows in (("validation", data.val), ("test", data.test))}
    said = " and ".join(f"{n} {name} rows" for name, n in fewest.items())
    bench.write(
        f"python experiments/other_groups.py {bench.dataset}",
        models,
        at=split.at,
        details={
            "groups": bench.group_names,
            "notes": [f"Groups: {'; '.join(bench.group_names)}. The smallest cell has {said}."],
            "fewest_rows": fewest,
        },
    )


def smallest_cell(groups: RowGroups, rows: Rows) -> int:
    """The fewest rows of one label in one group."""
    cells = groups.codes(rows) * 2 + rows.y
    return int(np.bincount(cells, minlength=2 * len(groups.names)).min())


if __name__ == "__main__":
    typer.run(main)
