"""Tensors under the names of modules, in the order in which an architecture needs them: an MLP and its slots."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re

import numpy as np

from metaedit_fast.models.chain import Array, Chain, Parameter, Value, refusal
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.safetensors.config import Architecture
from metaedit_fast.models.safetensors.container import Container
from metaedit_fast.models.slots import Slot
from metaedit_fast.models.spec import LayerSpec

_LEAVES = {
    "linear layer": {"weight", "bias"},
    "norm": {"weight", "bias"},
    "batch norm": {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
    "normalisation": {"scale", "shift"},
}
_PART = re.compile(r"(.*?)(\d*)")


@dataclasses.dataclass(frozen=True)
class _Module:
    """A module that owns the tensors ``name.weight`` and so on; ``tensors`` has their names by the last part."""

    name: str
    kind: str
    tensors: dict[str, str]

    @property
    def where(self) -> str:
        return f"module {self.name!r} ({self.kind})"


def read_tensors(container: Container, architecture: Architecture) -> tuple[MLP, list[Slot], list[str]]:
    """Give the MLP that the architecture makes of the tensors, where its parameters live, and notes.

    Raises ``UnsupportedModelError``, naming the module, for tensors that are missing, too many, of another shape or
    in no clear order.
    """
    return _Reader(container, architecture).read()


class _Reader:
    """Tells a ``Chain`` what is computed, module by module."""

    def __init__(self, container: Container, architecture: Architecture) -> None:
        self.container = container
        self.architecture = architecture
        self.chain = Chain()
        self.notes: list[str] = []
        # Values that the architecture calls no parameters; a norm's are set when the MLP is made.
        self.constants: list[tuple[str, int, Parameter]] = []
        self.input: list[Array | None] = [None, None]  # scale and shift
        modules = _modules(container)
        self.normalisations = [module for module in modules if module.kind == "normalisation"]
        rest = [module for module in modules if module.kind != "normalisation"]
        self.waiting = collections.deque(_ordered(rest, architecture.modules))

    def read(self) -> tuple[MLP, list[Slot], list[str]]:
        spec, chain = self.architecture.spec, self.chain
        outputs = [self._normalised(chain.value)]
        for index, layer in enumerate(spec.layers):
            value = self._linear(outputs[-1], index, layer)
            value = self._norm(value, index, layer)
            for source in spec.skips_into(index + 1):
                where = f"the skip from {source} to {index + 1}"
                value = chain.skip(value, chain.fitted(outputs[source], layer.width, where=where), where=where)
            outputs.append(chain.activation(value, layer.activation, layer.alpha, where=f"layer {index}"))
        if self.waiting:
            raise refusal(self.waiting[0].where, "no tensors beside those of the architecture", "these")
        value, where = outputs[-1], "the output"
        if spec.output in ("softmax", "log_softmax"):
            value = chain.softmax(value, log=spec.output == "log_softmax", where=where)
        elif spec.output == "sigmoid":
            value = chain.activation(value, "sigmoid", where=where)
        else:
            chain.output = spec.output
        found, slots = chain.finish(value, where=where)
        # The spec as it was given: fields that mean nothing, such as the eps of no norm, stay too. A batch norm gives
        # a bias to a layer that is said to have none.
        pairs = zip(spec.layers, found.spec.layers, strict=True)
        layers = tuple(dataclasses.replace(given, bias=layer.bias) for given, layer in pairs)
        mlp = MLP(dataclasses.replace(spec, layers=layers), found.theta, *self.input)
        for kind, index, constant in self.constants:
            mlp.parameter(kind, index)[...] = constant.array
        return mlp, slots, self.notes

    def _normalised(self, value: Value) -> Value:
        if not self.normalisations:
            return value
        if len(self.normalisations) > 1:
            names = [module.name for module in self.normalisations]
            raise refusal("the tensors", "one scale and shift of the inputs", names)
        (module,) = self.normalisations
        n = self.architecture.spec.n_inputs
        scale, shift = (self._tensor(module, leaf, (n,)) for leaf in ("scale", "shift"))
        self.input = [None if held is None else held.array for held in (scale, shift)]
        factors = np.ones(n) if scale is None else scale.array.astype(np.float64)
        summands = np.zeros(n) if shift is None else shift.array.astype(np.float64)
        return self.chain.affine(value, factors, summands, None, where=module.where)

    def _linear(self, value: Value, index: int, layer: LayerSpec) -> Value:
        module = self._take("linear layer", index)
        weight = self._tensor(module, "weight", (layer.width, self.architecture.spec.widths[index]))
        bias = self._tensor(module, "bias", (layer.width,))
        assert weight is not None  # it made the module a linear layer
        has_other_home = bool(self.waiting) and self.waiting[0].kind == "batch norm"
        if layer.bias and bias is None and not has_other_home:
            raise refusal(module.where, "a bias, as the architecture says", "none")
        own = bias if layer.bias else None
        value = self.chain.linear(value, weight, own, transpose=True, where=module.where)
        if bias is None or layer.bias:
            return value
        ones, fixed = np.ones(layer.width), bias.array.astype(np.float64)
        return self.chain.affine(value, ones, fixed, None, where=module.where)

    def _norm(self, value: Value, index: int, layer: LayerSpec) -> Value:
        kind = self.waiting[0].kind if self.waiting else ""
        if layer.norm == "layer" and (layer.norm_affine or kind == "norm"):
            return self._layer_norm(value, index, layer)
        if layer.norm == "layer":
            return self.chain.layer_norm(value, layer.width, None, None, layer.eps, where=f"layer {index}")
        return self._batch_norm(value, index, layer) if kind == "batch norm" else value

    def _layer_norm(self, value: Value, index: int, layer: LayerSpec) -> Value:
        module = self._take("norm", index)
        scale, shift = (self._tensor(module, leaf, (layer.width,)) for leaf in ("weight", "bias"))
        if not layer.norm_affine:
            found = (("norm_scale", scale), ("norm_shift", shift))
            self.constants += [(kind, index, held) for kind, held in found if held is not None]
            scale = shift = None
        elif shift is None:
            raise refusal(module.where, "a bias, as the architecture says (norm_affine)", "none")
        return self.chain.layer_norm(value, layer.width, scale, shift, layer.eps, where=module.where)

    def _batch_norm(self, value: Value, index: int, layer: LayerSpec) -> Value:
        module = self._take("batch norm", index)
        eps = self.architecture.batch_norm_eps
        if eps is None:
            raise refusal(module.where, "batch_norm_eps in the architecture, which the tensors do not tell", "none")
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gamma, beta = (self._tensor(module, leaf, (layer.width,)) for leaf in names)
        if mean is None or variance is None:
            raise refusal(module.where, "running_mean and running_var", sorted(module.tensors))
        self.notes.append(
            f"batch norm {module.name!r} is folded, with its running statistics; its scale stays as it is"
        )
        return self.chain.batch_norm(value, mean.array, variance.array, gamma, beta, eps, where=module.where)

    def _take(self, kind: str, index: int) -> _Module:
        if not self.waiting:
            raise refusal(f"layer {index}", f"the tensors of a {kind}", "no more tensors")
        module = self.waiting.popleft()
        if module.kind != kind:
            raise refusal(module.where, f"the {kind} of layer {index}", f"a {module.kind}")
        return module

    def _tensor(self, module: _Module, leaf: str, shape: tuple[int, ...]) -> Parameter | None:
        if leaf not in module.tensors:
            return None
        name = module.tensors[leaf]
        found = self.container.entries[name].shape
        if found != shape:
            raise refusal(f"tensor {name!r}", f"shape {list(shape)}, as the architecture says", list(found))
        return Parameter(name, self.container.array(name))


def _modules(container: Container) -> list[_Module]:
    leaves: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name in container.entries:
        module, _, leaf = name.rpartition(".")
        leaves[module][leaf] = name
    found = [_Module(name, _kind(name, tensors, container), tensors) for name, tensors in leaves.items()]
    for owner in found:
        unknown = sorted(owner.tensors.keys() - _LEAVES[owner.kind])
        if unknown:
            raise refusal(owner.where, f"tensors named {', '.join(sorted(_LEAVES[owner.kind]))}", unknown)
    return found


def _kind(name: str, tensors: dict[str, str], container: Container) -> str:
    if tensors.keys() <= _LEAVES["normalisation"]:
        return "normalisation"
    if "running_mean" in tensors:
        return "batch norm"
    rank = len(container.entries[tensors["weight"]].shape) if "weight" in tensors else 0
    if rank not in (1, 2):
        what = "a weight of one or two axes, or the scale and shift of the inputs"
        raise refusal(f"module {name!r}", what, sorted(tensors))
    return "linear layer" if rank == 2 else "norm"


def _ordered(modules: list[_Module], names: tuple[str, ...] | None) -> list[_Module]:
    """The modules first to last: as the architecture lists them, or by the numbers in their names."""
    if names is not None:
        by_name = {module.name: module for module in modules}
        if sorted(names) != sorted(by_name):
            raise refusal("modules", f"each module with tensors once: {sorted(by_name)}", list(names))
        return [by_name[name] for name in names]
    found = sorted(modules, key=lambda module: _parts(module.name))
    for one, other in itertools.pairwise(found):
        a, b = _parts(one.name), _parts(other.name)
        place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if place is not None and (a[place][0] != b[place][0] or min(a[place][1], b[place][1]) < 0):
            what = "names whose numbers tell the order; otherwise list them, first to last, under the key modules"
            raise refusal("the tensors", what, f"{one.name!r} and {other.name!r}")
        # A norm behind an activation has another number, and computes something else.
        adjacent = place is None or (len(a) == len(b) == place + 1 and b[place][1] == a[place][1] + 1)
        if other.kind in ("norm", "batch norm") and not adjacent:
            what = "a norm right behind its linear layer; where that is so, list all under the key modules"
            raise refusal(other.where, what, f"one behind {one.name!r}, with another module between")
    return found


def _parts(name: str) -> list[tuple[str, int]]:
    """``"body.fc12"`` as ``[("body", -1), ("fc", 12)]``."""
    matches = [_PART.fullmatch(part) for part in name.split(".")]
    return [(m[1], int(m[2]) if m[2] else -1) for m in matches if m is not None]
