"""Refinement in rounds: the editor removes some of the weights, and what follows on refined models the rest.

What a weight is worth depends on the others. A refined model, with some weights gone, tells better which of the
others it can spare than the original does; so the last ones are chosen there, by their saliency (ours).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.editing.refine import refine_all
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import WeightRanking

# Passes of refinement before weights are removed again, and the power of the density that the editor leaves; chosen
# on population-val of Adult.
STEPS_BETWEEN = 10
_EDITORS_SHARE = 0.8
# Of the mean, so that also weights which the probe never reaches have an order.
_FLOOR = 1e-6


def round_budgets(budget: float, rounds: int) -> list[float]:
    """The sparsity that each round leaves, from the editor's to ``budget``; densities fall geometrically."""
    if rounds == 1:
        return [budget]
    shares = np.linspace(_EDITORS_SHARE, 1.0, rounds)[:-1]
    return [*(float(-np.expm1(share * np.log1p(-budget))) for share in shares), budget]


def refine_in_rounds(
    edited: Sequence[MLP],
    originals: Sequence[MLP],
    x: ArrayLike,
    budgets: Sequence[float],
    requirement: WeightRanking,
    *,
    steps: int,
    num_threads: int | None = None,
) -> list[MLP]:
    """``refine_all`` of models on the rows ``x [rows, n_inputs]``, in between removing weights by one of ``budgets``
    after the other.

    Each time the weights of the highest saliency stay, that is ``w² E[a²g²]`` in the model as it is then
    (``models.statistics``). The result for a model depends on no other model and not on the number of threads.
    Without budgets this is ``refine_all``. Raises what that raises.
    """
    present = list(edited)
    for budget in budgets:
        found = refine_all(present, originals, x, steps=STEPS_BETWEEN, num_threads=num_threads)
        present = _without_least([mlp for mlp, _ in found], x, budget, requirement, num_threads)
    return [mlp for mlp, _ in refine_all(present, originals, x, steps=steps, num_threads=num_threads)]


def _without_least(
    mlps: Sequence[MLP], x: ArrayLike, budget: float, requirement: WeightRanking, num_threads: int | None
) -> list[MLP]:
    """The models after removal of what is worth least to them, up to ``budget``."""
    found = []
    for mlp, (*_, fisher) in zip(mlps, native.probe_statistics_of(mlps, x, num_threads=num_threads), strict=True):
        theta = mlp.theta.copy()
        weights = theta[: mlp.spec.n_weights]
        with np.errstate(over="ignore", invalid="ignore"):
            saliency = np.square(weights) * (fisher + _FLOOR * fisher.mean(dtype=np.float64))
            saliency = saliency.astype(np.float32)
        # What float32 cannot hold goes last, or by its place: one such model must not end the others' edits.
        weights[~requirement.mask(weights, np.nan_to_num(saliency), budget)] = 0.0
        found.append(mlp.replace(theta))
    return found
