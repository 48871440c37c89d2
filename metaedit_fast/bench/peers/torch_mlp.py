"""Many trained MLPs on shared rows in torch: models of one architecture as one tensor (batched products), or one
model's function mapped over them (``torch.func.vmap``).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.training.reference import jsd, log_proba, stacked_logits

# Of Adam: tuned for these models, where the default step of 1e-3 is far too short for a hundred steps.
LEARNING_RATE, BETAS, EPSILON = 0.02, (0.9, 0.95), 1e-9
FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Group:
    """Models of one architecture: their numbers, and ``thetas [M, n_parameters]``."""

    models: slice
    spec: MLPSpec
    thetas: Tensor

    def mapped_logits(self, x: Tensor) -> Tensor:
        """``stacked_logits`` by ``vmap`` over single models."""
        found: Tensor = torch.func.vmap(lambda theta: stacked_logits(self.spec, theta[None], x)[0])(self.thetas)
        return found


def groups_of(mlps: Sequence[MLP]) -> list[Group]:
    """Neighbouring models of one architecture together; their input normalisation is left out."""
    groups, start = [], 0
    for spec, members in itertools.groupby(mlps, key=lambda mlp: mlp.spec):
        thetas = torch.from_numpy(np.stack([mlp.theta for mlp in members]))
        groups.append(Group(slice(start, start + len(thetas)), spec, thetas))
        start += len(thetas)
    return groups


def evaluation(
    mlps: Sequence[MLP],
    originals: Sequence[MLP],
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    threads: int,
    mapped: bool,
) -> Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Mean JSD of every model to its original, whose predictions are known, and its counts ``[M, true, predicted]``."""
    groups, rows = groups_of(mlps), torch.from_numpy(x)
    classes = 2
    true = torch.from_numpy(y) * classes
    with torch.no_grad():
        targets = [log_proba(stacked_logits(group.spec, group.thetas, rows)) for group in groups_of(originals)]

    def logits(group: Group) -> Tensor:
        return group.mapped_logits(rows) if mapped else stacked_logits(group.spec, group.thetas, rows)

    @torch.no_grad()
    def run() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        torch.set_num_threads(threads)
        values, counts = [], []
        for group, target in zip(groups, targets, strict=True):
            log_q = log_proba(logits(group))
            values.append(jsd(target, log_q))
            cells = true + log_q.argmax(-1)
            offsets = torch.arange(len(cells))[:, None] * classes * classes
            found = torch.bincount((cells + offsets).flatten(), minlength=len(cells) * classes * classes)
            counts.append(found.reshape(-1, classes, classes))
        return torch.cat(values).numpy(), torch.cat(counts).numpy()

    return run


def adam(
    starts: Sequence[MLP], originals: Sequence[MLP], x: NDArray[np.float32], *, steps: int, threads: int
) -> Callable[[], list[NDArray[np.float32]]]:
    """θ of every model after ``steps`` full-batch steps of Adam on the logarithm of its JSD to its original.

    Weights that are zero stay zero.
    """
    groups, before, rows = groups_of(starts), groups_of(originals), torch.from_numpy(x)

    def run() -> list[NDArray[np.float32]]:
        torch.set_num_threads(threads)
        found: list[NDArray[np.float32]] = []
        for group, original in zip(groups, before, strict=True):
            with torch.no_grad():
                target = log_proba(stacked_logits(group.spec, original.thetas, rows))
            moving = group.thetas.clone().requires_grad_()
            is_free = (moving != 0).float()
            is_free[:, group.spec.n_weights :] = 1
            optimiser = torch.optim.Adam([moving], lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
            for _ in range(steps):
                optimiser.zero_grad(set_to_none=True)
                values = jsd(target, log_proba(stacked_logits(group.spec, moving, rows)))
                torch.log(values + FLOOR).sum().backward()  # type: ignore[no-untyped-call]
                assert moving.grad is not None
                moving.grad.mul_(is_free)
                optimiser.step()
            found += list(moving.detach().numpy())
        return found

    return run
