"""From an expression of the input to an architecture and its slots: what an MLP cannot say is refused here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.onnx.graph import refuse
from metaedit_fast.models.onnx.values import (
    Activation,
    Affine,
    Expr,
    Float64s,
    Input,
    Linear,
    Norm,
    Parameter,
    Part,
    Skip,
    Softmax,
    vector,
)
from metaedit_fast.models.slots import Slot, fill
from metaedit_fast.models.spec import LayerSpec, MLPSpec

_ONE, _ZERO = np.ones(1), np.zeros(1)

# The parts of one layer come in this order.
_INPUT, _LINEAR, _NORMED, _SKIPPED, _ACTIVATED = range(5)
_PLACES = ("at the input", "behind a linear layer", "behind a norm", "behind a skip", "behind an activation")


@dataclasses.dataclass
class _Chain:
    """Affine maps in a row, folded: ``x * scale + shift + sum(factor * parameter)``."""

    scale: Float64s = dataclasses.field(default_factory=lambda: _ONE)
    shift: Float64s = dataclasses.field(default_factory=lambda: _ZERO)
    addends: list[tuple[Parameter, Float64s]] = dataclasses.field(default_factory=list)
    multiplier: Parameter | None = None
    multiplier_factor: Float64s = dataclasses.field(default_factory=lambda: _ONE)

    def then(self, step: Affine) -> None:
        self.scale = self.scale * step.scale
        self.shift = self.shift * step.scale + step.shift
        self.addends = [(parameter, factor * step.scale) for parameter, factor in self.addends]
        if step.addend is not None:
            self.addends.append((step.addend, np.full(1, step.sign)))
        if step.multiplier is not None and step.multiplier.is_writable and self.multiplier is None:
            self.multiplier = step.multiplier
        else:
            self.multiplier_factor = self.multiplier_factor * step.scale

    @property
    def total_shift(self) -> Float64s:
        return self.shift + sum((vector(p.constant) * f for p, f in self.addends), _ZERO)

    def home(self) -> tuple[Parameter | None, Float64s, Float64s]:
        """The parameter that can hold an edited shift, its factor, and the rest of the shift.

        It is the first one whose factor has no zero, else the first.
        """
        able = [i for i, (parameter, _) in enumerate(self.addends) if parameter.is_writable]
        best = next((i for i in able if self.addends[i][1].all()), able[0] if able else None)
        rest = self.shift
        for i, (parameter, factor) in enumerate(self.addends):
            if i != best:
                rest = rest + vector(parameter.constant) * factor
        return (None, _ONE, rest) if best is None else (*self.addends[best], rest)


@dataclasses.dataclass
class _Layer:
    """One layer while it is read."""

    linear: Linear
    in_front: _Chain
    behind: _Chain
    norm: Norm | None = None
    behind_norm: _Chain = dataclasses.field(default_factory=_Chain)
    activation: Activation | None = None
    output: Expr | None = None


@dataclasses.dataclass(frozen=True)
class Home:
    """The slot of one parameter, and the place in the graph that it stands for."""

    slot: Slot
    parameter: Parameter

    def array(self, value: NDArray[Any]) -> NDArray[Any]:
        """A constant's numbers as the slot expects them: a matrix (of one weight vector: flat), or a flat vector."""
        is_matrix = self.slot.kind == "weight" and value.ndim > 1
        return self.parameter.matrix(value) if is_matrix else value.reshape(-1)


