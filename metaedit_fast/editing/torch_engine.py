"""The engine that runs the metanetwork in plain torch, as it was trained: what the other engines are compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from metaedit_fast.editing.by_network import start
from metaedit_fast.editing.job import TOO_LARGE, Edit, EditJob, Edits
from metaedit_fast.editing.passes import features_of, statistics_of
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.export.weights import Weights
from metaedit_fast.metanet.apply import Heads, edited_theta
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import WeightRanking

Float32 = NDArray[np.float32]


class TorchEngine:
    """The metanetwork as a torch module, without gradients; the write-back in numpy.

    One model at a time, so that no result depends on the others. The threads inside of an operation are torch's own
    (``torch.set_num_threads``).
    """

    arithmetic = "float32"

    def __init__(self, config: MetanetConfig, weights: Weights) -> None:
        self._net = Metanetwork(config).eval()
        self._net.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})

    def start(self, job: EditJob, *, num_threads: int) -> Edit:
        return start(self, job, num_threads=num_threads)

    def heads(
        self, mlps: Sequence[MLP], features: Sequence[ModelFeatures], conditions: Float32, *, num_threads: int
    ) -> Heads:
        """A forward pass for each model."""
        with torch.inference_mode():
            return Heads.joined([self._heads(*each) for each in zip(mlps, features, conditions, strict=True)])

    def edit(self, job: EditJob, *, num_threads: int) -> Edits:
        """A forward pass for each model, and its mask and its parameters from what that gives."""
        batch = job.batch
        theta, failures = batch.theta.copy(), dict[int, Exception]()
        seconds = np.zeros(batch.n_models)
        features = features_of(job, statistics_of(job, num_threads=num_threads))
        for m, own in enumerate(features):
            started = time.perf_counter()
            edited = self._edited(job, m, own)
            if edited is None:
                failures[m] = UnsupportedModelError(TOO_LARGE)
            else:
                theta[batch.theta_offsets[m] : batch.theta_offsets[m + 1]] = edited
            seconds[m] = time.perf_counter() - started
        return Edits(theta, failures, seconds)

    def _edited(self, job: EditJob, m: int, features: ModelFeatures) -> Float32 | None:
        """θ' of model ``m``; None where float32 cannot hold it."""
        assert isinstance(job.requirement, WeightRanking)
        mlp = job.mlps[m]
        heads = self.heads([mlp], [features], job.conditions[m : m + 1], num_threads=1)
        if not np.isfinite(heads.score).all():
            return None
        mask = job.requirement.mask(mlp.theta[: mlp.spec.n_weights], heads.score, job.budgets[m])
        with np.errstate(over="ignore", invalid="ignore"):
            theta = edited_theta(mlp.spec, mlp.theta, features, heads, mask, job.gain(m))
        return theta if np.isfinite(theta).all() else None

    def _heads(self, mlp: MLP, features: ModelFeatures, condition: Float32) -> Heads:
        found: Heads = self._net(MetanetInputs.build([mlp], [features], torch.from_numpy(condition)[None]))
        return found
