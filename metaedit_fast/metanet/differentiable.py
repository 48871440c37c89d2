"""The metanetwork on the compiled kernels as a differentiable torch operator: what the trainer runs.

``metaedit::metanetwork`` gives the heads and keeps a tape of states, ``metaedit::metanetwork_backward`` gives the
gradient of the parameters. Features and budgets are data and get no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import SCORE_GAIN, Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.metanet.metanetwork import Metanetwork
from metaedit_fast.threads import thread_count

MAX_D_E = 128


def fits(config: MetanetConfig) -> bool:
    """Whether the kernels have this metanetwork's sizes."""
    return config.d_e <= MAX_D_E


def differentiable_heads(
    net: Metanetwork,
    graph: WeightGraphBatch,
    features: Sequence[ModelFeatures],
    condition: Tensor,
    *,
    num_threads: int | None = None,
    isa: str | None = None,
) -> Heads:
    """The metanetwork's heads, differentiable in its parameters, models one after the other in every tensor.

    ``graph`` has ``order="model"``; ``features`` holds the ``model_features`` of each of its models; ``condition``
    is float32 ``[M, 4]`` (``Requirement.condition``). ``num_threads`` is as in ``threads.thread_count``; ``isa``
    names an instruction set to run instead of the active one. Values and gradients have the same bits for every
    number of threads.

    Equivalent to: ``net(MetanetInputs.build(mlps, features, condition))``. Where several edges have a largest
    message, the first takes the gradient of the maximum, which torch shares out among them.

    Raises ``ValueError`` where ``net`` has sizes that the kernels lack (``fits``) or an input has a wrong shape,
    ``TypeError`` for a wrong dtype.
    """
    if len(features) != graph.n_models:
        raise ValueError(f"features: expected those of {graph.n_models} models, got {len(features)}")
    config = net.config
    sizes = _sizes(config)
    parameters = dict(net.named_parameters())
    joined = torch.cat([parameters[name].flatten() for name, _ in _network(sizes).parameters])
    batch = [
        torch.from_numpy(graph.blocks),
        torch.from_numpy(np.ascontiguousarray(graph.block_model)),
        torch.from_numpy(graph.node_offsets),
        _joined([f.edge for f in features], config.n_edge_features),
        _joined([f.node for f in features], config.n_node_features),
        torch.from_numpy(np.concatenate([np.empty(0, np.int64), *(f.node_type for f in features)])),
        torch.from_numpy(np.concatenate([np.empty(0, np.float32), *(f.saliency for f in features)])),
        condition,
    ]
    found = metanetwork(joined, batch, graph.n_edges, sizes, thread_count(num_threads), isa or "")
    return Heads(*found[:4])


def _joined(parts: Sequence[NDArray[np.float32]], width: int) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty((0, width), np.float32), *parts]))


def _sizes(config: MetanetConfig) -> str:
    """As text, which torch.compile takes for a constant; it would make numbers symbolic."""
    sizes = (
        config.d_e, config.d_v, config.n_layers, config.head_hidden, config.n_edge_features, config.n_node_features,
        config.n_node_types, int(config.edits_parameters),
    )  # fmt: skip
    return " ".join([config.form, *map(str, sizes)])


@lru_cache(maxsize=64)
def _network(sizes: str) -> _core.DifferentiableMetanet:
    form, *numbers = sizes.split()
    d_e, d_v, n_layers, head_hidden, n_edge_features, n_node_features, n_node_types, edits_parameters = map(
        int, numbers
    )
    return _core.DifferentiableMetanet(
        form=form,
        d_e=d_e,
        d_v=d_v,
        n_layers=n_layers,
        head_hidden=head_hidden,
        n_edge_features=n_edge_features,
        n_node_features=n_node_features,
        n_node_types=n_node_types,
        edits_parameters=bool(edits_parameters),
        score_gain=SCORE_GAIN,
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array


def _arrays(tensors: Sequence[Tensor]) -> tuple[NDArray[Any], ...]:
    return tuple(map(_array, tensors))


@torch.library.custom_op("metaedit::metanetwork", mutates_args=(), device_types="cpu")
def metanetwork(
    parameters: Tensor, batch: Sequence[Tensor], n_edges: int, sizes: str, num_threads: int, isa: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``score [W]``, ``relative [W]``, ``additive [W]``, ``node [V, 3]`` and two tapes for the way back.

    ``parameters`` ``[P]`` are those that ``_core.DifferentiableMetanet.parameters`` lists, one after the other;
    ``batch`` is what ``_core.DifferentiableMetanet.forward`` takes, ``n_edges`` its edges, identity edges too.
    """
    network = _network(sizes)
    found = network.forward(_array(parameters), _arrays(batch), num_threads=num_threads, isa=isa or None)
    score, relative, additive, node, edge_tape, node_tape = (torch.from_numpy(array) for array in found)
    return score, relative, additive, node, edge_tape, node_tape


@metanetwork.register_fake
def _(
    parameters: Tensor, batch: Sequence[Tensor], n_edges: int, sizes: str, num_threads: int, isa: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    node_type, saliency, condition = batch[5:]
    per_edge, per_node = _network(sizes).tape_floats
    n_nodes = node_type.shape[0]
    score, relative, additive = (parameters.new_empty(saliency.shape[0]) for _ in range(3))
    edge_tape = parameters.new_empty(n_edges * per_edge)
    node_tape = parameters.new_empty((n_nodes + condition.shape[0]) * per_node)
    return score, relative, additive, parameters.new_empty(n_nodes, 3), edge_tape, node_tape


@torch.library.custom_op("metaedit::metanetwork_backward", mutates_args=(), device_types="cpu")
def _backward(
    gradients: Sequence[Tensor],
    tapes: Sequence[Tensor],
    parameters: Tensor,
    batch: Sequence[Tensor],
    sizes: str,
    num_threads: int,
    isa: str,
) -> Tensor:
    edge_tape, node_tape = map(_array, tapes)
    found = _network(sizes).backward(
        _array(parameters),
        _arrays(batch),
        edge_tape,
        node_tape,
        _arrays(gradients),
        num_threads=num_threads,
        isa=isa or None,
    )
    return torch.from_numpy(found)


@_backward.register_fake
def _(
    gradients: Sequence[Tensor],
    tapes: Sequence[Tensor],
    parameters: Tensor,
    batch: Sequence[Tensor],
    sizes: str,
    num_threads: int,
    isa: str,
) -> Tensor:
    return torch.empty_like(parameters)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    parameters, batch, _, ctx.sizes, ctx.num_threads, ctx.isa = inputs
    ctx.save_for_backward(parameters, *batch, *output[4:])
    ctx.mark_non_differentiable(*output[4:])
    ctx.set_materialize_grads(False)  # the tapes are large
    ctx.shapes = [x.shape for x in output[:4]]


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    parameters, *batch, edge_tape, node_tape = ctx.saved_tensors
    given = [
        parameters.new_zeros(shape) if g is None else g for g, shape in zip(gradients[:4], ctx.shapes, strict=True)
    ]
    tapes = [edge_tape, node_tape]
    found = _backward(given, tapes, parameters, batch, ctx.sizes, ctx.num_threads, ctx.isa)
    return found, [None] * len(batch), None, None, None, None


metanetwork.register_autograd(_differentiate, setup_context=_keep)
