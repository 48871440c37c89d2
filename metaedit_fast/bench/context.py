"""What one run of the benchmarks shares: its options, the machine's peaks, the populations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.bench.machine import Peaks
from metaedit_fast.bench.population import chain, equal_population, mixed_population
from metaedit_fast.bench.timing import Rounds
from metaedit_fast.models.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Context:
    """``quick`` measures a few small models for a moment, to see that everything runs; its figures tell nothing.

    ``trained`` are trained classifiers of 14 inputs, and ``held_out`` rows ``[rows, 14]`` of theirs, for what an edit
    costs a model; both or neither. ``say`` is told what is being measured.
    """

    threads: int
    quick: bool = False
    seed: int = 0
    trained: Sequence[MLP] | None = None
    held_out: NDArray[np.float32] | None = None
    say: Callable[[str], None] = lambda text: None

    @property
    def rounds(self) -> Rounds:
        """For a task whose slowest candidate takes seconds."""
        return Rounds(1, 1, 0.0) if self.quick else Rounds(5, 15, 60.0)

    @property
    def thread_counts(self) -> list[int]:
        """One, and all."""
        return sorted({1, self.threads})

    @property
    def trial(self) -> Rounds:
        """For choosing between candidates."""
        return Rounds(1, 1, 0.0) if self.quick else Rounds(2, 2, 0.0)

    @cached_property
    def mixed(self) -> list[MLP]:
        if self.quick:
            return [chain((14, 9, 2)), chain((14, 16, 2)), chain((14, 16, 17, 2), skips=[(1, 2)])]
        return mixed_population(64, self.seed)

    @cached_property
    def equal(self) -> list[MLP]:
        return equal_population(4 if self.quick else 64, self.seed)

    @cached_property
    def _peaks(self) -> dict[int, Peaks]:
        seconds = 0.002 if self.quick else 0.2
        return {threads: Peaks.measure(threads=threads, seconds=seconds) for threads in self.thread_counts}

    def peaks(self, threads: int) -> Peaks:
        """On 1 or on all threads, on the active instruction set; measured once."""
        return self._peaks[threads]
