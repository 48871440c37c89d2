"""A step of the trainer: models drawn, network, relaxed edit, divergence, and all the way back to the optimiser."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from metaedit_fast.bench.context import Context
from metaedit_fast.bench.peers import MissingPeerError, load
from metaedit_fast.bench.population import standard_rows
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.timing import interleaved

MODELS_PER_STEP = 20
STEPS = 10


def rows(context: Context) -> Iterator[Row]:
    """On one thread and on all, with the share of the time that lies outside of the compiled operators."""
    context.say("steps of the trainer")
    mlps = context.equal if context.trained is None else context.trained
    x = standard_rows(1000) if context.held_out is None else context.held_out
    models, steps = min(MODELS_PER_STEP, len(mlps)), 1 if context.quick else STEPS
    counts = context.thread_counts
    made = [
        Row("training", f"a step of the trainer, {models} models", "native", "shipped", "float32", n) for n in counts
    ]
    try:
        peer = load("trainer", "torch")
    except MissingPeerError as missing:
        yield from (row.without_figure(str(missing)) for row in made)
        return
    runs = {str(n): peer.TrainerSteps(mlps, x, models_per_step=models, threads=n) for n in counts}
    times = interleaved({name: functools.partial(run.run, steps) for name, run in runs.items()}, context.rounds)
    for row in made:
        share = runs[str(row.threads)].share_outside(steps)
        yield row.timed(times[str(row.threads)], steps * models, outside_native_share=share)
