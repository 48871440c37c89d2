"""Equalised odds as a smooth penalty, for refinement.

Rates are means of soft predictions ``softmax(logits / temperature)`` over the rows of a cell: for each class
(of two, class 1 alone) the rows that have it, and those that have not, by group. With ``gap`` the difference of two
groups' rates ``r``, of ``n`` rows each, the penalty is

    strength · Σ max(0, sqrt(gap² + noise · Σ r (1 - r) / n) - limit)²,

summed over classes, both kinds of rows and all pairs of groups, the inner sum being over the two groups. Without
``noise`` it is 0 exactly where the equalised-odds difference (Hardt, Price & Srebro 2016), which is the largest gap, is
at most ``limit``, and it has a continuous gradient, which the largest gap itself has not where another one becomes the
largest: there a quasi-Newton method would stall.

``r (1 - r) / n`` is the sampling variance of a rate. Gaps are those of the probe: a cell of a few hundred rows leaves a
few hundredths to chance on other rows, and a penalty on the gaps alone fits that chance. With it the root is what gap
to expect on other rows: of the given rows' error alone with a ``noise`` of 1, and of rows as few again with 2. It is
lowered by rates that vary less, not by evening out what is chance.

The form and the defaults are ours. A temperature of 0.1 keeps the soft gaps near those of hard predictions; 0.3 does
not. The larger the strength, the more exactly the limit is met and the more passes the minimum takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.native import OddsTuple

# Chosen on models of population-val and rows that neither the editor nor refinement had seen (docs/method.md).
PRICE_OF_STRENGTH, NOISE_OF_STRENGTH = 5.0, 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class OddsTerm:
    """What refinement adds to its objective for rows with ``labels`` and ``groups``, ``[rows]`` each.

    ``labels`` are whole numbers from 0, the classes; ``groups`` may be any codes, of any number of groups. Groups
    without rows of some kind have no rate of that kind. ``limit`` is the equalised-odds difference of soft
    predictions, in [0, 1], that costs nothing, ``strength`` the price of what exceeds it, in nats, and ``noise`` how
    often the sampling variance of the rates counts.

    Raises ``ValueError`` for labels that are no whole numbers from 0, other shapes, a negative ``strength``,
    ``limit`` or ``noise``, or a ``temperature`` outside of [0.001, 1000].
    """

    labels: ArrayLike
    groups: ArrayLike
    strength: float = 10.0
    limit: float = 0.0
    temperature: float = 0.1
    noise: float = 0.0

    def __post_init__(self) -> None:
        labels, groups = np.asarray(self.labels), np.asarray(self.groups)
        if labels.ndim != 1 or groups.shape != labels.shape:
            raise ValueError(
                f"labels, groups: expected one of each a row, got shapes {labels.shape} and {groups.shape}"
            )
        if labels.dtype.kind not in "bui" or (labels.size and labels.min() < 0):
            least = f", the least being {labels.min()}" if labels.dtype.kind in "bui" else ""
            raise ValueError(f"labels: expected whole numbers from 0, got {labels.dtype}{least}")
        for name, value, low, high in (
            ("strength", self.strength, 0.0, np.finfo(float).max),
            ("limit", self.limit, 0.0, 1.0),
            ("temperature", self.temperature, 1e-3, 1e3),
            ("noise", self.noise, 0.0, np.finfo(float).max),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: expected a number from {low} to {high}, got {value}")

    def for_kernels(self, mlps: Sequence[MLP], n_rows: int) -> OddsTuple:
        """``(label · groups + group, groups, strength, limit, temperature, noise)``, the groups counted from 0.

        Raises ``ValueError`` unless there is a label a row, and each is a class of every model.
        """
        labels = np.asarray(self.labels)
        if len(labels) != n_rows:
            raise ValueError(f"labels: expected {n_rows}, one a row, got {len(labels)}")
        n_classes = min((max(mlp.spec.n_outputs, 2) for mlp in mlps), default=0)
        if mlps and labels.max(initial=0) >= n_classes:
            raise ValueError(f"labels: expected classes 0 to {n_classes - 1}, got {labels.max()}")
        names, codes = np.unique(np.asarray(self.groups), return_inverse=True)
        cells = labels.astype(np.int64) * len(names) + codes
        numbers = (float(self.strength), float(self.limit), float(self.temperature), float(self.noise))
        return cells, len(names), *numbers


def term_after(labels: ArrayLike, groups: ArrayLike, *, strength: float, limit: float | None) -> OddsTerm:
    """What refinement adds after an edit for equalised odds: it holds to the ``limit`` that the edit was asked for, or,
    without one, weighs the odds in proportion to the edit's ``strength`` λ.
    """
    if limit is not None:
        return OddsTerm(labels, groups, limit=limit)
    return OddsTerm(labels, groups, strength=PRICE_OF_STRENGTH * strength, noise=NOISE_OF_STRENGTH)
