"""Fairness: equal rates of errors in all groups (arXiv 2512.15469, section 5.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements.odds import equalized_odds_difference

UNIT_STRENGTH = 0.01


class EqualizedOdds:
    """The budget is the strength λ of ``O_pres + λ · EOD``; what comes out is measured, not met exactly.

    Users may ask for a difference instead, which is then sought on their rows (``editing.groups.edit_to``).

    ``EOD`` is the largest difference between groups in a true or false positive rate
    (``odds.equalized_odds_difference``).
    """

    name = "equalized_odds"
    target = "equalized_odds_difference"
    unit = "equalised-odds difference"
    trained_range = (0.002, 4.0)
    validation_budgets: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    context = "groups"
    needs_labels = True
    gamma = 0.1

    def check_budget(self, budget: float) -> float:
        if not 0.0 <= budget < math.inf:
            raise ValueError(f"strength: expected 0 or more, got {budget!r}")
        return float(budget)

    def budget_of_target(self, value: float, n_inputs: int) -> float:
        """The largest strength, for the one that it takes is found on the rows; 0 for a difference of 1."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"equalized_odds_difference: expected the largest one to allow, 0 to 1, got {value!r}")
        return 0.0 if value == 1.0 else self.trained_range[1]

    def sample_budgets(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Log-uniform in ``trained_range``."""
        low, high = map(math.log, self.trained_range)
        return np.exp(rng.uniform(low, high, count))

    def condition(self, budget: float) -> NDArray[np.float32]:
        """``t = (ln λ + 1) / 2`` as (t, t²/4, sin t, cos t)."""
        t = (math.log(budget) + 1) / 2
        return np.array([t, t * t / 4, math.sin(t), math.cos(t)], np.float32)

    def residual_share(self, budget: float) -> float:
        """1 from a strength of 0.01 on, below in proportion, so that nothing asked for changes nothing (ours)."""
        return min(1.0, budget / UNIT_STRENGTH)

    def measure(self, mlp: MLP, counts: NDArray[np.int64] | None = None) -> float:
        """The hard equalised-odds difference, from ``counts [groups, classes, classes]`` of labelled rows."""
        if counts is None:
            raise ValueError("equalized_odds: expected confusion counts of labelled rows by group, got none")
        return float(equalized_odds_difference(counts))
