"""Edits that remove inputs: one pass of the metanetwork ranks them, a second one knows the mask and edits the rest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.editing.job import EditJob, Edits, Network
from metaedit_fast.editing.passes import Clock, apply_heads, features_of, statistics_of, worth_of
from metaedit_fast.metanet.context import input_context
from metaedit_fast.models.inputs import kept_weights
from metaedit_fast.requirements import DataMinimisation


def edit_inputs(network: Network, job: EditJob, requirement: DataMinimisation, *, num_threads: int) -> Edits:
    """Edit all models of ``job``, none of which has a skip from its inputs.

    The score of an input is what the node head gives for it in the first pass, which is told that nothing is
    removed (an input has no bias that this could edit); ours. The weights that leave removed inputs become 0.
    """
    clock = Clock(job, num_threads)
    mlps, specs = job.mlps, job.batch.specs
    features = features_of(job, statistics_of(job, num_threads=num_threads))
    worth: Sequence[NDArray[np.float64] | None] = worth_of(job, num_threads=num_threads) or [None] * len(mlps)
    everything = [np.ones(spec.n_inputs, np.bool_) for spec in specs]
    told = list(map(input_context, features, specs, everything, worth))
    node = network.heads(mlps, told, job.conditions, num_threads=num_threads).node
    scores = np.nan_to_num(node[:, 0])  # a model that float32 cannot hold has NaN, and fails below
    firsts = itertools.accumulate((sum(spec.widths) for spec in specs[:-1]), initial=0)
    kept = [
        requirement.kept_inputs(mlp, scores[first : first + mlp.spec.n_inputs], budget)
        for mlp, first, budget in zip(mlps, firsts, job.budgets, strict=True)
    ]
    told = list(map(input_context, features, specs, kept, worth))
    heads = network.heads(mlps, told, job.conditions, num_threads=num_threads)
    return apply_heads(job, features, heads, list(map(kept_weights, specs, kept)), clock)
