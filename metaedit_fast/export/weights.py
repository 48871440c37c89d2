"""The learned parameters of a metanetwork as numpy arrays: their names, shapes, and a check of foreign ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.metanet.config import CONDITION_SIZE, EMBEDDING_SIZE, MetanetConfig

if TYPE_CHECKING:
    from metaedit_fast.metanet.metanetwork import Metanetwork

Weights = Mapping[str, NDArray[np.float32]]


def weight_shapes(config: MetanetConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter, those of the torch module's ``state_dict``, one at a time.

    An iterator, so that a damaged ``n_layers`` cannot fill memory before the first name is missed.
    """
    d_e, d_v, hidden = config.d_e, config.d_v, config.head_hidden
    yield from _linear("condition_in", CONDITION_SIZE, EMBEDDING_SIZE)
    yield from _linear("condition_node", EMBEDDING_SIZE, d_v)
    yield from _linear("condition_edge", EMBEDDING_SIZE, EMBEDDING_SIZE)
    yield from _linear("edge_in", config.n_edge_features, EMBEDDING_SIZE)
    yield from _linear("edge_out", EMBEDDING_SIZE, d_e)
    yield "skip_edge", (d_e,)
    yield from _linear("node_in", config.n_node_features, d_v)
    yield "node_type.weight", (config.n_node_types, d_v)
    layer = _shipped_layer if config.form == "shipped" else _official_layer
    for i in range(config.n_layers):
        for name, shape in layer(d_e, d_v):
            yield f"layers.{i}.{name}", shape
    yield from _norm("final_norm", d_v)
    yield from _head("score_head", d_e, d_v, hidden, 1)
    yield "saliency_gain", ()
    if config.edits_parameters:
        yield from _head("edit_head", d_e, d_v, hidden, 2)
        yield from _linear("node_head", d_v, 3)


def _shipped_layer(d_e: int, d_v: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear("edge", d_e, d_e)
    yield "source.weight", (d_e, d_v)
    yield "target.weight", (d_e, d_v)
    yield from _linear("update", d_e, d_e)
    yield from _norm("norm", d_v)
    yield from _linear("node_in", d_v + 4 * d_e, 2 * d_v)
    yield from _linear("node_out", 2 * d_v, d_v)


def _official_layer(d_e: int, d_v: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, n_in, n_out in (("forward", d_e + d_v, d_v), ("backward", d_e + d_v, d_v), ("edge", d_e + 2 * d_v, d_e)):
        yield from _linear(f"{name}_in", n_in, d_e)
        yield from _norm(f"{name}_norm", d_e)
        yield from _linear(f"{name}_out", d_e, n_out)
    yield from _linear("node_in", 3 * d_v, d_v)
    yield from _norm("node_norm", d_v)
    yield from _linear("node_out", d_v, d_v)
    yield from _linear("residual", d_v, d_v)


def _head(name: str, d_e: int, d_v: int, hidden: int, n_out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear(f"{name}.edge", d_e, hidden)
    yield f"{name}.source.weight", (hidden, d_v)
    yield f"{name}.target.weight", (hidden, d_v)
    yield from _linear(f"{name}.out", hidden, n_out)


def _linear(name: str, n_in: int, n_out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (n_out, n_in)
    yield f"{name}.bias", (n_out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def checked_weights(config: MetanetConfig, found: Weights) -> dict[str, NDArray[np.float32]]:
    """Read-only copies of the parameters ``found``, which must be exactly those that ``config`` needs.

    Raises ``ValueError`` naming the first that is missing or too many, or has another dtype or shape, or is
    not finite.
    """
    picked = {}
    for name, shape in weight_shapes(config):
        if name not in found:
            raise ValueError(f"parameter {name}: expected shape {shape}, got none")
        array = found[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"parameter {name}: expected float32 {shape}, got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"parameter {name}: expected finite values, got NaN or infinity")
        picked[name] = np.array(array)
        picked[name].flags.writeable = False
    if extra := sorted(found.keys() - picked.keys()):
        raise ValueError(f"parameter {extra[0]}: the config has none such")
    return picked


def network_weights(net: Metanetwork) -> dict[str, NDArray[np.float32]]:
    """A copy of the parameters of a torch metanetwork, as float32 on the CPU."""
    return checked_weights(net.config, {k: v.detach().float().cpu().numpy() for k, v in net.state_dict().items()})
