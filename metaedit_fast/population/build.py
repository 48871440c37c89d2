"""Build a population: sample, train and store run after run, so that it can be stopped and resumed at any time."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from metaedit_fast.datasets import Dataset
from metaedit_fast.errors import InvalidPopulationError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.population.sampling import DEFAULT_RANGES, Ranges, RunSpec, checkpoint_epochs, sample_runs
from metaedit_fast.population.store import MANIFEST, Population, read_manifest, write_manifest, write_shard
from metaedit_fast.population.training import train_run
from metaedit_fast.progress import progress_bar

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Task:
    """One group: runs of one shape, which fill one shard."""

    path: Path
    runs: tuple[RunSpec, ...]
    checkpoints: tuple[int, ...]


def build_population(
    data: Dataset,
    n_runs: int,
    *,
    seed: int,
    out_dir: str | os.PathLike[str],
    epochs: int = 60,
    checkpoints: Sequence[int] | None = None,
    ranges: Ranges = DEFAULT_RANGES,
    jobs: int = 1,
    progress: bool = False,
) -> Population:
    """Train ``n_runs`` runs on ``data.train`` and store three checkpoints of each under ``out_dir``.

    ``checkpoints`` are epochs (default: early, middle and last of ``epochs``). Shards appear as groups of runs
    finish; a second call with the same arguments trains only what is missing and gives the same population as
    an uninterrupted one. Asking for more runs than before continues it, because a run does not depend on how
    many there are. ``jobs`` is the number of threads, each with runs of its own; the result does not depend on it.
    Cost: some 13 ms of one core with AVX-512 for a run and epoch of Adult; each group logs its own at level INFO.

    Raises ``InvalidPopulationError`` where ``out_dir`` holds a population of other data, seed, epochs or ranges,
    or a damaged shard.
    """
    if n_runs < 1 or epochs < 1 or jobs < 1:
        raise ValueError(f"n_runs, epochs and jobs: expected positive numbers, got {n_runs}, {epochs}, {jobs}")
    wanted = checkpoint_epochs(epochs) if checkpoints is None else tuple(sorted(set(checkpoints)))
    if not wanted or wanted[0] < 1 or len(wanted) > 127:
        raise ValueError(f"checkpoints: expected 1 to 127 epochs, from 1 on, got {wanted}")
    place = Path(out_dir)
    place.mkdir(parents=True, exist_ok=True)
    info = {
        "data": data.name,
        "attribution": data.attribution,
        "seed": seed,
        "checkpoint_epochs": list(wanted),
        "ranges": {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(ranges).items()},
    }
    _claim(place, data, info)
    runs = sample_runs(n_runs, seed=seed, n_inputs=data.n_features, n_outputs=len(data.class_names), ranges=ranges)
    size = ranges.runs_per_shape
    tasks = [_task(place, runs[start : start + size], wanted) for start in range(0, n_runs, size)]
    missing = [task for task in tasks if not task.path.is_file()]
    _log.info("%d runs in %d groups, %d groups already there", n_runs, len(tasks), len(tasks) - len(missing))
    with progress_bar("training groups", len(tasks), shown=progress, done=len(tasks) - len(missing)) as advance:
        for task in _train_all(data, missing, jobs):
            _log.debug("finished %s", task.path.name)
            advance()
    names = [task.path.name for task in tasks]
    write_manifest(place, names, dataset=data.fingerprint, info={**info, "n_runs": n_runs})
    return Population.load(place)


def _task(place: Path, runs: Sequence[RunSpec], checkpoints: tuple[int, ...]) -> _Task:
    first = runs[0].run
    path = place / f"runs-{first:07d}-{len(runs):03d}.parquet"
    # The last group of a smaller build, now cut short, would count its runs twice.
    for other in place.glob(f"runs-{first:07d}-*.parquet"):
        if other != path:
            other.unlink()
    return _Task(path, tuple(runs), checkpoints)


def _claim(place: Path, data: Dataset, info: dict[str, Any]) -> None:
    """Make ``place`` an unfinished build of exactly this recipe, or refuse."""
    if (place / MANIFEST).exists():
        found = read_manifest(place, partial=True)
        before = {k: v for k, v in found["info"].items() if k != "n_runs"}
        differ = _differences({"dataset": found["dataset"], **before}, {"dataset": data.fingerprint, **info})
        if differ:
            raise InvalidPopulationError(f"{place}: holds another population: {'; '.join(differ)}")
    elif any(place.glob("*.parquet")):
        raise InvalidPopulationError(f"{place}: holds Parquet files but no {MANIFEST}, so it is no build to resume")
    write_manifest(place, [], dataset=data.fingerprint, info=info, complete=False)


def _differences(there: dict[str, Any], wanted: dict[str, Any], within: str = "") -> list[str]:
    """What a recipe has otherwise than ``wanted``, a text for each entry; entries that are objects are compared too."""
    found = []
    for name in sorted(there.keys() | wanted.keys()):
        got, expected = there.get(name), wanted.get(name)
        if isinstance(got, dict) and isinstance(expected, dict):
            found += _differences(got, expected, f"{within}{name} ")
        elif got != expected:
            found.append(f"{within}{name} is {got!r} there, but {expected!r} was asked for")
    return found


def _train_all(data: Dataset, tasks: Sequence[_Task], jobs: int) -> Iterator[_Task]:
    """Train and store every task, and give each as it is done."""
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield _train_one(data, task)
        return
    stopped = threading.Event()

    def go_on(_: int) -> None:
        if stopped.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_train_one, data, task, go_on) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            # An interrupt or an error must not wait for all the rest.
            stopped.set()
            pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """Another thread ended the build."""


def _train_one(data: Dataset, task: _Task, on_epoch: Callable[[int], None] | None = None) -> _Task:
    start = time.perf_counter()
    found = [c for run in task.runs for c in train_run(run, data, checkpoints=task.checkpoints, on_epoch=on_epoch)]
    records = [
        PopulationRecord(
            mlp=MLP(c.run.spec, c.theta),
            run=c.run.run,
            split=c.run.split,
            checkpoint=c.checkpoint,
            epoch=c.epoch,
            norm=c.run.norm,
            dropout=c.run.dropout,
            batch_size=c.run.batch_size,
            learning_rate=c.run.learning_rate,
            weight_decay=c.run.weight_decay,
            val_accuracy=c.val_accuracy,
            val_loss=c.val_loss,
        )
        for c in found
    ]
    write_shard(task.path, records, dataset=data.fingerprint)
    seconds = time.perf_counter() - start
    epochs = task.checkpoints[-1]
    _log.info(
        "%s: widths %s, batch %d, %.0f ms a run and epoch",
        task.path.name,
        "-".join(map(str, task.runs[0].spec.widths)),
        task.runs[0].batch_size,
        1e3 * seconds / (len(task.runs) * epochs),
    )
    return task
