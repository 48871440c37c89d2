"""All tasks in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metaedit_fast.bench import machine
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.tasks import edit, evaluation, forward, refinement, scaling, together, trainer, training

RUNS: dict[str, Sequence[Callable[[Context], Iterator[Row]]]] = {
    "forward": (forward.rows, scaling.rows),
    "training": (training.rows, trainer.rows),
    "evaluation": (evaluation.rows,),
    "refinement": (refinement.rows,),
    "edit": (edit.rows, together.rows),
}


def run(context: Context, only: Sequence[str] = ()) -> dict[str, Any]:
    """``{"machine": {...}, "rows": [...]}`` as JSON takes it; ``only`` names some of ``RUNS``.

    Raises ``ValueError`` for another name.
    """
    for name in only:
        if name not in RUNS:
            raise ValueError(f"only: expected some of {tuple(RUNS)}, got {name!r}")
    described = machine.describe()
    described["peaks"] = [context.peaks(threads).to_json() for threads in context.thread_counts]
    found = [row.to_json() for task in RUNS if not only or task in only for rows in RUNS[task] for row in rows(context)]
    return {"machine": described, "rows": found}
