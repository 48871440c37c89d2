"""Weight pruning: keep exactly a fraction of the weights (arXiv 2512.15469, section 5.3; exact budgets are ours)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.editing.masks import kept_count, top_k_mask
from metaedit_fast.models.mlp import MLP

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 1.0
_MODERATE_DENSITY = 0.6


class Pruning:
    """The budget is the sparsity, the fraction of the model's weights that is removed."""

    name = "pruning"
    target = "sparsity"
    unit = "fraction of weights kept"
    trained_range = (0.01, 0.985)

    def check_budget(self, budget: float) -> float:
        if not 0.0 <= budget < 1.0:
            raise ValueError(f"sparsity: expected 0 <= sparsity < 1, got {budget!r}")
        return float(budget)

    def sample_budgets(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Densities log-uniform in [0.015, 0.6], and for one model in ten uniform in [0.6, 0.99]."""
        lowest, highest = (1 - sparsity for sparsity in reversed(self.trained_range))
        log_uniform = np.exp(rng.uniform(np.log(lowest), np.log(_MODERATE_DENSITY), count))
        uniform = rng.uniform(_MODERATE_DENSITY, highest, count)
        density: NDArray[np.float64] = np.where(rng.random(count) < 0.1, uniform, log_uniform)
        return 1.0 - density

    def mask(self, scores: NDArray[np.float32], budget: float) -> NDArray[np.bool_]:
        return top_k_mask(scores, kept_count(scores.size, budget))

    def relaxed_mask(self, scores: Tensor, budget: float) -> Tensor:
        """Exact top-k forward; backward through a sigmoid around the threshold, which itself moves with
        the scores so that the number of kept weights stays (implicit gradient).
        """
        import torch

        kept = kept_count(scores.numel(), budget)
        hard = torch.from_numpy(top_k_mask(scores.detach().numpy(), kept)).to(scores.dtype)
        if kept == scores.numel():
            return hard
        ordered = scores.detach().sort(descending=True).values
        threshold = (ordered[kept - 1] + ordered[kept]) / 2
        slope = torch.sigmoid((scores.detach() - threshold) / _TEMPERATURE)
        slope = slope * (1 - slope)
        moved = (scores * slope).sum() / (slope.sum() + 1e-9)
        soft = torch.sigmoid((scores - threshold - (moved - moved.detach())) / _TEMPERATURE)
        return hard + soft - soft.detach()

    def measure(self, mlp: MLP) -> float:
        return 1.0 - mlp.sparsity
