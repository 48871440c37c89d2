"""A torch module cut down to what stays of it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from metaedit_fast.models.compaction.plan import Plan
from metaedit_fast.models.torch import mlp_to_torch
from metaedit_fast.models.torch.modules import InputNormalisation


def cut_torch(module: nn.Module, plan: Plan) -> nn.Module | None:
    """A deep copy of a (nested) ``nn.Sequential`` whose modules have fewer neurons; biases are as they were.

    Names of parameters, dtype, device, ``requires_grad`` and training mode stay. None where it holds something
    that has no such smaller form.
    """
    result = copy.deepcopy(module)
    return result if type(result) is nn.Sequential and _cut_children(result, plan, 0) is not None else None


def fresh_torch(module: nn.Module, plan: Plan) -> nn.Module:
    """A new module of the smaller network, on the device and in the dtype of the given one."""
    like = next(iter(module.parameters()), torch.zeros(0))
    return mlp_to_torch(plan.mlp).to(device=like.device, dtype=like.dtype).train(module.training)


def _cut_children(parent: nn.Sequential, plan: Plan, layer: int) -> int | None:
    """Cut the modules of ``parent``, which begin at neuron layer ``layer``; where they end, None for no way."""
    for name, child in list(parent._modules.items()):
        assert child is not None
        kept = torch.from_numpy(plan.kept[layer])
        if type(child) is nn.Sequential:
            end = _cut_children(child, plan, layer)
            if end is None:
                return None
            layer = end
        elif isinstance(child, nn.Linear):
            parent._modules[name] = _linear(child, kept, plan, layer)
            layer += 1
        elif isinstance(child, nn.BatchNorm1d | nn.LayerNorm | InputNormalisation):
            _cut_tensors(child, kept)
        elif next(child.children(), None) is not None or next(child.parameters(), None) is not None:
            return None
    return layer


def _linear(old: nn.Linear, kept: torch.Tensor, plan: Plan, layer: int) -> nn.Linear:
    kept_out = torch.from_numpy(plan.kept[layer + 1])
    weight = old.weight.detach()
    device, dtype = weight.device, weight.dtype
    grows_bias = plan.mlp.spec.layers[layer].bias and not plan.before.layers[layer].bias
    has_bias = old.bias is not None or grows_bias
    with torch.random.fork_rng(devices=[]):  # the initial values are thrown away; so is what they draw
        new = nn.Linear(len(kept), len(kept_out), bias=has_bias, dtype=dtype).to(device)
    with torch.no_grad():
        new.weight.copy_(weight[kept_out.to(device)][:, kept.to(device)])
        if has_bias:
            new.bias.copy_(torch.zeros(len(kept_out)) if old.bias is None else old.bias[kept_out.to(device)])
            new.bias.requires_grad_(old.weight.requires_grad if old.bias is None else old.bias.requires_grad)
    new.weight.requires_grad_(old.weight.requires_grad)
    return new.train(old.training)


def _cut_tensors(module: nn.BatchNorm1d | nn.LayerNorm | InputNormalisation, kept: torch.Tensor) -> None:
    """Keep some of each vector of a module that works feature by feature."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            small = nn.Parameter(parameter.detach()[kept.to(parameter.device)], parameter.requires_grad)
            module._parameters[name] = small
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.ndim == 1:
            module._buffers[name] = buffer[kept.to(buffer.device)]
    if isinstance(module, nn.BatchNorm1d):
        module.num_features = len(kept)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(kept),)
