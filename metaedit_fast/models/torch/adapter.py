"""torch modules as MLPs: ``open_torch``.

A module is read as in evaluation mode: dropout does nothing, batch norm uses its running statistics
and is folded into the layer in front of it (or behind it, where it follows an activation or the
input). ``nn.Sequential`` is walked directly; everything else is traced by ``torch.fx`` and must be a
chain of the same operations, plus sums that are skips in the sense of ``MLPSpec``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from metaedit_fast.models.chain import Array, Chain, Parameter, Value, refusal
from metaedit_fast.models.opened import Arrays, Opened
from metaedit_fast.models.torch.checks import require_readable
from metaedit_fast.models.torch.modules import InputNormalisation, SkipMLP

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.LeakyReLU: "leaky_relu",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.ReLU6: "relu6",
}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class OpenedTorch(Opened[nn.Module]):
    """A torch module that was read as an MLP; keys of slots are names of parameters."""

    kind = "torch"

    def _arrays(self) -> Arrays:
        parameters = dict(self.model.named_parameters())
        return {slot.key: to_numpy(parameters[slot.key], slot.key) for slot in self.slots}

    def _copy(self) -> nn.Module:
        return copy.deepcopy(self.model)

    def _assign(self, model: nn.Module, arrays: Arrays) -> None:
        copy_into(dict(model.named_parameters()), arrays)


def copy_into(parameters: Mapping[str, torch.Tensor], arrays: Arrays) -> None:
    """Write arrays into tensors of the same names, which keep their dtype and device."""
    for key, array in arrays.items():
        # Parameters made under torch.inference_mode() can be written there only.
        with torch.inference_mode(parameters[key].is_inference()), torch.no_grad():
            parameters[key].copy_(torch.from_numpy(array))


def open_torch(module: nn.Module) -> OpenedTorch:
    """Read a torch module as an MLP.

    The module is left as it is. ``write`` gives a deep copy with other parameter values: dtype, device,
    ``requires_grad``, backward hooks, buffers and training mode are kept, and so are the bits of every
    parameter that did not change. Raises ``UnsupportedModelError``, naming the submodule or the node of
    the traced graph, for a module that is no such chain, whose ``forward`` was replaced on an instance or
    has hooks, or whose parameters are tied, pruned by hooks, parametrised, quantised or without values.
    """
    from metaedit_fast.models.torch.graph import read_graph

    require_readable(module)
    reader = ModuleReader()
    leaves = list(_leaves(module, ""))
    if all(_is_known(leaf) for _, leaf in leaves):
        value = reader.chain.value
        for path, leaf in leaves:
            value = reader.apply(leaf, path, value)
        mlp, slots = reader.chain.finish(value, where="the end of the module")
    else:
        mlp, slots = read_graph(module, reader)
    return OpenedTorch(module, mlp, slots, tuple(reader.notes))


class ModuleReader:
    """Tells a ``Chain`` what known modules compute, and collects notes."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.notes: list[str] = []

    def apply(self, module: nn.Module, path: str, value: Value) -> Value:
        """Follow ``value`` through ``module``, whose parameters are named ``path.weight`` and so on."""
        where = f"module {path!r} ({type(module).__name__})" if path else f"module {type(module).__name__}"
        kind = type(module)
        if kind in _ACTIVATIONS:
            tanh_form = isinstance(module, nn.GELU) and module.approximate == "tanh"
            alpha = float(getattr(module, "negative_slope", getattr(module, "alpha", 0.0)))
            return self.chain.activation(value, "gelu_tanh" if tanh_form else _ACTIVATIONS[kind], alpha, where=where)
        if isinstance(module, nn.Linear) and kind is nn.Linear:
            weight, bias = parameter(module, path, "weight"), parameter(module, path, "bias")
            assert weight is not None
            return self.chain.linear(value, weight, bias, transpose=True, where=where)
        if isinstance(module, nn.BatchNorm1d) and kind is nn.BatchNorm1d:
            return self._batch_norm(module, path, value, where)
        if isinstance(module, nn.LayerNorm) and kind is nn.LayerNorm:
            return self._layer_norm(module, path, value, where)
        if isinstance(module, InputNormalisation):
            scale, shift = (to_numpy(t, where).astype(np.float64) for t in (module.scale, module.shift))
            return self.chain.affine(value, scale, shift, None, where=where)
        if kind in _DROPOUTS:
            self.note("dropout does nothing in evaluation")
            return self.chain.activation(value, "identity", where=where)
        if kind is nn.Identity:
            return value
        if isinstance(module, nn.Flatten) and kind is nn.Flatten:
            if (module.start_dim, module.end_dim) != (1, -1):
                raise refusal(where, "start_dim 1 and end_dim -1", (module.start_dim, module.end_dim))
            return self.chain.flatten(value, None, where=where)
        if isinstance(module, nn.Softmax | nn.LogSoftmax) and kind in (nn.Softmax, nn.LogSoftmax):
            return self.softmax(value, module.dim, where, log=kind is nn.LogSoftmax)
        if isinstance(module, SkipMLP) and kind is SkipMLP:
            return self._skip_mlp(module, path, value, where)
        hint = _HINTS.get(kind.__name__, "this kind of module has no place in an MLP here")
        raise refusal(where, f"one of {', '.join(_NAMES)}", f"{kind.__name__}: {hint}")

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def softmax(self, value: Value, dim: object, where: str, *, log: bool = False) -> Value:
        """Softmax over the columns, or its logarithm; torch takes these where ``dim`` is None and the axes are two."""
        if dim not in (-1, 1, None):
            raise refusal(where, "a softmax over dim -1 or 1", dim)
        return self.chain.softmax(value, log=log, where=where)

    def _skip_mlp(self, module: SkipMLP, path: str, value: Value, where: str) -> Value:
        """Follow our own ``forward``, which tracing would find too, at many times the cost."""
        prefix = f"{path}." if path else ""
        outputs = [self.apply(module.normalisation, f"{prefix}normalisation", value)]
        for t, layer in enumerate(module.spec.layers):
            z = outputs[-1]
            for name, children in (("linears", module.linears), ("norms", module.norms)):
                z = self.apply(children[t], f"{prefix}{name}.{t}", z)
            for s in module.spec.skips_into(t + 1):
                z = self.chain.skip(z, self.chain.fitted(outputs[s], layer.width, where=where), where=where)
            for name, children in (("activations", module.activations), ("dropouts", module.dropouts)):
                z = self.apply(children[t], f"{prefix}{name}.{t}", z)
            outputs.append(z)
        return self.apply(module.tail, f"{prefix}tail", outputs[-1])

    def _batch_norm(self, module: nn.BatchNorm1d, path: str, value: Value, where: str) -> Value:
        if module.running_mean is None or module.running_var is None:
            raise refusal(where, "running statistics", "track_running_stats=False, whose outputs depend on the batch")
        mean, variance = (to_numpy(t, where) for t in (module.running_mean, module.running_var))
        gamma, beta = parameter(module, path, "weight"), parameter(module, path, "bias")
        self.note(f"batch norm {path!r} is folded, with its running statistics; its scale stays as it is")
        return self.chain.batch_norm(value, mean, variance, gamma, beta, module.eps, where=where)

    def _layer_norm(self, module: nn.LayerNorm, path: str, value: Value, where: str) -> Value:
        if len(module.normalized_shape) != 1:
            raise refusal(where, "a layer norm over one axis", module.normalized_shape)
        scale, shift = parameter(module, path, "weight"), parameter(module, path, "bias")
        width = module.normalized_shape[0]
        return self.chain.layer_norm(value, width, scale, shift, float(module.eps), where=where)


