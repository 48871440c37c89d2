"""Engines that do the same thing: checked, then timed in turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from metaedit_fast.bench.peers import MissingPeerError
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.timing import Rounds, Timed, interleaved

Make = Callable[[], Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """``row`` names an engine; ``make`` prepares it and gives a function that does all of the work in one call.

    ``make`` may raise ``MissingPeerError``. ``error`` judges what the function gives; above ``limit`` the engine
    gets no figure.
    """

    row: Row
    make: Make
    error: Callable[[Any], float]
    limit: float


def compare(candidates: list[Candidate], n_models: int, rounds: Rounds) -> Iterator[tuple[Row, Timed | None]]:
    """The rows in order, with errors, times and ratios to the fastest PyG row; None beside a row without a figure."""
    rows, runs = [], {}
    for number, candidate in enumerate(candidates):
        try:
            run = candidate.make()
            error = candidate.error(run())
        except MissingPeerError as missing:
            rows.append(candidate.row.without_figure(str(missing)))
            continue
        row = dataclasses.replace(candidate.row, error=error)
        if error <= candidate.limit:
            runs[str(number)] = run
        else:
            row = row.without_figure(f"error above {candidate.limit:g}, so no time is given")
        rows.append(row)
    times = interleaved(runs, rounds)
    pyg = [timed.median for number, timed in times.items() if rows[int(number)].engine.startswith("pyg")]
    for number, row in enumerate(rows):
        timed = times.get(str(number))
        if timed is not None:
            row = row.timed(timed, n_models)
            row = dataclasses.replace(row, ratio_to_pyg=min(pyg) / timed.median if pyg else None)
        yield row, timed
