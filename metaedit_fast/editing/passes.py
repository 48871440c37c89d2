"""Edits that take more than one native call: the steps that they share, a batch of models at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.editing.job import TOO_LARGE, EditJob, Edits
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads, edited_theta
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models.inputs import input_worth
from metaedit_fast.models.native import Statistics, shape_of


class Clock:
    """The time of each model, ``seconds [M]``: its share, by its weights, of what the threads spent on all."""

    def __init__(self, job: EditJob, num_threads: int) -> None:
        sizes = np.array([spec.n_weights for spec in job.batch.specs], np.float64)
        self._share: NDArray[np.float64] = sizes / sizes.sum() * min(num_threads, len(sizes))
        self._started = time.perf_counter()

    @property
    def seconds(self) -> NDArray[np.float64]:
        return (time.perf_counter() - self._started) * self._share


def statistics_of(job: EditJob, *, num_threads: int) -> list[Statistics] | None:
    """What the probe tells about every model, where there is one."""
    if job.rows is None:
        return None
    items = [(shape_of(mlp.spec), mlp.theta, rows) for mlp, rows in zip(job.mlps, job.rows, strict=True)]
    return _core.mlp_statistics(items, num_threads=num_threads)


def worth_of(job: EditJob, *, num_threads: int) -> list[NDArray[np.float64]] | None:
    """What every input is worth to every model, where there is a probe."""
    return None if job.rows is None else input_worth(job.mlps, job.rows, num_threads=num_threads)


def features_of(job: EditJob, statistics: Sequence[Statistics] | None) -> list[ModelFeatures]:
    """The features of every model but those of the context."""
    if statistics is None:
        return [native.model_features(mlp, job.config) for mlp in job.mlps]
    return [native.model_features(mlp, job.config, found) for mlp, found in zip(job.mlps, statistics, strict=True)]


def apply_heads(
    job: EditJob,
    features: Sequence[ModelFeatures],
    heads: Heads,
    masks: Sequence[NDArray[np.bool_]] | None,
    clock: Clock,
) -> Edits:
    """θ' of every model under its mask of the weights, bool ``[n_weights]``; None keeps all.

    A model whose features, heads or parameters float32 cannot hold fails.
    """
    failures: dict[int, Exception] = {}
    edited = []
    weight = node = 0
    for m, (mlp, own) in enumerate(zip(job.mlps, features, strict=True)):
        spec = mlp.spec
        mask = np.ones(spec.n_weights, np.bool_) if masks is None else masks[m]
        w, n = slice(weight, weight + spec.n_weights), slice(node, node + sum(spec.widths))
        weight, node = w.stop, n.stop
        part = Heads(heads.score[w], heads.relative[w], heads.additive[w], heads.node[n])
        with np.errstate(over="ignore", invalid="ignore"):
            theta = edited_theta(spec, mlp.theta, own, part, mask, job.gain(m))
        if not np.isfinite(theta).all():
            failures[m], theta = UnsupportedModelError(TOO_LARGE), mlp.theta
        edited.append(theta)
    return Edits(np.concatenate(edited), failures, clock.seconds)
