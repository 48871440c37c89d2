"""AdamW over a network as one vector: a step costs what its arithmetic costs, however many parameters there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019) after clipping the gradient's norm at ``clip``.

    From now on the parameters of ``net`` are views of one vector; who replaces their ``data`` takes them out of
    training. Weights decay in matrices alone, those named in ``undecayed`` excepted. A parameter without a gradient
    counts as one with the gradient 0.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float,
        undecayed: Iterable[str] = (),
    ) -> None:
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        excepted = set(undecayed)
        for name, parameter in net.named_parameters():
            (decayed if parameter.dim() > 1 and name not in excepted else free).append(parameter)
        self._clip = clip
        self._parameters = [*decayed, *free]
        sizes = [parameter.numel() for parameter in self._parameters]
        values = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        for parameter, own in zip(self._parameters, torch.split(values, sizes), strict=True):
            parameter.data = own.view_as(parameter)
        self._split = sum(sizes[: len(decayed)])
        self._vectors = [part.requires_grad_() for part in (values[: self._split], values[self._split :])]
        groups = [
            {"params": [vector], "weight_decay": decay}
            for vector, decay in zip(self._vectors, (weight_decay, 0.0), strict=True)
        ]
        self._adamw = torch.optim.AdamW(groups, betas=betas, fused=True)

    def step(self, learning_rate: float) -> None:
        """One step down the gradients, which the parameters then hold no more."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        gradient = torch.cat([part.flatten() for part in parts])
        for parameter in self._parameters:
            parameter.grad = None
        self._vectors[0].grad, self._vectors[1].grad = gradient[: self._split], gradient[self._split :]
        torch.nn.utils.clip_grad_norm_(self._vectors, self._clip)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes; the parameters themselves are the network's."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state)
