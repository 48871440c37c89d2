"""The metanetwork in plain torch (the reference), compiled, and its training step by autograd."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.bench.network import HEADS, NetworkCase
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.differentiable import differentiable_heads
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork

Gradients = dict[str, NDArray[np.floating]]


def module(case: NetworkCase) -> Metanetwork:
    """The torch module with the case's weights."""
    net = Metanetwork(case.config)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in case.weights.items()})
    return net


def inputs_of(case: NetworkCase) -> MetanetInputs:
    """All models as one batch, blocks of equal shape as one tensor."""
    return MetanetInputs.build(case.mlps, case.features, torch.from_numpy(case.conditions))


def double(inputs: MetanetInputs) -> MetanetInputs:
    """The same in float64."""
    names = ("edge", "node", "saliency", "condition")
    return dataclasses.replace(inputs, **{name: getattr(inputs, name).double() for name in names})


@torch.no_grad()
def exact_heads(case: NetworkCase) -> Heads:
    """The heads in float64, a model at a time to spare memory."""
    net = module(case).double()
    parts = [net(double(inputs_of(case.part(slice(m, m + 1))))) for m in range(len(case.mlps))]
    return Heads(*(np.concatenate([getattr(part, name).numpy() for part in parts]) for name in HEADS))


def forward(case: NetworkCase, *, threads: int, compiled: bool = False) -> Callable[[], Heads]:
    """All models in one call. ``compiled`` puts every layer through ``torch.compile``."""
    net, inputs = module(case), inputs_of(case)
    if compiled:
        for layer in net.layers:
            layer.compile()

    @torch.no_grad()
    def run() -> Heads:
        torch.set_num_threads(threads)
        found = net(inputs)
        return Heads(*(getattr(found, name).numpy() for name in HEADS))

    return run


def loss_of(heads: Heads, case: NetworkCase) -> Tensor:
    """A loss that every output takes part in: their mean squares over all models of ``case``, of which ``heads`` may
    be those of some; the losses of all parts add up to the whole.
    """
    n_weights, n_nodes = sum(mlp.spec.n_weights for mlp in case.mlps), case.graph.n_nodes
    parts = [getattr(heads, name).square().sum() / n_weights for name in ("score", "relative", "additive")]
    return torch.stack([*parts, heads.node.square().sum() / n_nodes]).sum()


def training_step(case: NetworkCase, *, threads: int) -> Callable[[], Gradients]:
    """Forward, and backward by autograd; the gradients of all parameters."""
    net, inputs = module(case), inputs_of(case)
    return _step(net, lambda: loss_of(net(inputs), case), threads)


def native_step(case: NetworkCase, *, threads: int) -> Callable[[], Gradients]:
    """The same on the compiled kernels, through their torch operator."""
    net, condition = module(case), torch.from_numpy(case.conditions)

    def loss() -> Tensor:
        found = differentiable_heads(net, case.graph, case.features, condition, num_threads=threads)
        return loss_of(found, case)

    return _step(net, loss, threads)


def _step(net: Metanetwork, loss: Callable[[], Tensor], threads: int) -> Callable[[], Gradients]:
    def run() -> Gradients:
        torch.set_num_threads(threads)
        net.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        return gradients_of(net)

    return run


def exact_gradients(case: NetworkCase) -> Gradients:
    """Those of ``training_step`` in float64, a model at a time to spare memory."""
    net = module(case).double()
    for m in range(len(case.mlps)):
        inputs = double(inputs_of(case.part(slice(m, m + 1))))
        loss_of(net(inputs), case).backward()  # type: ignore[no-untyped-call]
    return gradients_of(net)


def gradients_of(net: torch.nn.Module) -> Gradients:
    """By the names of the parameters; zeros where the loss does not depend on one."""
    return {
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy() for name, p in net.named_parameters()
    }
