"""What must hold of a torch module before it is read: a forward and parameters that are what they seem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune

from metaedit_fast.models.chain import refusal

# What nn.Module.__call__ looks up on the instance, in front of the class's code that a reader knows.
_CALLED = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")


def require_readable(module: nn.Module) -> None:
    """Raise ``UnsupportedModelError`` unless the classes tell what is computed, with the stored parameters.

    Refused are compiled modules, a ``forward`` that was replaced on an instance, forward hooks,
    parametrised and pruned modules, parameters without values yet, and parameters that share memory:
    an edit of one layer would change the other too.
    """
    _require_no_global_hooks()
    if isinstance(module, torch.jit.ScriptModule):
        raise refusal("the module", "a torch.nn.Module", "a torch.jit.ScriptModule; pass the module that was scripted")
    for path, child in module.named_modules():
        where = f"module {path!r} ({type(child).__name__})" if path else f"module {type(child).__name__}"
        if isinstance(child, torch.jit.ScriptModule):
            raise refusal(where, "a torch.nn.Module", "a torch.jit.ScriptModule; pass the module that was scripted")
        _require_own_forward(child, where)
        _require_unwrapped(child, where)
        _require_no_hooks(child, where)
    require_one_owner(_tensors(module))


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor has plain values at one place in memory; others are refused where they are read."""
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested


def _require_no_global_hooks() -> None:
    for attribute in ("_global_forward_pre_hooks", "_global_forward_hooks"):
        if getattr(nn_module, attribute, None):  # private to torch: absent in a version that renamed them
            expected = "no forward hooks that torch calls for every module"
            raise refusal("torch.nn.modules.module", expected, "one; remove it first, with its handle.remove()")


def _require_own_forward(module: nn.Module, where: str) -> None:
    if type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch."):
        raise refusal(where, "a plain module", "OptimizedModule: pass the module that was compiled, ._orig_mod")
    for name in _CALLED:
        if name in vars(module):
            got = f"a {name} that was set on this instance; define it in a class, or undo it by `del module.{name}`"
            raise refusal(where, f"the {name} of its class", got)


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


def _require_no_hooks(module: nn.Module, where: str) -> None:
    """Backward hooks are welcome: they change no output."""
    for kind, hooks in (("pre-hook", module._forward_pre_hooks), ("hook", module._forward_hooks)):
        for hook in hooks.values():
            named = getattr(hook, "__qualname__", type(hook).__name__)
            got = f"{named}, which may change what it computes; remove it first, with its handle.remove()"
            raise refusal(where, f"no forward {kind}", got)


def require_one_owner(tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse a parameter that shares memory with another parameter, or with a constant.

    Parameters side by side in one storage are no shared memory. Those whose elements alternate there
    count as shared, which is stricter than needed, and rare.
    """
    places: list[tuple[str, int, int, int, str, bool]] = []  # device, first byte, end, order, name, is it a parameter
    for name, tensor in tensors:
        if not is_dense(tensor) or tensor.numel() == 0:
            continue
        extents = list(zip(tensor.shape, tensor.stride(), strict=True))
        editable = isinstance(tensor, nn.Parameter)
        if editable and any(size > 1 and stride == 0 for size, stride in extents):
            raise refusal(f"parameter {name!r}", "a memory of its own for each element", "one that several share")
        start = tensor.data_ptr()
        end = start + (1 + sum((size - 1) * stride for size, stride in extents)) * tensor.element_size()
        places.append((str(tensor.device), start, end, len(places), repr(name), editable))
    pairs: list[list[tuple[int, str]]] = []
    reach: dict[tuple[str, bool], tuple[int, int, str]] = {}  # by device and role: the one that ends last so far
    for device, start, end, order, name, editable in sorted(places):
        for other in (True, False) if editable else (True,):
            earlier = reach.get((device, other))
            if earlier is not None and earlier[0] > start:
                pairs.append(sorted([earlier[1:], (order, name)]))
        reach[device, editable] = max(reach.get((device, editable), (0, 0, "")), (end, order, name))
    if pairs:  # named in the module's order, not that of addresses
        (_, first), (_, second) = min(pairs)
        raise refusal(f"tensors {first} and {second}", "a memory of its own for each", "one that they share (tied)")


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters, then buffers and tensors that are plain attributes, under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if isinstance(value, torch.Tensor):
                yield f"{path}.{name}" if path else name, value
