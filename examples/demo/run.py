"""Edit 64 real MLPs so that they keep half to a twentieth of their weights, and measure what it cost them.

    python examples/demo/run.py [--output demo-output]

Needs the base install alone. The models are held-out members of a population trained on Adult; the
editor has seen neither them nor the rows. Made by ``python experiments/adult_pruning.py demo``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import metaedit_fast as mf
from metaedit_fast.evaluation.compare import Row, compare, pruning_methods
from metaedit_fast.versions import versions

HERE = Path(__file__).resolve().parent
SPARSITIES = (0.5, 0.8, 0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    output: Path = parser.parse_args().output
    console = Console()

    population = mf.Population.load(HERE / "population")
    rows = np.load(HERE / "rows.npz", allow_pickle=False)
    editor = mf.load_editor("adult-pruning")
    mlps = population.mlps
    weights = sum(mlp.spec.n_weights for mlp in mlps)
    console.print(
        f"{len(mlps)} MLPs, {weights:,} weights; {editor.info.name}; {len(rows['x_test'])} test rows of Adult"
    )

    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for sparsity in SPARSITIES:
        result = mf.edit(mlps, editor, target={"sparsity": sparsity}, data=rows["x_probe"])
        result.save(output / f"sparsity-{sparsity:g}")
    console.print(f"edited models: {output}/sparsity-*/*.onnx")

    methods = pruning_methods(editor, rows["x_probe"], rows["y_probe"])
    with console.status("measuring") as status:
        table = compare(
            mlps,
            [record.run for record in population],
            methods,
            SPARSITIES,
            rows["x_test"],
            rows["y_test"],
            report=lambda row: status.update(f"measured {row.method} at sparsity {row.sparsity:g}"),
        )
    results = {"results": [dataclasses.asdict(row) for row in table], "versions": versions()}
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    before = float(np.mean([np.mean(mlp.predict(rows["x_test"]) == rows["y_test"]) for mlp in mlps]))
    console.print(_drawn(table, list(methods), before))
    console.print(f"the same as numbers: {output}/results.json")


def _drawn(rows: list[Row], methods: list[str], accuracy_before: float) -> Table:
    table = Table(
        title=f"JSD x 1000 (± standard error) and accuracy by sparsity; accuracy before {accuracy_before:.1%}",
        caption="JSD: Jensen-Shannon divergence between the predictions before and after, in nats; lower is better",
        box=box.SIMPLE_HEAD,
        leading=1,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for sparsity in SPARSITIES:
        table.add_column(f"{sparsity:g}", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for method in methods:
        own = [row for row in rows if row.method == method]
        cells = [f"{_figure(row)}\n{row.accuracy_mean:.1%}" for row in own]
        table.add_row(method, *cells, f"{np.mean([r.ms_per_model for r in own]):.1f}")
    return table


def _figure(row: Row) -> str:
    digits = 1 if row.jsd_mean >= 0.01 else 2
    return f"{1e3 * row.jsd_mean:.{digits}f} ± {1e3 * row.jsd_se:.{digits}f}"


if __name__ == "__main__":
    main()
