"""One shot of the bundled editor and steps of refinement, end to end, beside a hundred steps of Adam in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.network import SPARSITY
from metaedit_fast.bench.peers import load
from metaedit_fast.bench.population import standard_rows
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.tasks.refinement import STEPS, Thetas, mean_divergence
from metaedit_fast.editing.editor import load_editor
from metaedit_fast.editing.refine import refine_all
from metaedit_fast.graph import WeightGraphBatch

EDITOR = "adult-pruning"
ADAM_STEPS = 100
UNTRAINED = "random weights, not trained models: the JSD tells nothing"


def rows(context: Context) -> Iterator[Row]:
    """At 90 % sparsity, on the rows that the editor carries; JSD on others."""
    context.say("one shot and refinement")
    mlps = context.equal if context.trained is None else context.trained
    held_out = standard_rows(1000) if context.held_out is None else context.held_out
    editor, threads = load_editor(EDITOR), context.threads
    probe = editor.probe
    assert probe is not None
    batch = WeightGraphBatch.from_mlps(mlps)
    shot = editor.edit_batch(batch, SPARSITY, num_threads=threads)
    # The same mask on the original weights: Adam begins where a pruner of equal judgement would leave it.
    masked = [mlp.replace(np.where(theta == 0, 0, mlp.theta)) for mlp, theta in zip(mlps, shot, strict=True)]
    before = mean_divergence(mlps, [mlp.theta for mlp in masked], held_out)

    def native() -> Thetas:
        shot = editor.edit_batch(batch, SPARSITY, num_threads=threads)
        edited = [mlp.replace(theta) for mlp, theta in zip(mlps, shot, strict=True)]
        return [mlp.theta for mlp, _ in refine_all(edited, mlps, probe, steps=STEPS, num_threads=threads)]

    def torch() -> Callable[[], Thetas]:
        made: Callable[[], Thetas] = load("torch_mlp", "torch").adam(
            masked, mlps, probe, steps=ADAM_STEPS, threads=threads
        )
        return made

    makes: dict[str, Callable[[], Callable[[], Thetas]]] = {
        f"native, one shot + {STEPS} steps": lambda: native,
        "native, one shot": lambda: lambda: editor.edit_batch(batch, SPARSITY, num_threads=threads),
        f"torch, the same mask + {ADAM_STEPS} of Adam": torch,
    }
    after: dict[str, float] = {}

    def judge(engine: str) -> Callable[[Thetas], float]:
        def error(thetas: Thetas) -> float:
            after[engine] = mean_divergence(mlps, thetas, held_out)
            return after[engine]

        return error

    case = f"{len(mlps)} models at sparsity {SPARSITY:g}, {'untrained' if context.trained is None else 'trained'}"
    candidates = [
        Candidate(Row("edit", case, engine, "shipped", "float32", threads), make, judge(engine), float("inf"))
        for engine, make in makes.items()
    ]
    for row, _ in compare(candidates, len(mlps), context.rounds):
        extra = {**row.extra, "jsd_of_mask": before, "jsd": after.get(row.engine)}
        if context.trained is None:
            extra.setdefault("note", UNTRAINED)
        yield dataclasses.replace(row, error=None, extra=extra)
