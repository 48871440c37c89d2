"""The whole metanetwork, forward, on the mixed population: the kernels beside the peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from metaedit_fast.bench.bounds import network_work
from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.memory import peak_growth_mb
from metaedit_fast.bench.network import NetworkCase, heads_error, official, shipped, worst_error
from metaedit_fast.bench.peers import MissingPeerError, load
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.timing import Timed, interleaved
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig

Forward = Callable[[], Heads]

CONFIGS: dict[str, Callable[[], MetanetConfig]] = {"official": official, "shipped": shipped}

# Of the outputs as one vector; each of them alone may be a few times as far off.
LIMITS = {"float32": 1e-6, "bf16x3": 1e-5, "bf16": 5e-3}
WORST = 5

MODELS_PER_CALL = (1, 2, 4, 8, 16)
ALL_IN_ONE = 64


def native_forward(case: NetworkCase, threads: int, precision: str = "float32") -> Forward:
    """The public call on a built batch."""
    editor = native.pack(case.config, case.weights)
    inputs = (case.graph, case.features, case.conditions)
    return lambda: native.metanetwork_forward(editor, *inputs, num_threads=threads, precision=precision)


def _pyg(models_per_call: int) -> Callable[[NetworkCase, int, str], Forward]:
    def make(case: NetworkCase, threads: int, precision: str) -> Forward:
        peer = load("pyg", "torch", "torch_geometric")
        made: Forward = peer.forward(case, threads=threads, models_per_call=models_per_call)
        return made

    return make


def _torch(case: NetworkCase, threads: int, precision: str) -> Forward:
    made: Forward = load("torch_network", "torch").forward(case, threads=threads)
    return made


def _compiled(case: NetworkCase, threads: int, precision: str) -> Forward:
    made: Forward = load("torch_network", "torch").forward(case, threads=threads, compiled=True)
    return made


def _onnxruntime(case: NetworkCase, threads: int, precision: str) -> Forward:
    from metaedit_fast.bench.peers.onnx_network import forward

    return forward(case, threads=threads)


# Each makes a function without arguments that runs all models of a case, or raises MissingPeerError.
ENGINES: dict[str, Callable[[NetworkCase, int, str], Forward]] = {
    "native": native_forward,
    "torch": _torch,
    "torch.compile": _compiled,
    "onnxruntime": _onnxruntime,
    **{f"pyg, {n} a call": _pyg(n) for n in (*MODELS_PER_CALL, ALL_IN_ONE)},
}


def rows(context: Context) -> Iterator[Row]:
    """Both forms beside the peers on all threads, and the kernels alone on one."""
    for form, config in CONFIGS.items():
        context.say(f"the {form} form, forward")
        yield from _of_form(context, NetworkCase.of(config(), context.mixed, context.seed))


def _of_form(context: Context, case: NetworkCase) -> Iterator[Row]:
    expected, standard = case.standard
    plans = [("native", precision) for precision in native_precisions(case)]
    plans += [(name, "float32") for name in _peers(context, case)]

    def error(got: Heads, limit: float) -> float:
        found = heads_error(got, expected)
        return found if worst_error(got, expected) < WORST * limit else float("inf")

    def candidate(engine: str, precision: str) -> Candidate:
        row = Row("forward", f"{len(case.mlps)} models", engine, case.config.form, precision, context.threads)
        row = dataclasses.replace(row, extra={"error_against": standard})
        make = ENGINES[engine]
        return Candidate(
            row,
            lambda: make(case, context.threads, precision),
            lambda h: error(h, LIMITS[precision]),
            LIMITS[precision],
        )

    candidates = [candidate(*plan) for plan in plans]
    alone = []
    for row, timed in compare(candidates, len(case.mlps), context.rounds):
        if timed is not None:
            row = _with_memory(context, row)
            if row.engine == "native":
                row = _with_bound(context, case, row, timed)
                alone.append((row, timed))
        yield row
    if context.threads > 1:
        for row, timed in alone:
            yield _on_one_thread(context, case, row, timed)


def native_precisions(case: NetworkCase) -> list[str]:
    """Those for which the active instruction set has kernels of their own."""
    editor = native.pack(case.config, case.weights)
    return [precision for precision in native.PRECISIONS if editor.arithmetic(precision) == precision]


def _peers(context: Context, case: NetworkCase) -> list[str]:
    """Of the PyG variants only the one at its best, found in a trial, and all models in one call."""
    names = ["torch", "onnxruntime", f"pyg, {ALL_IN_ONE} a call"]
    if not context.quick:
        names.insert(1, "torch.compile")
    try:
        runs = {f"pyg, {n} a call": _pyg(n)(case, context.threads, "float32") for n in MODELS_PER_CALL}
    except MissingPeerError:
        return names
    times = interleaved(runs, context.trial)
    return [*names, min(times, key=lambda name: times[name].median)]


def _with_memory(context: Context, row: Row) -> Row:
    if context.quick:
        return row
    growth = peak_growth_mb(
        str(row.form), row.engine, str(row.precision), context.threads, len(context.mixed), context.seed
    )
    return dataclasses.replace(row, peak_mb=growth)


def _with_bound(context: Context, case: NetworkCase, row: Row, timed: Timed) -> Row:
    precision, threads = str(row.precision), row.threads or context.threads
    bound = network_work(case.config, case.mlps, precision).seconds(context.peaks(threads), precision)
    return row.with_bound(bound, timed)


def _on_one_thread(context: Context, case: NetworkCase, row: Row, on_all: Timed) -> Row:
    """The kernels on one thread, and how much faster all threads are."""
    run = native_forward(case, 1, row.precision or "float32")
    timed = interleaved({"one": run}, context.rounds)["one"]
    alone = dataclasses.replace(row, threads=1, ratio_to_pyg=None, peak_mb=None)
    alone = alone.timed(timed, len(case.mlps), speedup_on_all_threads=timed.median / on_all.median)
    return _with_bound(context, case, alone, timed)