class Assembler:
    """Walks the steps of a network from its input to its output and builds the layers.

    Raises ``UnsupportedModelError`` that names the first step which does not fit the form of ``MLPSpec``.
    """

    def __init__(self, output: Expr) -> None:
        self.output = "logits"
        self.layers: list[_Layer] = []
        self.skips: list[tuple[int, int]] = []
        self.prefix = _Chain()
        self._prefix_end: Expr | None = None
        self._pending = _Chain()
        self._stage = _INPUT
        steps = _steps(output)
        self.n_inputs = steps[0].width
        for step in steps[:-1]:
            self._take(step)
        self._finish(steps[-1])

    def _take(self, step: Expr) -> None:
        match step:
            case Input():
                self._prefix_end = step
            case Linear():
                self._linear(step)
            case Affine():
                self._affine(step)
            case Norm():
                if self._stage != _LINEAR:
                    refuse(step.where, "a layer norm right behind a linear layer", f"one {_PLACES[self._stage]}")
                self.layers[-1].norm, self._stage = step, _NORMED
            case Skip():
                self._skip(step)
            case Activation():
                if self._stage not in (_LINEAR, _NORMED, _SKIPPED):
                    refuse(step.where, "an activation behind a linear layer", f"one {_PLACES[self._stage]}")
                self.layers[-1].activation, self._stage = step, _ACTIVATED
            case Part():
                refuse(step.where, "to be part of a layer norm, a GELU or a skip", f"a {step.kind} used otherwise")
            case _:
                refuse(step.where, "nothing behind the network's output map", f"a {type(step).__name__.lower()} inside")
        if self.layers and not (isinstance(step, Affine) and self._stage == _ACTIVATED):
            self.layers[-1].output = step

    def _linear(self, step: Linear) -> None:
        behind = _Chain(scale=np.full(1, step.factor))
        if step.bias is not None:
            behind.addends.append((step.bias, np.full(1, step.bias_factor)))
        self.layers.append(_Layer(step, self._pending, behind))
        self._pending, self._stage = _Chain(), _LINEAR

    def _affine(self, step: Affine) -> None:
        if self._stage == _INPUT:
            self.prefix.then(step)
            self._prefix_end = step
        elif self._stage == _ACTIVATED:
            self._pending.then(step)
        else:
            if self._stage == _SKIPPED and (step.scale != 1).any():
                refuse(step.where, "no scale behind a skip", "one")  # a shift may as well come in front of it
            layer = self.layers[-1]
            (layer.behind if layer.norm is None else layer.behind_norm).then(step)

    def _skip(self, step: Skip) -> None:
        if self._stage not in (_LINEAR, _NORMED, _SKIPPED):
            refuse(step.where, "a skip into a linear layer, in front of its activation", f"one {_PLACES[self._stage]}")
        ends = [self._prefix_end, *(layer.output for layer in self.layers[:-1])]
        source = next((i for i, end in enumerate(ends) if end is step.branch), None)
        if source is None:
            refuse(step.where, "a skip from the outputs of an earlier layer", f"what {step.branch.where} gives")
        if step.columns != min(step.branch.width, step.width):
            refuse(step.where, f"a skip of {min(step.branch.width, step.width)} features", step.columns)
        if (source, len(self.layers)) in self.skips:
            refuse(step.where, "one skip between two layers", "a second one")
        self.skips.append((source, len(self.layers)))
        self._stage = _SKIPPED

    def _finish(self, last: Expr) -> None:
        if isinstance(last, Softmax):
            self.output = "log_softmax" if last.log else "softmax"
        elif isinstance(last, Activation) and last.name == "sigmoid" and self._stage == _LINEAR:
            if last.width != 1:
                refuse(last.where, "one output in front of a final sigmoid (multi-label is not supported)", last.width)
            self.output = "sigmoid"
        else:
            self._take(last)
        if not self.layers:
            refuse(last.where, "a linear layer", "none in the model")
        if self._stage != _LINEAR:
            expected = "a linear layer at the end, with nothing but softmax or sigmoid behind it"
            refuse(last.where, expected, f"the end {_PLACES[self._stage]}")

    def build(self, *, regressor: bool = False) -> tuple[MLP, list[Home]]:
        """The MLP of all this, and where its parameters live."""
        homes = _named(home for index, layer in enumerate(self.layers) for home in _homes(index, layer))
        owned = {(home.slot.kind, home.slot.layer) for home in homes}
        layers = tuple(_layer_spec(layer, index, owned) for index, layer in enumerate(self.layers))
        output = "identity" if regressor and self.output == "logits" else self.output
        try:
            spec = MLPSpec(self.n_inputs, layers, tuple(self.skips), output)
        except ValueError as error:
            raise UnsupportedModelError(f"the network: {error}") from error
        mlp = MLP(spec, np.zeros(spec.n_parameters, np.float32), *self._normalisation())
        for index, layer in enumerate(self.layers):
            mlp.bias(index)[...] = layer.behind.total_shift + _constant_inputs(layer)
            if layer.norm is not None:
                mlp.parameter("norm_scale", index)[...] = layer.behind_norm.scale
                mlp.parameter("norm_shift", index)[...] = layer.behind_norm.total_shift
        slots = [home.slot for home in homes]
        fill(mlp, slots, {home.slot.key: home.array(home.parameter.constant.value) for home in homes})
        for home in homes:
            given = np.isfinite(home.parameter.constant.value).all()
            if given and not np.isfinite(mlp.parameter(home.slot.kind, home.slot.layer)).all():
                refuse(home.parameter.node.label, "numbers that float32 can hold", "larger ones")
        return mlp, homes

    def _normalisation(self) -> tuple[Float64s | None, Float64s | None]:
        scale, shift = self.prefix.scale, self.prefix.total_shift
        return (
            np.broadcast_to(scale, self.n_inputs) if (scale != 1).any() else None,
            np.broadcast_to(shift, self.n_inputs) if shift.any() else None,
        )


