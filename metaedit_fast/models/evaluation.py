"""What many models predict on the same rows: divergence from their originals, and confusion counts by group.

One pass of the compiled kernels over models and rows; no model's logits are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.threads import thread_count

Int64 = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` measured on M models.

    ``jsd [M]``: mean JSD in nats to the original, NaN where a model's values overflow; None without originals.
    ``counts [M, groups, classes, classes]``: the rows of each group, by true and by predicted class; None
    without labels.
    """

    jsd: NDArray[np.float64] | None
    counts: Int64 | None

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Fraction of the rows whose predicted class is the true one, ``[M]``. Raises ``ValueError`` without labels."""
        if self.counts is None:
            raise ValueError("accuracy: expected an evaluation with labels")
        return np.asarray(np.trace(self.counts.sum(axis=1), axis1=1, axis2=2) / self.counts.sum(axis=(1, 2, 3)))


def predictions_of(mlps: Sequence[MLP], x: ArrayLike, *, num_threads: int | None = None) -> list[_core.PanelRows]:
    """The log-probabilities of models on rows, as ``evaluate`` takes them for originals that come again and again."""
    return [_core.PanelRows(log_p) for log_p in native.log_proba_of_all(mlps, x, num_threads=num_threads)]


def evaluate(
    mlps: Sequence[MLP],
    x: ArrayLike,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    originals: Sequence[MLP | _core.PanelRows] | None = None,
    num_threads: int | None = None,
    isa: str | None = None,
) -> Evaluation:
    """Measure models on shared rows ``x [rows, n_inputs]``.

    ``originals``: one a model, an ``MLP`` or what ``predictions_of`` made of it; gives ``jsd``.
    ``y``: class labels ``[rows]`` from 0; gives ``counts``, for each of the ``groups`` (``[rows]`` from 0; by default
    all rows are one group). A row's predicted class is ``numpy.argmax`` of its logits, and ``z > 0`` for one output.
    Weights of 0 are not multiplied with, so a pruned model takes less time; the numbers are those of the other
    passes all the same, unless a 0 meets an infinite value.
    ``num_threads`` and ``isa`` are those of ``models.native``; the numbers depend on neither the threads nor the
    other models, to the bit.

    Equivalent to: ``divergence.mean_jsd(original, mlp, x)``, and ``numpy.add.at(counts, (groups, y, predicted), 1)``,
    model by model.
    Raises ``ValueError`` for no rows, no question (neither ``y`` nor ``originals``), labels or groups of a wrong
    shape or below 0, labels for a regressor, and an original with another number of outputs.
    """
    if y is None and originals is None:
        raise ValueError("evaluate: expected y, originals or both, got neither")
    if y is None and groups is not None:
        raise ValueError("groups: expected labels y too")
    if originals is not None and len(originals) != len(mlps):
        raise ValueError(f"originals: expected {len(mlps)}, one a model, got {len(originals)}")
    items = native.items_of(mlps, x)
    shape: tuple[int, int, int] | None = None
    cells, n_counts = None, 0
    if y is not None:
        cells, shape = _cells(mlps, len(np.asarray(x)), y, groups)
        n_counts = shape[0] * shape[1] * shape[2]
    tasks = [(*item, other) for item, other in zip(items, _others(originals, x, len(mlps)), strict=True)]
    divergence, counts = _core.mlp_evaluate(
        tasks, cells=cells, n_counts=n_counts, num_threads=thread_count(num_threads), isa=isa
    )
    return Evaluation(
        None if originals is None else divergence, None if shape is None else counts.reshape(len(mlps), *shape)
    )


def _others(
    originals: Sequence[MLP | _core.PanelRows] | None, x: ArrayLike, n: int
) -> Sequence[native.Item | _core.PanelRows | None]:
    if originals is None:
        return [None] * n
    runs = iter(native.items_of([o for o in originals if isinstance(o, MLP)], x))
    return [next(runs) if isinstance(o, MLP) else o for o in originals]


def _cells(
    mlps: Sequence[MLP], n_rows: int, y: ArrayLike, groups: ArrayLike | None
) -> tuple[Int64, tuple[int, int, int]]:
    """Where each row's count for class 0 stands in ``[groups, classes, classes]``, and that shape."""
    for i, mlp in enumerate(mlps):
        if mlp.spec.output == "identity":
            raise ValueError(f"y: expected classifiers, got a regressor, mlps[{i}]")
    labels = _codes("y", y, n_rows)
    group = np.zeros(n_rows, np.int64) if groups is None else _codes("groups", groups, n_rows)
    n_groups, n_labels = (int(codes.max(initial=0)) + 1 for codes in (group, labels))
    n_classes = max([n_labels, *(max(2, mlp.spec.n_outputs) for mlp in mlps)])
    return (group * n_classes + labels) * n_classes, (n_groups, n_classes, n_classes)


def _codes(name: str, given: ArrayLike, n_rows: int) -> Int64:
    array = np.asarray(given)
    if array.shape != (n_rows,) or array.dtype.kind not in "biu":
        raise ValueError(f"{name}: expected {n_rows} integers, got {array.dtype} of shape {array.shape}")
    codes = array.astype(np.int64)
    if codes.min(initial=0) < 0:
        raise ValueError(f"{name}: expected codes from 0, got {codes.min()}")
    return codes
