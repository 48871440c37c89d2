"""Float32 passes of MLPs over rows, on the compiled kernels: logits, divergence with gradient, probe statistics.

The numpy code of ``backprop`` defines what they compute and stays the way to other precisions. Rows lie in
vector lanes, so a pass costs little beside its multiplications. A model's result depends on the model, the
rows and the instruction set alone, to the bit: neither on the other models of a call nor on the number of
threads. Activations are good to 1e-6 relative (gelu_tanh 3e-6) from -5 up; further down the vanishing tails of
both gelus are so against 1 only.

The functions for many models take them with the same rows; ``METAEDIT_ISA`` and ``METAEDIT_NUM_THREADS``
choose as in ``metaedit_fast.kernels.native``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast import _core
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, MLPSpec
from metaedit_fast.threads import thread_count

Float32 = NDArray[np.float32]
Statistics = tuple[Float32, Float32, Float32, Float32]
Item = tuple[_core.MlpShape, Float32, _core.PanelRows]
OddsTuple = tuple[NDArray[np.int64], int, float, float, float, float]


@functools.lru_cache(maxsize=4096)
def shape_of(spec: MLPSpec) -> _core.MlpShape:
    """The architecture as the kernels take it."""
    return _core.MlpShape(
        spec.n_inputs,
        [(x.width, ACTIVATIONS.index(x.activation), x.alpha, x.norm == "layer", x.eps) for x in spec.layers],
        list(spec.skips),
        is_regressor=spec.output == "identity",
    )


def rows_of(mlp: MLP, x: ArrayLike) -> _core.PanelRows:
    """Rows ``[rows, n_inputs]`` as the first layer of ``mlp`` receives them, laid out for the kernels.

    Raises ``ValueError`` for another shape.
    """
    return _core.PanelRows(np.ascontiguousarray(mlp.normalised(x), np.float32))


def logits(mlp: MLP, x: ArrayLike, *, isa: str | None = None) -> Float32:
    """Equivalent to: ``trace(mlp, x).outputs[-1]``, ``[rows, n_outputs]``."""
    return logits_of([mlp], x, num_threads=1, isa=isa)[0]


def log_proba(mlp: MLP, x: ArrayLike, *, isa: str | None = None) -> Float32:
    """Equivalent to: ``log_proba_of(logits(mlp, x))``, ``[rows, classes]``."""
    return log_proba_of_all([mlp], x, num_threads=1, isa=isa)[0]


def value_and_gradient(
    mlp: MLP, log_p: Float32, x: ArrayLike | _core.PanelRows, *, isa: str | None = None
) -> tuple[float, Float32]:
    """Mean JSD of the predictions to ``log_p`` (float32 ``[rows, classes]``), in nats, and its gradient ``[θ]``.

    ``x`` is rows, or what ``rows_of`` made of them, which saves time where the same rows come again.

    Equivalent to: ``jsd_with_gradient(log_p, run.outputs[-1])`` of ``run = trace(mlp, x)``, its first result
    averaged, its second one through ``backward(run, ...).theta``.
    Raises ``ValueError`` for no rows or a wrong shape, ``TypeError`` for a ``log_p`` that is not float32.
    """
    rows = x if isinstance(x, _core.PanelRows) else rows_of(mlp, x)
    item = (shape_of(mlp.spec), mlp.theta, rows, log_p)
    return _core.mlp_divergence([item], num_threads=1, isa=isa)[0]


def probe_statistics(mlp: MLP, x: ArrayLike | _core.PanelRows, *, isa: str | None = None) -> Statistics:
    """``(mean, std, gradient, edge)`` as ``statistics.ProbeStatistics`` has them, all layers in one array each.

    ``x`` is rows, or what ``rows_of`` made of them.

    Raises ``ValueError`` for no rows or a wrong shape.
    """
    return probe_statistics_of([mlp], x, num_threads=1, isa=isa)[0]


def logits_of(
    mlps: Sequence[MLP], x: ArrayLike, *, num_threads: int | None = None, isa: str | None = None
) -> list[Float32]:
    """``logits`` of many models on the same rows."""
    return _core.mlp_logits(items_of(mlps, x), log_probabilities=False, num_threads=thread_count(num_threads), isa=isa)


def log_proba_of_all(
    mlps: Sequence[MLP], x: ArrayLike, *, num_threads: int | None = None, isa: str | None = None
) -> list[Float32]:
    """``log_proba`` of many models on the same rows."""
    return _core.mlp_logits(items_of(mlps, x), log_probabilities=True, num_threads=thread_count(num_threads), isa=isa)


def values_and_gradients(
    mlps: Sequence[MLP],
    log_p: Sequence[Float32],
    x: ArrayLike,
    *,
    num_threads: int | None = None,
    isa: str | None = None,
) -> list[tuple[float, Float32]]:
    """``value_and_gradient`` of many models, each with its own ``log_p``, on the same rows."""
    items = [(*item, p) for item, p in zip(items_of(mlps, x), log_p, strict=True)]
    return _core.mlp_divergence(items, num_threads=thread_count(num_threads), isa=isa)


def gradients_of(
    mlps: Sequence[MLP],
    at_outputs: Sequence[Float32],
    x: ArrayLike,
    *,
    num_threads: int | None = None,
    isa: str | None = None,
) -> list[Float32]:
    """The gradient ``[θ]`` of a function of each model's logits on the same rows.

    ``at_outputs`` holds its gradient in these logits, float32 ``[rows, n_outputs]`` each.

    Equivalent to: ``backward(trace(mlp, x), at_outputs).theta``, model by model.
    Raises ``ValueError`` for a wrong shape, ``TypeError`` for an ``at_outputs`` that is not float32.
    """
    items = [(*item, g) for item, g in zip(items_of(mlps, x), at_outputs, strict=True)]
    return _core.mlp_gradient(items, num_threads=thread_count(num_threads), isa=isa)


def probe_statistics_of(
    mlps: Sequence[MLP], x: ArrayLike | _core.PanelRows, *, num_threads: int | None = None, isa: str | None = None
) -> list[Statistics]:
    """``probe_statistics`` of many models on the same rows."""
    return _core.mlp_statistics(items_of(mlps, x), num_threads=thread_count(num_threads), isa=isa)


def refined(
    edited: Sequence[MLP],
    originals: Sequence[MLP],
    free: Sequence[NDArray[np.bool_]],
    x: ArrayLike,
    *,
    steps: int,
    odds: OddsTuple | None = None,
    num_threads: int | None = None,
    isa: str | None = None,
) -> list[tuple[Float32, NDArray[np.float64], int]]:
    """``(θ, trials, index of the lowest)`` of each model: ``editing.refine``.

    ``free`` holds bool ``[n_parameters]`` for each: which parameters may change. ``odds`` is
    ``OddsTerm.for_kernels()``. The columns of the trials, float64 ``[trials, 3]``, are the objective, mean JSD, and
    the largest gap of soft rates, which is NaN without ``odds``; the first trial is the start.

    Raises ``ValueError`` for no rows, negative ``steps``, an original with another number of outputs, or ``odds``
    that do not fit the rows and classes.
    """
    both = items_of([*edited, *originals], x)
    items = [(*e, *o, f) for e, o, f in zip(both[: len(edited)], both[len(edited) :], free, strict=True)]
    return _core.mlp_refine(items, steps=steps, odds=odds, num_threads=thread_count(num_threads), isa=isa)


def rows_of_all(mlps: Sequence[MLP], x: ArrayLike) -> list[_core.PanelRows]:
    """``rows_of`` of many models on the same rows; models with the same normalisation share one copy."""
    shared: dict[tuple[int, bytes | None, bytes | None], _core.PanelRows] = {}
    found = []
    for mlp in mlps:
        key = (mlp.spec.n_inputs, _bytes(mlp.input_scale), _bytes(mlp.input_shift))
        if key not in shared:
            shared[key] = rows_of(mlp, x)
        found.append(shared[key])
    return found


def items_of(mlps: Sequence[MLP], x: ArrayLike | _core.PanelRows) -> list[Item]:
    """The models with their rows; models with the same normalisation share one copy of the rows."""
    rows = [x] * len(mlps) if isinstance(x, _core.PanelRows) else rows_of_all(mlps, x)
    return [(shape_of(mlp.spec), mlp.theta, panels) for mlp, panels in zip(mlps, rows, strict=True)]


def _bytes(array: Float32 | None) -> bytes | None:
    return None if array is None else array.tobytes()
