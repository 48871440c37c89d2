"""Train the runs of a population, on the compiled trainer.

Every run has random streams of its own for its initial parameters, the order of its rows and its dropout. What a
run becomes therefore depends on its number, the population's seed and the machine's instruction set, to the bit:
not on other runs, nor on the number of threads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.datasets import Dataset
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population.sampling import RunSpec, stream

Float32 = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Run ``run`` after ``epoch`` epochs: ``theta`` in the layout of ``run.spec``, figures on the validation rows.

    A run that diverged has a non-finite ``theta`` or loss, and is recorded like any other.
    """

    run: RunSpec
    checkpoint: int
    epoch: int
    theta: Float32
    val_accuracy: float
    val_loss: float


def train_run(
    run: RunSpec,
    data: Dataset,
    *,
    checkpoints: Sequence[int],
    on_epoch: Callable[[int], None] | None = None,
    isa: str | None = None,
) -> list[Checkpoint]:
    """Train a run up to the last epoch of ``checkpoints``, on the thread of the call and without Python's lock.

    Returns its checkpoints in order. ``on_epoch`` is called with the epoch's number after each. An epoch's rows
    that fill no whole batch are left out, others each time. The same call gives the same bits on every machine
    with the same instruction set.

    Raises ``ValueError`` where a batch is larger than the training set.
    """
    if run.batch_size > len(data.train):
        raise ValueError(f"batch_size: expected at most {len(data.train)} training rows, got {run.batch_size}")
    wanted = sorted(set(checkpoints))
    rows = _core.TrainingRows(data.train.x, data.train.y)
    trainer = new_trainer(run, initial_parameters(run), isa=isa)
    order = stream(run, "order")
    found: list[Checkpoint] = []
    for epoch in range(1, wanted[-1] + 1):
        trainer.train(rows, order.permutation(len(data.train)))
        if epoch in wanted:
            theta = folded(run, trainer.parameters(), *trainer.statistics())
            found.append(_measured(run, wanted.index(epoch), epoch, theta, data, isa))
        if on_epoch is not None:
            on_epoch(epoch)
    return found


def new_trainer(run: RunSpec, theta: Float32, *, isa: str | None = None) -> _core.MlpTrainer:
    """The compiled trainer at step 0, from ``theta`` in the layout of ``trained_spec(run)``.

    A rate of dropout is rounded to 256ths (0.1 becomes 26/256), and kept values are divided by exactly what is
    kept.
    """
    shape = (len(run.spec.layers) - 1, 4, 16)
    return _core.MlpTrainer(
        native.shape_of(trained_spec(run)),
        theta,
        batch_norm=run.norm == "batch",
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        dropped_bytes=round(256 * run.dropout),
        dropout_state=stream(run, "dropout").integers(0, 2**32, shape, np.uint32),
        isa=isa,
    )


def trained_spec(run: RunSpec) -> MLPSpec:
    """The architecture in training: batch norm is there too, as a norm whose parameters are a layer norm's."""
    if run.norm != "batch":
        return run.spec
    *hidden, last = run.spec.layers
    layers = tuple(dataclasses.replace(layer, norm="layer") for layer in hidden)
    return dataclasses.replace(run.spec, layers=(*layers, last))


def initial_parameters(run: RunSpec) -> Float32:
    """The default of torch's linear layer, weights and biases uniform within ``±1/sqrt(n_in)``; norms at 1 and 0."""
    rng = stream(run, "init")
    mlp = MLP(trained_spec(run), np.zeros(trained_spec(run).n_parameters, np.float32))
    for i, n_in in enumerate(run.spec.widths[:-1]):
        for view in (mlp.weight(i), mlp.bias(i)):
            view[...] = (2 * rng.random(view.shape, dtype=np.float32) - 1) / np.float32(np.sqrt(n_in))
    for kind, _, view in mlp.parameters():
        if kind == "norm_scale":
            view[...] = 1.0
    return mlp.theta


def folded(run: RunSpec, theta: Float32, mean: Float32, variance: Float32) -> Float32:
    """Parameters in the layout of ``run.spec``: batch norm, with its running statistics, goes into the linear layers.

    ``mean`` and ``variance`` are those of all hidden neurons.
    """
    if run.norm != "batch":
        return theta
    before = MLP(trained_spec(run), theta)
    after = MLP(run.spec, np.empty(run.spec.n_parameters, np.float32))
    end = 0
    with np.errstate(all="ignore"):  # a run that diverged
        for i, layer in enumerate(before.spec.layers):
            weight, bias = (x.astype(np.float64) for x in (before.weight(i), before.bias(i)))
            if layer.norm == "layer":
                start, end = end, end + layer.width
                factor = before.parameter("norm_scale", i) / np.sqrt(variance[start:end].astype(np.float64) + layer.eps)
                weight = weight * factor
                bias = (bias - mean[start:end]) * factor + before.parameter("norm_shift", i)
            after.weight(i)[...], after.bias(i)[...] = weight, bias
    return after.theta


def _measured(run: RunSpec, checkpoint: int, epoch: int, theta: Float32, data: Dataset, isa: str | None) -> Checkpoint:
    log_p = native.log_proba(MLP(run.spec, theta), data.val.x, isa=isa)
    loss = -log_p[np.arange(len(log_p)), data.val.y].mean(dtype=np.float64)
    hits = (log_p.argmax(axis=1) == data.val.y).mean()
    return Checkpoint(run, checkpoint, epoch, theta, float(hits), float(loss))
