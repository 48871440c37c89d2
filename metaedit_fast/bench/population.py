"""The seeded populations that everything is measured on: random weights of trained size, since time depends on the
architecture alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

N_INPUTS, N_OUTPUTS = 14, 2
WIDTHS = (16, 32, 64, 128)
SKIP_SHARE = 0.15
# 2670 weights on average; models of one architecture, activations included, can be one torch tensor.
EQUAL_SHAPES = (((14, 64, 2), "relu"), ((14, 32, 32, 2), "silu"), ((14, 64, 32, 2), "tanh"), ((14, 64, 64, 2), "relu"))
ACTIVATIONS = ("relu", "silu", "tanh", "gelu")


def mixed_population(n: int = 64, seed: int = 0) -> list[MLP]:
    """``n`` classifiers of 14 inputs with 1 to 4 hidden layers of non-decreasing width, 15 % of them with a skip.

    With 64 models and seed 0: 380 thousand weights, 5.9 thousand on average, the largest 27 thousand.
    """
    draw = random.Random(seed)  # noqa: S311 (an architecture is no secret)
    return _with_weights((_architecture(draw, ACTIVATIONS[i % len(ACTIVATIONS)]) for i in range(n)), seed)


def equal_population(n: int = 64, seed: int = 0) -> list[MLP]:
    """``n`` classifiers of four architectures in equal shares, 2670 weights on average: at torch's best, which can
    put the models of one architecture into one tensor.
    """
    shapes = sorted(EQUAL_SHAPES[i % len(EQUAL_SHAPES)] for i in range(n))
    return _with_weights((MLPSpec.simple(widths, activation) for widths, activation in shapes), seed)


def chain(widths: Iterable[int], seed: int = 0, skips: Sequence[tuple[int, int]] = ()) -> MLP:
    """One MLP of these layer widths."""
    return _with_weights([MLPSpec.simple(tuple(widths), "silu", skips=skips)], seed)[0]


def moved(mlps: Iterable[MLP], seed: int = 0) -> list[MLP]:
    """The models with a little noise on every parameter."""
    rng = np.random.default_rng(seed + 1)
    return [mlp.replace(mlp.theta + rng.normal(0, 0.05, mlp.theta.size)) for mlp in mlps]


def standard_rows(n: int, n_inputs: int = N_INPUTS, seed: int = 1) -> NDArray[np.float32]:
    """``n`` standard normal rows."""
    return np.random.default_rng(seed).normal(size=(n, n_inputs)).astype(np.float32)


def _architecture(draw: random.Random, activation: str) -> MLPSpec:
    depth = draw.randint(1, 4)
    hidden = sorted(draw.choice(WIDTHS) for _ in range(depth))
    skips = [(0, depth)] if depth >= 2 and draw.random() < SKIP_SHARE else []
    return MLPSpec.simple((N_INPUTS, *hidden, N_OUTPUTS), activation, skips=skips)


def _with_weights(specs: Iterable[MLPSpec], seed: int) -> list[MLP]:
    """Weights of variance 1 / inputs, biases of 0.01."""
    rng = np.random.default_rng(seed)
    mlps = []
    for spec in specs:
        mlp = MLP(spec, rng.normal(0, 0.1, spec.n_parameters))
        for kind, _, view in mlp.parameters():
            if kind == "weight":
                view[...] = rng.normal(0, len(view) ** -0.5, view.shape)
        mlps.append(mlp)
    return mlps
