"""What is asked of each model, from its budget: one operator a requirement, in double."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import FunctionProto

from metaedit_fast.export.builder import DOMAIN, DOUBLE, FLOAT, INT64, GraphBuilder
from metaedit_fast.export.operators.structure import layers
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.requirements.equalized_odds import UNIT_STRENGTH
from metaedit_fast.requirements.pruning import FULL_RESIDUAL_FROM

NAMES = {
    "pruning": "PruningBudget_v1",
    "data_minimisation": "MinimisationBudget_v1",
    "equalized_odds": "OddsBudget_v1",
}


def asked(g: GraphBuilder, requirement: str) -> list[str]:
    """``condition [M, 4]``, ``gain [M]`` and, where something is removed, how many stay, int64 ``[M]``."""
    n = 2 if requirement == "equalized_odds" else 3
    return g.ops(NAMES[requirement], "layers", "budget", n_outputs=n, domain=DOMAIN)


def function(config: MetanetConfig, requirement: str) -> FunctionProto:
    """The body."""
    g = GraphBuilder()
    write: dict[str, Callable[[GraphBuilder, MetanetConfig], dict[str, str]]] = {
        "pruning": _pruning,
        "data_minimisation": _data_minimisation,
        "equalized_odds": _equalized_odds,
    }
    return g.function(NAMES[requirement], ["layers", "budget"], write[requirement](g, config))


def _pruning(g: GraphBuilder, config: MetanetConfig) -> dict[str, str]:
    found = layers(g)
    n_weights = g.sub(g.gather(found.weights_to, found.last_layer), g.gather(found.weights_from, found.first_layer))
    kept_share = g.sub(_number(g, 1.0), "budget")
    t = g.op("Log", kept_share)
    condition = _condition(g, t, g.mul(g.mul(t, t), _number(g, 0.25)), t)
    return {
        "condition": condition,
        "gain": _gain(g, config, g.op("Div", "budget", _number(g, FULL_RESIDUAL_FROM))),
        "kept": _count(g, kept_share, g.cast(n_weights, DOUBLE)),
    }


def _data_minimisation(g: GraphBuilder, config: MetanetConfig) -> dict[str, str]:
    t = g.sub(_number(g, 1.0), g.mul(_number(g, 2.0), "budget"))
    asked_something = g.cast(g.op("Greater", "budget", _number(g, 0.0)), DOUBLE)
    return {
        "condition": _condition(g, t, g.mul(t, t), g.mul(t, _number(g, 3.0))),
        "gain": _gain(g, config, asked_something),
        "kept": _count(g, g.sub(_number(g, 1.0), "budget"), _number(g, config.n_inputs)),
    }


def _equalized_odds(g: GraphBuilder, config: MetanetConfig) -> dict[str, str]:
    t = g.mul(g.add(g.op("Log", "budget"), _number(g, 1.0)), _number(g, 0.5))
    return {
        "condition": _condition(g, t, g.mul(g.mul(t, t), _number(g, 0.25)), t),
        "gain": _gain(g, config, g.op("Div", "budget", _number(g, UNIT_STRENGTH))),
    }


def _number(g: GraphBuilder, value: float) -> str:
    return g.constant(value, DOUBLE)


def _condition(g: GraphBuilder, t: str, square: str, angle: str) -> str:
    # Runtimes have a sine of doubles, but not all of them a cosine.
    cosine = g.op("Sin", g.add(angle, _number(g, math.pi / 2)))
    return g.cast(g.columns(t, square, g.op("Sin", angle), cosine), FLOAT)


def _gain(g: GraphBuilder, config: MetanetConfig, share: str) -> str:
    """γ times ``min(1, share)``."""
    return g.cast(g.mul(_number(g, config.gamma), g.op("Min", share, _number(g, 1.0))), FLOAT)


def _count(g: GraphBuilder, share: str, n: str) -> str:
    """``masks.kept_count``: to the nearest integer, a half to the even one, but at least 1."""
    return g.op("Max", g.cast(g.op("Round", g.mul(share, n)), INT64), g.constant(1))
