"""Steps of the trainer, and how much of their time the compiled operators take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from metaedit_fast.data import Table
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import Pruning
from metaedit_fast.training.fit import default_config
from metaedit_fast.training.tasks import TrainingRows
from metaedit_fast.training.threads import one_torch_thread
from metaedit_fast.training.trainer import Trainer, TrainerConfig

PROBE_ROWS = 256
OPERATORS = ("metaedit::metanetwork", "metaedit::metanetwork_backward", "metaedit::divergence")


class TrainerSteps:
    """An editor for pruning with a probe in training on ``mlps`` and ``rows``, with every feature known, as after the
    first pass through a population.
    """

    def __init__(self, mlps: Sequence[MLP], rows: NDArray[np.float32], *, models_per_step: int, threads: int) -> None:
        table, requirement = Table(rows), Pruning()
        probe = table.take(np.arange(min(PROBE_ROWS, len(table))))
        self._trainer = Trainer(
            default_config(requirement, mlps[0].spec, probe=True),
            TrainerConfig(models_per_step=models_per_step),
            requirement,
            mlps,
            mlps[:1],
            TrainingRows(table, probe, probe),
            num_threads=threads,
        )
        for index, mlp in enumerate(mlps):
            for single in {False, mlp.spec.n_outputs == 2}:
                self._trainer.train.get(index, single_output=single)

    def run(self, steps: int) -> None:
        """Take ``steps`` steps."""
        with one_torch_thread():
            for _ in range(steps):
                self._trainer.train_step()

    def share_outside(self, steps: int) -> float:
        """The share of the time of ``steps`` steps that is not spent in the network's and the divergence's operators.

        The profiler's own time counts as such.
        """
        with profile(activities=[ProfilerActivity.CPU]) as found:
            started = time.perf_counter()
            self.run(steps)
            seconds = time.perf_counter() - started
        microseconds = float(sum(event.cpu_time_total for event in found.key_averages() if event.key in OPERATORS))
        return 1 - 1e-6 * microseconds / seconds
