"""Edits that change how groups of rows are treated: passes of the metanetwork, told how the model treats them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.editing.job import Edit, EditJob, Edits, Network
from metaedit_fast.editing.passes import Clock, apply_heads, features_of, statistics_of
from metaedit_fast.metanet.context import group_context
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.groups import group_statistics
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements.odds import equalized_odds_difference

# Halvings of the range of strengths on a logarithmic scale: the last step is an eighth of a strength.
_HALVINGS = 6


class GroupEditor:
    """Edits the models of ``job``, which has labelled rows, at any strengths; their features are found once."""

    def __init__(self, network: Network, job: EditJob, *, num_threads: int) -> None:
        self._clock = Clock(job, num_threads)
        self._network, self._job, self._num_threads = network, job, num_threads
        statistics = statistics_of(job, num_threads=num_threads)
        assert statistics is not None
        assert job.labelled is not None
        self._features = features_of(job, statistics)
        groups = group_statistics(job.mlps, job.labelled, num_threads=num_threads)
        self._told = [
            group_context(own, mlp.spec, found, mean, std)
            for own, mlp, found, (mean, std, _, _) in zip(self._features, job.mlps, groups, statistics, strict=True)
        ]

    def edit(self, strengths: Sequence[float]) -> Edits:
        """Every model at its own strength; no weight is removed."""
        job = self._job.at(strengths)
        heads = self._network.heads(job.mlps, self._told, job.conditions, num_threads=self._num_threads)
        return apply_heads(job, self._features, heads, None, self._clock)


def edit_to(
    job: EditJob, edit: Edit, limit: float, low: float, high: float, *, clock: Clock, num_threads: int
) -> Edits:
    """Every model at the least strength, of those tried between ``low`` and ``high``, at which the equalised-odds
    difference of its decisions on the labelled rows is at most ``limit``; ``edit`` is what ``Engine.start`` gives.

    The strengths are tried by halving the logarithmic range, as if the difference fell with the strength. A model
    that meets the limit already stays as it is; one that never does gets the edit of its smallest difference.
    """
    mlps, offsets = job.mlps, job.batch.theta_offsets
    n_models = len(mlps)
    best, smallest = job.batch.theta.copy(), _differences(job, mlps, num_threads)
    open_, failures = smallest > limit, dict[int, Exception]()
    bottom, top = np.full(n_models, np.log(low)), np.full(n_models, np.log(high))
    trial = top.copy()
    for _ in range(_HALVINGS + 1):
        found = edit(np.exp(trial).tolist())
        failures.update({m: error for m, error in found.failures.items() if open_[m]})
        edited = [mlp.replace(found.theta[a:b]) for mlp, a, b in zip(mlps, offsets, offsets[1:], strict=False)]
        reached = _differences(job, edited, num_threads)
        # Once the limit is met, only what meets it at less strength is better.
        better = open_ & np.where(smallest > limit, reached < smallest, reached <= limit)
        for m in np.flatnonzero(better):
            best[offsets[m] : offsets[m + 1]] = edited[m].theta
        smallest = np.where(better, reached, smallest)
        met = reached <= limit
        top, bottom = np.where(met, trial, top), np.where(met, bottom, trial)
        trial = (bottom + top) / 2
    return Edits(best, failures, clock.seconds)


def _differences(job: EditJob, mlps: Sequence[MLP], num_threads: int) -> NDArray[np.float64]:
    rows = job.labelled
    assert rows is not None
    found = evaluate(mlps, rows.x, rows.labels, rows.groups, num_threads=num_threads)
    assert found.counts is not None
    return equalized_odds_difference(found.counts)
