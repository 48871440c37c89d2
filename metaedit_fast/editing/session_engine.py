"""The engine that runs editors as ONNX graphs, in ONNX Runtime: chunks of models on a pool of threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.editing.job import TOO_LARGE, Edit, EditJob, Edits
from metaedit_fast.editing.passes import statistics_of, worth_of
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.export.onnx import build_editor
from metaedit_fast.export.session import Arrays, EditorSession, structure_inputs
from metaedit_fast.export.weights import Weights
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.groups import group_statistics

# Weights of one call: enough that what a call costs by itself does not count, and few enough that what it holds, some
# 400 bytes a weight, stays in the caches.
CHUNK = 32_768


class SessionEngine:
    """The whole edit as one graph; what a probe tells about the models comes from the compiled kernels."""

    def __init__(self, config: MetanetConfig, requirement: str, weights: Weights) -> None:
        self._session = EditorSession(build_editor(config, requirement, weights))

    @property
    def arithmetic(self) -> str:
        return self._session.arithmetic

    def start(self, job: EditJob, *, num_threads: int) -> Edit:
        """Calls of the session for chunks of models."""
        measured = _Measured(job, num_threads)
        chunks = list(_chunks(job, num_threads))
        inputs = [measured.inputs(chunk) for chunk in chunks]

        def edit(budgets: Sequence[float]) -> Edits:
            theta, failures = job.batch.theta.copy(), dict[int, Exception]()
            seconds = np.zeros(job.batch.n_models)

            def edit_chunk(chunk: slice, given: Arrays) -> None:
                started = time.perf_counter()
                found = self._session.run({**given, "budget": np.array(budgets[chunk], np.float64)})
                held = _held(job, chunk, found)
                offsets = job.batch.theta_offsets
                for m in range(chunk.start, chunk.stop):
                    if held[m - chunk.start]:
                        mine = slice(offsets[m] - offsets[chunk.start], offsets[m + 1] - offsets[chunk.start])
                        theta[offsets[m] : offsets[m + 1]] = found["edited"][mine]
                    else:
                        failures[m] = UnsupportedModelError(TOO_LARGE)
                sizes = np.array([spec.n_weights for spec in job.batch.specs[chunk]], np.float64)
                seconds[chunk] = (time.perf_counter() - started) * sizes / sizes.sum()

            with ThreadPoolExecutor(min(num_threads, len(chunks))) as pool:
                for _ in pool.map(edit_chunk, chunks, inputs):
                    pass
            return Edits(theta, failures, seconds)

        return edit


class _Measured:
    """The graph's inputs that do not depend on the budget; what rows tell about the models is found at once."""

    def __init__(self, job: EditJob, num_threads: int) -> None:
        self._job = job
        self._statistics = statistics_of(job, num_threads=num_threads)
        inputs, groups = job.config.context == "inputs", job.labelled
        self._worth = worth_of(job, num_threads=num_threads) if inputs else None
        self._groups = None if groups is None else group_statistics(job.mlps, groups, num_threads=num_threads)

    def inputs(self, chunk: slice) -> Arrays:
        """Those of a chunk of the models."""
        batch = self._job.batch
        theta = batch.theta[batch.theta_offsets[chunk.start] : batch.theta_offsets[chunk.stop]]
        found: Arrays = {"theta": theta, **structure_inputs(batch.specs[chunk])}
        if self._statistics is not None:
            names = ("mean", "std", "gradient", "fisher")
            parts = zip(*self._statistics[chunk], strict=True)
            found |= {name: np.concatenate(values) for name, values in zip(names, parts, strict=True)}
        if self._worth is not None:
            found["worth"] = np.stack(self._worth[chunk])
        if self._groups is not None:
            groups = self._groups[chunk]
            found["rates"] = np.stack([group.rates for group in groups])
            found["cell_means"] = np.concatenate([group.means for group in groups])
            found["gap_gradient"] = np.concatenate([group.gradient for group in groups], axis=1)
        return found


def _chunks(job: EditJob, num_threads: int) -> Iterator[slice]:
    """The models in parts of about equal work, none of more than ``CHUNK`` weights but for a model that alone has
    more; at least as many parts as threads, where there are so many models.
    """
    sizes = [spec.n_weights for spec in job.batch.specs]
    limit = min(CHUNK, -(-sum(sizes) // num_threads))
    start = weights = 0
    for m, size in enumerate(sizes):
        if m > start and weights + size > limit:
            yield slice(start, m)
            start, weights = m, 0
        weights += size
    yield slice(start, len(sizes))


def _held(job: EditJob, chunk: slice, found: Arrays) -> NDArray[np.bool_]:
    """Which models of the chunk float32 could hold: all that the graph gives for them is finite."""
    specs = job.batch.specs[chunk]
    held = np.ones(len(specs), np.bool_)
    sizes = {"edited": [spec.n_parameters for spec in specs], "score": [spec.n_weights for spec in specs]}
    for name, counts in sizes.items():
        values = found.get(name)
        if values is None or np.isfinite(values).all():
            continue
        rows = values if values.ndim == 2 else np.split(values, np.cumsum(counts)[:-1])
        held &= [bool(np.isfinite(row).all()) for row in rows]
    return held
