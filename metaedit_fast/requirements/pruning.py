"""Weight pruning: keep exactly a fraction of the weights (arXiv 2512.15469, section 5.3; exact budgets are ours)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements.masks import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 1.0
_MODERATE_DENSITY = 0.6
FULL_RESIDUAL_FROM = 0.4


class Pruning:
    """The budget is the sparsity, the fraction of the model's weights that is removed."""

    name = "pruning"
    target = "sparsity"
    unit = "fraction of the weights that are zero"
    trained_range = (0.01, 0.985)
    validation_budgets: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.98)
    context = "none"
    needs_labels = False
    gamma = 0.3

    def check_budget(self, budget: float) -> float:
        if not 0.0 <= budget < 1.0:
            raise ValueError(f"sparsity: expected 0 <= sparsity < 1, got {budget!r}")
        return float(budget)

    def budget_of_target(self, value: float, n_inputs: int) -> float:
        return self.check_budget(value)

    def sample_budgets(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Densities log-uniform in [0.015, 0.6], and for one model in ten uniform in [0.6, 0.99]."""
        lowest, highest = (1 - sparsity for sparsity in reversed(self.trained_range))
        log_uniform = np.exp(rng.uniform(np.log(lowest), np.log(_MODERATE_DENSITY), count))
        uniform = rng.uniform(_MODERATE_DENSITY, highest, count)
        density: NDArray[np.float64] = np.where(rng.random(count) < 0.1, uniform, log_uniform)
        return 1.0 - density

    def condition(self, budget: float) -> NDArray[np.float32]:
        """``t = ln(1 - sparsity)`` as (t, t²/4, sin t, cos t)."""
        t = math.log1p(-budget)
        return np.array([t, t * t / 4, math.sin(t), math.cos(t)], np.float32)

    def residual_share(self, budget: float) -> float:
        """1 from a sparsity of 0.4 on, below in proportion (ours)."""
        return min(1.0, budget / FULL_RESIDUAL_FROM)

    def mask(self, weights: NDArray[np.float32], scores: NDArray[np.float32], budget: float) -> NDArray[np.bool_]:
        """The highest scores, exactly ``kept_count`` of them; weights that are zero already go first."""
        ranked = np.where(weights == 0, -np.inf, scores)
        return top_k_mask(ranked, self.kept_weights(weights.size, budget))

    def kept_weights(self, n_weights: int, budget: float) -> int:
        return kept_count(n_weights, budget)

    def relaxed_mask(self, scores: Tensor, sizes: Sequence[int], budgets: Sequence[float]) -> Tensor:
        """Exact top-k forward; backward through a sigmoid around the threshold (``relaxed.relaxed_top_k``)."""
        from metaedit_fast.requirements.relaxed import relaxed_top_k

        kept = [kept_count(n, budget) for n, budget in zip(sizes, budgets, strict=True)]
        return relaxed_top_k(scores, sizes, kept, _TEMPERATURE)

    def measure(self, mlp: MLP, counts: NDArray[np.int64] | None = None) -> float:
        return float(mlp.sparsity)
