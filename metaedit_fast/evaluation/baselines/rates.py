"""Learning rates of the per-model optimisers, by number of steps and budget."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

_Number = TypeVar("_Number", int, float)
# Name -> steps -> budget -> rate.
Tables = dict[str, dict[int, dict[float, float]]]

GRID = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def rate_for(table: str, steps: int, budget: float) -> float:
    """The tuned rate of the nearest number of steps and the nearest budget, both on a logarithmic scale.

    ``budget`` is the density for ``"pruning"`` and ``"pruning-mask"``, the number of inputs for
    ``"data-minimisation"`` (all rows in every step) and ``"retraining"`` (batches of many rows), λ for ``"fairness"``
    and ``"fairness-last-layer"``.
    Raises ``ValueError`` for another table, and unless both are positive.
    """
    if table not in RATES:
        raise ValueError(f"table: expected one of {sorted(RATES)}, got {table!r}")
    if not (steps > 0 and budget > 0):
        raise ValueError(f"steps, budget: expected positive numbers, got {steps!r} and {budget!r}")
    by_budget = RATES[table][_nearest(RATES[table], steps)]
    return by_budget[_nearest(by_budget, budget)]


def _nearest(options: Iterable[_Number], wanted: float) -> _Number:
    return min(options, key=lambda option: abs(math.log(option / wanted)))


MARKER = "# What follows is written by: python experiments/tune_baselines.py"
# What follows is written by: python experiments/tune_baselines.py
RATES: Tables = {
    "pruning": {
        10: {0.5: 0.005, 0.1: 0.02, 0.02: 0.05},
        30: {0.5: 0.005, 0.1: 0.02, 0.02: 0.05},
        100: {0.5: 0.002, 0.1: 0.02, 0.02: 0.02},
        300: {0.5: 0.001, 0.1: 0.01, 0.02: 0.02},
        1000: {0.5: 0.001, 0.1: 0.005, 0.02: 0.02},
    },
    "pruning-mask": {
        10: {0.5: 0.005, 0.1: 0.02, 0.02: 0.1},
        30: {0.5: 0.002, 0.1: 0.02, 0.02: 0.1},
        100: {0.5: 0.002, 0.1: 0.01, 0.02: 0.02},
        300: {0.5: 0.001, 0.1: 0.005, 0.02: 0.05},
        1000: {0.5: 0.001, 0.1: 0.005, 0.02: 0.05},
    },
    "data-minimisation": {
        10: {1: 0.01, 4: 0.005, 12: 0.005},
        30: {1: 0.01, 4: 0.005, 12: 0.0001},
        100: {1: 0.01, 4: 0.0005, 12: 0.0001},
        300: {1: 0.001, 4: 0.0001, 12: 0.0001},
        1000: {1: 0.0002, 4: 0.0001, 12: 0.0001},
    },
    "retraining": {
        10: {1: 0.005, 4: 0.005, 12: 0.0005},
        30: {1: 0.01, 4: 0.005, 12: 0.002},
        100: {1: 0.01, 4: 0.02, 12: 0.001},
        300: {1: 0.01, 4: 0.02, 12: 0.0005},
        1000: {1: 0.002, 4: 0.002, 12: 0.0001},
    },
    "fairness": {
        10: {0.03: 0.002, 0.3: 0.002, 3.0: 0.01},
        30: {0.03: 0.002, 0.3: 0.002, 3.0: 0.005},
        100: {0.03: 0.002, 0.3: 0.002, 3.0: 0.005},
        300: {0.03: 0.002, 0.3: 0.0005, 3.0: 0.005},
        1000: {0.03: 0.0001, 0.3: 0.0001, 3.0: 0.01},
    },
    "fairness-last-layer": {
        10: {0.03: 0.005, 0.3: 0.005, 3.0: 0.02},
        30: {0.03: 0.01, 0.3: 0.01, 3.0: 0.005},
        100: {0.03: 0.02, 0.3: 0.01, 3.0: 0.005},
        300: {0.03: 0.02, 0.3: 0.001, 3.0: 0.01},
        1000: {0.03: 0.01, 0.3: 0.0005, 3.0: 0.005},
    },
}
MEASURED_ON = {
    "pruning": "24 models of adult, 2416 rows",
    "pruning-mask": "24 models of adult, 2416 rows",
    "data-minimisation": "24 models of adult, 2416 rows",
    "retraining": "24 models of adult, 2416 rows",
    "fairness": "12 models of adult, 16000 rows",
    "fairness-last-layer": "12 models of adult, 16000 rows",
}
