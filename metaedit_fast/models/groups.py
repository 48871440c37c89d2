"""How a model treats groups of labelled rows: rates, what its neurons see of each group, gradients of the gaps.

For every label the groups of the highest and of the lowest rate stand for all, so that any number of groups gives
the same number of values, whatever their order (ours). With more than two classes, the class whose rates differ most
is taken against the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP, log_proba_of

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

TEMPERATURE = 0.3


@dataclasses.dataclass(frozen=True)
class LabelledRows:
    """``x [rows, n_inputs]`` as models receive them, ``labels`` and ``groups`` (codes from 0), int64 ``[rows]``."""

    x: Float32
    labels: Int64
    groups: Int64


@dataclasses.dataclass(frozen=True)
class GroupStatistics:
    """Of one model; the two labels are the rows that lack the class and those that have it.

    ``rates [2, 2]``: by label, the soft rate of the class in the group of the highest and of the lowest one.
    ``means [neurons, 4]``: mean activations of these four cells, inputs first. ``gradient [2, n_parameters]``: that
    of the difference of both rates, by label.
    """

    rates: Float32
    means: Float32
    gradient: Float32


@dataclasses.dataclass(frozen=True)
class _Extremes:
    """Which groups have the highest and the lowest rate of each label ``[2, 2]``, their rates, and by label the
    gradient of the gap in the logits of the rows of that label, ``[rows, n_outputs]``; it is 0 in all others.
    """

    positive: int
    groups: Int64
    rates: NDArray[np.float64]
    at_outputs: tuple[Float32, Float32]


@dataclasses.dataclass(frozen=True)
class _Label:
    """The rows that lack a class, or those that have it: ``index [n]``, the ``groups [n]`` of each, and for all groups
    how many there are, ``count [groups]``.
    """

    index: NDArray[np.intp]
    groups: Int64
    count: Int64

    @property
    def present(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.count)


class _Cells:
    """The rows by label and group, for whichever class is taken against the rest; found once for all models."""

    def __init__(self, rows: LabelledRows) -> None:
        self._rows = rows
        self._labels: dict[int, tuple[_Label, _Label]] = {}

    def labels(self, positive: int) -> tuple[_Label, _Label]:
        """Raises ``ValueError`` where fewer than two groups have rows of a label."""
        if positive not in self._labels:
            has = self._rows.labels == positive
            self._labels[positive] = (
                self._label(~has, f"lack class {positive}"),
                self._label(has, f"have class {positive}"),
            )
        return self._labels[positive]

    def _label(self, chosen: NDArray[np.bool_], what: str) -> _Label:
        index = np.flatnonzero(chosen)
        groups = self._rows.groups[index]
        found = _Label(index, groups, np.bincount(groups))
        if len(found.present) < 2:
            raise ValueError(f"groups: expected rows of at least two groups that {what}, got {len(found.present)}")
        return found


def group_statistics(
    mlps: Sequence[MLP], rows: LabelledRows, *, temperature: float = TEMPERATURE, num_threads: int = 1
) -> list[GroupStatistics]:
    """Statistics of every model. Soft rates are means of ``softmax(logits / temperature)``.

    Raises ``ValueError`` where fewer than two groups have rows of a label.
    """
    logits = native.logits_of(mlps, rows.x, num_threads=num_threads)
    cells = _Cells(rows)
    extremes = [_extremes(own.astype(np.float64), cells, temperature) for own in logits]
    gradients = _gap_gradients(mlps, rows, cells, extremes, num_threads)
    means = _cell_means(mlps, rows, cells, extremes, num_threads)
    return [
        GroupStatistics(e.rates.astype(np.float32), mean, gradient)
        for e, mean, gradient in zip(extremes, means, gradients, strict=True)
    ]


def _extremes(logits: NDArray[np.float64], cells: _Cells, temperature: float) -> _Extremes:
    probabilities = np.exp(log_proba_of(logits / temperature))
    n_classes = probabilities.shape[1]
    candidates = [
        _extremes_of_class(probabilities, positive, cells.labels(positive))
        for positive in (range(n_classes) if n_classes > 2 else (1,))
    ]
    positive, groups, rates = max(candidates, key=lambda found: float((found[2][:, 0] - found[2][:, 1]).max()))
    at_outputs = []
    for label, (high, low) in zip(cells.labels(positive), groups, strict=True):
        weight = np.zeros(len(label.count))
        weight[high] += 1.0 / label.count[high]
        weight[low] -= 1.0 / label.count[low]
        p = probabilities[label.index]
        slope = -p[:, -logits.shape[1] :]
        slope[:, positive - n_classes] += 1.0
        slope *= (weight[label.groups] * p[:, positive] / temperature)[:, None]
        at_outputs.append(slope.astype(np.float32))
    return _Extremes(positive, groups, rates, (at_outputs[0], at_outputs[1]))


def _extremes_of_class(
    probabilities: NDArray[np.float64], positive: int, labels: tuple[_Label, _Label]
) -> tuple[int, Int64, NDArray[np.float64]]:
    of_class = probabilities[:, positive]
    groups, rates = np.empty((2, 2), np.int64), np.empty((2, 2))
    for row, label in enumerate(labels):
        present = label.present
        rate = np.bincount(label.groups, of_class[label.index])[present] / label.count[present]
        groups[row] = present[rate.argmax()], present[rate.argmin()]
        rates[row] = rate.max(), rate.min()
    return positive, groups, rates


def _gap_gradients(
    mlps: Sequence[MLP], rows: LabelledRows, cells: _Cells, extremes: Sequence[_Extremes], num_threads: int
) -> list[Float32]:
    """The gradient of the gap of each label in every model's parameters, ``[2, n_parameters]``."""
    panels: dict[tuple[int, int], list[_core.PanelRows]] = {}
    items = []
    for m, (mlp, extreme) in enumerate(zip(mlps, extremes, strict=True)):
        for label, of_label in enumerate(cells.labels(extreme.positive)):
            key = (extreme.positive, label)
            if key not in panels:
                panels[key] = native.rows_of_all(mlps, rows.x[of_label.index])
            items.append((native.shape_of(mlp.spec), mlp.theta, panels[key][m], extreme.at_outputs[label]))
    found = _core.mlp_gradient(items, num_threads=num_threads)
    return [np.stack(found[2 * m : 2 * m + 2]) for m in range(len(mlps))]


def _cell_means(
    mlps: Sequence[MLP], rows: LabelledRows, cells: _Cells, extremes: Sequence[_Extremes], num_threads: int
) -> list[Float32]:
    """Mean activations of every model's four cells, ``[neurons, 4]``."""
    panels: dict[tuple[int, int, int], list[_core.PanelRows]] = {}
    items = []
    for m, (mlp, extreme) in enumerate(zip(mlps, extremes, strict=True)):
        for label, of_label in enumerate(cells.labels(extreme.positive)):
            for group in extreme.groups[label].tolist():
                key = (extreme.positive, label, group)
                if key not in panels:
                    panels[key] = native.rows_of_all(mlps, rows.x[of_label.index[of_label.groups == group]])
                items.append((native.shape_of(mlp.spec), mlp.theta, panels[key][m]))
    means = [mean for mean, _ in _core.mlp_moments(items, num_threads=num_threads)]
    return [np.stack(means[4 * m : 4 * m + 4], axis=1) for m in range(len(mlps))]
