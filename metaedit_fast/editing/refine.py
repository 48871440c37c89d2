"""A few quasi-Newton steps per model that bring an edited model closer to its original.

The objective is the mean Jensen-Shannon divergence between both models' predictions on the rows of a
probe. It is smooth, deterministic and close to a least-squares problem, so L-BFGS (Liu & Nocedal 1989)
with the diagonal Fisher information as its first curvature gains more from each pass than Adam does,
and needs no learning rate: 30 passes reach what 100 passes of Adam with a tuned step size reach (60
networks trained on Adult, 50 to 95 % of the weights removed, test rows).
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.models import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.models.statistics import ProbeStatistics, probe_statistics

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

_MEMORY = 10
_SUFFICIENT_DECREASE = 1e-4
# Exponent and relative floor of the preconditioner, by experiment: 0.25 to 0.5 and 1e-3 to 1e-1 differ
# by a few percent, no preconditioner costs about 15 %.
_EXPONENT = 0.375
_FLOOR = 1e-2


@dataclasses.dataclass(frozen=True)
class RefineInfo:
    """What refinement did: mean JSD in nats on the probe.

    ``history[0]`` belongs to the model that was given, ``history[t]`` to the t-th trial;
    ``history[best_step]``, the lowest, to the model that was returned.
    """

    history: list[float]
    best_step: int

    @property
    def before(self) -> float:
        """Mean JSD of the model that was given."""
        return self.history[0]

    @property
    def after(self) -> float:
        """Mean JSD of the model that was returned."""
        return self.history[self.best_step]


def refine(
    edited: MLP,
    original: MLP,
    x: ArrayLike,
    *,
    steps: int = 30,
    keep_mask: Bools | None = None,
) -> tuple[MLP, RefineInfo]:
    """Lower the mean JSD between ``original`` and ``edited`` on the probe rows ``x [rows, n_inputs]``.

    ``steps`` is the number of passes, forward and backward, after the first.
    Only the weights in ``keep_mask`` (bool ``[n_weights]``; by default those that are not zero) and the
    biases and norm parameters that the model owns may change; all others keep their bits, so pruned
    weights stay zero. The result is never worse on ``x`` than ``edited``. No labels, no randomness.

    Raises ``ValueError`` for negative ``steps``, a probe without rows, or shapes that do not fit.
    """
    if steps < 0:
        raise ValueError(f"steps: expected 0 or more, got {steps}")
    if original.spec.n_outputs != edited.spec.n_outputs:
        raise ValueError(f"original: expected {edited.spec.n_outputs} outputs, got {original.spec.n_outputs}")
    problem = _Problem(edited, original, x, _free_parameters(edited, keep_mask))
    # A step may lead to where activations overflow; such a trial has no finite JSD and is not taken.
    with np.errstate(over="ignore", invalid="ignore"):
        best_step = _minimise(problem, steps)
    return edited.replace(problem.theta), RefineInfo(problem.history, best_step)


def _free_parameters(mlp: MLP, keep_mask: Bools | None) -> NDArray[np.intp]:
    free = mlp.spec.owned_parameters.copy()
    weights = mlp.theta[: mlp.spec.n_weights]
    if keep_mask is not None and np.shape(keep_mask) != weights.shape:
        raise ValueError(f"keep_mask: expected shape {weights.shape}, got {np.shape(keep_mask)}")
    free[: weights.size] = weights != 0 if keep_mask is None else keep_mask
    return np.flatnonzero(free)


class _Problem:
    """Mean JSD as a function of the free parameters in preconditioned coordinates.

    ``theta`` holds the current point. Gradients and directions are per free parameter, multiplied by
    ``scale`` once on the way in and once on the way out, which makes the curvature more even.
    """

    def __init__(self, edited: MLP, original: MLP, x: ArrayLike, free: NDArray[np.intp]) -> None:
        self._rows = edited.normalised(x)
        if len(self._rows) == 0:
            raise ValueError("x: expected at least one row, got none")
        # Those of the kernels, so that a model is at a distance of exactly 0 from itself.
        self._log_p = native.log_proba(original, x)
        self._free = free
        self.theta: NDArray[np.float32] = edited.theta.copy()
        self._mlp = MLP(edited.spec, self.theta)  # shares theta; the rows are normalised already
        self._panels = native.rows_of(self._mlp, self._rows)
        self._scale = np.ones(free.size, np.float32)
        self.history: list[float] = []

    def precondition(self) -> None:
        """Choose the coordinates by the Fisher information at the current point."""
        curvature = _curvature(self._mlp.spec, probe_statistics(self._mlp, self._rows))[self._free]
        floor = _FLOOR * float(curvature.mean()) + float(np.finfo(np.float32).tiny)
        self._scale = np.power(curvature + np.float32(floor), np.float32(-_EXPONENT))

    def point(self) -> NDArray[np.float32]:
        """The free parameters' values."""
        return self.theta.take(self._free)

    def move(self, start: NDArray[np.float32], direction: Floats, length: float) -> None:
        """Go to ``start + length * direction``."""
        self.theta[self._free] = start + np.float32(length) * (direction * self._scale)

    def restore(self, start: NDArray[np.float32]) -> None:
        """Go back to where ``point`` gave ``start``, bit for bit."""
        self.theta[self._free] = start

    def value(self) -> tuple[float, Floats]:
        """Mean JSD here and its gradient ``[n_parameters]``; one pass.

        Most trials are taken, so the gradients of the few that are not cost less than keeping every layer's
        values until it is known.
        """
        value, gradient = native.value_and_gradient(self._mlp, self._log_p, self._panels)
        self.history.append(value)
        return value, gradient

    def gradient(self, gradient: Floats) -> Floats:
        """The second result of ``value`` in the coordinates of the free parameters."""
        return np.asarray(gradient.take(self._free) * self._scale)


