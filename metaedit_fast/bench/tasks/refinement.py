"""Steps of optimisation per edited model, with the mask kept: L-BFGS on the kernels beside Adam in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.bench.bounds import passes_work
from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.peers import load
from metaedit_fast.bench.population import moved, standard_rows
from metaedit_fast.bench.rows import Row
from metaedit_fast.editing.refine import refine_all
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.models.divergence import jsd
from metaedit_fast.models.mlp import MLP

N_ROWS, STEPS = 256, 30
# A refined model must be nearer to its original than it was: the "error" is the ratio of the divergences.
Thetas = Sequence[NDArray[np.float32]]


def rows(context: Context) -> Iterator[Row]:
    """The equal population, from disturbed models with all weights, and from a tenth of the weights."""
    originals, x = context.equal, standard_rows(N_ROWS)
    starts = {"all weights": moved(originals, context.seed), "a tenth": [prune("magnitude", m, 0.9) for m in originals]}
    for name, models in starts.items():
        context.say(f"refinement of {name}")
        yield from _from_start(context, name, models, originals, x)


def _from_start(
    context: Context, name: str, starts: Sequence[MLP], originals: Sequence[MLP], x: NDArray[np.float32]
) -> Iterator[Row]:
    threads = context.threads
    before = mean_divergence(originals, [m.theta for m in starts], x)

    def torch() -> Callable[[], Thetas]:
        peer = load("torch_mlp", "torch")
        made: Callable[[], Thetas] = peer.adam(starts, originals, x, steps=STEPS, threads=threads)
        return made

    makes: dict[str, Callable[[], Callable[[], Thetas]]] = {
        "native": lambda: (
            lambda: [m.theta for m, _ in refine_all(starts, originals, x, steps=STEPS, num_threads=threads)]
        ),
        "torch, Adam": torch,
    }
    case = f"{len(starts)} models, {STEPS} steps, {N_ROWS} rows, {name}"
    after: dict[str, float] = {}

    def judge(engine: str) -> Callable[[Thetas], float]:
        def error(thetas: Thetas) -> float:
            after[engine] = mean_divergence(originals, thetas, x)
            return after[engine] / before

        return error

    candidates = [
        Candidate(Row("refinement", case, engine, None, "float32", threads), make, judge(engine), float("inf"))
        for engine, make in makes.items()
    ]
    density = sum(np.count_nonzero(m.theta[: m.spec.n_weights]) for m in starts) / sum(m.spec.n_weights for m in starts)
    work = passes_work(starts, N_ROWS, backward=True, density=density) * STEPS
    for row, timed in compare(candidates, len(starts), context.rounds):
        row = dataclasses.replace(
            row, error=None, extra={**row.extra, "jsd_before": before, "jsd": after.get(row.engine)}
        )
        if row.engine == "native" and timed is not None:
            row = row.with_bound(work.seconds(context.peaks(threads)), timed)
        yield row


def mean_divergence(originals: Sequence[MLP], thetas: Thetas, x: NDArray[np.float32]) -> float:
    """Mean over models of the mean JSD on ``x``, in float64."""
    found = [
        float(jsd(mlp.log_proba(x, np.float64), mlp.replace(theta).log_proba(x, np.float64)).mean())
        for mlp, theta in zip(originals, thetas, strict=True)
    ]
    return float(np.mean(found))
