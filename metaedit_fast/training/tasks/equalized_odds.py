"""Training for equalised odds: preservation and the soft difference of the groups' rates, at a sampled strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metaedit_fast._core import PanelRows
from metaedit_fast.editing.labelled import groups_of, labelled_rows
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.context import group_context
from metaedit_fast.metanet.metanetwork import Metanetwork
from metaedit_fast.metanet.native import model_features
from metaedit_fast.models import native
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.groups import group_statistics
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import EqualizedOdds
from metaedit_fast.training.examples import Example, ExampleBatch, ExampleSource
from metaedit_fast.training.logits import population_logits
from metaedit_fast.training.objective import edited_parameters, gains_of
from metaedit_fast.training.reference import jsd
from metaedit_fast.training.scalarisation import SCALARISATIONS
from metaedit_fast.training.soft_odds import TEMPERATURE, soft_odds
from metaedit_fast.training.tasks.base import Measured, Run, Task, TrainingRows

# Keeps the losses of weak and strong edits at one size.
STRENGTH_OFFSET = 0.02


class GroupTask(Task):
    """``min_φ E[(O_pres(θ, F_φ(θ)) + λ · EOD_soft(F_φ(θ))) / (λ + 0.02)]`` (arXiv 2512.15469, eq. 14; the divisor
    is ours).

    All rows have labels and groups. Other scalarisations than the sum combine the means of the two terms.
    """

    requirement: EqualizedOdds
    default_rows_per_step = 2048

    def __init__(
        self,
        requirement: EqualizedOdds,
        config: MetanetConfig,
        rows: TrainingRows,
        *,
        rows_per_step: int | None,
        num_threads: int,
        scalarisation: str = "linear",
        temperature: float = TEMPERATURE,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}")
        if scalarisation not in SCALARISATIONS:
            raise ValueError(f"scalarisation: expected one of {sorted(SCALARISATIONS)}, got {scalarisation!r}")
        self._scalarise = SCALARISATIONS[scalarisation]
        self._temperature = temperature
        super().__init__(requirement, config, rows, rows_per_step=rows_per_step, num_threads=num_threads)
        groups = groups_of(rows.train)
        self._train, self._validation = labelled_rows(rows.train, groups), labelled_rows(rows.validation, groups)
        self._probe = None if rows.probe is None else labelled_rows(rows.probe, groups)

    def source(self, mlps: Sequence[MLP], *, learns: bool, folder: Path | None) -> ExampleSource:
        return ExampleSource(mlps, lambda mlp, _: self._example(mlp))

    def loss(self, net: Metanetwork, batch: ExampleBatch, budgets: Sequence[float], rng: np.random.Generator) -> Tensor:
        drawn = rng.integers(0, len(self._train.x), self.rows_per_step)
        rows = self._train
        x, labels, groups = (torch.from_numpy(values[drawn]) for values in (rows.x, rows.labels, rows.groups))
        theta = self.edit(lambda features: self.heads(net, batch, budgets, features), batch, budgets)
        logits = population_logits(batch.mlps, theta, x, num_threads=self.num_threads)
        original = torch.from_numpy(np.concatenate([mlp.theta for mlp in batch.mlps]))
        before = population_logits(batch.mlps, original, x, num_threads=self.num_threads)
        strengths = torch.tensor(budgets, dtype=torch.float32)
        preserved = jsd(before.log_softmax(-1), logits.log_softmax(-1)) / (strengths + STRENGTH_OFFSET)
        odds = soft_odds(logits, labels, groups, self._temperature)
        difference = strengths * odds / (strengths + STRENGTH_OFFSET)
        return self._scalarise(torch.stack([preserved.mean(), difference.mean()]), list(net.parameters()))

    def edit(self, run: Run, batch: ExampleBatch, budgets: Sequence[float]) -> Tensor:
        return edited_parameters(batch, run(None), gains_of(self.requirement, self.config.gamma, budgets))

    def measured(self, edited: Sequence[MLP], originals: Sequence[PanelRows]) -> Measured:
        rows = self._validation
        found = evaluate(edited, rows.x, rows.labels, rows.groups, originals=originals, num_threads=self.num_threads)
        assert found.jsd is not None
        assert found.counts is not None
        pairs = zip(edited, found.counts, strict=True)
        return Measured(found.jsd, np.array([self.requirement.measure(mlp, own) for mlp, own in pairs]))

    def score(self, measured: Mapping[float, Measured]) -> float:
        """The mean objective over the strengths, with hard differences."""
        found = [
            (at.jsd + strength * at.requirement).mean() / (strength + STRENGTH_OFFSET)
            for strength, at in measured.items()
        ]
        return float(np.mean(found))

    def _example(self, mlp: MLP) -> Example:
        assert self._probe is not None
        statistics = native.probe_statistics(mlp, self._probe.x)
        groups = group_statistics([mlp], self._probe)[0]
        features = model_features(mlp, self.config, statistics)
        return Example(mlp, group_context(features, mlp.spec, groups, *statistics[:2]))
