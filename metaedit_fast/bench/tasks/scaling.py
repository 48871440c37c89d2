"""How the kernels' forward pass scales: one small model alone, then by batch, width, depth and edges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from metaedit_fast.bench.context import Context
from metaedit_fast.bench.network import NetworkCase, heads_error, shipped
from metaedit_fast.bench.population import N_INPUTS, N_OUTPUTS, chain
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.tasks.forward import LIMITS, native_forward
from metaedit_fast.bench.timing import Rounds, Timed, interleaved
from metaedit_fast.models.mlp import MLP

SMALL = (N_INPUTS, 64, 64, N_OUTPUTS)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WIDTHS = (16, 32, 64, 128, 256, 512)
DEPTHS = (1, 2, 4, 8, 16)


def rows(context: Context) -> Iterator[Row]:
    """Latency and scaling in the shipped form, float32."""
    context.say("latency and scaling")
    yield from _latency(context)
    cases: dict[str, Sequence[MLP]] = {}
    for n in BATCHES[:2] if context.quick else BATCHES:
        cases[f"{n} of {_name(SMALL)}"] = [chain(SMALL, seed) for seed in range(n)]
    for width in WIDTHS[:2] if context.quick else WIDTHS:
        cases[f"width {width}"] = [chain((N_INPUTS, width, width, N_OUTPUTS))] * context.threads
    for depth in DEPTHS[:2] if context.quick else DEPTHS:
        cases[f"depth {depth}"] = [chain((N_INPUTS, *[64] * depth, N_OUTPUTS))] * context.threads
    for case, mlps in cases.items():
        yield _row(context, case, mlps, context.threads, Rounds(1, 1, 0.0) if context.quick else Rounds(20, 200, 0.5))[
            0
        ]


def _latency(context: Context) -> Iterator[Row]:
    """One small model through the public call on a built batch, Python included."""
    rounds = Rounds(3, 3, 0.0) if context.quick else Rounds(300, 1000, 2.0)
    for threads in context.thread_counts:
        row, timed = _row(context, f"one {_name(SMALL)} alone", [chain(SMALL)], threads, rounds)
        if timed is not None:
            p50, p99 = 1e3 * timed.quantile(0.5), 1e3 * timed.quantile(0.99)
            row = dataclasses.replace(row, extra={**row.extra, "p50_ms": p50, "p99_ms": p99})
        yield row


def _row(context: Context, name: str, mlps: Sequence[MLP], threads: int, rounds: Rounds) -> tuple[Row, Timed | None]:
    case = NetworkCase.of(shipped(), mlps, context.seed)
    run = native_forward(case, threads)
    error = heads_error(run(), case.standard[0])
    row = Row("forward", name, "native", "shipped", "float32", threads, error=error)
    if error > LIMITS["float32"]:
        return row.without_figure(f"error above {LIMITS['float32']:g}, so no time is given"), None
    timed = interleaved({"native": run}, rounds)["native"]
    ns_per_edge = 1e9 * timed.median * threads / case.graph.n_edges
    return row.timed(timed, len(mlps), edges=case.graph.n_edges, thread_ns_per_edge=ns_per_edge), timed


def _name(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))