def _homes(index: int, layer: _Layer) -> list[Home]:
    """The slots of one layer; their keys are given by ``_named``."""
    rows, offset = _entering(layer)
    scale: Any = layer.behind.scale if rows is None else rows[:, None] * layer.behind.scale
    homes = [Home(Slot("weight", index, "", layer.linear.transpose, _plain(scale)), layer.linear.weight)]
    parameter, factor, rest = layer.behind.home()
    if parameter is not None:
        shift = _plain(rest + _constant_inputs(layer), 0.0)
        homes.append(Home(Slot("bias", index, "", False, _plain(factor), shift, offset), parameter))
    elif offset is not None:
        refuse(layer.linear.where, "a bias, because a shift stands in front of this linear layer", "none")
    if layer.norm is not None:
        chain = layer.behind_norm
        if chain.multiplier is not None:
            slot = Slot("norm_scale", index, "", False, _plain(chain.multiplier_factor))
            homes.append(Home(slot, chain.multiplier))
        parameter, factor, rest = chain.home()
        if parameter is not None:
            homes.append(Home(Slot("norm_shift", index, "", False, _plain(factor), _plain(rest, 0.0)), parameter))
    return homes


def _named(homes: Iterable[Home]) -> list[Home]:
    """Give each slot a key of its own: the tensor's name, and the node's where a tensor serves twice."""
    found: list[Home] = []
    taken: set[str] = set()
    for home in homes:
        parameter = home.parameter
        key = parameter.name or f"input {parameter.position} of {parameter.node.label}"
        if key in taken:
            key = f"{key} as input {parameter.position} of {parameter.node.label}"
        taken.add(key)
        found.append(Home(dataclasses.replace(home.slot, key=key), parameter))
    return found


def _entering(layer: _Layer) -> tuple[Float64s | None, Float64s | None]:
    """The scale of each input of a layer, and the shift over the scale; None where neutral.

    An input with scale 0 has no part in the shift: see ``_constant_inputs``.
    """
    scale, shift = layer.in_front.scale, layer.in_front.total_shift
    rows = np.broadcast_to(scale, _n_in(layer)) if (scale != 1).any() else None
    if not shift.any():
        return rows, None
    full = np.broadcast_to(scale, _n_in(layer))
    return rows, np.where(full == 0, 0.0, shift) / np.where(full == 0, 1.0, full)


def _constant_inputs(layer: _Layer) -> Float64s:
    """What inputs with scale 0 give: a constant, through weights that no edit can change."""
    chain = layer.in_front
    dead = np.where(chain.scale == 0, chain.total_shift, 0.0)
    if not dead.any():
        return _ZERO
    value = np.asarray(layer.linear.weight.constant.value, np.float64)
    matrix = layer.linear.weight.matrix(value)
    oriented = matrix.T if layer.linear.transpose and value.ndim > 1 else matrix
    return np.asarray((np.broadcast_to(dead, _n_in(layer)) @ oriented) * layer.behind.scale)


def _n_in(layer: _Layer) -> int:
    assert layer.linear.source is not None
    return layer.linear.source.width


def _layer_spec(layer: _Layer, index: int, owned: set[tuple[str, int]]) -> LayerSpec:
    name, alpha = ("identity", 0.0) if layer.activation is None else (layer.activation.name, layer.activation.alpha)
    bias = ("bias", index) in owned
    if layer.norm is None:
        return LayerSpec(layer.linear.width, name, alpha, bias=bias)
    affine = {("norm_scale", index), ("norm_shift", index)} <= owned
    return LayerSpec(layer.linear.width, name, alpha, "layer", layer.norm.eps, bias, affine)


def _plain(values: Float64s, neutral: float = 1.0) -> float | Float64s:
    """One number where it is the neutral one throughout, so that numbers pass through a slot untouched."""
    return neutral if (values == neutral).all() else values


def _steps(output: Expr) -> list[Expr]:
    steps: list[Expr] = []
    step: Expr | None = output
    while step is not None:
        steps.append(step)
        step = step.source
    return steps[::-1]