def parameter(module: nn.Module, path: str, name: str) -> Parameter | None:
    """Read a direct parameter of a module. Raises ``UnsupportedModelError`` where it is no parameter."""
    key = f"{path}.{name}" if path else name
    tensor = getattr(module, name)
    if tensor is None:
        return None
    if not isinstance(tensor, nn.Parameter):
        raise refusal(key, "an nn.Parameter", type(tensor).__name__)
    return Parameter(key, to_numpy(tensor, key))


def to_numpy(tensor: torch.Tensor, name: str) -> Array:
    """Values of a tensor on any device; bfloat16, which numpy lacks, as float32."""
    if tensor.is_quantized or tensor.dtype not in _DTYPES:
        raise refusal(name, "a floating-point tensor", tensor.dtype)
    if tensor.is_meta or tensor.layout != torch.strided:
        got = f"device {tensor.device}, layout {tensor.layout}"
        if tensor.is_meta:
            got += "; give it values first, with module.to_empty(device=...) and load_state_dict"
        raise refusal(name, "a dense tensor with values", got)
    plain = tensor.detach().to("cpu")
    array: Array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def _is_known(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.startswith("torch.nn.") or kind in (InputNormalisation, SkipMLP) or kind.__name__ in _HINTS


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Nested ``nn.Sequential`` as one list, with paths; any other module is a leaf."""
    if type(module) is not nn.Sequential:
        yield path, module
        return
    for name, child in module._modules.items():  # named_children() leaves out a module's second mention
        assert child is not None
        yield from _leaves(child, f"{path}.{name}" if path else name)


_NAMES = [
    kind.__name__
    for kind in (nn.Linear, nn.BatchNorm1d, nn.LayerNorm, nn.Dropout, nn.Flatten, nn.Softmax, *_ACTIVATIONS)
]
_HINTS = {
    "DataParallel": "pass its .module",
    "DistributedDataParallel": "pass its .module",
    "PReLU": "its slope is a parameter that an MLP here cannot hold",
}
