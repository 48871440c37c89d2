"""What a requirement is: a budget the user asks for, its relaxation for training, its hard measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP

if TYPE_CHECKING:
    from torch import Tensor


class Requirement(Protocol):
    """One requirement. Adding one is one file in this folder and one line in ``REQUIREMENTS``.

    ``name`` is its public name, ``target`` the key by which users ask for a budget
    (``target={"sparsity": 0.9}``), ``unit`` what ``measure`` counts, ``trained_range`` the smallest and
    largest budget that ``sample_budgets`` draws.
    """

    name: str
    target: str
    unit: str
    trained_range: tuple[float, float]

    def check_budget(self, budget: float) -> float:
        """The budget, if it is one; raises ``ValueError`` that names the range otherwise."""
        ...

    def sample_budgets(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Budgets to train on, ``[count]``."""
        ...

    def mask(self, scores: NDArray[np.float32], budget: float) -> NDArray[np.bool_]:
        """Which weights stay, given the metanetwork's scores ``[n_weights]``: exact."""
        ...

    def relaxed_mask(self, scores: Tensor, budget: float) -> Tensor:
        """The same mask as 0 and 1, with a gradient for training."""
        ...

    def measure(self, mlp: MLP) -> float:
        """The hard measurement of an edited model, in ``unit``."""
        ...
