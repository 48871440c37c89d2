"""A training step of the metanetwork: forward, and backward to all parameters, on the mixed population."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.bench.bounds import training_work
from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.network import NetworkCase, relative_error
from metaedit_fast.bench.peers import MissingPeerError, load
from metaedit_fast.bench.rows import Row
from metaedit_fast.bench.tasks.forward import ALL_IN_ONE, CONFIGS, MODELS_PER_CALL
from metaedit_fast.bench.timing import Timed, interleaved

LIMIT = 3e-5
Gradients = dict[str, NDArray[np.floating]]
Step = Callable[[], Gradients]


def rows(context: Context) -> Iterator[Row]:
    """Both forms: the kernels beside torch's autograd and PyG. Without torch no row has a figure."""
    for form, config in CONFIGS.items():
        context.say(f"the {form} form, training step")
        yield from _of_form(context, NetworkCase.of(config(), context.mixed, context.seed))


def _of_form(context: Context, case: NetworkCase) -> Iterator[Row]:
    threads = context.threads
    row = Row("training", f"{len(case.mlps)} models", "", case.config.form, "float32", threads)
    makes: dict[str, Callable[[], Step]] = {
        "native": lambda: load("torch_network", "torch").native_step(case, threads=threads),
        "torch": lambda: load("torch_network", "torch").training_step(case, threads=threads),
        f"pyg, {ALL_IN_ONE} a call": _pyg(case, threads, ALL_IN_ONE),
    }
    try:
        exact = load("torch_network", "torch").exact_gradients(case)
        best = _best_of_pyg(context, case)
    except MissingPeerError as missing:
        for engine in makes:
            yield dataclasses.replace(row, engine=engine).without_figure(str(missing))
        return
    if best is not None:
        makes[f"pyg, {best} a call"] = _pyg(case, threads, best)

    def error(got: Gradients) -> float:
        names = sorted(exact)
        flat = [np.concatenate([np.ravel(gradients[name]) for name in names]) for gradients in (got, exact)]
        return relative_error(flat[0], flat[1])

    candidates = [
        Candidate(dataclasses.replace(row, engine=engine), make, error, LIMIT) for engine, make in makes.items()
    ]
    for found, timed in compare(candidates, len(case.mlps), context.rounds):
        yield _with_bound(context, case, found, timed) if found.engine == "native" and timed else found


def _pyg(case: NetworkCase, threads: int, models_per_call: int) -> Callable[[], Step]:
    def make() -> Step:
        peer = load("pyg", "torch", "torch_geometric")
        made: Step = peer.training_step(case, threads=threads, models_per_call=models_per_call)
        return made

    return make


def _best_of_pyg(context: Context, case: NetworkCase) -> int | None:
    """The models per call that PyG is fastest with, found in a trial; None without PyG."""
    try:
        runs = {str(n): _pyg(case, context.threads, n)() for n in MODELS_PER_CALL}
    except MissingPeerError:
        return None
    times = interleaved(runs, context.trial)
    return int(min(times, key=lambda n: times[n].median))


def _with_bound(context: Context, case: NetworkCase, row: Row, timed: Timed) -> Row:
    bound = training_work(case.config, case.mlps).seconds(context.peaks(context.threads))
    return row.with_bound(bound, timed)
