"""What compaction saves on edited models, and the table of docs/compaction.md.

    python benchmarks/compaction.py measure    # a few minutes: benchmarks/results/compaction.json
    python benchmarks/compaction.py tables     # writes the table of docs/compaction.md from that file

The 64 models of examples/demo, edited by the bundled editors of Adult at several sparsities and numbers of input
features, then compacted. Latency is the processor time of one thread for all models, one after the other, before
and after in turns, in ONNX Runtime and torch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metaedit_fast as mf
from metaedit_fast.bench.machine import describe
from metaedit_fast.bench.timing import Rounds, interleaved

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
RESULT = ROOT / "benchmarks" / "results" / "compaction.json"
PAGE = ROOT / "docs" / "compaction.md"
BEGIN, END = "<!-- compaction -->", "<!-- /compaction -->"
NOT_YET = "No measurement is committed yet; `python benchmarks/compaction.py measure` makes one."
EDITS = [("adult-pruning", "sparsity", s) for s in (0.5, 0.8, 0.9, 0.95, 0.98)]
EDITS += [("adult-data-minimisation", "features", n) for n in (8, 4, 1)]
ROWS = (1, 1000)
ROUNDS = Rounds(7, 25, 6.0)
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "tables"))
    if parser.parse_args().what == "measure":
        measure()
    write_tables()


def measure() -> None:
    """Edit, compact, time, and write down."""
    population = mf.Population.load(DEMO / "population")
    rows = np.load(DEMO / "rows.npz", allow_pickle=False)
    found = []
    for editor, target, value in EDITS:
        edited = mf.edit(population.mlps, editor, target={target: value}, data=rows["x_probe"])
        models = [record.model for record in edited if record.status == "edited"]
        for drop_inputs in (False, True) if target == "features" else (False,):
            print(f"measuring {target} {value}, drop_inputs={drop_inputs}", file=sys.stderr, flush=True)
            found.append(
                {"editor": editor, "target": target, "value": value, "drop_inputs": drop_inputs}
                | measured(models, rows["x_test"], drop_inputs=drop_inputs)
            )
    made = {"command": "python benchmarks/compaction.py measure", "date": datetime.date.today().isoformat()}
    RESULT.write_text(json.dumps({**made, "machine": describe(), "rows": found}, indent=1, allow_nan=False) + "\n")


def measured(
    models: Sequence[mf.MLP], x: Floats, *, drop_inputs: bool, row_counts: Sequence[int] = ROWS, rounds: Rounds = ROUNDS
) -> dict[str, Any]:
    """Sizes before and after, the largest change of a prediction, and latencies in microseconds a model and call."""
    result = mf.compact(models, drop_inputs=drop_inputs)
    change = 0.0
    for before, record in zip(models, result, strict=True):
        rows = x[:200, list(record.kept_inputs)]
        difference = np.exp(record.model.log_proba(rows, np.float64)) - np.exp(before.log_proba(x[:200], np.float64))
        change = max(change, float(np.abs(difference).max()))
    sums = np.array([record.parameters for record in result]).sum(axis=0)
    hidden = sum(sum(record.widths[0][1:-1]) for record in result)
    found: dict[str, Any] = {
        "models": len(models),
        "with_layer_norm": sum(any(layer.norm == "layer" for layer in mlp.spec.layers) for mlp in models),
        "unchanged": result.status_counts["unchanged"],
        "parameters_before": int(sums[0]) / len(models),
        "parameters_after": int(sums[1]) / len(models),
        "neurons_removed_share": sum(record.neurons_removed for record in result) / hidden,
        "inputs_removed": sum(record.inputs_removed for record in result) / len(models),
        "largest_change": change,
    }
    for n in row_counts:
        rows = np.ascontiguousarray(x[np.arange(n) % len(x)])
        cut = [np.ascontiguousarray(rows[:, list(record.kept_inputs)]) for record in result]
        for engine, runner in (("onnxruntime", onnx_runner), ("torch", torch_runner)):
            runs = {"before": runner(models, [rows] * len(models)), "after": runner(result.models, cut)}
            timed = interleaved(runs, rounds, clock=time.process_time)
            scale = 1e6 / len(models)
            found[f"{engine}_{n}"] = {when: scale * timed[when].median for when in timed}
            found[f"{engine}_{n}"]["spread"] = max(t.spread for t in timed.values())
    return found


def onnx_runner(models: Sequence[mf.MLP], rows: Sequence[Floats]) -> Callable[[], object]:
    """One call of every model in ONNX Runtime, on one thread."""
    import onnxruntime

    from metaedit_fast.models.onnx import mlp_to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(mlp_to_onnx(mlp).SerializeToString(), options, providers=["CPUExecutionProvider"])
        for mlp in models
    ]
    return lambda: [session.run(None, {"x": x}) for session, x in zip(sessions, rows, strict=True)]


def torch_runner(models: Sequence[mf.MLP], rows: Sequence[Floats]) -> Callable[[], object]:
    """One call of every model in torch, on one thread."""
    import torch

    from metaedit_fast.models.torch import mlp_to_torch

    torch.set_num_threads(1)
    modules = [mlp_to_torch(mlp) for mlp in models]
    tensors = [torch.from_numpy(x) for x in rows]

    def run() -> object:
        with torch.inference_mode():
            return [module(x) for module, x in zip(modules, tensors, strict=True)]

    return run


def write_tables() -> None:
    """Put the table of the committed result into the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


def tables() -> str:
    """What stands between the page's markers."""
    if not RESULT.exists():
        return NOT_YET
    result = json.loads(RESULT.read_text())
    machine = result["machine"]
    made = f"made by `{result['command']}` on {result['date']}"
    head = [
        "edit",
        "models",
        "with layer norm",
        "as before",
        "parameters a model",
        "hidden neurons removed",
        "largest change",
    ]
    head += [f"{engine}, {_rows(n)}, µs" for engine in ("ONNX Runtime", "torch") for n in ROWS]
    lines = [f"{machine['processor']}; {machine['platform']}; {made}; spread: half the distance between quartiles, at "]
    spread = max(row[f"{e}_{n}"]["spread"] for row in result["rows"] for e in ("onnxruntime", "torch") for n in ROWS)
    lines[0] += f"most {spread:.0%}."
    lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in result["rows"])])


def _cells(row: dict[str, Any]) -> list[str]:
    dropped = f", {row['inputs_removed']:.1f} inputs dropped" if row["drop_inputs"] else ""
    cells = [
        f"{row['target']} {row['value']:g}{dropped}",
        str(row["models"]),
        str(row["with_layer_norm"]),
        str(row["unchanged"]),
        f"{row['parameters_before']:.0f} → {row['parameters_after']:.0f}",
        f"{row['neurons_removed_share']:.1%}",
        f"{row['largest_change']:.0e}",
    ]
    times = (row[f"{engine}_{n}"] for engine in ("onnxruntime", "torch") for n in ROWS)
    return cells + [f"{t['before']:.3g} → {t['after']:.3g}" for t in times]


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n} rows"


if __name__ == "__main__":
    main()
