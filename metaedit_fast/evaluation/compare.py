"""Pruning methods side by side on held-out models and rows: the table of the README and the demo."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.editing.editor import Editor
from metaedit_fast.editing.refine import refine
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.evaluation.blas import one_blas_thread
from metaedit_fast.models.evaluation import evaluate, predictions_of
from metaedit_fast.models.mlp import MLP

Method = Callable[[MLP, float], MLP]


@dataclasses.dataclass(frozen=True)
class Row:
    """One method at one sparsity, over ``models`` models.

    ``jsd_mean`` in nats per row of data, ``jsd_se`` its standard error over training runs (checkpoints of
    one run are not independent), ``ms_per_model`` the wall-clock time of one edit on one thread, features,
    mask and parameters included, measuring excluded.
    """

    method: str
    sparsity: float
    jsd_mean: float
    jsd_se: float
    accuracy_mean: float
    ms_per_model: float
    models: int


def pruning_methods(
    editor: Editor,
    probe: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    refine_steps: int = 30,
    seed: int = 0,
) -> dict[str, Method]:
    """The editor, alone and with refinement, and its baselines.

    All see the same ``probe [rows, n_inputs]``; SNIP alone reads its ``labels [rows]``.
    """
    rng = np.random.default_rng(seed)

    def edited(mlp: MLP, sparsity: float) -> MLP:
        return mlp.replace(editor.edit_theta(mlp, sparsity, probe=probe if editor.needs_probe else None))

    return {
        "editor": edited,
        "editor+refine": lambda mlp, s: refine(edited(mlp, s), mlp, probe, steps=refine_steps)[0],
        "snip": lambda mlp, s: prune("snip", mlp, s, x=probe, y=labels),
        "magnitude": lambda mlp, s: prune("magnitude", mlp, s),
        "magnitude_layer": lambda mlp, s: prune("magnitude_layer", mlp, s),
        "random": lambda mlp, s: prune("random", mlp, s, rng=rng),
    }


def compare(
    mlps: Sequence[MLP],
    runs: Sequence[int],
    methods: dict[str, Method],
    sparsities: Sequence[float],
    x: ArrayLike,
    y: ArrayLike,
    report: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Edit every model by every method at every sparsity and measure on rows ``x [rows, n_inputs]``, ``y [rows]``.

    ``runs [M]`` tells which training run a model comes from. ``report`` is called with each row as it is done.
    """
    originals = predictions_of(mlps, x)
    rows = []
    for name, method in methods.items():
        for sparsity in sparsities:
            method(mlps[0], sparsity)  # what a first call sets up is no part of an edit
            with one_blas_thread:
                started = time.perf_counter()
                edited = [method(mlp, sparsity) for mlp in mlps]
                elapsed = time.perf_counter() - started
            found = evaluate(edited, x, y, originals=originals)
            assert found.jsd is not None
            rows.append(
                Row(
                    method=name,
                    sparsity=sparsity,
                    jsd_mean=float(found.jsd.mean()),
                    jsd_se=clustered_standard_error(found.jsd, runs),
                    accuracy_mean=float(found.accuracy.mean()),
                    ms_per_model=1e3 * elapsed / len(mlps),
                    models=len(mlps),
                )
            )
            if report is not None:
                report(rows[-1])
    return rows


def clustered_standard_error(values: NDArray[np.float64], clusters: Sequence[int]) -> float:
    """Standard error of the mean of ``values [M]`` whose errors are correlated within ``clusters [M]``.

    The sandwich estimate ``sqrt(G / (G - 1) · Σ_g (Σ_{i in g} (v_i - v̄))²) / M`` over G clusters (Cameron &
    Miller 2015); NaN for a single cluster.
    """
    groups, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(groups) < 2:
        return float("nan")
    sums = np.bincount(index, weights=values - values.mean())
    return float(np.sqrt(len(groups) / (len(groups) - 1) * np.square(sums).sum()) / len(values))
