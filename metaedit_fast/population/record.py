"""One model of a population, with what is known about its training."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from metaedit_fast.models.mlp import MLP
from metaedit_fast.population.sampling import SPLITS, TRAINED_NORMS


@dataclasses.dataclass(frozen=True)
class PopulationRecord:
    """One checkpoint of one run.

    ``split`` is shared by all checkpoints of a run. ``norm`` is the norm it was trained with (``"batch"`` has
    been folded into the weights). Figures that are unknown are NaN, unknown counts 0. ``val_loss`` is the
    cross-entropy in nats.

    Raises ``ValueError`` for a split or norm of another name, or a negative number.
    """

    mlp: MLP
    run: int
    split: str = "train"
    checkpoint: int = 0
    epoch: int = 0
    norm: str = "none"
    dropout: float = 0.0
    batch_size: int = 0
    learning_rate: float = math.nan
    weight_decay: float = math.nan
    val_accuracy: float = math.nan
    val_loss: float = math.nan

    def __post_init__(self) -> None:
        for name, value, options in (("split", self.split, SPLITS), ("norm", self.norm, TRAINED_NORMS)):
            if value not in options:
                raise ValueError(f"{name}: expected one of {options}, got {value!r}")
        for name in ("run", "checkpoint", "epoch", "batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")

    @property
    def finite(self) -> bool:
        """False for a run that diverged."""
        return self.mlp.is_finite

    def metadata(self) -> dict[str, Any]:
        """Every field but the model."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "mlp"}