def _curvature(spec: MLPSpec, statistics: ProbeStatistics) -> NDArray[np.float32]:
    """Diagonal Fisher information of every parameter; norm parameters get their layer's mean over biases."""
    curvature = np.empty(spec.n_parameters, np.float32)
    curvature[: spec.n_weights] = statistics.edge
    for kind, i, where, _ in spec.parameter_slices:
        if kind == "bias":
            curvature[where] = statistics.gradient[i]
        elif kind != "weight":
            curvature[where] = statistics.gradient[i].mean()
    return curvature


def _minimise(problem: _Problem, steps: int) -> int:
    """L-BFGS with backtracking; leaves ``problem`` at the best point and returns that point's step."""
    value, at_theta = problem.value()
    best_step = 0
    if steps == 0 or not value > 0.0:
        return best_step
    problem.precondition()
    gradient = problem.gradient(at_theta)
    memory = _Memory()
    while len(problem.history) <= steps:
        if not float(gradient @ gradient) > 0.0:  # saturated: the gradient is lost to rounding
            break
        direction = memory.direction(gradient, value)
        slope = float(gradient @ direction)
        if not -math.inf < slope < 0.0:
            break
        start, length = problem.point(), 1.0
        while len(problem.history) <= steps:
            problem.move(start, direction, length)
            trial, at_theta = problem.value()
            if trial <= value + _SUFFICIENT_DECREASE * length * slope:
                break
            length *= _backtrack(value, slope * length, trial)
        else:
            problem.restore(start)
            break
        best_step = len(problem.history) - 1
        if best_step == steps or trial == 0.0:
            break
        following = problem.gradient(at_theta)
        memory.add(np.float32(length) * direction, following - gradient)
        value, gradient = trial, following
    return best_step


def _backtrack(value: float, slope: float, trial: float) -> float:
    """Shorter step as a fraction: the minimum of the parabola through what is known, within [0.1, 0.5]."""
    if not math.isfinite(trial):
        return 0.1
    return min(max(-slope / (2.0 * (trial - value - slope)), 0.1), 0.5)


class _Memory:
    """The latest steps and changes of gradient, and the inverse curvature they imply."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)

    def add(self, step: Floats, change: Floats) -> None:
        """Remember a step, unless the curvature along it is not positive."""
        product = float(step @ change)
        if product > 0.0:
            self._pairs.append((step, change, 1.0 / product))

    def direction(self, gradient: Floats, value: float) -> Floats:
        """Descent direction by the two-loop recursion.

        Without memory it is Polyak's step: the objective's minimum is near 0, so ``value / |g|²``.
        """
        result = -gradient
        if not self._pairs:
            return np.asarray(result * np.float32(value / float(gradient @ gradient)))
        weights = []
        for step, change, inverse in reversed(self._pairs):
            weight = np.float32(inverse * float(step @ result))
            weights.append(weight)
            result -= weight * change
        _, change, inverse = self._pairs[-1]
        result *= np.float32(1.0 / (inverse * float(change @ change)))
        for (step, change, inverse), weight in zip(self._pairs, reversed(weights), strict=True):
            result += (weight - np.float32(inverse * float(change @ result))) * step
        return result
