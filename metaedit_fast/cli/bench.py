"""``metaedit bench``: how fast the kernels are on this machine, beside other libraries."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from metaedit_fast.cli.console import give, reports_errors, say


@reports_errors
def bench(
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default all that may be used.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="forward, training, evaluation, refinement or edit; may be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few small models for a moment: shows that all runs, not how fast.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the population.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure the kernels on a seeded population, beside PyTorch, PyTorch Geometric and ONNX Runtime.

    Takes some minutes. Peers that are not installed leave their rows without a figure. No row has a time unless
    its result is right.
    """
    from metaedit_fast.bench import suite
    from metaedit_fast.bench.context import Context
    from metaedit_fast.bench.table import as_text
    from metaedit_fast.threads import thread_count

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            say(f"measuring {text}")

    report = suite.run(Context(thread_count(threads), quick=quick, seed=seed, say=tell), only or ())
    give(report, as_text(report), as_json=as_json)
