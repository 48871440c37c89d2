"""What must hold of a torch module before it is read: plain parameters, each with one owner."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune

from metaedit_fast.models.chain import refusal


def require_plain_parameters(module: nn.Module) -> None:
    """Raise ``UnsupportedModelError`` unless a written value is the value that the module computes with.

    Refused are compiled scripts, parametrised and pruned modules, parameters without values yet, and
    parameters that two modules share: an edit of one layer would change the other too.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise refusal("the module", "a torch.nn.Module", "a torch.jit.ScriptModule; pass the module that was scripted")
    for path, child in module.named_modules():
        where = f"module {path!r} ({type(child).__name__})" if path else f"module {type(child).__name__}"
        if isinstance(child, torch.jit.ScriptModule):
            raise refusal(where, "a torch.nn.Module", "a torch.jit.ScriptModule; pass the module that was scripted")
        _require_unwrapped(child, where)
    _require_one_owner(module)


def with_hooks(module: nn.Module) -> tuple[str, ...]:
    """Notes on forward hooks, whose effect on the outputs no reader can know."""
    return tuple(
        f"module {path!r} has forward hooks; they are kept, but what they do to the outputs is not read"
        for path, child in module.named_modules()
        if child._forward_hooks or child._forward_pre_hooks
    )


def _require_unwrapped(module: nn.Module, where: str) -> None:
    if parametrize.is_parametrized(module):
        names = ", ".join(str(name) for name in getattr(module, "parametrizations", {}))
        raise refusal(
            where,
            "plain parameters",
            f"a parametrisation of {names}; call torch.nn.utils.parametrize.remove_parametrizations(module, name)",
        )
    for hook in module._forward_pre_hooks.values():
        kind = type(hook).__name__
        if isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            call = f"torch.nn.utils.prune.remove(module, {name!r})"
            raise refusal(where, "plain parameters", f"a pruning mask on {name}; call {call}")
        if kind in ("WeightNorm", "SpectralNorm"):
            call = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}[kind]
            raise refusal(where, "plain parameters", f"a {kind} hook; call torch.nn.utils.{call}(module)")
    for name, parameter in module._parameters.items():
        if parameter is not None and is_lazy(parameter):
            raise refusal(where, f"a {name} with values", "a lazy parameter; run the module once on a batch")


def _require_one_owner(module: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        # Two parameters that start at one address are one memory under two names.
        placed = parameter.layout == torch.strided and not parameter.is_meta and parameter.numel() > 0
        address = parameter.data_ptr() if placed else id(parameter)
        if address in owners:
            pair = f"parameters {owners[address]!r} and {name!r}"
            raise refusal(pair, "a memory of its own for each", "one that they share (tied)")
        owners[address] = name
