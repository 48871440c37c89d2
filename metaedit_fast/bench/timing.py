"""Interleaved timing: what is compared runs in turns, so that a machine's good and bad minutes fall on all alike."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np

Run = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds of every repetition of one candidate, the warm-up not among them."""

    seconds: tuple[float, ...]

    def quantile(self, q: float) -> float:
        """The ``q``-quantile in seconds, between neighbours by a straight line."""
        return float(np.quantile(self.seconds, q))

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a fraction of the median."""
        return (self.quantile(0.75) - self.quantile(0.25)) / 2 / self.median


@dataclasses.dataclass(frozen=True)
class Rounds:
    """How long to measure: ``most`` rounds, or fewer once ``seconds`` are over, but ``least`` in any case."""

    least: int
    most: int
    seconds: float

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"rounds: expected 1 <= least <= most, got {self.least} and {self.most}")


def interleaved(
    candidates: Mapping[str, Run], rounds: Rounds, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timed]:
    """Time candidates in turns: each twice to warm up, then each once a round.

    Every second round goes through them backwards, so that none always follows the same one. A candidate that
    takes less than a fiftieth of the slowest one's time runs several times in a round, each counted.
    """
    names = list(candidates)
    if not names:
        return {}
    for run in candidates.values():
        run()
    once = {name: _seconds_of(candidates[name], clock) for name in names}
    slowest = max(once.values())
    times = {name: 1 + min(9, int(slowest / 50 / max(took, 1e-9))) for name, took in once.items()}
    found: dict[str, list[float]] = {name: [] for name in names}
    start = clock()
    for i in range(rounds.most):
        if i >= rounds.least and clock() - start > rounds.seconds:
            break
        for name in names if i % 2 == 0 else reversed(names):
            found[name] += [_seconds_of(candidates[name], clock) for _ in range(times[name])]
    return {name: Timed(tuple(seconds)) for name, seconds in found.items()}


def _seconds_of(run: Run, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
