"""Measuring edits: divergence from the originals and confusion counts of many models on shared rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.bench.bounds import passes_work
from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.peers import load
from metaedit_fast.bench.population import moved, standard_rows
from metaedit_fast.bench.rows import Row
from metaedit_fast.models.divergence import jsd
from metaedit_fast.models.evaluation import evaluate, predictions_of
from metaedit_fast.models.mlp import MLP

N_ROWS = 1000
LIMIT = 1e-4

Measured = tuple[NDArray[np.floating], NDArray[np.int64]]


def rows(context: Context) -> Iterator[Row]:
    """The equal population, of which torch makes a few tensors; the originals' predictions are known."""
    context.say("evaluation")
    originals = context.equal
    edited = moved(originals, context.seed)
    x = standard_rows(N_ROWS)
    y = originals[0].predict(x).astype(np.int64)
    exact = np.array([_exact_divergence(*pair, x) for pair in zip(originals, edited, strict=True)])

    def error(found: Measured) -> float:
        """Of the divergences, relative; infinite where more than one row in a thousand is counted elsewhere."""
        counts = np.array([_counts(mlp, x, y) for mlp in edited])
        if np.abs(found[1] - counts).sum() > 2e-3 * counts.sum():
            return float("inf")
        return float(np.max(np.abs(found[0] / exact - 1)))

    def torch(mapped: bool) -> Callable[[], Callable[[], Measured]]:
        def make() -> Callable[[], Measured]:
            peer = load("torch_mlp", "torch")
            made: Callable[[], Measured] = peer.evaluation(
                edited, originals, x, y, threads=context.threads, mapped=mapped
            )
            return made

        return make

    makes = {
        "native": lambda: _native(originals, edited, x, y, context.threads),
        "torch, batched products": torch(False),
        "torch, vmap": torch(True),
    }
    case = f"{len(edited)} models, {N_ROWS} rows"
    candidates = [
        Candidate(Row("evaluation", case, engine, None, "float32", context.threads), make, error, LIMIT)
        for engine, make in makes.items()
    ]
    bound = passes_work(edited, N_ROWS).seconds(context.peaks(context.threads))
    for row, timed in compare(candidates, len(edited), context.rounds):
        yield row if row.engine != "native" or timed is None else row.with_bound(bound, timed)


def _native(
    originals: Sequence[MLP], edited: Sequence[MLP], x: NDArray[np.float32], y: NDArray[np.int64], threads: int
) -> Callable[[], Measured]:
    known = predictions_of(originals, x, num_threads=threads)

    def run() -> Measured:
        found = evaluate(edited, x, y, originals=known, num_threads=threads)
        assert found.jsd is not None
        assert found.counts is not None
        return found.jsd, found.counts[:, 0]

    return run


def _exact_divergence(original: MLP, edited: MLP, x: NDArray[np.float32]) -> float:
    return float(jsd(original.log_proba(x, np.float64), edited.log_proba(x, np.float64)).mean())


def _counts(mlp: MLP, x: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.zeros((2, 2), np.int64)
    np.add.at(counts, (y, mlp.log_proba(x, np.float64).argmax(axis=1)), 1)
    return counts
