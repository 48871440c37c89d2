"""Train the runs of a population, those of one shape and batch size together.

Every run has random streams of its own for its initial parameters, the order of its rows and its dropout, and its
own learning rate and weight decay in one shared Adam. What a run becomes therefore depends on its number and the
population's seed; its neighbours in the stack can change it by rounding at most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.datasets import Dataset
from metaedit_fast.population.network import Stack, stacking_order
from metaedit_fast.population.sampling import RunSpec, stream

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Run ``run`` after ``epoch`` epochs: ``theta`` in the layout of ``run.spec``, figures on the validation rows.

    A run that diverged has a non-finite ``theta`` or loss, and is recorded like any other.
    """

    run: RunSpec
    checkpoint: int
    epoch: int
    theta: NDArray[np.float32]
    val_accuracy: float
    val_loss: float


def train_group(
    runs: Sequence[RunSpec],
    data: Dataset,
    *,
    checkpoints: Sequence[int],
    on_epoch: Callable[[int], None] | None = None,
) -> list[Checkpoint]:
    """Train runs of equal widths and batch size up to the last epoch of ``checkpoints``.

    Returns every checkpoint of every run, ordered by run and epoch. ``on_epoch`` is called with the epoch's
    number after each. An epoch's rows that fill no whole batch are left out, others each time. The same call
    gives the same bits on the same machine with the same number of threads.

    Raises ``ValueError`` where the runs differ in shape, or a batch is larger than the training set.
    """
    batch_size = runs[0].batch_size
    if any((r.spec.widths, r.batch_size) != (runs[0].spec.widths, batch_size) for r in runs):
        raise ValueError("runs: expected equal widths and batch sizes in one group")
    if batch_size > len(data.train):
        raise ValueError(f"batch_size: expected at most {len(data.train)} training rows, got {batch_size}")
    wanted = sorted(set(checkpoints))
    found: list[Checkpoint] = []
    # Adam's second moments of dead neurons decay into denormal numbers, which are very slow to compute with.
    torch.set_flush_denormal(True)
    try:
        with torch.no_grad():
            stack = Stack(stacking_order(runs))
            optimiser = _Adam(stack)
            orders = [stream(r, "order") for r in stack.runs]
            dropout = _Dropout(stack.runs, batch_size)
            for epoch in range(1, wanted[-1] + 1):
                for x, target in _batches(data, orders, batch_size):
                    gradient = torch.softmax(stack.forward(x, dropout.masks(), training=True), dim=1)
                    stack.backward(gradient.sub_(target).div_(batch_size))
                    optimiser.step()
                if epoch in wanted:
                    found += _record(stack, data, wanted.index(epoch), epoch)
                if on_epoch is not None:
                    on_epoch(epoch)
    finally:
        torch.set_flush_denormal(False)
    return sorted(found, key=lambda c: (c.run.run, c.epoch))


def _batches(data: Dataset, orders: Sequence[np.random.Generator], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each run's own shuffle of the training rows: ``[K, batch, features]`` and one-hot ``[K, 2, batch]``."""
    n = len(data.train) // batch_size * batch_size
    order = np.stack([rng.permutation(len(data.train))[:n] for rng in orders])
    index = torch.from_numpy(order)
    x = torch.from_numpy(data.train.x)[index]
    target = torch.eye(2)[:, torch.from_numpy(data.train.y)[index]].transpose(0, 1).contiguous()
    for start in range(0, n, batch_size):
        yield x[:, start : start + batch_size], target[:, :, start : start + batch_size]


class _Adam:
    """Adam with decoupled weight decay on the weights, and a learning rate of each run's own.

    As ``torch.optim.AdamW``, written as a few passes over the stack's one flat vector.
    """

    def __init__(self, stack: Stack) -> None:
        everything = ("weight", "bias", "scale", "shift")
        self.stack = stack
        self.rate = stack.expand([r.learning_rate for r in stack.runs], only=everything)
        decay = stack.expand([r.learning_rate * r.weight_decay for r in stack.runs], only=("weight",))
        self.keep = 1.0 - decay
        self.first = torch.zeros_like(stack.parameters)
        self.second = torch.zeros_like(stack.parameters)
        self.update = torch.empty_like(stack.parameters)
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        root = math.sqrt(1 - _BETA2**self.steps)
        gradients = self.stack.gradients
        self.first.lerp_(gradients, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(gradients, gradients, value=1 - _BETA2)
        torch.sqrt(self.second, out=self.update)
        torch.div(self.first, self.update.add_(_EPS * root), out=self.update)
        self.stack.parameters.mul_(self.keep).addcmul_(self.update, self.rate, value=-root / (1 - _BETA1**self.steps))


class _Dropout:
    """Dropout masks from one random byte a neuron and row.

    A rate is rounded to 256ths (0.1 becomes 26/256) and kept values are divided by exactly what is kept. Each
    run draws its bytes from its own stream; a run without dropout draws none.
    """

    def __init__(self, runs: Sequence[RunSpec], batch_size: int) -> None:
        widths = runs[0].spec.widths[1:-1]
        self.shape = [(batch_size, w) for w in widths]
        self.edges = np.cumsum([0, *(batch_size * w for w in widths)])
        thresholds = [round(256 * r.dropout) for r in runs]
        self.active = any(thresholds)
        self.draws = [(k, stream(r, "dropout").bit_generator) for k, r in enumerate(runs) if thresholds[k]]
        self.threshold = torch.tensor(thresholds, dtype=torch.uint8).view(-1, 1, 1)
        self.factor = torch.tensor([256 / (256 - t) for t in thresholds]).view(-1, 1, 1)
        # A multiple of 8 bytes for each run, because the generators give 64 bits at a time.
        self.words = int(self.edges[-1] + 7) // 8
        self.bytes = np.zeros((len(runs), 8 * self.words), np.uint8)
        self.out = [torch.empty(len(runs), *shape) for shape in self.shape]

    def masks(self) -> list[Tensor] | None:
        """What each hidden layer's outputs are multiplied by, ``[K, batch, width]``; None where no run drops any."""
        if not self.active:
            return None
        for k, generator in self.draws:
            self.bytes[k] = generator.random_raw(self.words).view(np.uint8)
        drawn = torch.from_numpy(self.bytes)
        for i, out in enumerate(self.out):
            part = drawn[:, self.edges[i] : self.edges[i + 1]].view(-1, *self.shape[i])
            # Comparing straight into floats is far quicker than through booleans.
            torch.ge(part, self.threshold, out=out).mul_(self.factor)
        return self.out


def _record(stack: Stack, data: Dataset, checkpoint: int, epoch: int) -> list[Checkpoint]:
    rows = torch.from_numpy(data.val.x)
    labels = torch.from_numpy(data.val.y)
    losses, hits = torch.zeros(len(stack.runs)), torch.zeros(len(stack.runs))
    chunk = 1024  # keeps a layer's outputs in the cache
    for start in range(0, len(rows), chunk):
        x, y = rows[start : start + chunk], labels[start : start + chunk]
        logits = stack.forward(x.expand(len(stack.runs), -1, -1))
        log_p = torch.log_softmax(logits, dim=1)
        losses -= log_p.gather(1, y.expand(len(logits), 1, -1)).sum((1, 2))
        hits += (logits.argmax(1) == y).sum(1)
    return [
        Checkpoint(run, checkpoint, epoch, stack.theta(k), hits[k].item() / len(rows), losses[k].item() / len(rows))
        for k, run in enumerate(stack.runs)
    ]
