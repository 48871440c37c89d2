"""The measurement behind docs/performance.md, and the page's tables.

    python benchmarks/record.py measure    # everything, on all threads: benchmarks/results/performance.json
    python benchmarks/record.py measure edit evaluation    # these tasks again, on the same machine
    python benchmarks/record.py tables     # writes the tables of docs/performance.md from that file

``make bench`` does both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaedit_fast.bench import suite
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.table import COLUMNS, as_text, cell
from metaedit_fast.population.store import Population
from metaedit_fast.threads import thread_count

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- performance -->", "<!-- /performance -->"
NOT_YET = "No measurement is committed yet; `make bench` makes one."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "tables"))
    parser.add_argument("tasks", nargs="*", help="with measure: these alone, the others stay as they are")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.tasks)
    else:
        write_tables()


def measure(tasks: Sequence[str] = ()) -> None:
    """Run everything, or ``tasks`` alone, show it and write it down."""
    demo = ROOT / "examples" / "demo"
    context = Context(
        thread_count(),
        trained=Population.load(demo / "population").mlps,
        held_out=np.load(demo / "rows.npz", allow_pickle=False)["x_test"],
        say=lambda text: print(f"measuring {text}", file=sys.stderr, flush=True),
    )
    report = suite.run(context, tasks)
    print(as_text(report))
    made = {"command": "make bench", "date": datetime.date.today().isoformat()}
    if tasks:
        made, report = joined(json.loads(RESULT.read_text()), report, tasks, made["date"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**made, **report}, indent=1, allow_nan=False) + "\n")


def joined(
    before: dict[str, Any], report: dict[str, Any], tasks: Sequence[str], date: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result ``before`` with the rows of ``tasks`` replaced. Raises ``ValueError`` for another machine's."""
    for name in ("processor", "isa", "logical_cores"):
        there, here = before["machine"][name], report["machine"][name]
        if there != here:
            raise ValueError(f"{RESULT}: expected a result of this machine, whose {name} is {here}, got {there}")
    rows = [row for row in before["rows"] if row["task"] not in tasks] + report["rows"]
    rows.sort(key=lambda row: list(suite.RUNS).index(row["task"]))
    command = f"`python benchmarks/record.py measure {' '.join(tasks)}` on {date}"
    again = {**before.get("again", {}), **dict.fromkeys(tasks, command)}
    made = {"command": before["command"], "date": before["date"], "again": again}
    return made, {"machine": report["machine"], "rows": rows}


def write_tables() -> None:
    """Put the tables of the committed result into the page."""
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
    again: dict[str, str] = result.get("again", {})
    lines = [
        f"{machine['processor']}; {machine['platform']}; instruction set {machine['isa']}. Peaks per thread, last run:",
        "",
        *_table(machine["peaks"], {name: name.replace("_", " ") for name in machine["peaks"][0]}),
    ]
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["task"] == task]
        shown = {name: title for name, title in SHOWN.items() if any(row.get(name) is not None for row in rows)}
        made = again.get(task, f"`{result['command']}` on {result['date']}")
        lines += ["", f"### {task.capitalize()}", "", f"Measured by {made}.", "", *_table(rows, shown)]
    return "\n".join(lines)


# Further columns of a row that the page shows.
SHOWN = {
    **{name: title for name, title in COLUMNS.items() if name != "note"},
    "spread": "spread",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "speedup_on_all_threads": "speed-up on all threads",
    "outside_native_share": "outside of the native call",
    "jsd": "JSD after",
    "note": COLUMNS["note"],
}


def _table(rows: list[dict[str, Any]], shown: dict[str, str]) -> list[str]:
    head = [f"| {' | '.join(shown.values())} |", f"|{'---|' * len(shown)}"]
    return head + [f"| {' | '.join(_shown(name, row.get(name)) for name in shown)} |" for row in rows]


def _shown(name: str, value: Any) -> str:
    if name in ("spread", "outside_native_share") and value is not None:
        return f"{value:.1%}"
    if isinstance(value, float) and name not in COLUMNS:
        return f"{value:.3g}"
    return cell(name, value)


if __name__ == "__main__":
    main()
